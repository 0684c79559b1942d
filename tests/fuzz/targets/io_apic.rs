//! The IO-APIC's registers, as virtual CPUs write them while devices raise their lines.
#![no_main]

use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_msi};
use libfuzzer_sys::{arbitrary, fuzz_target};
use sandbox_vmm::devices::ioapic::{IoApic, MAX_LINES, Messages, SIZE};
use sandbox_vmm::devices::virtio::InterruptController;
use std::sync::{Arc, Mutex};
use vmm_sys_util::eventfd::EventFd;

const MASKED: u32 = 1 << 16;

#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    lines: u8,
    routed: [u8; 2],
    steps: Vec<Step<'a>>,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Step<'a> {
    Raise(u8),
    /// Writes one half of a line's entry.
    Entry {
        line: u8,
        high: bool,
        value: u32,
    },
    Write {
        offset: u8,
        data: &'a [u8],
    },
    Read {
        offset: u8,
        length: u8,
    },
}

/// Takes the place of KVM.
#[derive(Debug, Default)]
struct Sink {
    messages: Mutex<Vec<kvm_msi>>,
    routes: Mutex<Vec<(u32, u32)>>,
}

impl Messages for Sink {
    fn signal(&self, message: kvm_msi) -> Result<(), kvm_ioctls::Error> {
        self.messages.lock().expect("one thread").push(message);
        Ok(())
    }

    fn set_routes(&self, routes: &KvmIrqRouting) -> Result<(), kvm_ioctls::Error> {
        let routes = routes.as_slice().iter().map(|route| {
            assert_eq!(route.type_, KVM_IRQ_ROUTING_MSI);
            // SAFETY: the type says that this is the member.
            let message = unsafe { route.u.msi };
            check(message.address_lo, message.address_hi, message.data);
            (route.gsi, message.data)
        });
        *self.routes.lock().expect("one thread") = routes.collect();
        Ok(())
    }

    fn register(&self, _event: &EventFd, _line: u32) -> Result<(), kvm_ioctls::Error> {
        Ok(())
    }
}

/// A message goes to local APICs and is nothing but a vector and how it is delivered.
fn check(address_lo: u32, address_hi: u32, data: u32) {
    assert_eq!((address_lo >> 20, address_hi), (0xfee, 0), "address {address_lo:#x}");
    assert_eq!(data & !0x7ff, 0, "data {data:#x}");
}

struct Chip {
    chip: IoApic,
    sink: Arc<Sink>,
}

impl Chip {
    fn register(&self, number: u8) -> u32 {
        let mut data = [0; 4];
        self.chip.write(0, &number.to_le_bytes()).expect("a register");
        self.chip.read(0x10, &mut data);
        u32::from_le_bytes(data)
    }

    fn set(&self, number: u8, value: u32) {
        self.chip.write(0, &number.to_le_bytes()).expect("a register");
        self.chip.write(0x10, &value.to_le_bytes()).expect("a register");
    }

    fn sent(&self) -> usize {
        let mut messages = self.sink.messages.lock().expect("one thread");
        for message in &*messages {
            check(message.address_lo, message.address_hi, message.data);
        }
        std::mem::take(&mut *messages).len()
    }
}

fuzz_target!(|input: Input<'_>| {
    let lines = input.lines % MAX_LINES + 1;
    let sink = Arc::new(Sink::default());
    let chip = Chip { chip: IoApic::new(sink.clone(), lines), sink };
    let routed = input.routed.map(|line| line % lines);
    let event = EventFd::new(0).expect("an eventfd");
    for line in routed {
        chip.chip.route(line, &event).expect("a line");
    }
    // Whether a line was raised while it was masked.
    let mut pending = [false; MAX_LINES as usize];
    for step in &input.steps {
        match step {
            Step::Raise(line) => {
                let select = chip_select(&chip);
                let masked = *line < lines && chip.register(0x10 + 2 * line) & MASKED != 0;
                chip.chip.write(0, &[select]).expect("a register");
                chip.chip.raise(*line).expect("KVM takes all");
                let expected = usize::from(*line < lines && !masked);
                assert_eq!(chip.sent(), expected);
                if masked {
                    pending[usize::from(*line)] = true;
                }
            }
            Step::Entry { line, high, value } => {
                let line = line % lines;
                let register = 0x10 + 2 * line;
                let before = chip.register(register);
                chip.set(register + u8::from(*high), *value);
                let sent = chip.sent();
                if *high {
                    assert_eq!((sent, chip.register(register)), (0, before));
                    assert_eq!(chip.register(register + 1), *value);
                    continue;
                }
                let after = chip.register(register);
                assert_eq!(after, (value & !0x5000) | (before & 0x5000));
                if routed.contains(&line) {
                    assert_eq!(sent, 0, "KVM delivers what it is routed to");
                    let routes = chip.sink.routes.lock().expect("one thread");
                    let ours = |route: &&(u32, u32)| route.0 == u32::from(line);
                    if after & MASKED == 0 && after != before {
                        let data = routes.iter().find(ours).map(|route| route.1);
                        assert_eq!(data, Some(after & 0x7ff));
                    }
                } else if after & MASKED == 0 && after != before {
                    let was = std::mem::take(&mut pending[usize::from(line)]);
                    assert_eq!(sent, usize::from(was), "what was raised is delivered once");
                } else {
                    assert_eq!(sent, 0);
                }
            }
            Step::Write { offset, data } => {
                let offset = u64::from(*offset) % SIZE;
                chip.chip.write(offset, data).expect("KVM takes all");
                chip.sent();
                if offset == 0x10 {
                    // What this has changed is not known here.
                    return;
                }
            }
            Step::Read { offset, length } => {
                let mut data = vec![0xff; (*length).into()];
                chip.chip.read(u64::from(*offset) % SIZE, &mut data);
                let value = data.iter().skip(4).all(|byte| *byte == 0);
                assert!(value, "a register has four bytes");
            }
        }
        let select = chip_select(&chip);
        assert_eq!(chip.register(1), 0x11 | u32::from(lines - 1) << 16, "the version register");
        chip.chip.write(0, &[select]).expect("a register");
    }
});

/// The selected register.
fn chip_select(chip: &Chip) -> u8 {
    let mut data = [0; 4];
    chip.chip.read(0, &mut data);
    assert_eq!(data[1..], [0; 3]);
    data[0]
}

//! A small IO-APIC outside of KVM (Intel 82093AA data sheet).
//!
//! KVM's own comes with a PIC and a PIT and has 24 lines, each of which the guest kernel reads and
//! writes several times while it boots. This one has as many lines as there are devices, all
//! edge-triggered, and leaves less of the host kernel for the guest to talk to. It turns a line
//! into the message that the guest asked for; lines that another process raises are routed inside
//! KVM, so that they need not pass through here.

use super::virtio::InterruptController;
use crate::low_u32;
use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_msi, kvm_msi,
};
use kvm_ioctls::VmFd;
use std::sync::{Arc, Mutex, PoisonError};
use vmm_sys_util::eventfd::EventFd;

/// Size of the registers' window.
pub const SIZE: u64 = 0x20;

/// Most lines; the number of a register is a byte.
pub const MAX_LINES: u8 = (u8::MAX - REGISTER_FIRST_LINE) / 2 + 1;

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

const REGISTER_ID: u8 = 0;
const REGISTER_VERSION: u8 = 1;
const REGISTER_FIRST_LINE: u8 = 0x10;
const VERSION: u32 = 0x11;

const MASKED: u64 = 1 << 16;
/// Delivery status and remote IRR, which the guest can't write.
const READ_ONLY: u64 = (1 << 12) | (1 << 14);

const MSI_ADDRESS: u32 = 0xfee0_0000;

/// Where messages go and lines that others raise are routed: KVM.
pub trait Messages: std::fmt::Debug + Send + Sync {
    /// Sends a message to the local APICs (`KVM_SIGNAL_MSI`).
    ///
    /// # Errors
    /// KVM's.
    fn signal(&self, message: kvm_msi) -> Result<(), kvm_ioctls::Error>;

    /// Replaces the table of what lines stand for (`KVM_SET_GSI_ROUTING`).
    ///
    /// # Errors
    /// KVM's.
    fn set_routes(&self, routes: &KvmIrqRouting) -> Result<(), kvm_ioctls::Error>;

    /// Lets `event` raise a line (`KVM_IRQFD`).
    ///
    /// # Errors
    /// KVM's.
    fn register(&self, event: &EventFd, line: u32) -> Result<(), kvm_ioctls::Error>;
}

impl Messages for VmFd {
    fn signal(&self, message: kvm_msi) -> Result<(), kvm_ioctls::Error> {
        self.signal_msi(message).map(|_| ())
    }

    fn set_routes(&self, routes: &KvmIrqRouting) -> Result<(), kvm_ioctls::Error> {
        self.set_gsi_routing(routes)
    }

    fn register(&self, event: &EventFd, line: u32) -> Result<(), kvm_ioctls::Error> {
        self.register_irqfd(event, line)
    }
}

/// See the module.
#[derive(Debug)]
pub struct IoApic {
    vm: Arc<dyn Messages>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    id: u32,
    select: u8,
    lines: Vec<Line>,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    /// The redirection table entry.
    entry: u64,
    /// Raised while it was masked.
    pending: bool,
    /// Raised by another process through KVM.
    routed: bool,
}

impl IoApic {
    /// An IO-APIC with this many lines.
    pub fn new(vm: Arc<dyn Messages>, lines: u8) -> Self {
        let line = Line { entry: MASKED, pending: false, routed: false };
        let state = State { id: 0, select: 0, lines: vec![line; lines.into()] };
        Self { vm, state: Mutex::new(state) }
    }

    /// A read of the guest's; `offset` is below [`SIZE`].
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let state = self.lock();
        let value = match offset {
            SELECT => u32::from(state.select),
            WINDOW => state.register(),
            _ => 0,
        };
        let bytes = value.to_le_bytes();
        let length = data.len().min(bytes.len());
        data.fill(0);
        data[..length].copy_from_slice(&bytes[..length]);
    }

    /// A write of the guest's; `offset` is below [`SIZE`].
    ///
    /// # Errors
    /// KVM's.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), kvm_ioctls::Error> {
        let mut bytes = [0; 4];
        let length = data.len().min(bytes.len());
        bytes[..length].copy_from_slice(&data[..length]);
        let mut state = self.lock();
        match offset {
            SELECT => state.select = bytes[0],
            WINDOW => {
                if let Some(changed) = state.set_register(u32::from_le_bytes(bytes)) {
                    self.apply(&mut state, changed)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes a changed redirection table entry effective.
    fn apply(&self, state: &mut State, changed: usize) -> Result<(), kvm_ioctls::Error> {
        let line = &mut state.lines[changed];
        if line.entry & MASKED != 0 {
            return Ok(());
        }
        if line.routed {
            return self.vm.set_routes(&state.routes()?);
        }
        if std::mem::take(&mut line.pending) {
            self.deliver(line.entry)?;
        }
        Ok(())
    }

    fn deliver(&self, entry: u64) -> Result<(), kvm_ioctls::Error> {
        let (address_lo, data) = message(entry);
        self.vm.signal(kvm_msi { address_lo, data, ..Default::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InterruptController for IoApic {
    fn route(&self, line: u8, event: &EventFd) -> Result<(), kvm_ioctls::Error> {
        let mut state = self.lock();
        if let Some(line) = state.lines.get_mut(usize::from(line)) {
            line.routed = true;
        }
        self.vm.register(event, line.into())
    }

    fn raise(&self, line: u8) -> Result<(), kvm_ioctls::Error> {
        let mut state = self.lock();
        match state.lines.get_mut(usize::from(line)) {
            Some(line) if line.entry & MASKED != 0 => line.pending = true,
            Some(line) => self.deliver(line.entry)?,
            None => {}
        }
        Ok(())
    }
}

impl State {
    fn register(&self) -> u32 {
        match self.select {
            REGISTER_ID => self.id,
            REGISTER_VERSION => {
                let last = u32::try_from(self.lines.len()).unwrap_or(1).saturating_sub(1);
                VERSION | (last << 16)
            }
            _ => match self.selected_line() {
                Some((line, shift)) => low_u32(self.lines[line].entry >> shift),
                None => 0,
            },
        }
    }

    /// Writes the selected register; the result is the line whose entry changed its low half.
    fn set_register(&mut self, value: u32) -> Option<usize> {
        if self.select == REGISTER_ID {
            self.id = value & 0x0f00_0000;
            return None;
        }
        let (line, shift) = self.selected_line()?;
        let half = 0xffff_ffff << shift;
        let entry = &mut self.lines[line].entry;
        let before = *entry;
        *entry = (*entry & !half) | ((u64::from(value) << shift) & half);
        *entry = (*entry & !READ_ONLY) | (before & READ_ONLY);
        // The driver writes the low half last, and with it unmasks the line.
        (shift == 0 && before != *entry).then_some(line)
    }

    /// The line whose entry is selected, and the position of the selected half of it.
    fn selected_line(&self) -> Option<(usize, u32)> {
        let index = self.select.checked_sub(REGISTER_FIRST_LINE)?;
        let line = usize::from(index / 2);
        (line < self.lines.len()).then_some((line, u32::from(index % 2) * 32))
    }

    /// KVM's routing table: every routed line that has been unmasked once.
    fn routes(&self) -> Result<KvmIrqRouting, kvm_ioctls::Error> {
        let entries: Vec<_> = (0u32..)
            .zip(&self.lines)
            .filter(|(_, line)| line.routed && line.entry & MASKED == 0)
            .map(|(gsi, line)| {
                let (address_lo, data) = message(line.entry);
                let msi = kvm_irq_routing_msi { address_lo, data, ..Default::default() };
                kvm_irq_routing_entry {
                    gsi,
                    type_: KVM_IRQ_ROUTING_MSI,
                    u: kvm_irq_routing_entry__bindgen_ty_1 { msi },
                    ..Default::default()
                }
            })
            .collect();
        KvmIrqRouting::from_entries(&entries)
            .map_err(|_| kvm_ioctls::Error::new(rustix::io::Errno::NOMEM.raw_os_error()))
    }
}

/// The message that a redirection table entry stands for: address and data (Intel SDM vol. 3
/// §11.11). Vector and delivery mode have the same places in both.
fn message(entry: u64) -> (u32, u32) {
    let destination = low_u32(entry >> 56);
    let logical = low_u32(entry >> 11) & 1;
    (MSI_ADDRESS | (destination << 12) | (logical << 2), low_u32(entry) & 0x7ff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let line = Line { entry: MASKED, pending: false, routed: false };
        State { id: 0, select: 0, lines: vec![line; 3] }
    }

    #[test]
    fn the_version_register_tells_the_last_line() {
        let mut state = state();
        state.select = REGISTER_VERSION;
        assert_eq!(state.register(), 0x0002_0011);
    }

    #[test]
    fn an_entry_is_written_in_halves_and_takes_effect_with_the_low_one() {
        let mut state = state();
        state.select = REGISTER_FIRST_LINE + 3;
        assert_eq!(state.set_register(0x0500_0000), None);
        state.select = REGISTER_FIRST_LINE + 2;
        assert_eq!(state.set_register(0x31), Some(1));
        assert_eq!(message(state.lines[1].entry), (0xfee0_5000, 0x31));
    }

    #[test]
    fn no_register_beyond_the_last_line_exists() {
        let mut state = state();
        for select in REGISTER_FIRST_LINE + 6..=u8::MAX {
            state.select = select;
            assert_eq!(state.set_register(u32::MAX), None);
            assert_eq!(state.register(), 0);
        }
    }
}

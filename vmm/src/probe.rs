//! Tells whether `/dev/kvm` can run a guest kernel at a usable speed.
//!
//! A device that opens proves nothing: some hosts offer a KVM that emulates every instruction of
//! ring 0, at about two million per second, and then no kernel boots on it. So run some.

use crate::memory::{self, Backing};
use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit};
use std::time::Instant;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// What the probe found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Instructions of guest code at ring 0, per second of wall time.
    pub instructions_per_second: f64,
}

impl Speed {
    /// Between the slowest virtualisation by hardware that was seen (nested in software emulation
    /// on a busy machine, 4·10^7) and the fastest emulation (2·10^6).
    const HARDWARE: f64 = 1e7;

    /// Whether this is virtualisation by hardware.
    pub fn is_hardware(self) -> bool {
        self.instructions_per_second >= Self::HARDWARE
    }
}

/// Why the probe could not run.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// `/dev/kvm` does not open.
    #[error("cannot open /dev/kvm: {0}")]
    Open(kvm_ioctls::Error),
    /// KVM refused a step.
    #[error("KVM: {0}")]
    Kvm(#[from] kvm_ioctls::Error),
    /// No memory for a guest of one page.
    #[error("guest memory: {0}")]
    Memory(#[from] memory::MemoryError),
    /// The guest did something else than to write to [`PORT`].
    #[error("unexpected VM exit: {0}")]
    Exit(String),
}

/// Rounds of the loop that is timed; two instructions each.
const ROUNDS: u32 = 100_000;

/// The I/O port that the guest writes to when it is done.
const PORT: u8 = 0x80;

/// The best of so many runs counts: the machine may be busy.
const RUNS: usize = 3;

/// Runs a loop of 200,000 instructions in real mode and times it. Takes less than a second wherever
/// KVM works at all.
///
/// # Errors
/// See [`ProbeError`].
pub fn ring0_speed() -> Result<Speed, ProbeError> {
    let kvm = Kvm::new().map_err(ProbeError::Open)?;
    let vm = kvm.create_vm()?;
    // With a local APIC of KVM's, as microVMs have it: the first virtual CPU of a host without one
    // makes KVM patch its own code, under the feet of all that run.
    let mut split = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
    split.args[0] = 24;
    vm.enable_cap(&split)?;
    let guest = memory::allocate(1 << 20, Backing::Private)?;
    let [r0, r1, r2, r3] = ROUNDS.to_le_bytes();
    // mov ecx, ROUNDS; again: dec ecx; jnz again; out PORT, al
    let code = [0x66, 0xb9, r0, r1, r2, r3, 0x66, 0x49, 0x75, 0xfc, 0xe6, PORT];
    guest.write_slice(&code, GuestAddress(0x1000)).map_err(memory::MemoryError::Access)?;
    let region = guest.iter().next().ok_or(memory::MemoryError::Empty)?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: region.len(),
        userspace_addr: region.as_ptr() as u64,
    };
    // SAFETY: the region is a live mapping of that size, and `guest` outlives `vm`'s last use.
    unsafe { vm.set_user_memory_region(region) }?;

    let mut vcpu = vm.create_vcpu(0)?;
    let mut sregs = vcpu.get_sregs()?;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    vcpu.set_sregs(&sregs)?;
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let mut regs = vcpu.get_regs()?;
        regs.rip = 0x1000;
        regs.rflags = 2;
        vcpu.set_regs(&regs)?;
        let start = Instant::now();
        match vcpu.run()? {
            VcpuExit::IoOut(port, _) if port == u16::from(PORT) => {}
            other => return Err(ProbeError::Exit(format!("{other:?}"))),
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(Speed { instructions_per_second: f64::from(ROUNDS) * 2.0 / best.max(1e-9) })
}

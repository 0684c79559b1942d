//! A virtual CPU: a thread that runs guest code and answers what the guest does on its buses.

use crate::machine::{Bus, End};
use crate::{VmmError, boot};
use kvm_bindings::CpuId;
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};

/// A virtual CPU that has not run yet.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    index: u8,
}

impl Vcpu {
    /// Makes CPU number `index` of `vcpus`; `cpuid` is what they have in common.
    ///
    /// # Errors
    /// KVM's.
    pub fn new(
        vm: &VmFd,
        cpuid: &CpuId,
        index: u8,
        vcpus: u8,
        entry: u64,
    ) -> Result<Self, VmmError> {
        let fd = vm.create_vcpu(index.into()).map_err(VmmError::kvm("KVM_CREATE_VCPU"))?;
        let mut cpuid = cpuid.clone();
        boot::cpuid::for_vcpu(&mut cpuid, index, vcpus);
        fd.set_cpuid2(&cpuid).map_err(VmmError::kvm("KVM_SET_CPUID2"))?;
        boot::cpu::set_up(&fd, index, entry).map_err(VmmError::kvm("setting registers"))?;
        Ok(Self { fd, index })
    }

    /// The name of its thread.
    pub fn name(&self) -> String {
        format!("vcpu{}", self.index)
    }

    /// Runs until the guest ends, and how it does.
    ///
    /// # Errors
    /// [`VmmError::Kvm`] and [`VmmError::Exit`] if KVM can't go on.
    pub fn run(&mut self, bus: &Bus) -> Result<End, VmmError> {
        loop {
            let exit = match self.fd.run() {
                Ok(exit) => exit,
                Err(error) if is_interruption(error) => continue,
                Err(error) => return Err(VmmError::Kvm { step: "KVM_RUN", error }),
            };
            match exit {
                VcpuExit::MmioRead(address, data) => bus.mmio_read(address, data),
                VcpuExit::MmioWrite(address, data) => bus.mmio_write(address, data)?,
                VcpuExit::IoIn(port, data) => bus.port_read(port, data),
                VcpuExit::IoOut(port, data) => {
                    if let Some(end) = bus.port_write(port, data) {
                        return Ok(end);
                    }
                }
                VcpuExit::Shutdown => return Ok(End::TripleFault),
                // Level-triggered interrupts do not exist here, nor do halts that reach us.
                VcpuExit::IoapicEoi(_) | VcpuExit::Intr | VcpuExit::Hlt => {}
                VcpuExit::FailEntry(reason, _) => {
                    return Err(VmmError::Exit(format!("entry failed for reason {reason:#x}")));
                }
                VcpuExit::InternalError => {
                    let rip = self.fd.get_regs().map(|regs| regs.rip).unwrap_or_default();
                    return Err(VmmError::Exit(format!("KVM gave up at instruction {rip:#x}")));
                }
                other => return Err(VmmError::Exit(format!("{other:?}"))),
            }
        }
    }
}

fn is_interruption(error: kvm_ioctls::Error) -> bool {
    use rustix::io::Errno;
    [Errno::INTR, Errno::AGAIN].iter().any(|errno| errno.raw_os_error() == error.errno())
}

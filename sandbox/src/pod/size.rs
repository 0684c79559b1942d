//! How large a pod's microVM is.

use super::spec::AppSpec;
use sandbox_vmm::config::{ConfigError, MemoryMib, Vcpus};

/// What the guest's kernel, guest-init and the page tables take from the guest's memory, in bytes.
/// It comes on top of the apps' limits, so that an app can use what its limit promises.
const GUEST_OVERHEAD: u64 = 64 << 20;

/// Memory for an app without a limit, in bytes. With the overhead, a pod of one such app has
/// 256 MiB.
const UNLIMITED_APP: u64 = 192 << 20;

/// The size of a microVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Number of virtual CPUs: the sum of the apps' CPU limits, rounded up; at least one.
    pub vcpus: Vcpus,
    /// Guest memory: the sum of the apps' memory limits, 192 MiB for an app without one, and 64 MiB
    /// for the guest itself.
    pub memory: MemoryMib,
}

/// Why no microVM can be large enough.
#[derive(Debug, thiserror::Error)]
pub enum SizeError {
    /// Too many CPUs.
    #[error("the apps' CPU limits add up to {millis}m, at most {max} CPUs are possible", max = Vcpus::MAX)]
    Cpus {
        /// The sum, in thousandths of one CPU.
        millis: u64,
    },
    /// Too much memory.
    #[error("the apps' memory limits add up to {mib} MiB, at most {max} MiB are possible", max = MemoryMib::MAX)]
    Memory {
        /// The sum with the guest's own, in MiB.
        mib: u64,
    },
}

impl Size {
    /// The size for these apps.
    ///
    /// # Errors
    /// See [`SizeError`].
    pub fn of(apps: &[AppSpec]) -> Result<Self, SizeError> {
        let millis: u64 =
            apps.iter().filter_map(|app| app.cpu).map(|cpu| u64::from(cpu.millis())).sum();
        let vcpus = u8::try_from(millis.div_ceil(1000).max(1))
            .map_err(|_| SizeError::Cpus { millis })
            .and_then(|count| {
                Vcpus::try_from(count).map_err(|_: ConfigError| SizeError::Cpus { millis })
            })?;
        let bytes = apps
            .iter()
            .map(|app| app.memory.map_or(UNLIMITED_APP, |limit| limit.bytes()))
            .fold(GUEST_OVERHEAD, u64::saturating_add);
        let mib = bytes.div_ceil(1 << 20);
        let memory =
            u32::try_from(mib).map_err(|_| SizeError::Memory { mib }).and_then(|mib32| {
                MemoryMib::try_from(mib32).map_err(|_: ConfigError| SizeError::Memory { mib })
            })?;
        Ok(Self { vcpus, memory })
    }
}

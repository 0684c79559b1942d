use super::backend::Backend;
use crate::config::Tag;
use crate::devices::virtio::{Activation, Device, DeviceError, Identity, Interrupt, Registry};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

const DEVICE_ID: u32 = 26;
const FEATURE_INDIRECT_DESC: u64 = 1 << 28;
const FEATURE_EVENT_IDX: u64 = 1 << 29;
const FEATURE_VERSION_1: u64 = 1 << 32;
/// What is passed on of the worker's offer.
const FEATURES: u64 = FEATURE_VERSION_1 | FEATURE_EVENT_IDX | FEATURE_INDIRECT_DESC;
/// High priority and requests.
const QUEUE_SIZES: &[u16] = &[128, 512];
const REQUEST_QUEUES: u32 = 1;
const SOURCE_WORKER: u32 = 0;

/// A file system device.
#[derive(Debug)]
pub struct Fs {
    registry: Registry,
    kicks: [Arc<EventFd>; 2],
    call: EventFd,
    backend: Backend,
    tag: Tag,
}

impl Fs {
    /// Queues of the device.
    pub const QUEUES: usize = QUEUE_SIZES.len();

    /// A device whose worker is behind `socket`; it is greeted at once.
    ///
    /// # Errors
    /// [`DeviceError::Host`] if the worker does not answer as vhost-user demands.
    pub fn new(
        registry: Registry,
        interrupt: &Interrupt,
        kicks: [Arc<EventFd>; 2],
        socket: OwnedFd,
        tag: Tag,
    ) -> Result<Self, DeviceError> {
        let backend = Backend::connect(socket, Self::QUEUES)?;
        let call = EventFd::new(libc_nonblock())
            .map_err(|error| DeviceError::Host(format!("eventfd: {error}")))?;
        interrupt.route(&call)?;
        registry.add(SOURCE_WORKER, &backend, EventSet::READ_HANG_UP)?;
        Ok(Self { registry, kicks, call, backend, tag })
    }
}

fn libc_nonblock() -> i32 {
    rustix::event::EventfdFlags::NONBLOCK.bits().cast_signed()
}

impl Device for Fs {
    fn identity(&self) -> Identity {
        let mut config = vec![0; Tag::MAX];
        config[..self.tag.as_str().len()].copy_from_slice(self.tag.as_str().as_bytes());
        config.extend(REQUEST_QUEUES.to_le_bytes());
        Identity {
            id: DEVICE_ID,
            features: (self.backend.features() & FEATURES) | FEATURE_VERSION_1,
            queue_sizes: QUEUE_SIZES,
            config,
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let kicks = self.kicks.iter().map(AsRef::as_ref);
        let queues = activation.queues.iter().zip(kicks);
        self.backend.start(&activation.memory, activation.features, queues, &self.call)
    }

    fn reset(&mut self) {
        // A worker that is gone has no queues either; the hang-up event ends the microVM.
        let _ = self.backend.stop(Self::QUEUES);
    }

    fn event(&mut self, _source: u32, _events: EventSet) -> Result<(), DeviceError> {
        Err(DeviceError::WorkerGone)
    }
}

impl Drop for Fs {
    fn drop(&mut self) {
        let _ = self.registry.remove(&self.backend);
    }
}

use crate::devices::virtio::chain::Chain;
use crate::devices::virtio::{Activation, Device, DeviceError, Identity, Interrupt, Registry};
use crate::memory::GuestMemory;
use rustix::rand::{GetRandomFlags, getrandom};
use std::sync::Arc;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

const DEVICE_ID: u32 = 4;
const FEATURE_VERSION_1: u64 = 1 << 32;
const QUEUE_SIZES: &[u16] = &[64];
const SOURCE_QUEUE: u32 = 0;

/// Most random bytes for one buffer. The driver asks for 64 at a time; a larger buffer is used in
/// part, so that a guest can't keep the main loop busy in the host's random number generator.
const MAX_BYTES: usize = 256;

/// The entropy device.
#[derive(Debug)]
pub struct Rng {
    registry: Registry,
    interrupt: Interrupt,
    kick: Arc<EventFd>,
    active: Option<(GuestMemory, Queue)>,
}

impl Rng {
    /// Queues of the device.
    pub const QUEUES: usize = QUEUE_SIZES.len();

    /// A device whose driver rings `kicks[0]`.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn new(
        registry: Registry,
        interrupt: Interrupt,
        kick: Arc<EventFd>,
    ) -> Result<Self, DeviceError> {
        registry.add(SOURCE_QUEUE, &*kick, EventSet::IN)?;
        Ok(Self { registry, interrupt, kick, active: None })
    }

    /// Fills at most one queue full of buffers.
    fn fill_buffers(&mut self) -> Result<(), DeviceError> {
        let Some((memory, queue)) = &mut self.active else { return Ok(()) };
        let mut used = 0;
        while let Some(chain) = queue.iter(&*memory)?.next() {
            let head = chain.head_index();
            let buffers = Chain::read(chain, memory, QUEUE_SIZES[0])?.only_to_write()?;
            let mut bytes = [0; MAX_BYTES];
            let length = usize::try_from(buffers.length()).unwrap_or(MAX_BYTES).min(MAX_BYTES);
            let length = getrandom(&mut bytes[..length], GetRandomFlags::empty())
                .map_err(|error| DeviceError::Host(format!("getrandom: {error}")))?;
            buffers.fill(&[&bytes[..length]]);
            queue.add_used(memory, head, u32::try_from(length).unwrap_or(0))?;
            used += 1;
            if used == queue.size() {
                // Let the other devices have their turn.
                let _ = self.kick.write(1);
                break;
            }
        }
        if used > 0 && queue.needs_notification(memory)? {
            self.interrupt.used_buffer()?;
        }
        Ok(())
    }
}

impl Device for Rng {
    fn identity(&self) -> Identity {
        Identity {
            id: DEVICE_ID,
            features: FEATURE_VERSION_1,
            queue_sizes: QUEUE_SIZES,
            config: Vec::new(),
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let [queue] = <[Queue; 1]>::try_from(activation.queues)
            .map_err(|_| DeviceError::Driver("wrong number of queues"))?;
        self.active = Some((activation.memory, queue));
        self.fill_buffers()
    }

    fn reset(&mut self) {
        self.active = None;
    }

    fn event(&mut self, _source: u32, _events: EventSet) -> Result<(), DeviceError> {
        // An eventfd that is ready can be read.
        let _ = self.kick.read();
        self.fill_buffers()
    }
}

impl Drop for Rng {
    fn drop(&mut self) {
        let _ = self.registry.remove(&*self.kick);
    }
}

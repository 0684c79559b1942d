use super::backend::Backend;
use super::request::{Kind, MAX_SEGMENT, MAX_SEGMENTS, QUEUE_SIZE, Request, SERIAL};
use crate::devices::virtio::{Activation, Device, DeviceError, Identity, Interrupt, Registry};
use crate::memory::GuestMemory;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

const DEVICE_ID: u32 = 2;
const FEATURE_SIZE_MAX: u64 = 1 << 1;
const FEATURE_SEG_MAX: u64 = 1 << 2;
const FEATURE_RO: u64 = 1 << 5;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_EVENT_IDX: u64 = 1 << 29;
const FEATURE_VERSION_1: u64 = 1 << 32;
const QUEUE_SIZES: &[u16] = &[QUEUE_SIZE];
const SOURCE_ENDED: u32 = 0;

/// Answers to a request (virtio 1.3 §5.2.6).
const STATUS_OK: u8 = 0;
const STATUS_IOERR: u8 = 1;
const STATUS_UNSUPP: u8 = 2;

/// Room for the thread's stack. Less than a huge page, so that it is not made of one.
const STACK: usize = 256 << 10;

/// The block device.
#[derive(Debug)]
pub struct Blk {
    registry: Registry,
    interrupt: Interrupt,
    kick: Arc<EventFd>,
    backend: Arc<Backend>,
    /// The last thing that a worker does which nobody stopped is to write it.
    ended: Arc<EventFd>,
    worker: Option<Worker>,
}

#[derive(Debug)]
struct Worker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), DeviceError>>,
}

impl Blk {
    /// Queues of the device.
    pub const QUEUES: usize = QUEUE_SIZES.len();

    /// A device whose driver rings `kicks[0]`; reading that must wait for the ring.
    ///
    /// # Errors
    /// Those of `eventfd(2)` and `epoll_ctl(2)`.
    pub fn new(
        registry: Registry,
        interrupt: Interrupt,
        kick: Arc<EventFd>,
        backend: Backend,
    ) -> Result<Self, DeviceError> {
        let ended = EventFd::new(rustix::event::EventfdFlags::NONBLOCK.bits().cast_signed())
            .map_err(|error| DeviceError::Host(format!("eventfd: {error}")))?;
        registry.add(SOURCE_ENDED, &ended, EventSet::IN)?;
        let (backend, ended) = (Arc::new(backend), Arc::new(ended));
        Ok(Self { registry, interrupt, kick, backend, ended, worker: None })
    }

    /// Tells the worker to stop, without waiting for it.
    fn stop(&mut self) -> Option<Worker> {
        let worker = self.worker.take()?;
        worker.stop.store(true, Ordering::SeqCst);
        // Fails only when the counter is at its end: then the worker won't sleep either.
        let _ = self.kick.write(1);
        Some(worker)
    }
}

/// Serves the queue until it is to stop or can't go on.
fn work(
    mut requests: Requests,
    kick: &EventFd,
    stop: &AtomicBool,
    ended: &EventFd,
) -> Result<(), DeviceError> {
    loop {
        if let Err(error) = requests.serve(stop).and_then(|()| wait(kick)) {
            let _ = ended.write(1);
            return Err(error);
        }
        if stop.load(Ordering::SeqCst) {
            return Ok(());
        }
    }
}

/// Sleeps until the driver rings.
fn wait(kick: &EventFd) -> Result<(), DeviceError> {
    match kick.read() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
        Err(error) => Err(DeviceError::Host(format!("eventfd: {error}"))),
    }
}

impl Device for Blk {
    fn identity(&self) -> Identity {
        let access = if self.backend.read_only() { FEATURE_RO } else { FEATURE_FLUSH };
        let mut config = Vec::with_capacity(16);
        config.extend(self.backend.sectors().to_le_bytes());
        config.extend(MAX_SEGMENT.to_le_bytes());
        config.extend(u32::from(MAX_SEGMENTS).to_le_bytes());
        Identity {
            id: DEVICE_ID,
            features: FEATURE_VERSION_1
                | FEATURE_EVENT_IDX
                | FEATURE_SIZE_MAX
                | FEATURE_SEG_MAX
                | access,
            queue_sizes: QUEUE_SIZES,
            config,
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let requests = Requests::new(self.backend.clone(), self.interrupt.clone(), activation)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (kick, ended, flag) = (self.kick.clone(), self.ended.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name(format!("disk {}", self.backend.serial().as_str()))
            .stack_size(STACK)
            .spawn(move || work(requests, &kick, &flag, &ended))
            .map_err(|error| DeviceError::Host(format!("cannot start a thread: {error}")))?;
        self.worker = Some(Worker { stop, thread });
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(worker) = self.stop() {
            // How it ended doesn't matter any more.
            let _ = worker.thread.join();
        }
        let _ = self.ended.read();
    }

    fn event(&mut self, _source: u32, _events: EventSet) -> Result<(), DeviceError> {
        if self.ended.read().is_err() {
            // Of a worker that a reset came for in the same round.
            return Ok(());
        }
        match self.worker.take().map(|worker| worker.thread.join()) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(DeviceError::Host("the thread of a disk panicked".into())),
            None => Ok(()),
        }
    }
}

impl Drop for Blk {
    fn drop(&mut self) {
        // Not waited for: the end of the microVM should not depend on a slow disk, and guest memory
        // stays mapped until the process ends.
        let _ = self.stop();
        let _ = self.registry.remove(&*self.ended);
    }
}

/// The requests of an active driver.
#[derive(Debug)]
pub struct Requests {
    backend: Arc<Backend>,
    interrupt: Interrupt,
    memory: GuestMemory,
    queue: Queue,
    /// The driver does not flush.
    write_through: bool,
}

impl Requests {
    /// From what a driver gets active with.
    ///
    /// # Errors
    /// [`DeviceError::Driver`] if there is not just one queue.
    pub fn new(
        backend: Arc<Backend>,
        interrupt: Interrupt,
        activation: Activation,
    ) -> Result<Self, DeviceError> {
        let [queue] = <[Queue; 1]>::try_from(activation.queues)
            .map_err(|_| DeviceError::Driver("wrong number of queues"))?;
        let write_through = activation.features & FEATURE_FLUSH == 0;
        Ok(Self { backend, interrupt, memory: activation.memory, queue, write_through })
    }

    /// Answers requests until there are no more; once `stop` is set it begins no other.
    ///
    /// The driver hears of each at once, as far as it wants to: with `VIRTIO_F_EVENT_IDX` it isn't
    /// interrupted again before it has looked.
    ///
    /// # Errors
    /// [`DeviceError::Driver`] and [`DeviceError::Queue`] if the driver breaks the protocol.
    pub fn serve(&mut self, stop: &AtomicBool) -> Result<(), DeviceError> {
        while !stop.load(Ordering::SeqCst) {
            self.queue.disable_notification(&self.memory)?;
            while let Some(chain) = self.queue.iter(&self.memory)?.next() {
                let head = chain.head_index();
                let request = Request::read(chain, &self.memory)?;
                let written = self.answer(&request);
                self.queue.add_used(&self.memory, head, written)?;
                if self.queue.needs_notification(&self.memory)? {
                    self.interrupt.used_buffer()?;
                }
                if stop.load(Ordering::SeqCst) {
                    return Ok(());
                }
            }
            if !self.queue.enable_notification(&self.memory)? {
                break;
            }
        }
        Ok(())
    }

    /// Does what a request asks for and writes its status. The result is how many bytes of the
    /// buffers to write have been written, from the first on.
    fn answer(&self, request: &Request<'_>) -> u32 {
        let status = self.execute(request);
        request.status.copy_from(&[status]);
        let filled = match request.kind {
            Kind::Read | Kind::Identify if status == STATUS_OK => request.data.length(),
            _ => 0,
        };
        if filled == request.before_status {
            u32::try_from(filled + 1).unwrap_or(0)
        } else {
            // There are bytes before the status that were not, or perhaps not, written.
            0
        }
    }

    fn execute(&self, request: &Request<'_>) -> u8 {
        let backend = &self.backend;
        let result = match request.kind {
            Kind::Read => backend.read(request.sector, &request.data),
            // Not unsupported: an I/O error is what the standard wants here (§5.2.6.2).
            Kind::Write if backend.read_only() => return STATUS_IOERR,
            Kind::Write => backend.write(request.sector, &request.data, self.write_through),
            Kind::Flush if !backend.read_only() => backend.flush(),
            Kind::Identify => {
                let mut serial = [0; SERIAL];
                let bytes = backend.serial().as_str().as_bytes();
                serial[..bytes.len()].copy_from_slice(bytes);
                request.data.fill(&serial);
                Ok(())
            }
            Kind::Flush | Kind::Unknown => return STATUS_UNSUPP,
        };
        match result {
            Ok(()) => STATUS_OK,
            Err(_) => STATUS_IOERR,
        }
    }
}

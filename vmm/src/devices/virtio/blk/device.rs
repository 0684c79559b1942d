use super::backend::Backend;
use super::request::{Kind, MAX_SEGMENT, MAX_SEGMENTS, QUEUE_SIZE, Request, SERIAL};
use crate::devices::virtio::{
    Activation, Device, DeviceError, Identity, Interrupt, Registry, Work,
};
use crate::memory::GuestMemory;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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
const SOURCE_FAILED: u32 = 0;

/// Answers to a request (virtio 1.3 §5.2.6).
const STATUS_OK: u8 = 0;
const STATUS_IOERR: u8 = 1;
const STATUS_UNSUPP: u8 = 2;

/// The block device.
#[derive(Debug)]
pub struct Blk {
    registry: Registry,
    interrupt: Interrupt,
    kick: Arc<EventFd>,
    backend: Arc<Backend>,
    /// The worker writes it when it can't go on.
    failed: Arc<EventFd>,
    worker: Arc<Worker>,
}

/// What the device and its thread share.
#[derive(Debug, Default)]
struct Worker {
    state: Mutex<State>,
    changed: Condvar,
    /// It is to begin no other request.
    stop: AtomicBool,
}

#[derive(Debug, Default)]
enum State {
    /// The thread sleeps until it is given requests.
    #[default]
    Idle,
    /// The driver is ready, and the thread not yet.
    Given(Requests),
    /// The thread has the queue.
    Serving,
    /// The thread has given the queue back, since it can't go on.
    Failed(DeviceError),
    /// There is no device any more, and the thread ends.
    Gone,
}

impl Worker {
    /// Waits for the driver to be ready; `None` is the end.
    fn next(&self) -> Option<Requests> {
        let mut state = self.lock();
        loop {
            state = match std::mem::replace(&mut *state, State::Serving) {
                State::Given(requests) => return Some(requests),
                State::Gone => return None,
                other => {
                    *state = other;
                    self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// Gives the queue back.
    fn give_back(&self, result: Result<(), DeviceError>) {
        let mut state = self.lock();
        if !matches!(*state, State::Gone) {
            *state = result.err().map_or(State::Idle, State::Failed);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until the thread has given the queue back.
    fn wait(&self) {
        let mut state = self.lock();
        while matches!(*state, State::Given(_) | State::Serving) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        *state = State::Idle;
    }

    fn set(&self, new: State) {
        *self.lock() = new;
        self.changed.notify_all();
    }

    /// A panic aborts the process, so no lock is ever poisoned.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let failed = EventFd::new(rustix::event::EventfdFlags::NONBLOCK.bits().cast_signed())
            .map_err(|error| DeviceError::Host(format!("eventfd: {error}")))?;
        registry.add(SOURCE_FAILED, &failed, EventSet::IN)?;
        let (backend, failed) = (Arc::new(backend), Arc::new(failed));
        Ok(Self { registry, interrupt, kick, backend, failed, worker: Arc::default() })
    }

    /// Tells the worker to stop, without waiting for it.
    fn stop(&self) {
        self.worker.stop.store(true, Ordering::SeqCst);
        // Fails only when the counter is at its end: then the worker won't sleep either.
        let _ = self.kick.write(1);
    }
}

/// Serves the queue until it is to stop or can't go on.
fn serve(mut requests: Requests, kick: &EventFd, stop: &AtomicBool) -> Result<(), DeviceError> {
    loop {
        requests.serve(stop)?;
        wait(kick)?;
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
        self.worker.stop.store(false, Ordering::SeqCst);
        self.worker.set(State::Given(requests));
        Ok(())
    }

    fn reset(&mut self) {
        self.stop();
        // How it ended doesn't matter any more.
        self.worker.wait();
        let _ = self.failed.read();
    }

    fn event(&mut self, _source: u32, _events: EventSet) -> Result<(), DeviceError> {
        // An event that can't be read is one that a reset came for in the same round.
        let _ = self.failed.read();
        let mut state = self.worker.lock();
        match std::mem::take(&mut *state) {
            State::Failed(error) => Err(error),
            other => {
                *state = other;
                Ok(())
            }
        }
    }

    fn work(&mut self) -> Option<Work> {
        let name = format!("disk {}", self.backend.serial().as_str());
        let (worker, kick, failed) = (self.worker.clone(), self.kick.clone(), self.failed.clone());
        let run = move || {
            while let Some(requests) = worker.next() {
                let result = serve(requests, &kick, &worker.stop);
                let fails = result.is_err();
                worker.give_back(result);
                if fails {
                    let _ = failed.write(1);
                }
            }
        };
        Some(Work { name, run: Box::new(run) })
    }
}

impl Drop for Blk {
    fn drop(&mut self) {
        // Not waited for: the end of the microVM should not depend on a slow disk, and guest memory
        // stays mapped until the process ends.
        self.worker.set(State::Gone);
        self.stop();
        let _ = self.registry.remove(&*self.failed);
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
                request.data.fill(&[&serial]);
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

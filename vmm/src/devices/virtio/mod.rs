//! virtio devices on the memory-mapped transport (virtio 1.3 §4.2).
//!
//! A device has two halves. The [`mmio`] registers are the virtual CPUs': they answer accesses
//! while the driver negotiates, and know nothing of what the device does. The [`Device`] is the
//! main loop's: it gets its queues when the driver sets DRIVER_OK, frozen from then on, and gives
//! them up at a reset.

pub mod blk;
mod chain;
pub mod fs;
pub mod mmio;
pub mod rng;
pub mod vsock;

#[cfg(test)]
mod hardening;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use crate::low_u32;
use crate::memory::GuestMemory;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use virtio_queue::Queue;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// What a driver can know of a device before it talks to it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Device type (virtio 1.3 §5).
    pub id: u32,
    /// Offered features.
    pub features: u64,
    /// Size of each queue, a power of two.
    pub queue_sizes: &'static [u16],
    /// The configuration space; it never changes.
    pub config: Vec<u8>,
}

/// The half of a device that does its work, on the thread of the main loop.
pub trait Device {
    /// What the driver is to be shown.
    fn identity(&self) -> Identity;

    /// The driver has set DRIVER_OK.
    ///
    /// # Errors
    /// See [`DeviceError`].
    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError>;

    /// The driver has reset the device; it no longer owns any queue when this returns.
    fn reset(&mut self);

    /// Something that the device registered with [`Registry::add`] is ready.
    ///
    /// # Errors
    /// See [`DeviceError`].
    fn event(&mut self, source: u32, events: EventSet) -> Result<(), DeviceError>;

    /// What the device does on a thread of its own, if it does anything there; asked for once,
    /// before the guest runs.
    fn work(&mut self) -> Option<Work> {
        None
    }
}

/// What a device does on a thread of its own, for as long as the microVM runs.
pub struct Work {
    /// The thread's name.
    pub name: String,
    /// What it does.
    pub run: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Work({})", self.name)
    }
}

/// Why a device can't go on.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The driver broke the protocol. The device asks for a reset and does nothing until then.
    #[error("the driver broke the protocol: {0}")]
    Driver(&'static str),
    /// The driver's queue can't be used.
    #[error("the driver's queue: {0}")]
    Queue(#[from] virtio_queue::Error),
    /// The process behind the device is gone; the microVM ends.
    #[error("the worker behind the device is gone")]
    WorkerGone,
    /// The host refuses something; the microVM ends.
    #[error("{0}")]
    Host(String),
}

/// What a device gets when its driver is ready.
#[derive(Debug)]
pub struct Activation {
    /// The guest's memory.
    pub memory: GuestMemory,
    /// The queues, checked and frozen.
    pub queues: Vec<Queue>,
    /// Features that both sides know.
    pub features: u64,
}

/// How a device reaches the world around it.
#[derive(Clone, Debug)]
pub struct Registry {
    epoll: Arc<Epoll>,
    device: u32,
}

impl Registry {
    /// For the device of this number.
    pub fn new(epoll: Arc<Epoll>, device: u32) -> Self {
        Self { epoll, device }
    }

    /// Calls [`Device::event`] with `source` when `descriptor` is ready.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn add(
        &self,
        source: u32,
        descriptor: &impl AsRawFd,
        events: EventSet,
    ) -> Result<(), DeviceError> {
        let token = (u64::from(self.device) << 32) | u64::from(source);
        self.control(ControlOperation::Add, descriptor.as_raw_fd(), EpollEvent::new(events, token))
    }

    /// Undoes [`Registry::add`].
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn remove(&self, descriptor: &impl AsRawFd) -> Result<(), DeviceError> {
        self.control(ControlOperation::Delete, descriptor.as_raw_fd(), EpollEvent::default())
    }

    fn control(
        &self,
        operation: ControlOperation,
        descriptor: RawFd,
        event: EpollEvent,
    ) -> Result<(), DeviceError> {
        self.epoll
            .ctl(operation, descriptor, event)
            .map_err(|error| DeviceError::Host(format!("epoll: {error}")))
    }

    /// The number of a device and its source, from the token of an epoll event.
    pub fn split(token: u64) -> (u32, u32) {
        (low_u32(token >> 32), low_u32(token))
    }
}

/// What interrupt lines end in.
pub trait InterruptController: std::fmt::Debug + Send + Sync {
    /// Lets `event`, which another process writes, raise a line.
    ///
    /// # Errors
    /// KVM's.
    fn route(&self, line: u8, event: &EventFd) -> Result<(), kvm_ioctls::Error>;

    /// Raises a line.
    ///
    /// # Errors
    /// KVM's.
    fn raise(&self, line: u8) -> Result<(), kvm_ioctls::Error>;
}

/// A device's interrupt (virtio 1.3 §4.2.3.4).
#[derive(Clone, Debug)]
pub struct Interrupt {
    status: Arc<AtomicU32>,
    line: u8,
    controller: Arc<dyn InterruptController>,
}

/// Bits of the InterruptStatus register (virtio 1.3 §4.2.2).
const INTERRUPT_USED_BUFFER: u32 = 1;
const INTERRUPT_CONFIGURATION: u32 = 2;

impl Interrupt {
    /// An interrupt on this line.
    pub fn new(controller: Arc<dyn InterruptController>, line: u8) -> Self {
        Self { status: Arc::new(AtomicU32::new(0)), line, controller }
    }

    /// Tells the driver that buffers were used.
    ///
    /// # Errors
    /// [`DeviceError::Host`] if KVM refuses.
    pub fn used_buffer(&self) -> Result<(), DeviceError> {
        self.raise(INTERRUPT_USED_BUFFER)
    }

    /// Tells the driver that configuration or status changed.
    ///
    /// # Errors
    /// [`DeviceError::Host`] if KVM refuses.
    pub fn configuration(&self) -> Result<(), DeviceError> {
        self.raise(INTERRUPT_CONFIGURATION)
    }

    /// Lets another process say that buffers were used, by writing `event`. The status register
    /// says so all the time then: nobody could tell it.
    ///
    /// # Errors
    /// [`DeviceError::Host`] if KVM refuses.
    pub fn route(&self, event: &EventFd) -> Result<(), DeviceError> {
        self.status.store(INTERRUPT_USED_BUFFER | STICKY, Ordering::SeqCst);
        self.controller
            .route(self.line, event)
            .map_err(|error| DeviceError::Host(format!("KVM_IRQFD: {error}")))
    }

    fn raise(&self, reason: u32) -> Result<(), DeviceError> {
        self.status.fetch_or(reason, Ordering::SeqCst);
        self.controller
            .raise(self.line)
            .map_err(|error| DeviceError::Host(format!("KVM_SIGNAL_MSI: {error}")))
    }

    fn pending(&self) -> u32 {
        self.status.load(Ordering::SeqCst) & !STICKY
    }

    fn acknowledge(&self, reasons: u32) {
        if self.status.load(Ordering::SeqCst) & STICKY == 0 {
            self.status.fetch_and(!reasons, Ordering::SeqCst);
        }
    }
}

/// Marks a status that acknowledging does not clear; the guest never sees it.
const STICKY: u32 = 1 << 31;

//! The registers of the memory-mapped transport, version 2 (virtio 1.3 §4.2.2).

use super::{DeviceError, Identity, Interrupt};
use crate::low_u32;
use crate::memory::GuestMemory;
use std::sync::Arc;
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

const MAGIC_VALUE: u64 = 0x000;
const VERSION: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
const VENDOR_ID: u64 = 0x00c;
const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SEL: u64 = 0x024;
const QUEUE_SEL: u64 = 0x030;
const QUEUE_SIZE_MAX: u64 = 0x034;
const QUEUE_SIZE: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
/// Where the driver rings for a queue.
pub const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const QUEUE_DESC_LOW: u64 = 0x080;
const QUEUE_DESC_HIGH: u64 = 0x084;
const QUEUE_DRIVER_LOW: u64 = 0x090;
const QUEUE_DRIVER_HIGH: u64 = 0x094;
const QUEUE_DEVICE_LOW: u64 = 0x0a0;
const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
const SHM_LEN_LOW: u64 = 0x0b0;
const SHM_BASE_HIGH: u64 = 0x0bc;
const CONFIG: u64 = 0x100;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const TRANSPORT_VERSION: u32 = 2;
/// Of no meaning; "SAND".
const VENDOR: u32 = u32::from_le_bytes(*b"SAND");

// Device status (virtio 1.3 §2.1).
const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 64;
const FAILED: u32 = 128;

const FEATURE_VERSION_1: u64 = 1 << 32;
const FEATURE_EVENT_IDX: u64 = 1 << 29;

/// The registers of one device.
#[derive(Debug)]
pub struct Registers {
    identity: Identity,
    interrupt: Interrupt,
    kicks: Vec<Arc<EventFd>>,
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    /// Empty while the device has them.
    queues: Vec<Queue>,
}

/// What a write asks the device for.
#[derive(Debug)]
pub enum Request {
    /// The driver is ready.
    Activate {
        /// Checked against guest memory.
        queues: Vec<Queue>,
        /// The features that it accepted.
        features: u64,
    },
    /// The driver wants everything back.
    Reset,
}

impl Registers {
    /// Registers in the state after a reset. `kicks` has an event for each queue.
    pub fn new(identity: Identity, interrupt: Interrupt, kicks: Vec<Arc<EventFd>>) -> Self {
        let mut registers = Self {
            identity,
            interrupt,
            kicks,
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            queues: Vec::new(),
        };
        registers.reset();
        registers
    }

    fn reset(&mut self) {
        self.status = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.driver_features = 0;
        self.queue_sel = 0;
        self.interrupt.acknowledge(u32::MAX);
        // The sizes are ours and are powers of two, which is all that can be wrong with them.
        self.queues =
            self.identity.queue_sizes.iter().filter_map(|size| Queue::new(*size).ok()).collect();
    }

    /// The device can't go on until the driver resets it (virtio 1.3 §2.1.2); tells the driver.
    ///
    /// # Errors
    /// [`DeviceError::Host`] if the interrupt can't be raised.
    pub fn set_needs_reset(&mut self) -> Result<(), DeviceError> {
        self.status |= NEEDS_RESET;
        self.interrupt.configuration()
    }

    /// A read of the driver's. Registers are read as aligned 32-bit words (virtio 1.3 §4.2.2.2);
    /// anything else reads as 0, but for the configuration space.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(start) = offset.checked_sub(CONFIG) {
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let config = self.identity.config.get(start..).unwrap_or_default();
            let length = data.len().min(config.len());
            data[..length].copy_from_slice(&config[..length]);
        } else if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            *word = self.read_word(offset).to_le_bytes();
        }
    }

    fn read_word(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.queue_sel as usize);
        match offset {
            MAGIC_VALUE => MAGIC,
            VERSION => TRANSPORT_VERSION,
            DEVICE_ID => self.identity.id,
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => half(self.identity.features, self.device_features_sel),
            QUEUE_SIZE_MAX => queue.map_or(0, |queue| queue.max_size().into()),
            QUEUE_READY => queue.map_or(0, |queue| queue.ready().into()),
            INTERRUPT_STATUS => self.interrupt.pending(),
            STATUS => self.status,
            // There are no shared memory regions (virtio 1.3 §4.2.2.1).
            SHM_LEN_LOW..=SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    /// A write of the driver's.
    pub fn write(&mut self, offset: u64, data: &[u8], memory: &GuestMemory) -> Option<Request> {
        let value = u32::from_le_bytes(<[u8; 4]>::try_from(data).ok()?);
        match offset {
            DEVICE_FEATURES_SEL => self.device_features_sel = value,
            DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            DRIVER_FEATURES if self.status & FEATURES_OK == 0 => {
                set_half(&mut self.driver_features, self.driver_features_sel, value);
            }
            QUEUE_SEL => self.queue_sel = value,
            QUEUE_NOTIFY => self.notify(value),
            INTERRUPT_ACK => self.interrupt.acknowledge(value),
            STATUS => return self.set_status(value, memory),
            // Queues are the driver's to set up after the features and before DRIVER_OK.
            _ if self.status & (FEATURES_OK | DRIVER_OK) == FEATURES_OK => {
                self.set_up_queue(offset, value);
            }
            _ => {}
        }
        None
    }

    /// Rings for a queue. KVM does it without coming here, unless it is short of resources.
    fn notify(&self, queue: u32) {
        if let Some(kick) = self.kicks.get(queue as usize) {
            // Fails only when the counter is at its end: then the device has been rung for.
            let _ = kick.write(1);
        }
    }

    fn set_up_queue(&mut self, offset: u64, value: u32) {
        let Some(queue) = self.queues.get_mut(self.queue_sel as usize) else { return };
        if offset == QUEUE_READY {
            queue.set_ready(value == 1);
        }
        if queue.ready() {
            return;
        }
        match offset {
            QUEUE_SIZE => queue.set_size(u16::try_from(value).unwrap_or(0)),
            QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            QUEUE_DRIVER_LOW => queue.set_avail_ring_address(Some(value), None),
            QUEUE_DRIVER_HIGH => queue.set_avail_ring_address(None, Some(value)),
            QUEUE_DEVICE_LOW => queue.set_used_ring_address(Some(value), None),
            QUEUE_DEVICE_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    /// Moves on in the device's initialisation (virtio 1.3 §3.1.1). A step out of order is not
    /// taken.
    fn set_status(&mut self, value: u32, memory: &GuestMemory) -> Option<Request> {
        if value == 0 {
            let active = self.status & DRIVER_OK != 0;
            self.reset();
            return active.then_some(Request::Reset);
        }
        if value & FAILED != 0 {
            self.status |= FAILED;
            return None;
        }
        let known = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
        let step = value & known & !self.status;
        let before = match step {
            ACKNOWLEDGE => 0,
            DRIVER => ACKNOWLEDGE,
            FEATURES_OK => ACKNOWLEDGE | DRIVER,
            DRIVER_OK => ACKNOWLEDGE | DRIVER | FEATURES_OK,
            _ => return None,
        };
        if self.status != before || value & known != before | step {
            return None;
        }
        match step {
            FEATURES_OK => {
                let offered = self.driver_features & !self.identity.features == 0;
                if !offered || self.driver_features & FEATURE_VERSION_1 == 0 {
                    return None;
                }
            }
            DRIVER_OK => return self.activate(memory),
            _ => {}
        }
        self.status |= step;
        None
    }

    fn activate(&mut self, memory: &GuestMemory) -> Option<Request> {
        self.status |= DRIVER_OK;
        if !self.queues.iter().all(|queue| queue.ready() && queue.is_valid(memory)) {
            self.status |= NEEDS_RESET;
            return None;
        }
        let mut queues = std::mem::take(&mut self.queues);
        for queue in &mut queues {
            queue.set_event_idx(self.driver_features & FEATURE_EVENT_IDX != 0);
        }
        Some(Request::Activate { queues, features: self.driver_features })
    }
}

fn half(value: u64, selector: u32) -> u32 {
    match selector {
        0 => low_u32(value),
        1 => low_u32(value >> 32),
        _ => 0,
    }
}

fn set_half(value: &mut u64, selector: u32, half: u32) {
    match selector {
        0 => *value = (*value & !0xffff_ffff) | u64::from(half),
        1 => *value = (*value & 0xffff_ffff) | (u64::from(half) << 32),
        _ => {}
    }
}

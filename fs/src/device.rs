//! The virtio-fs device: vhost-user state and the two queues (virtio 1.3 §5.11).
//!
//! Queue 0 is the high-priority queue and carries `FUSE_FORGET` alone; queue 1 carries requests.
//! The frontend owns the configuration space (tag, number of queues), so none is offered, nor are
//! the vhost-user features for migration, shared objects and backend requests: fewer messages that
//! a broken-in monitor could send.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVirtioFeatures,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vhost_user_backend::bitmap::BitmapMmapRegion;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{DescriptorChain, Queue, QueueT};
use virtiofsd::descriptor_utils::{Reader, Writer};
use virtiofsd::filesystem::{Context, FileSystem};
use virtiofsd::fuse::{BatchForgetIn, ForgetIn, ForgetOne, InHeader, Opcode, OutHeader};
use virtiofsd::server::Server;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use crate::guard::Guard;

/// The guest's memory. The bitmap is `virtiofsd`'s choice; nothing switches it on.
type Memory = GuestMemoryMmap<BitmapMmapRegion>;

/// Index of the high-priority queue.
pub const HIGH_PRIORITY_QUEUE: usize = 0;
/// Index of the request queue.
pub const REQUEST_QUEUE: usize = 1;
/// Number of queues.
pub const QUEUES: usize = 2;

/// Largest queue, in descriptors: bounds the length of a chain, and with it what one request can
/// make us allocate.
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// Most inodes in one `FUSE_BATCH_FORGET`: as many as fit into a request of 1 MiB.
const MAX_BATCH_FORGET: u32 = 1 << 16;

/// Bytes of the smallest reply. A shorter reply buffer is no request.
const MIN_REPLY: usize = size_of::<OutHeader>();

const FEATURES: u64 = (1 << VIRTIO_F_VERSION_1)
    | (1 << VIRTIO_RING_F_INDIRECT_DESC)
    | (1 << VIRTIO_RING_F_EVENT_IDX)
    | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::RESET_DEVICE);

/// Where a piece of guest memory lies in the frontend, whose addresses vhost-user messages hold.
#[derive(Debug)]
struct Mapping {
    frontend: u64,
    guest: u64,
    size: u64,
}

#[derive(Debug)]
struct Ring {
    queue: Queue,
    /// Readable when the guest has made buffers available.
    kick: Option<File>,
    /// Written to tell the guest that buffers have been used.
    call: Option<File>,
    /// The frontend lets us process the ring.
    enabled: bool,
}

impl Ring {
    fn new() -> Result<Self> {
        let queue = Queue::new(MAX_QUEUE_SIZE).map_err(|_| Error::InvalidParam)?;
        Ok(Self { queue, kick: None, call: None, enabled: false })
    }

    fn runs(&self) -> bool {
        self.enabled && self.queue.ready()
    }

    /// Started by the first kick descriptor, stopped by GET_VRING_BASE.
    fn start(&mut self, kick: Option<File>) {
        self.queue.set_ready(kick.is_some());
        self.kick = kick;
    }

    fn stop(&mut self) {
        self.queue.set_ready(false);
        self.kick = None;
        self.call = None;
    }

    /// Interrupts the guest unless it asked not to be.
    fn notify(&mut self, memory: &Memory) {
        if self.queue.needs_notification(memory).unwrap_or(true)
            && let Some(mut call) = self.call.as_ref()
        {
            // A full event counter is a pending interrupt: nothing is lost.
            let _ = call.write(&1u64.to_ne_bytes());
        }
    }
}

/// The device: what the frontend has told us, and the file server.
pub struct Device {
    server: Server<Guard>,
    files: Guard,
    rings: [Ring; QUEUES],
    memory: Option<Memory>,
    mappings: Vec<Mapping>,
    features: u64,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Device").field("rings", &self.rings).finish_non_exhaustive()
    }
}

impl Device {
    /// A device that serves `files`, without memory and with stopped rings.
    ///
    /// # Errors
    /// None in practice: the queue size is valid.
    pub fn new(files: Guard) -> Result<Self> {
        Ok(Self {
            server: Server::new(files.clone()),
            files,
            rings: [Ring::new()?, Ring::new()?],
            memory: None,
            mappings: Vec::new(),
            features: 0,
        })
    }

    /// The kick descriptor of queue `index`, if the queue is to be watched now.
    #[must_use]
    pub fn kick(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.rings.get(index).filter(|ring| ring.runs())?.kick.as_ref().map(AsFd::as_fd)
    }

    /// Handles what the guest made available in queue `index` after its kick descriptor became
    /// readable. Returns whether there is more: one call handles at most as many chains as the
    /// queue has descriptors, so that a guest can't keep us from the frontend.
    ///
    /// # Errors
    /// The kick descriptor is none.
    pub fn process(&mut self, index: usize, kicked: bool) -> io::Result<bool> {
        let Self { server, files, rings, memory, .. } = self;
        let (Some(ring), Some(memory)) = (rings.get_mut(index), memory.as_ref()) else {
            return Ok(false);
        };
        if kicked && let Some(mut kick) = ring.kick.as_ref() {
            match kick.read(&mut [0; 8]) {
                Ok(8) => {}
                // Readable for ever without an event: not an event descriptor.
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if !ring.runs() {
            return Ok(false);
        }
        if !ring.queue.is_valid(memory) {
            log::error!("queue {index} does not lie in guest memory; it is stopped");
            ring.stop();
            return Ok(false);
        }

        let budget = ring.queue.size();
        if ring.queue.disable_notification(memory).is_err() {
            return Ok(false);
        }
        for _ in 0..budget {
            let Some(chain) = ring.queue.pop_descriptor_chain(memory) else {
                // Whatever came in before notifications were on again has no kick of its own.
                match ring.queue.enable_notification(memory) {
                    Ok(true) => {}
                    Ok(false) => return Ok(false),
                    Err(error) => {
                        log::error!("queue {index}: {error}; it is stopped");
                        ring.stop();
                        return Ok(false);
                    }
                }
                continue;
            };
            let head = chain.head_index();
            let used = match index {
                HIGH_PRIORITY_QUEUE => forget(files, memory, chain),
                _ => request(server, memory, chain),
            };
            if ring.queue.add_used(memory, head, used).is_err() {
                log::error!("queue {index}: descriptor {head} can't be returned");
            }
            ring.notify(memory);
        }
        Ok(true)
    }

    fn ring(&mut self, index: usize) -> Result<&mut Ring> {
        self.rings.get_mut(index).ok_or(Error::InvalidParam)
    }

    fn guest_address(&self, frontend: u64) -> Result<GuestAddress> {
        self.mappings
            .iter()
            .find_map(|mapping| {
                let offset = frontend.checked_sub(mapping.frontend)?;
                (offset < mapping.size).then(|| mapping.guest.checked_add(offset))?
            })
            .map(GuestAddress)
            .ok_or(Error::InvalidParam)
    }
}

/// Handles a chain of the request queue. Returns the number of bytes written to it: zero if it
/// isn't a request that can be answered.
fn request(server: &Server<Guard>, memory: &Memory, chain: DescriptorChain<&Memory>) -> u32 {
    let (Ok(reader), Ok(writer)) = (Reader::new(memory, chain.clone()), Writer::new(memory, chain))
    else {
        log::warn!("a request lies outside of guest memory");
        return 0;
    };
    // The file server takes room for the header of a reply for granted.
    if writer.available_bytes() < MIN_REPLY {
        log::warn!("a request has no room for a reply");
        return 0;
    }
    match server.handle_message::<()>(reader, writer, None) {
        Ok(used) => u32::try_from(used).unwrap_or(0),
        Err(error) => {
            log::warn!("malformed request: {error}");
            0
        }
    }
}

/// Handles a chain of the high-priority queue, which has no reply.
fn forget(files: &Guard, memory: &Memory, chain: DescriptorChain<&Memory>) -> u32 {
    let result = Reader::new(memory, chain)
        .map_err(|_| io::ErrorKind::InvalidData.into())
        .and_then(|reader| read_forget(files, reader));
    if let Err(error) = result {
        log::warn!("malformed request in the high-priority queue: {error}");
    }
    0
}

fn read_forget(files: &Guard, mut reader: Reader<'_>) -> io::Result<()> {
    let header: InHeader = reader.read_obj()?;
    let opcode = header.opcode;
    if opcode == Opcode::Forget as u32 {
        let ForgetIn { nlookup } = reader.read_obj()?;
        files.forget(Context::from(header), header.nodeid, nlookup);
    } else if opcode == Opcode::BatchForget as u32 {
        let BatchForgetIn { count, .. } = reader.read_obj()?;
        for _ in 0..count.min(MAX_BATCH_FORGET) {
            let ForgetOne { nodeid, nlookup } = reader.read_obj()?;
            files.forget(Context::from(header), nodeid, nlookup);
        }
    } else if opcode != Opcode::Interrupt as u32 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(())
}

const UNSUPPORTED: Error = Error::InvalidOperation("not offered");

impl VhostUserBackendReqHandlerMut for Device {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Result<()> {
        for ring in &mut self.rings {
            ring.enabled = false;
            ring.stop();
            ring.queue.reset();
        }
        self.features = 0;
        self.files.destroy();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !FEATURES != 0 {
            return Err(Error::InvalidParam);
        }
        self.features = features;
        let rings_start_enabled = features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0;
        for ring in &mut self.rings {
            ring.queue.set_event_idx(features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
            ring.enabled |= rings_start_enabled;
        }
        Ok(())
    }

    fn set_mem_table(&mut self, table: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<()> {
        let mut regions = Vec::with_capacity(table.len());
        let mut mappings = Vec::with_capacity(table.len());
        for (region, file) in table.iter().zip(files) {
            regions.push(
                GuestRegionMmap::new(
                    region.mmap_region(file)?,
                    GuestAddress(region.guest_phys_addr),
                )
                .ok_or(Error::InvalidParam)?,
            );
            mappings.push(Mapping {
                frontend: region.user_addr,
                guest: region.guest_phys_addr,
                size: region.memory_size,
            });
        }
        self.memory =
            Some(GuestMemoryMmap::from_regions(regions).map_err(|_| Error::InvalidParam)?);
        self.mappings = mappings;
        Ok(())
    }

    fn set_vring_num(&mut self, index: u32, size: u32) -> Result<()> {
        let ring = self.ring(index as usize)?;
        let size = u16::try_from(size).map_err(|_| Error::InvalidParam)?;
        ring.queue.try_set_size(size).map_err(|_| Error::InvalidParam)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let descriptor = self.guest_address(descriptor)?;
        let available = self.guest_address(available)?;
        let used = self.guest_address(used)?;
        let Self { rings, memory, .. } = self;
        let (Some(ring), Some(memory)) = (rings.get_mut(index as usize), memory.as_ref()) else {
            return Err(Error::InvalidParam);
        };
        let queue = &mut ring.queue;
        queue.try_set_desc_table_address(descriptor).map_err(|_| Error::InvalidParam)?;
        queue.try_set_avail_ring_address(available).map_err(|_| Error::InvalidParam)?;
        queue.try_set_used_ring_address(used).map_err(|_| Error::InvalidParam)?;
        // SET_VRING_BASE sets the next available index only; the next used one is in the ring.
        let next = queue.used_idx(memory, Ordering::Relaxed).map_err(|_| Error::InvalidParam)?;
        queue.set_next_used(next.0);
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.ring(index as usize)?.queue.set_next_avail(base);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let ring = self.ring(index as usize)?;
        let next = ring.queue.next_avail();
        ring.stop();
        Ok(VhostUserVringState::new(index, u32::from(next)))
    }

    fn set_vring_kick(&mut self, index: u8, kick: Option<File>) -> Result<()> {
        self.ring(usize::from(index))?.start(kick);
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> Result<()> {
        self.ring(usize::from(index))?.call = call;
        Ok(())
    }

    /// Errors are told on standard error, not through the descriptor.
    fn set_vring_err(&mut self, index: u8, _error: Option<File>) -> Result<()> {
        self.ring(usize::from(index)).map(drop)
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(PROTOCOL_FEATURES)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        if features & !PROTOCOL_FEATURES.bits() == 0 { Ok(()) } else { Err(Error::InvalidParam) }
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(QUEUES as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.ring(index as usize)?.enabled = enable;
        Ok(())
    }

    // What follows belongs to features that are not offered.

    fn get_config(&mut self, _: u32, _: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Err(UNSUPPORTED)
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(UNSUPPORTED)
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(UNSUPPORTED)
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Err(UNSUPPORTED)
    }

    fn add_mem_region(&mut self, _: &VhostUserSingleMemoryRegion, _: File) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(UNSUPPORTED)
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(UNSUPPORTED)
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(UNSUPPORTED)
    }
}

use crate::config::Serial;
use crate::devices::virtio::DeviceError;
use crate::devices::virtio::chain::{Buffers, Chain};
use crate::memory::GuestMemory;
use virtio_queue::DescriptorChain;
use vm_memory::VolatileSlice;

/// Bytes of a sector (virtio 1.3 §5.2.4).
pub(super) const SECTOR: u64 = 512;

/// Most buffers of data in a request, and most bytes in one of them: what the driver is told.
pub(super) const MAX_SEGMENTS: u16 = 126;
pub(super) const MAX_SEGMENT: u32 = 64 << 10;
/// Most bytes of data in a request, 8 MiB: tens of milliseconds even of a slow disk.
const MAX_DATA: u64 = MAX_SEGMENTS as u64 * MAX_SEGMENT as u64;

/// Descriptors of the longest request: one for its header, one for its status, and those between.
pub(super) const QUEUE_SIZE: u16 = MAX_SEGMENTS + 2;

/// Type, 4 reserved bytes, sector.
const HEADER: usize = 16;
/// Bytes of the answer to [`Kind::Identify`].
pub(super) const SERIAL: usize = Serial::MAX;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;

/// What is asked for (virtio 1.3 §5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Flush,
    Identify,
    Unknown,
}

/// A request whose buffers are in guest memory and fit what it asks for. Only the sector has not
/// been held against anything.
#[derive(Debug)]
pub(super) struct Request<'m> {
    pub(super) kind: Kind,
    pub(super) sector: u64,
    /// What is to be filled or written; empty for requests without data.
    pub(super) data: Buffers<'m>,
    /// One byte, the last that can be written.
    pub(super) status: VolatileSlice<'m>,
    /// How many bytes that can be written are before it.
    pub(super) before_status: u64,
}

impl<'m> Request<'m> {
    /// Reads a request's descriptors and header, each once.
    ///
    /// # Errors
    /// [`DeviceError::Driver`] for what no driver sends: then there may be no place for an answer.
    pub(super) fn read(
        chain: DescriptorChain<&GuestMemory>,
        memory: &'m GuestMemory,
    ) -> Result<Self, DeviceError> {
        let Chain { mut readable, mut writable } = Chain::read(chain, memory, QUEUE_SIZE)?;
        let mut header = [0; HEADER];
        if !readable.take_first(&mut header) {
            return Err(DeviceError::Driver("disk request without a header"));
        }
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let Some(status) = writable.take_last_byte() else {
            return Err(DeviceError::Driver("disk request without a place for its status"));
        };
        let before_status = writable.length();
        let (kind, data, other) = match u32::from_le_bytes([t0, t1, t2, t3]) {
            TYPE_IN => (Kind::Read, writable, readable),
            TYPE_OUT => (Kind::Write, readable, writable),
            TYPE_GET_ID => (Kind::Identify, writable, readable),
            // "A driver SHOULD NOT include any data in a VIRTIO_BLK_T_FLUSH request" (§5.2.6.1):
            // it may be there, and be ignored.
            TYPE_FLUSH => (Kind::Flush, Buffers::default(), Buffers::default()),
            _ => (Kind::Unknown, Buffers::default(), Buffers::default()),
        };
        let fits = match kind {
            Kind::Read | Kind::Write => data.length().is_multiple_of(SECTOR),
            Kind::Identify => data.length() == SERIAL as u64,
            Kind::Flush | Kind::Unknown => true,
        };
        if !fits || other.length() != 0 {
            return Err(DeviceError::Driver("data that does not go with the disk request"));
        }
        if data.length() > MAX_DATA {
            return Err(DeviceError::Driver("more data than a disk request may have"));
        }
        Ok(Self { kind, sector: u64::from_le_bytes(sector), data, status, before_status })
    }
}

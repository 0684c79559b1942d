use crate::config::Serial;
use crate::devices::virtio::DeviceError;
use crate::memory::GuestMemory;
use virtio_queue::DescriptorChain;
use vm_memory::{GuestMemory as _, Permissions, VolatileSlice};

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
        let (mut readable, mut writable) = (Buffers::default(), Buffers::default());
        let (mut unfinished, mut answer, mut count) = (true, false, 0);
        for descriptor in chain {
            count += 1;
            if count > usize::from(QUEUE_SIZE) {
                // No queue is that long, but a table of indirect descriptors could be.
                return Err(DeviceError::Driver("more buffers than a disk request may have"));
            }
            unfinished = descriptor.has_next();
            answer |= descriptor.is_write_only();
            let (buffers, access) = match (descriptor.is_write_only(), answer) {
                (true, _) => (&mut writable, Permissions::Write),
                (false, false) => (&mut readable, Permissions::Read),
                (false, true) => {
                    return Err(DeviceError::Driver("buffer to read after one to write"));
                }
            };
            let slices = memory.get_slices(descriptor.addr(), descriptor.len() as usize, access);
            for slice in slices.map_err(outside)? {
                buffers.push(slice.map_err(outside)?);
            }
        }
        if unfinished {
            return Err(DeviceError::Driver("chain without an end"));
        }

        let mut header = [0; HEADER];
        if !readable.take_first(&mut header) {
            return Err(DeviceError::Driver("disk request without a header"));
        }
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let Some(status) = writable.take_last_byte() else {
            return Err(DeviceError::Driver("disk request without a place for its status"));
        };
        let before_status = writable.length;
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
            Kind::Read | Kind::Write => data.length.is_multiple_of(SECTOR),
            Kind::Identify => data.length == SERIAL as u64,
            Kind::Flush | Kind::Unknown => true,
        };
        if !fits || other.length != 0 {
            return Err(DeviceError::Driver("data that does not go with the disk request"));
        }
        if data.length > MAX_DATA {
            return Err(DeviceError::Driver("more data than a disk request may have"));
        }
        Ok(Self { kind, sector: u64::from_le_bytes(sector), data, status, before_status })
    }
}

fn outside(_error: vm_memory::GuestMemoryError) -> DeviceError {
    DeviceError::Driver("buffer outside of memory")
}

/// Ranges of guest memory, none of them empty.
#[derive(Debug, Default)]
pub(super) struct Buffers<'m> {
    slices: Vec<VolatileSlice<'m>>,
    length: u64,
}

impl<'m> Buffers<'m> {
    pub(super) fn slices(&self) -> &[VolatileSlice<'m>] {
        &self.slices
    }

    /// Bytes in all of them together.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Writes to the buffers, as much as there is room for.
    pub(super) fn fill(&self, mut bytes: &[u8]) {
        for slice in &self.slices {
            let length = slice.len().min(bytes.len());
            let (now, later) = bytes.split_at(length);
            slice.copy_from(now);
            bytes = later;
        }
    }

    fn push(&mut self, slice: VolatileSlice<'m>) {
        if !slice.is_empty() {
            // A chain has less than 2^32 bytes.
            self.length += slice.len() as u64;
            self.slices.push(slice);
        }
    }

    /// Moves the first bytes to `bytes`; false if there are too few.
    fn take_first(&mut self, bytes: &mut [u8]) -> bool {
        let mut taken = 0;
        while taken < bytes.len() {
            let Some(first) = self.slices.first_mut() else { return false };
            let count = first.copy_to(&mut bytes[taken..]);
            match first.offset(count) {
                Ok(rest) if !rest.is_empty() => *first = rest,
                _ => {
                    self.slices.remove(0);
                }
            }
            self.length -= count as u64;
            taken += count;
        }
        true
    }

    /// Takes the last byte away, if there is one.
    fn take_last_byte(&mut self) -> Option<VolatileSlice<'m>> {
        let last = self.slices.pop()?;
        let (front, byte) = last.split_at(last.len().checked_sub(1)?).ok()?;
        self.length -= 1;
        if !front.is_empty() {
            self.slices.push(front);
        }
        Some(byte)
    }
}

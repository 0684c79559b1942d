//! A chain of buffers that a driver offers (virtio 1.3 §2.7.4, §2.7.5), read once and checked.

use super::DeviceError;
use crate::memory::GuestMemory;
use virtio_queue::DescriptorChain;
use vm_memory::{GuestMemory as _, Permissions, VolatileSlice};

/// The buffers of a chain: those to read come first, then those to write.
#[derive(Debug, Default)]
pub(super) struct Chain<'m> {
    /// What the driver tells the device.
    pub(super) readable: Buffers<'m>,
    /// Room for what the device tells the driver.
    pub(super) writable: Buffers<'m>,
}

impl<'m> Chain<'m> {
    /// Reads a chain's descriptors, each once.
    ///
    /// # Errors
    /// [`DeviceError::Driver`] for what no driver offers: a chain that has no end or more than
    /// `most` buffers, one in the wrong order, or a buffer that is not in memory.
    pub(super) fn read(
        chain: DescriptorChain<&GuestMemory>,
        memory: &'m GuestMemory,
        most: u16,
    ) -> Result<Self, DeviceError> {
        let mut buffers = Self::default();
        let (mut unfinished, mut answer, mut count) = (true, false, 0);
        for descriptor in chain {
            count += 1;
            if count > most {
                // No queue is that long, but a table of indirect descriptors could be.
                return Err(DeviceError::Driver("more buffers than a chain may have"));
            }
            unfinished = descriptor.has_next();
            answer |= descriptor.is_write_only();
            let (buffers, access) = match (descriptor.is_write_only(), answer) {
                (true, _) => (&mut buffers.writable, Permissions::Write),
                (false, false) => (&mut buffers.readable, Permissions::Read),
                (false, true) => {
                    return Err(DeviceError::Driver("buffer to read after one to write"));
                }
            };
            let slices = memory.get_slices(descriptor.addr(), descriptor.len() as usize, access);
            for slice in slices.map_err(outside)? {
                buffers.push(slice.map_err(outside)?);
            }
        }
        if unfinished { Err(DeviceError::Driver("chain without an end")) } else { Ok(buffers) }
    }

    /// The buffers of a queue that is the device's to read.
    ///
    /// # Errors
    /// [`DeviceError::Driver`] if there is one to write.
    pub(super) fn only_to_read(self) -> Result<Buffers<'m>, DeviceError> {
        match self.writable.length {
            0 => Ok(self.readable),
            _ => Err(DeviceError::Driver("buffer to write where the device only reads")),
        }
    }

    /// The buffers of a queue that is the device's to write.
    ///
    /// # Errors
    /// [`DeviceError::Driver`] if there is one to read.
    pub(super) fn only_to_write(self) -> Result<Buffers<'m>, DeviceError> {
        match self.readable.length {
            0 => Ok(self.writable),
            _ => Err(DeviceError::Driver("buffer to read where the device only writes")),
        }
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

    /// Writes to the buffers, one after the other, as much as there is room for.
    pub(super) fn fill(&self, parts: &[&[u8]]) {
        let mut slices = self.slices.iter().copied();
        let mut room: Option<VolatileSlice<'m>> = slices.next();
        for mut bytes in parts.iter().copied() {
            while let Some(slice) = room.filter(|_| !bytes.is_empty()) {
                let length = slice.len().min(bytes.len());
                let (now, later) = bytes.split_at(length);
                slice.copy_from(now);
                bytes = later;
                room = match slice.offset(length) {
                    Ok(rest) if !rest.is_empty() => Some(rest),
                    _ => slices.next(),
                };
            }
        }
    }

    fn push(&mut self, slice: VolatileSlice<'m>) {
        if !slice.is_empty() {
            // There are at most 2^16 slices of less than 2^32 bytes.
            self.length += slice.len() as u64;
            self.slices.push(slice);
        }
    }

    /// Moves the first bytes to `bytes`; false if there are too few.
    pub(super) fn take_first(&mut self, bytes: &mut [u8]) -> bool {
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
    pub(super) fn take_last_byte(&mut self) -> Option<VolatileSlice<'m>> {
        let last = self.slices.pop()?;
        let (front, byte) = last.split_at(last.len().checked_sub(1)?).ok()?;
        self.length -= 1;
        if !front.is_empty() {
            self.slices.push(front);
        }
        Some(byte)
    }
}

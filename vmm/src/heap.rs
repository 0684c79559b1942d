//! The C library's allocator, as the filters need it.

/// Buffers up to this size come from the heap; it is the most that the allocator takes as such a
/// limit, and far more than any buffer of the monitor's while a guest runs.
const LARGE: libc::c_int = 32 << 20;

/// Makes all threads allocate from one heap, which grows by brk(2) alone. Otherwise each thread
/// would map a heap of its own, and large buffers, so that its filter had to allow to map memory;
/// and it costs the host more. To be called before there is a second thread.
pub fn keep_one() {
    for (parameter, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, LARGE)] {
        // SAFETY: the parameters are known to the allocator, and no other thread allocates.
        unsafe { libc::mallopt(parameter, value) };
    }
}

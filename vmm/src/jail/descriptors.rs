//! Open files: those that the configuration names, and the standard streams.

use super::{JailError, failed};
use std::io;
use std::os::fd::RawFd;

/// Closes every other descriptor. Nothing in this process owns one yet but by these numbers.
pub fn keep_only(kept: &[RawFd]) -> Result<(), JailError> {
    let mut kept: Vec<u32> = kept.iter().map(|descriptor| descriptor.unsigned_abs()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for descriptor in kept {
        close(first, descriptor.wrapping_sub(1))?;
        first = descriptor + 1;
    }
    close(first, u32::MAX)
}

fn close(first: u32, last: u32) -> Result<(), JailError> {
    if first > last {
        return Ok(());
    }
    // SAFETY: the descriptors that are used later are outside of the range, and those in it are
    // nobody's: the process has opened nothing that is still open.
    if unsafe { libc::close_range(first, last, 0) } == 0 {
        return Ok(());
    }
    Err(failed("close inherited descriptors")(io::Error::last_os_error()))
}

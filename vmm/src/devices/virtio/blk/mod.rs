//! The block device (virtio 1.3 §5.2): a file of the host's, in sectors of 512 bytes.
//!
//! One queue. Requests to read, to write, to flush and for the disk's serial number; anything else
//! is unsupported, and so is flushing a disk that is read-only. Offered:
//!
//! - `VIRTIO_BLK_F_SEG_MAX`: without it the driver sends one page at a time.
//! - `VIRTIO_BLK_F_SIZE_MAX`: with the above it bounds what one request may ask for. The queue's
//!   owner may have to wait for a request, see below, and that should be no matter of gigabytes.
//! - `VIRTIO_BLK_F_RO`, or else `VIRTIO_BLK_F_FLUSH`: a write is in the host's page cache when it
//!   is answered and on the disk after a flush. For a driver that doesn't flush each write is on
//!   the disk when it is answered (virtio 1.3 §5.2.6.2).
//! - `VIRTIO_F_EVENT_IDX`: a kick or an interrupt saved is an exit saved.
//!
//! Not offered: `VIRTIO_BLK_F_BLK_SIZE`, since 512 is what holds without it, and a larger block
//! would keep file systems with smaller ones from being mounted; `VIRTIO_F_INDIRECT_DESC`, since
//! requests are served one after the other, so that a longer backlog speeds nothing up, and each
//! indirect table costs the driver an allocation and the device one more thing to check. Each of
//! them would cost accesses to registers at every boot, too.
//!
//! # Where the work is done
//!
//! On a thread of the disk's own, which is there before the guest runs, since no filter allows to
//! start one later ([`crate::threads`]). It waits for DRIVER_OK and then sleeps on the kick itself, as
//! a vhost device does. A read from a cold disk or a flush may take the host many milliseconds, and
//! the main loop, which passes on the streams of the pod's apps, can't wait for that. The other way
//! would be to read what is in the host's page cache on the main loop (`RWF_NOWAIT`) and the rest
//! elsewhere: two paths for each request, and half of the thread all the same. A thread costs two
//! pages of stack. The main loop isn't woken for disks but when one of them fails.
//!
//! Nobody else waits for that thread, so a guest that never lets it sleep takes time from its own
//! pod only. Between any two requests it looks whether it is to stop: a reset waits for one request
//! at most.
//!
//! # What is where
//!
//! - `request`: one request, read once and checked.
//! - `backend`: the file. Data goes between it and the guest's buffers without a copy in between.
//! - `device`: queue and thread.

mod backend;
mod device;
mod request;

#[cfg(test)]
mod tests;

pub use backend::{Backend, DiskError};
pub use device::{Blk, Requests};

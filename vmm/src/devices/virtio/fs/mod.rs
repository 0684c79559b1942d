//! The file system device (virtio 1.3 §5.11), served by another process.
//!
//! Two queues: high priority (FORGET, INTERRUPT) and requests. The monitor is the front end of the
//! vhost-user protocol and no more: it tells the worker where memory and queues are; from then on
//! guest and worker talk through shared memory, with KVM passing kicks and interrupts. Any
//! vhost-user back end for virtio-fs will do.

mod backend;
mod device;

pub use device::Fs;

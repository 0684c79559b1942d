//! PID 1 of the guest.
//!
//! A pod's start, in the order in which it happens:
//!
//! 1. The kernel executes `/init`, the only file of the initramfs. It mounts `/dev` and says on
//!    the console that it is up ([`mounts`], [`console`]).
//! 2. It dials the host and says hello ([`host`]). While the host answers, it leaves the initramfs
//!    for a root of its own and mounts the cgroup hierarchy.
//! 3. It receives the [`Pod`](sandbox_protocol::Pod), mounts images from their disks, each through
//!    dm-verity with the root hash that the host has named (`image`), mounts the scratch disk and
//!    the host's shares, and makes the pod's PID namespace (`process`).
//! 4. If the pod's launch is in the host's TPM, it makes a key and sends the public half. Secrets
//!    that come back, sealed for that key, become files in memory (`secrets`); and it listens at a
//!    socket for apps that ask for evidence of where they run (`evidence`).
//! 5. For each app it connects the streams and forks into the app's cgroup. The new process makes
//!    its own root in its own mount namespace, becomes the app's user, and executes the program
//!    (`app`).
//! 6. One loop relays the streams, passes signals on, and reports what ends and what of an image
//!    is not what was verified ([`pod`]). No thread is ever made, so that a forked process can do
//!    all of that in plain code.
//! 7. When every app has ended, what is left is killed, volumes are written back, and the machine
//!    is reset.
//!
//! Apps are kept apart from guest-init and from each other as containers are; what keeps them from
//! the host is the machine. Nothing here decides about trust: the host does.

mod app;
mod cgroup;
pub mod console;
pub mod disk;
mod dm;
mod error;
mod evidence;
pub mod host;
mod image;
pub mod mounts;
mod network;
pub mod pod;
mod process;
mod relay;
mod secrets;
mod uevent;

pub use error::Error;

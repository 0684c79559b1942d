//! The virtio-fs worker: serves shares of the host to one virtual machine, over vhost-user.
//!
//! A worker serves one device. Each share is an entry of the device's root directory, either a
//! directory or a single file, announced to the guest as a mount of its own.
//!
//! The `virtiofsd` crate is the file server. What is added here is confinement, and its order is
//! the point ([`worker::run`]):
//!
//! 1. nothing inherited stays open but the listening socket and standard error ([`confine`]);
//! 2. the process moves into namespaces whose root directory holds the shares only ([`view`]);
//! 3. privileges are dropped to what a file server needs ([`confine`]);
//! 4. system calls are limited to those it makes ([`filter`]);
//! 5. only then does the worker accept its one frontend and read what a guest wrote ([`device`]),
//!    and every request passes [`guard`] before it reaches the file server.
//!
//! The worker has one thread and ends when its frontend hangs up.

pub mod confine;
pub mod device;
pub mod diagnostics;
pub mod filter;
pub mod footprint;
pub mod guard;
pub mod share;
pub mod view;
pub mod worker;

//! The socket device (virtio 1.3 §5.10): stream connections that the guest opens to the host.
//!
//! Three queues: receive (host to guest), transmit, and events, which are never sent. Offered:
//! `VIRTIO_F_EVENT_IDX`, since each interrupt saved saves two exits.
//!
//! The monitor has no names to connect to: each connection is one end of a socket pair, and the
//! other end goes to the supervisor, whatever the port. Only the supervisor knows what is behind a
//! port. Guests have no way to each other.
//!
//! - [`packet`]: the header, read once and checked.
//! - [`connection`]: one connection: credit, half-closing, what is owed to the guest.
//! - `device`: queues, connections, fairness.

pub mod connection;
mod device;
pub mod packet;

#[cfg(test)]
mod tests;

pub use device::Vsock;

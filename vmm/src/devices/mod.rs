//! What the guest finds on its buses.

pub mod console;
pub mod ioapic;
pub mod virtio;

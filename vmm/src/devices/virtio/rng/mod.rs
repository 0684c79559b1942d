//! The entropy device (virtio 1.3 §5.4): one queue, whose buffers are filled with random bytes of
//! the host's kernel. It offers no features of its own.

mod device;

#[cfg(test)]
mod tests;

pub use device::Rng;

//! Secrets for the guest that evidence is about: sealed here, opened by guest-init alone.
//!
//! The key is [`Evidence::guest_key`](crate::evidence::Evidence::guest_key), which the quote's
//! qualifying data covers: whoever seals for it has verified the evidence first.

pub use sandbox_protocol::secret::{
    KEY, MAX, MAX_COUNT, MAX_NAME, OVERHEAD, PrivateKey, SecretError, is_name, seal, seal_for,
};

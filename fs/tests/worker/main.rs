//! The real worker process, driven by a frontend that plays monitor and guest: it shares memory
//! with the worker and sends FUSE requests of its own making.
//!
//! Needs root: the worker makes mount namespaces.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "this is all test code, and it fails by panicking"
)]

mod confinement;
mod garbage;
mod guest;
mod life;
mod limits;
mod posix;
mod races;

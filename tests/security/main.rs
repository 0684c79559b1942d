//! What an image, a guest or a volume must not reach.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail their test")]

mod hostile;
mod images;
mod isolation;
mod permit;
mod volumes;

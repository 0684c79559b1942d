//! Whatever fails, ends or is killed: one clear line, the right status, nothing left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail their test")]

mod failures;
mod kills;
mod signals;

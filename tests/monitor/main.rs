//! sandbox-vmm by itself: how a microVM ends is told as what it was.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail their test")]

mod disks;
mod ends;
mod filters;
mod process;
mod virtiofsd;

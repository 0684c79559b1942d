//! What the manual says happens, happens.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail their test")]

mod apps;
mod doctor;
mod formats;
mod many;
mod resources;
mod run;
mod terminal;
mod volumes;
mod workload;

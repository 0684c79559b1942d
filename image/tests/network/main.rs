//! Fetching from servers that are hostile, broken or only slow.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod auth;
mod http;
mod registry;
mod server;
mod signatures;

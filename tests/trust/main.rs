//! Which images may run: real keys, real signatures, a real registry behind TLS, and what an
//! attacker or a careless host makes of them. Nothing here switches a check off unless it says so.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod aci;
mod cases;
mod cosign;
mod later;
mod openpgp;
mod policies;
mod rules;
mod world;

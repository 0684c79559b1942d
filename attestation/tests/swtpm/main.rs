//! `sandbox-attest` against a TPM in software, held against independent tools for TPMs.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on stops")]

mod concurrency;
mod confinement;
mod crashes;
mod keys;
mod launches;
mod place;
mod proxy;
mod refusals;
mod sealing;

//! Measured launches with the test host's TPM: what is written into it, what can be proven of it,
//! and what is refused. What the verifier makes of evidence that was tampered with is tested where
//! it is (attestation/src/verify/tests); what a kill between any two steps leaves, in
//! attestation/tests/swtpm, too.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod crowd;
mod enrolment;
mod inside;
mod kills;
mod listed;
mod proofs;
mod refusals;
mod secrets;
mod served;
mod service;
mod tpm;

//! Measured launch: what was launched, written into a TPM before it runs, and the proof of it that
//! others can check without a TPM and without trusting this host's word.
//!
//! ```text
//! Record ─Event::Launch─▶ Entry ─append, fdatasync─▶ log ─extend─▶ PCR ─(then)─▶ the pod runs
//!                                                     │             │
//!                              a verifier ◀── replay ─┘   = ?       └─ quote
//! ```
//!
//! - [`record`] is what is measured: one document for each launch, and what is written when a log
//!   begins and when a pod ends.
//! - [`canonical`] makes one sequence of bytes of a document, whose digest is extended.
//! - [`log`] holds these documents in the order in which they were extended: reading, replaying,
//!   appending, recovering after a crash, and other encodings of it.
//! - [`session`] asks the one program that opens the TPM and writes the log, `sandbox-attest`;
//!   [`settings`] says which TPM, and where the log is.
//! - [`evidence`] is the file that proves what runs, and what a quote is asked for with.
//! - [`verify`] checks evidence, everywhere, and says what it found.
//! - [`credential`] makes the challenge that only the TPM with the right keys can answer.
//! - [`enrol`] uses that to find out whether a host's keys are a TPM's.
//! - [`secret`] seals secrets for the guest that evidence is about.
//! - [`sealed`] is a secret whose key this host's TPM keeps.
//! - [`service`] is the verifier for a team: documents over HTTP, its server and its client.
//! - [`wire`] reads what a TPM says.
#![forbid(unsafe_code)]

pub mod canonical;
pub mod credential;
pub mod enrol;
pub mod evidence;
pub mod log;
pub mod record;
pub mod sealed;
pub mod secret;
pub mod service;
pub mod session;
pub mod settings;
pub mod verify;
pub mod wire;

pub use log::{Bank, Pcrs};

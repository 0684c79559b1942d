//! The verifier service: it verifies evidence for hosts that are enrolled with it, says so with its
//! signature, and gives secrets to pods that it has verified.
//!
//! ```text
//! host                                                    service
//!   │ POST /v1/challenge  {version, host, pod}              │
//!   │ ◀────────────────── {version, nonce, life, select} ── │ of use once, for this host and pod
//!   │ (measured launch, quote over the nonce)               │
//!   │ POST /v1/evidence   {version, evidence, secrets}      │
//!   │ ◀────────────────── {version, token, verdict,      ── │ verify(), token, verdict kept;
//!   │                      secrets, withheld}               │ secrets for the guest's key alone
//! ```
//!
//! HTTP/1.1 over TLS, one request for each connection, strict JSON ([`Document`]). A refusal has a
//! status of 4xx or 5xx and `{"version":1,"error":"…"}`.
//!
//! - [`Client`] is the host's side.
//! - [`Service`] decides; it knows no network. [`Server`] is the network.
//! - [`Directory`] is what it knows: hosts, policies, rules, secrets, and the verdicts it keeps.

mod client;
mod confine;
mod directory;
mod document;
mod http;
mod judge;
mod limit;
mod nonce;
mod server;
mod settings;
#[cfg(test)]
mod tests;
mod verdicts;

pub use client::{Answer, Challenge, Client, ClientError};
pub use confine::{ConfineError, Confined, confine};
pub use directory::{Directory, DirectoryError};
pub use document::{
    ChallengeAnswer, ChallengeRequest, Document, DocumentError, ErrorAnswer, EvidenceAnswer,
    EvidenceRequest, MAX_ANSWER, MAX_REQUEST, MAX_SECRETS, NameError, Sealed, SecretName, Withheld,
};
pub use http::{Endpoint, Head, HeadError, MAX_HEAD};
pub use judge::{Notice, Refusal, Service};
pub use limit::Rate;
pub use nonce::NonceProblem;
pub use server::{Log, Server, ServerError};
pub use settings::{Accept, Limits, Rule, SecretRule, ServiceSettings};

/// Where a challenge is asked for, below the service's URL.
pub const CHALLENGE: &str = "/v1/challenge";

/// Where evidence is sent.
pub const EVIDENCE: &str = "/v1/evidence";

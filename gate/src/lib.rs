//! The launch decision: which images this host lets run. Nothing starts without a
//! [`LaunchPermit`], and only [`decide`] makes one.
//!
//! ```text
//! policy.json ─┐
//! gate.d/*.json ├─HostPolicy::load─▶ HostPolicy ─┐
//! trustedkeys/ ─┘                                 ├─judge─▶ Judgement ─(all allowed)─▶ LaunchPermit
//! an image: name, digests, signatures ─▶ Subject ─┘
//! ```
//!
//! The gate is asked at every launch, about every image that a pod is made of, however it was
//! named and whenever it was fetched. What decides:
//!
//! - Images of OCI and Docker: containers-policy.json(5), see [`policy`]. Without a file every one
//!   is refused.
//! - App Container Images: rkt's `trustedkeys`, by the name in the image's manifest, see
//!   [`keystore`]; or the policy's transport `aci`, where one of its scopes holds the image.
//! - `--insecure-options=image` lets an image run that these refuse. It does not touch the next.
//! - `gate.d/*.json`: the host's rules against rollback, see [`rollback`]. An image that somebody
//!   signed once stays signed; these say how old it may be.
//!
//! Texts in a [`Judgement`] and in errors can be shown: what comes from an image in them is
//! escaped.
//!
//! A permit can't be had in another way:
//!
//! ```compile_fail
//! let permit = sandbox_gate::LaunchPermit { decisions: Vec::new() };
//! ```
//! ```compile_fail
//! fn twice(permit: &sandbox_gate::LaunchPermit) -> sandbox_gate::LaunchPermit { permit.clone() }
//! ```
//! ```compile_fail
//! fn read<T: serde::de::DeserializeOwned>() {}
//! read::<sandbox_gate::LaunchPermit>();
//! ```
//! ```compile_fail
//! let permit = sandbox_gate::LaunchPermit::default();
//! ```
#![forbid(unsafe_code)]

mod host;
mod instant;
mod judge;
pub mod keystore;
pub mod openpgp;
mod payload;
mod permit;
pub mod policy;
pub mod rollback;
pub mod sigstore;
mod source;
mod strict;
mod subject;
mod version;

pub use host::{HostPolicy, Paths, PolicyError};
pub use judge::{Judgement, Outcome, judge};
pub use openpgp::{OpenPgpError, verify_detached};
pub use payload::{Payload, PayloadKind};
pub use permit::{Decision, LaunchPermit, Refusal, decide};
pub use source::SourceError;
pub use strict::JsonError;
pub use subject::{Identity, Subject};

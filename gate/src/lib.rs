//! The launch decision: which pods this host lets run. Nothing starts without a [`LaunchPermit`], and
//! there is one way to it.
//!
//! ```text
//! policy.json ──┐
//! gate.d/*.json ├─HostPolicy::load─▶ HostPolicy ─┐
//! trustedkeys/ ─┘                                ├─decide─▶ Approval ─permit─▶ LaunchPermit
//! each image: name, digests, signatures ▶ Subject┤             ▲                   │
//! the pod, options and defaults applied ▶ Launch ┘          Measured     Permitted::new(pod, ·)
//! ```
//!
//! The gate is asked at every launch, about every image that a pod is made of, however it was
//! named and whenever it was fetched, and about the pod as it would be launched. What decides:
//!
//! - Images of OCI and Docker: containers-policy.json(5), see [`policy`]. Without a file every one
//!   is refused.
//! - App Container Images: rkt's `trustedkeys`, by the name in the image's manifest, see
//!   [`keystore`]; or the policy's transport `aci`, where one of its scopes holds the image.
//! - `--insecure-options=image` lets an image run that these refuse. It does not touch the next.
//! - `gate.d/*.json`: the host's own rules, see [`rules`]: how old an image may be and whether it has
//!   to be signed whatever the policy says; which kernels, volumes, networks and capabilities a pod
//!   may have; whether it has to have a label, and to be measured into the TPM first.
//!
//! Everything that speaks against a launch is said at once, in a [`Refusal`]. Texts in a
//! [`Judgement`], a [`Refusal`] and in errors can be shown: what comes from an image in them is
//! escaped.
//!
//! # By types
//!
//! Each step takes what the one before made, by value, so that none can be left out or done twice:
//!
//! - [`decide`] makes an [`Approval`]. Whatever prepares a pod takes that, and compares what it
//!   prepares with it ([`Approval::covers`], [`Approval::is_for`]).
//! - [`Approval::permit`] makes the [`LaunchPermit`] of one pod, if that was measured as far as
//!   [`Approval::demands`] says.
//! - [`Permitted`] holds a pod and the permit for its UUID. Whatever starts pods takes that.
//!
//! ```
//! use sandbox_gate::{Approval, Measured, Permitted, Pod, Refusal};
//!
//! struct Prepared(String);
//! impl Pod for Prepared {
//!     fn uuid(&self) -> String {
//!         self.0.clone()
//!     }
//! }
//!
//! fn start(_: Permitted<Prepared>) {}
//!
//! fn launch(approval: Approval, pod: Prepared, measured: Option<Measured>) -> Result<(), Refusal> {
//!     let permit = approval.permit(&pod.0, measured)?;
//!     start(Permitted::new(pod, permit).unwrap());
//!     Ok(())
//! }
//! ```
//!
//! None of the three can be had in another way. They have no public fields:
//!
//! ```compile_fail,E0451
//! let (pod, decisions) = (String::new(), Vec::new());
//! let permit = sandbox_gate::LaunchPermit { pod, decisions, measured: None };
//! ```
//! ```compile_fail,E0451
//! fn of(launch: sandbox_gate::Launch) -> sandbox_gate::Approval {
//!     let demands = Default::default();
//!     sandbox_gate::Approval { launch, decisions: Vec::new(), demands }
//! }
//! ```
//! ```compile_fail,E0451
//! fn of(permit: sandbox_gate::LaunchPermit) -> sandbox_gate::Permitted<u8> {
//!     sandbox_gate::Permitted { pod: 1, permit }
//! }
//! ```
//!
//! They can't be copied, nor used twice:
//!
//! ```compile_fail,E0277
//! fn copies<T: Clone>() {}
//! copies::<sandbox_gate::Approval>();
//! ```
//! ```compile_fail,E0277
//! fn copies<T: Clone>() {}
//! copies::<sandbox_gate::LaunchPermit>();
//! ```
//! ```compile_fail,E0277
//! fn copies<T: Clone>() {}
//! copies::<sandbox_gate::Permitted<u8>>();
//! ```
//! ```compile_fail,E0382
//! fn twice(approval: sandbox_gate::Approval) {
//!     let first = approval.permit("a", None);
//!     let second = approval.permit("b", None);
//! }
//! ```
//!
//! They can't be read from a file, and there is none to begin with:
//!
//! ```compile_fail,E0277
//! fn reads<T: serde::de::DeserializeOwned>() {}
//! reads::<sandbox_gate::Approval>();
//! ```
//! ```compile_fail,E0277
//! fn reads<T: serde::de::DeserializeOwned>() {}
//! reads::<sandbox_gate::LaunchPermit>();
//! ```
//! ```compile_fail,E0277
//! fn reads<T: serde::de::DeserializeOwned>() {}
//! reads::<sandbox_gate::Permitted<u8>>();
//! ```
//! ```compile_fail,E0277
//! fn defaults<T: Default>() {}
//! defaults::<sandbox_gate::Approval>();
//! ```
//! ```compile_fail,E0277
//! fn defaults<T: Default>() {}
//! defaults::<sandbox_gate::LaunchPermit>();
//! ```
//! ```compile_fail,E0277
//! fn defaults<T: Default>() {}
//! defaults::<sandbox_gate::Permitted<u8>>();
//! ```
//!
//! An approval is not yet a permit, and what is not permitted can't be put in its place:
//!
//! ```compile_fail,E0308
//! fn at_once(pod: impl sandbox_gate::Pod, approval: sandbox_gate::Approval) {
//!     let pod = sandbox_gate::Permitted::new(pod, approval);
//! }
//! ```
#![forbid(unsafe_code)]

mod host;
mod instant;
mod judge;
pub mod keystore;
mod launch;
mod measured;
pub mod openpgp;
mod payload;
mod permit;
mod permitted;
pub mod policy;
mod reason;
mod refusal;
pub mod rules;
pub mod sigstore;
mod source;
mod strict;
mod subject;
mod version;

pub use host::{HostPolicy, Paths, PolicyError};
pub use judge::{Judgement, Outcome, judge};
pub use launch::{Launch, LaunchVolume, Program};
pub use measured::{Measured, Verifier};
pub use openpgp::{OpenPgpError, verify_detached};
pub use payload::{Payload, PayloadKind};
pub use permit::{Approval, Decision, Demands, LaunchPermit, decide};
pub use permitted::{NotPermitted, Permitted, Pod};
pub use reason::Reason;
pub use refusal::{Refusal, RefusedImage};
pub use rules::{Answer, Check, DigestsAsked};
pub use source::SourceError;
pub use strict::JsonError;
pub use subject::{Identity, Subject};

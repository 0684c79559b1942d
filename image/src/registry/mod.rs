//! Registries of images (distribution-spec 1.1).
//!
//! ```text
//! RegistryReference ──Rules──▶ Places ──Client──▶ Document (manifest, index), blobs, referrers
//! ```
//!
//! [`Client`] runs in the fetcher, which can read neither files of the host nor its environment:
//! all that it needs to know is in [`Options`], which the parent makes. Whatever a registry or
//! mirror sends is checked against the digest that it was named by; only what a tag is has to be
//! believed, which is what signatures are for. URLs in descriptors are never used.

mod challenge;
mod client;
mod error;
mod link;
mod lookaside;
mod options;
mod pull;
mod push;
mod reference;
mod referrers;
mod rules;
mod signatures;
mod token;

pub use challenge::{Challenge, ChallengeError, parse_challenges};
pub use client::Client;
pub use error::Error;
pub use link::parse_next;
pub use lookaside::{Lookaside, LookasideError, Lookasides};
pub use options::{Credential, Credentials, Options};
pub use pull::{Document, MAX_MANIFEST};
pub use reference::{DOCKER_IO, RegistryReference, RegistryReferenceError};
pub use referrers::{Referrer, parse_referrers};
pub use rules::{Place, Rules, RulesError};
pub use signatures::{Layer, parse_artifact, signatures};
pub use token::parse_token;

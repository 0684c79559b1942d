//! containers-policy.json(5): which images may run, by where they come from and who signed them.
//!
//! The file is read strictly: a member that is not known, or is there twice, anywhere, refuses the
//! whole file. What is known but not supported here is read, checked for its form, and refuses the
//! images that it applies to; it is never left out.
//!
//! | | here |
//! |---|---|
//! | `insecureAcceptAnything`, `reject` | as the manual says |
//! | `signedBy` | keyType `GPGKeys`; the other types refuse the image |
//! | `sigstoreSigned` | with keys; `fulcio`, `pki` and `rekorPublicKey…` refuse the image |
//! | `signedBaseLayer` | refuses the image |
//! | `signedIdentity` | all six types, and [`SignedIdentity::MatchDigest`] |
//! | transports | those of the manual, and `aci` (scopes are beginnings of an ACI's name) |
//!
//! Stricter than the manual: paths of keys are absolute, transports are known ones, and a scope
//! that can't hold any image (`busybox`, `example*.*.com`, `/a/../b`) is an error and not ignored.

mod docker_reference;
mod identity;
mod parse;
mod scope;

pub(crate) use docker_reference::DockerReference;
pub use identity::SignedIdentity;
pub(crate) use scope::{Place, is_ac_identifier, is_clean_path, is_docker_prefix, prefixes};

use crate::strict::JsonError;
use std::{collections::BTreeMap, path::PathBuf};

/// A policy, as its file says. The keys that it names have not been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    default: Vec<Requirement>,
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// One requirement. An image has to meet all of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// Holds for every image.
    InsecureAcceptAnything,
    /// Holds for no image.
    Reject,
    /// A simple signature (or, for an ACI, a detached one) by one of these OpenPGP keys.
    SignedBy {
        /// The keyrings.
        keys: KeySource,
        /// The name that it has to give; an ACI's signature gives none.
        identity: SignedIdentity,
    },
    /// A sigstore signature by one of these keys.
    SigstoreSigned {
        /// The keys, one each, in PEM.
        keys: KeySource,
        /// The name that it has to give.
        identity: SignedIdentity,
    },
    /// Known, but not supported: holds for no image. What it is.
    Unsupported(String),
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `keyPath` or `keyPaths`.
    Paths(Vec<PathBuf>),
    /// `keyData` or `keyDatas`, decoded.
    Data(Vec<Vec<u8>>),
}

/// The requirements that hold for an image, and where they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applicable<'a> {
    /// The transport and the scope; nothing for the global default.
    pub place: Option<(&'a str, &'a str)>,
    pub requirements: &'a [Requirement],
}

impl Policy {
    /// The most bytes that a policy may have.
    pub const MAX: usize = 1024 * 1024;

    /// Parses a policy.
    ///
    /// # Errors
    /// If it is too large, is not what the manual describes, or says a thing twice.
    pub fn parse(document: &[u8]) -> Result<Self, JsonError> {
        parse::policy(document)
    }

    /// What holds for an image there: the most specific scope alone.
    pub(crate) fn applicable<'a>(&'a self, place: &Place) -> Applicable<'a> {
        match self.scoped(place) {
            Some(applicable) => applicable,
            None => Applicable { place: None, requirements: &self.default },
        }
    }

    /// The same without the global default.
    pub(crate) fn scoped<'a>(&'a self, place: &Place) -> Option<Applicable<'a>> {
        let (transport, scopes) = self.transports.get_key_value(place.transport)?;
        let tried = place.scopes.iter().map(String::as_str).chain([""]);
        let (scope, requirements) = tried.flat_map(|scope| scopes.get_key_value(scope)).next()?;
        Some(Applicable { place: Some((transport, scope)), requirements })
    }

    /// The files of all keys that it names.
    pub(crate) fn key_paths(&self) -> impl Iterator<Item = &PathBuf> {
        let lists = self.transports.values().flat_map(BTreeMap::values).chain([&self.default]);
        lists.flatten().flat_map(|requirement| match requirement {
            Requirement::SignedBy { keys: KeySource::Paths(paths), .. }
            | Requirement::SigstoreSigned { keys: KeySource::Paths(paths), .. } => paths.as_slice(),
            _ => &[],
        })
    }
}

#[cfg(test)]
mod tests;

use crate::{Digest, Reference, evidence::Signature};

/// One image of those that make up what is run: the image that was asked for, or an ACI that it
/// depends on. Each has to be judged; nothing of it has been believed but its digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What names the image and no other.
    pub id: Digest,
    /// How it was asked for, with paths resolved; or how it was fetched if it was asked for by ID.
    pub reference: Reference,
    /// An ACI's own name; that of a Docker archive's first tag; a registry's `HOST/REPOSITORY`;
    /// else the name of the file or directory it came from.
    pub name: String,
    /// What it says about itself: see [`crate::ImageConfig::labels`].
    pub labels: Vec<(String, String)>,
    /// Digests that a signature of an OCI image can be about: the image's manifest, and the index
    /// that it was reached through.
    pub manifests: Vec<Digest>,
    /// Signatures that came with it.
    pub signatures: Vec<Signature>,
    /// Its version as it says itself, in what its digest covers: an ACI's label `version`, or the
    /// annotation or label `org.opencontainers.image.version`.
    pub version: Option<String>,
    /// When it was made as it says itself, in seconds since 1970.
    pub created: Option<i64>,
}

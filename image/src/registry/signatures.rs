//! Signatures of images, wherever they are kept. They are collected here, not judged.

use super::{Client, Error, Lookaside, RegistryReference};
use crate::{Digest, Text, evidence::Signature, format::oci::Media, http::Answer};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The most signatures of each kind for one manifest.
pub(super) const MAX_SIGNATURES: usize = 64;
/// The largest signed payload or simple signature in bytes.
pub(super) const MAX_PAYLOAD: u64 = 256 << 10;
/// The largest bundle in bytes.
const MAX_BUNDLE: u64 = 1 << 20;
/// The most bytes of all signatures of an image.
const MAX_TOTAL: usize = 8 << 20;

const COSIGN_PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const COSIGN_SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The manifest of an artifact: anything with layers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    #[serde(default)]
    layers: Vec<Layer>,
}

/// A layer of an artifact.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// Collects the signatures of an image: of its manifest and of the index that this was found in.
/// Looks for cosign's tag, for sigstore bundles that refer to it, and for simple signatures at
/// `lookaside`. What is malformed there is left out, since anybody who may write to the
/// repository can put it there; that it can't be got is an error.
///
/// # Errors
/// If a registry or web server can't be asked, or its content has another digest than its name.
pub fn signatures(
    client: &Client,
    reference: &RegistryReference,
    manifests: &[Digest],
    lookaside: Option<&Lookaside>,
) -> Result<Vec<Signature>, Error> {
    let mut found = Found { client, reference, signatures: Vec::new(), bytes: 0 };
    for manifest in manifests {
        found.cosign(manifest)?;
        found.bundles(manifest)?;
        if let Some(lookaside) = lookaside {
            found.simple(manifest, lookaside)?;
        }
    }
    Ok(found.signatures)
}

struct Found<'a> {
    client: &'a Client,
    reference: &'a RegistryReference,
    signatures: Vec<Signature>,
    bytes: usize,
}

impl Found<'_> {
    /// Keeps a signature once.
    fn keep(&mut self, size: usize, signature: Signature) -> Result<(), Error> {
        self.bytes += size;
        if self.bytes > MAX_TOTAL {
            let problem = format!("its signatures are larger than {MAX_TOTAL} bytes");
            return Err(Error::malformed(self.reference, problem));
        }
        if !self.signatures.contains(&signature) {
            self.signatures.push(signature);
        }
        Ok(())
    }

    /// The image with the tag `ALGORITHM-HEX.sig`, each of whose layers is a signed payload.
    fn cosign(&mut self, manifest: &Digest) -> Result<(), Error> {
        let tag = format!("{}.sig", manifest.file_name());
        // A sha512 digest makes a tag that is too long for one.
        let Some(at) = self.reference.with_tag(&tag) else { return Ok(()) };
        let document = match self.client.manifest(&at) {
            Ok(document) => document,
            Err(Error::NotFound(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        for layer in parse_artifact(&document.bytes).unwrap_or_default() {
            let signature = layer.annotations.as_ref().and_then(|all| all.get(COSIGN_SIGNATURE));
            let signature = signature.and_then(|text| STANDARD.decode(text).ok());
            let Some(signature) = signature
                .filter(|_| layer.media_type == COSIGN_PAYLOAD && layer.size <= MAX_PAYLOAD)
            else {
                continue;
            };
            let payload = self.client.content(self.reference, &layer.digest, layer.size)?;
            let size = payload.len() + signature.len();
            self.keep(size, Signature::Cosign { payload, signature })?;
        }
        Ok(())
    }

    /// Artifacts that refer to the image, whose only layer is a bundle.
    fn bundles(&mut self, manifest: &Digest) -> Result<(), Error> {
        let referrers = self.client.referrers(self.reference, manifest, BUNDLE)?;
        for referrer in referrers.into_iter().take(MAX_SIGNATURES) {
            if Media::of(&referrer.media_type) != Media::Manifest {
                continue;
            }
            let at = self.reference.with_digest(referrer.digest);
            let document = match self.client.manifest(&at) {
                Ok(document) => document,
                // Lists that tools write themselves may name what was deleted.
                Err(Error::NotFound(_) | Error::MediaType { .. }) => continue,
                Err(error) => return Err(error),
            };
            let layers = parse_artifact(&document.bytes).unwrap_or_default();
            let [layer] = layers.as_slice() else { continue };
            if layer.media_type == BUNDLE && layer.size <= MAX_BUNDLE {
                let bundle = self.client.content(self.reference, &layer.digest, layer.size)?;
                self.keep(bundle.len(), Signature::Bundle { bundle })?;
            }
        }
        Ok(())
    }

    /// Simple signatures on a web server, numbered from 1.
    fn simple(&mut self, manifest: &Digest, lookaside: &Lookaside) -> Result<(), Error> {
        for number in 1..=MAX_SIGNATURES {
            let Some(url) = lookaside.url(self.reference, manifest, number) else { return Ok(()) };
            match self.client.http.get(&url, None, MAX_PAYLOAD)? {
                Answer::Found { bytes: message, .. } => {
                    self.keep(message.len(), Signature::SimpleSigning { message })?;
                }
                Answer::Missing(404 | 410) => return Ok(()),
                Answer::Missing(status) => {
                    let detail = Text::new("");
                    let url = url.shown();
                    return Err(crate::http::Error::Status { url, status, detail }.into());
                }
                Answer::NotModified(_) | Answer::Deferred => {
                    return Err(Error::malformed(url, "there is no signature in the answer"));
                }
            }
        }
        Ok(())
    }
}

/// The layers of an artifact's manifest; nothing if there are none, or more than there may be.
pub fn parse_artifact(document: &[u8]) -> Option<Vec<Layer>> {
    let artifact: Artifact = serde_json::from_slice(document).ok()?;
    Some(artifact.layers).filter(|layers| layers.len() <= MAX_SIGNATURES)
}

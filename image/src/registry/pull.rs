//! Manifests and blobs.

use super::{Client, Error, Place, RegistryReference, client::refused, token::Action};
use crate::{
    Digest, Text,
    digest::Algorithm,
    format::oci::Media,
    http::{End, OnBytes, Request, Transfer},
};
use serde::Deserialize;
use std::fs::File;
use ureq::http::{HeaderMap, header};

/// The largest manifest in bytes, as registries limit them themselves.
pub const MAX_MANIFEST: u64 = 4 << 20;

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
                      application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json";

/// A manifest or index, as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it is, as the registry says; it is one of an index or manifest.
    pub media_type: String,
    /// Its digest, computed here.
    pub digest: Digest,
}

impl Client {
    /// Gets a manifest or index: by the reference's digest, or else its tag.
    ///
    /// # Errors
    /// If it can't be got, has another digest than it was asked by or than the registry says, is
    /// larger than [`MAX_MANIFEST`], or is neither a manifest nor an index.
    pub fn manifest(&self, reference: &RegistryReference) -> Result<Document, Error> {
        let by_digest = reference.digest().is_some();
        self.at_places(reference, by_digest, &mut |place| self.manifest_at(place, reference))
    }

    fn manifest_at(&self, place: &Place, reference: &RegistryReference) -> Result<Document, Error> {
        let what = reference.to_string();
        let path = match reference.digest() {
            Some(digest) => format!("manifests/{digest}"),
            None => format!("manifests/{}", reference.tag_or_default()),
        };
        let reply = self.document(place, &path, &[("accept", ACCEPT)], MAX_MANIFEST)?;
        if reply.status != 200 {
            return Err(refused(&what, place, reply.status, &reply.bytes));
        }
        let said = said_digest(&what, &reply.headers)?;
        let digest = check_digest(&what, &reply.bytes, reference.digest(), said.as_ref())?;
        let media_type = media_type(&what, &reply.headers, &reply.bytes)?;
        Ok(Document { bytes: reply.bytes, media_type, digest })
    }

    /// Gets a small blob of `size` bytes, or of [`MAX_MANIFEST`] if that is less.
    ///
    /// # Errors
    /// If it can't be got, is larger or has another digest.
    pub fn content(
        &self,
        reference: &RegistryReference,
        digest: &Digest,
        size: u64,
    ) -> Result<Vec<u8>, Error> {
        let what = reference.with_digest(digest.clone()).to_string();
        let path = format!("blobs/{digest}");
        self.at_places(reference, true, &mut |place| {
            let reply = self.document(place, &path, &[], size.min(MAX_MANIFEST))?;
            if reply.status != 200 {
                return Err(refused(&what, place, reply.status, &reply.bytes));
            }
            check_digest(&what, &reply.bytes, Some(digest), None)?;
            Ok(reply.bytes)
        })
    }

    /// Gets a blob of exactly `size` bytes into a file, of which `already` bytes are there from an
    /// earlier time. `on_bytes` hears how many are there, and can give up.
    ///
    /// # Errors
    /// If it can't be got or has another size or, unless [`super::Options::unchecked_blobs`] says
    /// otherwise, digest. What is in the file then can be used to go on later, except after an
    /// error about the digest.
    pub fn blob(
        &self,
        reference: &RegistryReference,
        digest: &Digest,
        size: u64,
        into: &File,
        already: u64,
        on_bytes: &mut OnBytes<'_>,
    ) -> Result<(), Error> {
        let what = reference.with_digest(digest.clone()).to_string();
        let mut already = already;
        self.at_places(reference, true, &mut |place| {
            let on_bytes = &mut *on_bytes;
            let mut there = already;
            let mut watch = |bytes| {
                there = bytes;
                on_bytes(bytes)
            };
            let result = self.blob_at(place, &what, (digest, size), into, already, &mut watch);
            // The next place goes on where this one ended.
            already = if matches!(result, Err(Error::Digest { .. })) { 0 } else { there };
            result
        })
    }

    fn blob_at(
        &self,
        place: &Place,
        what: &str,
        (digest, size): (&Digest, u64),
        into: &File,
        already: u64,
        on_bytes: &mut OnBytes<'_>,
    ) -> Result<(), Error> {
        let url = self.url(place, &format!("blobs/{digest}"))?;
        let is_checked = self.checks_blobs();
        let mut transfer =
            Transfer::of_digest(into, already, (digest, size), is_checked, on_bytes)?;
        let (end, found) = self.http.transfer(
            &mut transfer,
            &mut |ask| {
                // No If-Range: the digest tells whether the parts fit together.
                let headers: Vec<_> =
                    ask.range.iter().map(|range| ("range", range.as_str())).collect();
                self.authorized(place, Action::Pull, &mut |authorization| {
                    let mut request = Request::get(&url, &headers);
                    request.authorization = authorization;
                    Ok(self.http.ask(&request)?)
                })
            },
            Error::is_transient,
        )?;
        match (end, found) {
            (End::Complete(..), Some(found)) if found != *digest => {
                let expected = digest.clone();
                Err(Error::Digest { what: Text::new(what), expected, found })
            }
            (End::Complete(..), _) => Ok(()),
            (End::Other(response), _) => Err(refused(what, place, response.status, &[])),
        }
    }
}

/// The digest that the registry says the content has.
pub(super) fn said_digest(what: &str, headers: &HeaderMap) -> Result<Option<Digest>, Error> {
    let Some(value) = headers.get("docker-content-digest") else { return Ok(None) };
    let digest = value.to_str().ok().and_then(|text| text.parse().ok());
    let refused = || Error::malformed(what, "the registry's Docker-Content-Digest is not a digest");
    digest.map(Some).ok_or_else(refused)
}

/// The digest of some bytes, which has to be the one that was asked for, and the one that the
/// registry says.
pub(super) fn check_digest(
    what: &str,
    bytes: &[u8],
    expected: Option<&Digest>,
    said: Option<&Digest>,
) -> Result<Digest, Error> {
    let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
    let found = Digest::of(algorithm, bytes);
    if let Some(expected) = expected.filter(|&expected| *expected != found) {
        let (what, expected) = (Text::new(what), expected.clone());
        return Err(Error::Digest { what, expected, found });
    }
    if let Some(said) = said {
        let own = Digest::of(said.algorithm(), bytes);
        if *said != own {
            let (what, said) = (Text::new(what), Text::new(said.to_string()));
            return Err(Error::SaidDigest { what, said, found: own });
        }
    }
    Ok(found)
}

/// What a document is: what the registry calls it, or, if that says nothing, what the document
/// calls itself.
fn media_type(what: &str, headers: &HeaderMap, bytes: &[u8]) -> Result<String, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Own {
        media_type: Option<String>,
    }
    let said = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let said =
        said.map(|said| said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let says_nothing = |said: &str| {
        matches!(said, "" | "application/json" | "application/octet-stream" | "text/plain")
    };
    let media_type = match said {
        Some(said) if !says_nothing(&said) => said,
        _ => {
            let own = serde_json::from_slice::<Own>(bytes);
            let own = own.map_err(|error| Error::malformed(what, error))?;
            own.media_type.unwrap_or_default()
        }
    };
    let problem = match media_type.as_str() {
        "application/vnd.docker.distribution.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v1+prettyjws" => {
            "Docker's schema 1, which names its layers by weak means and is not supported; the image \
             has to be pushed again by a current tool"
        }
        media_type if matches!(Media::of(media_type), Media::Manifest | Media::Index) => {
            return Ok(media_type.to_owned());
        }
        _ => "neither a manifest's nor an index's",
    };
    let (what, media_type) = (Text::new(what), Text::new(media_type));
    Err(Error::MediaType { what, media_type, problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content_type: &str, document: &str) -> Result<String, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        media_type("x", &headers, document.as_bytes())
    }

    #[test]
    fn what_a_document_is() {
        let index = "application/vnd.oci.image.index.v1+json";
        let manifest = r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;
        assert_eq!(of(index, "{}").unwrap(), index);
        assert_eq!(of(&format!("{}; charset=utf-8", index.to_uppercase()), "{}").unwrap(), index);
        assert!(of("application/json", manifest).unwrap().contains("manifest"));
        for (content_type, document) in [
            ("text/html", manifest),
            ("application/json", "{}"),
            ("application/json", "<html>"),
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}"),
            ("application/vnd.oci.image.config.v1+json", "{}"),
        ] {
            assert!(of(content_type, document).is_err(), "{content_type} {document}");
        }
    }

    #[test]
    fn a_digest_is_computed_and_compared_with_both_others() {
        let right = Digest::of(Algorithm::Sha256, b"content");
        let long = Digest::of(Algorithm::Sha512, b"content");
        let wrong = Digest::of(Algorithm::Sha256, b"other");
        let check = |expected, said| check_digest("x", b"content", expected, said);
        assert_eq!(check(None, None).unwrap(), right);
        assert_eq!(check(Some(&long), Some(&right)).unwrap(), long);
        assert!(matches!(check(Some(&wrong), None), Err(Error::Digest { .. })));
        assert!(matches!(check(None, Some(&wrong)), Err(Error::SaidDigest { .. })));
        assert!(matches!(check(Some(&right), Some(&wrong)), Err(Error::SaidDigest { .. })));
        let mut headers = HeaderMap::new();
        headers.insert("docker-content-digest", "md5:0".parse().unwrap());
        assert!(said_digest("x", &headers).is_err());
    }
}

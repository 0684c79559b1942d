//! What refers to an image: signatures, attestations (distribution-spec, "Listing Referrers").

use super::{
    Client, Error, Place, RegistryReference, client::refused, link::next_page, pull::MAX_MANIFEST,
};
use crate::{Digest, Text};
use serde::Deserialize;

/// The most pages of a list that are read.
const MAX_PAGES: usize = 16;
/// The most referrers that are kept.
const MAX_REFERRERS: usize = 256;

/// A manifest that refers to another one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// Of what kind its manifest is.
    pub media_type: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Size of its manifest.
    pub size: u64,
    /// What it is.
    #[serde(default)]
    pub artifact_type: Option<String>,
}

#[derive(Deserialize)]
struct List {
    manifests: Vec<Referrer>,
}

impl Client {
    /// The manifests that refer to `subject` and are of the type, or may be, as the registry lists
    /// them, or, if it has no such lists, as the index with the tag `ALGORITHM-HEX` does.
    ///
    /// # Errors
    /// If the registry can't be asked, or its list is malformed or too long.
    pub fn referrers(
        &self,
        reference: &RegistryReference,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Referrer>, Error> {
        // Mirrors rarely have them, and a list has no digest: the registry itself is asked.
        let place = self.home(reference)?;
        let mut found = match self.listed(&place, subject)? {
            Some(found) if !found.is_empty() => found,
            _ => self.tagged(&place, subject)?,
        };
        found.retain(|referrer| match referrer.artifact_type.as_deref() {
            // Tools that write such a list themselves may leave the type out, or take the
            // configuration's, which is empty: then only the manifest says it.
            None | Some("" | EMPTY) => true,
            Some(said) => said == artifact_type,
        });
        found.truncate(MAX_REFERRERS);
        Ok(found)
    }

    /// The registry's own list. Nothing if it has none.
    fn listed(&self, place: &Place, subject: &Digest) -> Result<Option<Vec<Referrer>>, Error> {
        let what = format!("referrers of {}@{subject}", place.name());
        let mut found: Vec<Referrer> = Vec::new();
        let first = format!("referrers/{subject}");
        let mut path = first.clone();
        for _ in 0..MAX_PAGES {
            let reply = self.document(place, &path, &[("accept", INDEX)], MAX_MANIFEST)?;
            match reply.status {
                200 => {}
                // A registry that does not know the question.
                400 | 404 | 405 | 406 | 410 | 415 | 501 if found.is_empty() => return Ok(None),
                status => return Err(refused(&what, place, status, &reply.bytes)),
            }
            found.extend(
                parse_referrers(&reply.bytes).map_err(|text| Error::malformed(&what, text))?,
            );
            let Some(next) = next_page(&reply.headers) else { return Ok(Some(found)) };
            // The next page is one of the same list of the same registry, whatever is said.
            let next = reply.url.join(&next).map_err(|problem| Error::malformed(&what, problem))?;
            let expected = self.url(place, &first)?;
            let Some(query) = next
                .query()
                .filter(|_| next.is_same_origin(&expected) && next.path() == expected.path())
            else {
                return Err(Error::malformed(&what, "its next page is elsewhere"));
            };
            if found.len() >= MAX_REFERRERS {
                return Ok(Some(found));
            }
            path = format!("{first}?{query}");
        }
        Err(Error::malformed(&what, "its pages don't end"))
    }

    /// The index that stands in for the list.
    fn tagged(&self, place: &Place, subject: &Digest) -> Result<Vec<Referrer>, Error> {
        let what = format!("referrers of {}@{subject}", place.name());
        let path = format!("manifests/{}", subject.file_name());
        let reply = self.document(place, &path, &[("accept", INDEX)], MAX_MANIFEST)?;
        match reply.status {
            200 => parse_referrers(&reply.bytes).map_err(|text| Error::malformed(&what, text)),
            404 => Ok(Vec::new()),
            status => Err(refused(&what, place, status, &reply.bytes)),
        }
    }
}

/// The type of a configuration without content.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Reads a list of referrers, which is an index.
///
/// # Errors
/// If it is not one.
pub fn parse_referrers(document: &[u8]) -> Result<Vec<Referrer>, Text> {
    let list = serde_json::from_slice::<List>(document);
    list.map(|list| list.manifests).map_err(|error| Text::new(error.to_string()))
}

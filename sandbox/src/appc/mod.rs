//! Images as appc describes them: the manifest of an ACI as it is, and the one that docker2aci, and
//! so rkt, would have made of an image of Docker or OCI.

mod convert;
mod image;

#[cfg(test)]
mod tests;

pub use image::ImageManifest;

use convert::Origin;
use sandbox_image::{Digest, Error as ImageError, Kind, Store, StoredImage};
use serde::Deserialize;
use std::io::{self, Read as _};

/// Why an image has no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The store does not have it.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// It can't be read.
    #[error("cannot read {digest} of the image in the store: {error}")]
    Read {
        /// The file.
        digest: Digest,
        /// What the system says.
        error: io::Error,
    },
    /// It is not of the form that it had when it was fetched.
    #[error("the manifest of the image in the store: {0}")]
    Json(#[from] serde_json::Error),
}

/// What a configuration of Docker or OCI says about its image, of what [`StoredImage::config`] does
/// not have.
#[derive(Debug, Default, Deserialize)]
struct ConfigDocument {
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    created: Option<String>,
}

/// The manifest of an image in the store.
///
/// # Errors
/// See [`ManifestError`].
pub fn manifest(store: &Store, image: &StoredImage) -> Result<ImageManifest, ManifestError> {
    if let Some(manifest) = image.aci_manifest()? {
        return Ok(serde_json::from_slice(&manifest)?);
    }
    let record = image.record();
    let document = read(store, &record.config.digest, record.config.size)?;
    let document: ConfigDocument = serde_json::from_slice(&document)?;
    let manifest = record.manifest.as_ref().map(|manifest| manifest.digest.to_string());
    Ok(convert::convert(
        &Origin {
            reference: image.reference(),
            name: image.name(),
            image_id: record.config.digest.to_string(),
            manifest_hash: manifest.unwrap_or_default(),
            author: document.author.unwrap_or_default(),
            created: document.created.unwrap_or_default(),
        },
        image.config(),
    ))
}

/// The same as the bytes of a file `manifest`: an ACI's own as they are.
///
/// # Errors
/// See [`ManifestError`].
pub fn manifest_json(store: &Store, image: &StoredImage) -> Result<Vec<u8>, ManifestError> {
    match (image.record().kind, image.aci_manifest()?) {
        (Kind::Aci, Some(manifest)) => Ok(manifest),
        _ => Ok(serde_json::to_vec(&manifest(store, image)?)?),
    }
}

/// Reads a document whose size was bounded when it was fetched.
fn read(store: &Store, digest: &Digest, size: u64) -> Result<Vec<u8>, ManifestError> {
    let mut document = Vec::new();
    let read = store.blob(digest)?.take(size).read_to_end(&mut document);
    read.map_err(|error| ManifestError::Read { digest: digest.clone(), error })?;
    Ok(document)
}

//! What an image's own documents say, read from the store.

use super::{
    BlobRef, Kind, Record,
    places::Places,
    stored::{layer, read_file},
};
use crate::{
    Digest, Error, ImageConfig, Limit, Limits, Part, Text,
    format::{
        Documents, OciImage, aci, check_digest,
        oci::{Descriptor, parse_config},
        version_of,
    },
    protocol::LayerContents,
};

/// What an image's own documents say.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) config: ImageConfig,
    /// Digests of the decompressed layers, of an OCI or Docker image.
    pub(super) diff_ids: Vec<Digest>,
    pub(super) version: Option<String>,
    pub(super) created: Option<i64>,
    /// Of an ACI.
    pub(super) path_whitelist: Vec<String>,
}

impl Said {
    /// Of an OCI image.
    pub(super) fn of_oci(image: &OciImage) -> Self {
        Self {
            config: image.said.clone(),
            diff_ids: image.diff_ids.clone(),
            version: version_of(&image.said),
            created: image.created,
            path_whitelist: Vec::new(),
        }
    }

    /// Of a Docker image without a manifest.
    pub(super) fn of_docker(config: &[u8], digest: &Digest) -> Result<Self, Error> {
        let config = parse_config(config).map_err(|problem| Error::Document {
            document: Text::new(format!("configuration {digest}")),
            problem,
        })?;
        Ok(Self {
            version: version_of(&config.said),
            config: config.said,
            diff_ids: config.diff_ids,
            created: config.created,
            path_whitelist: Vec::new(),
        })
    }

    /// Of an ACI.
    pub(super) fn of_aci(manifest: &aci::Manifest) -> Self {
        let version = manifest.config.labels.iter().find(|(name, _)| name == "version");
        Self {
            config: manifest.config.clone(),
            diff_ids: Vec::new(),
            version: version.map(|(_, version)| version.clone()),
            created: manifest.created,
            path_whitelist: manifest.path_whitelist.clone(),
        }
    }

    /// Reads what a record leads to.
    pub(super) fn read(places: &Places, record: &Record) -> Result<Self, Error> {
        match (record.kind, &record.manifest) {
            (Kind::Aci, _) => {
                let manifest = aci_manifest(places, record)?;
                let manifest = aci::parse_manifest(&manifest).map_err(|problem| {
                    let document = Text::new(format!("the manifest of {}", record.name));
                    Error::Document { document, problem }
                })?;
                Ok(Self::of_aci(&manifest))
            }
            (_, Some(manifest)) => {
                let entry = descriptor(manifest);
                let limits = highest();
                let image = OciImage::read(Vec::new(), &entry, &Blobs(places), &limits)?;
                Ok(Self::of_oci(&image))
            }
            (_, None) => {
                let config = Blobs(places).read(&descriptor(&record.config))?;
                Self::of_docker(&config, &record.config.digest)
            }
        }
    }

    /// What is judged.
    pub(super) fn part(&self, record: &Record) -> Part {
        let manifests = record.manifest.iter().chain(&record.indexes);
        Part {
            id: record.id.clone(),
            reference: record.reference.clone(),
            name: record.name.clone(),
            labels: self.config.labels.clone(),
            manifests: manifests.map(|blob| blob.digest.clone()).collect(),
            signatures: record.all_signatures(),
            version: self.version.clone(),
            created: self.created,
        }
    }

    /// The layers of an OCI or Docker image.
    pub(super) fn layers(&self, record: &Record) -> Vec<LayerContents> {
        let layers = record.layers.iter().zip(&self.diff_ids);
        layers.map(|(blob, diff_id)| layer(&blob.digest, diff_id)).collect()
    }
}

/// The bytes of an ACI's manifest, checked.
pub(super) fn aci_manifest(places: &Places, record: &Record) -> Result<Vec<u8>, Error> {
    let BlobRef { digest, size, .. } = &record.config;
    let missing = || Error::Tampered {
        image: record.id.clone(),
        problem: "its manifest is missing".to_owned(),
    };
    let bytes = read_file(&places.aci_manifest(&record.id), size.saturating_add(1))?;
    let bytes = bytes.ok_or_else(missing)?;
    check_digest(digest, &Digest::of(digest.algorithm(), &bytes))?;
    Ok(bytes)
}

fn descriptor(blob: &BlobRef) -> Descriptor {
    let media_type = blob.media_type.clone().unwrap_or_default();
    Descriptor::new(media_type, blob.digest.clone(), blob.size)
}

/// Documents of the store passed their limits when they came in.
pub(super) fn highest() -> Limits {
    let mut limits = Limits::default();
    for limit in [Limit::Document, Limit::Layers] {
        // It is the highest that can be set.
        let _ = limits.set(limit, Limits::highest(limit));
    }
    limits
}

/// Documents among the blobs of the store.
struct Blobs<'a>(&'a Places);

impl Documents for Blobs<'_> {
    fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let digest = &descriptor.digest;
        let limits = highest();
        limits.check(Limit::Document, descriptor.size)?;
        let bytes = read_file(&self.0.blob(digest), descriptor.size.saturating_add(1))?;
        let bytes = bytes.ok_or_else(|| Error::Blob {
            digest: digest.clone(),
            problem: "the store does not have it any more".to_owned(),
        })?;
        check_digest(digest, &Digest::of(digest.algorithm(), &bytes))?;
        Ok(bytes)
    }
}

//! The documents that lead to an OCI image: indexes, manifest, configuration.

use super::{
    DocumentError,
    oci::{Configuration, Descriptor, Manifest, Media, parse_config, parse_index, parse_manifest},
};
use crate::{Digest, Error, ImageConfig, Limit, Limits, Text};

/// Most indexes within indexes. One is what registries have.
pub(crate) const MAX_DEPTH: usize = 4;
/// Most indexes that are read to find one image.
pub(crate) const MAX_INDEXES: usize = 64;

/// Where the documents of images are.
pub(crate) trait Documents {
    /// Reads the document that a descriptor is of, and checks its size and digest.
    fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error>;
}

/// A document and what names it.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
}

/// How an image for this machine is found.
pub(crate) struct Search<'a> {
    source: &'a dyn Documents,
    /// How many indexes may still be read.
    budget: usize,
}

impl<'a> Search<'a> {
    pub(crate) fn new(source: &'a dyn Documents) -> Self {
        Self { source, budget: MAX_INDEXES }
    }

    /// The descriptor itself if it is of a manifest, or of the first one in an index that is for
    /// this machine. Leaves the indexes on the way in `way`.
    pub(crate) fn for_this_machine(
        &mut self,
        entry: &Descriptor,
        way: &mut Vec<Document>,
    ) -> Result<Option<Descriptor>, Error> {
        if entry.platform.as_ref().is_some_and(|platform| !platform.is_ours()) {
            return Ok(None);
        }
        match Media::of(&entry.media_type) {
            Media::Manifest => Ok(Some(entry.clone())),
            Media::Index => {
                if way.len() == MAX_DEPTH || self.budget == 0 {
                    let problem = "indexes are nested too deeply, or too many";
                    let problem = DocumentError::value("mediaType", &entry.media_type, problem);
                    return Err(malformed("index", &entry.digest, problem));
                }
                self.budget -= 1;
                let bytes = self.source.read(entry)?;
                let index = parse_index(&bytes, Some(&entry.media_type))
                    .map_err(|problem| malformed("index", &entry.digest, problem))?;
                way.push(Document { descriptor: entry.clone(), bytes });
                for entry in &index.manifests {
                    if let Some(found) = self.for_this_machine(entry, way)? {
                        return Ok(Some(found));
                    }
                }
                way.pop();
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

/// An OCI image whose documents were read and checked.
#[derive(Clone, Debug)]
pub(crate) struct OciImage {
    /// The indexes that it was reached through, the outermost first.
    pub(crate) indexes: Vec<Document>,
    pub(crate) manifest: Document,
    pub(crate) config: Document,
    /// From the lowest one.
    pub(crate) layers: Vec<Descriptor>,
    pub(crate) said: ImageConfig,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) created: Option<i64>,
}

/// What a manifest's or configuration's maker calls the version of an image.
const VERSION: &str = "org.opencontainers.image.version";

impl OciImage {
    /// Reads manifest and configuration.
    pub(crate) fn read(
        indexes: Vec<Document>,
        entry: &Descriptor,
        source: &dyn Documents,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let bytes = source.read(entry)?;
        let Manifest { config, layers, annotations, .. } =
            parse_manifest(&bytes, Some(&entry.media_type))
                .map_err(|problem| malformed("manifest", &entry.digest, problem))?;
        limits.check(Limit::Layers, layers.len() as u64)?;
        let manifest = Document { descriptor: entry.clone(), bytes };
        let bytes = source.read(&config)?;
        let Configuration { mut said, diff_ids, created } = parse_config(&bytes)
            .map_err(|problem| malformed("configuration", &config.digest, problem))?;
        if diff_ids.len() != layers.len() {
            let count = diff_ids.len().to_string();
            let problem = "the manifest has another number of layers";
            let problem = DocumentError::value("rootfs.diff_ids.length", count, problem);
            return Err(malformed("configuration", &config.digest, problem));
        }
        said.annotations = annotations.unwrap_or_default().into_iter().collect();
        let config = Document { descriptor: config, bytes };
        Ok(Self { indexes, manifest, config, layers, said, diff_ids, created })
    }
}

/// The version of an OCI or Docker image, as it says itself.
pub(crate) fn version_of(said: &ImageConfig) -> Option<String> {
    let labels = said.app.as_ref().map(|app| &app.user_labels).into_iter().flatten();
    let version = said.annotations.iter().chain(labels).find(|(name, _)| name == VERSION);
    version.map(|(_, version)| version.clone())
}

fn malformed(kind: &str, digest: &Digest, problem: DocumentError) -> Error {
    let document = Text::new(format!("{kind} {digest}"));
    Error::Document { document, problem }
}

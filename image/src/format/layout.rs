use super::{
    Container, DocumentError,
    oci::{Descriptor, Index, Manifest, Media, parse_config, parse_index, parse_manifest},
    parse,
};
use crate::{Digest, Error, ImageConfig, Limit, Limits, Text, image::Layer, image::LayerPlace};
use serde::Deserialize;

/// Most indexes within indexes. One is what registries have.
const MAX_DEPTH: usize = 4;
/// Most indexes that are read to find one image.
const MAX_INDEXES: usize = 64;

/// The file that says that a directory is a layout.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

/// What an OCI layout has under a name.
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<Layer>,
}

/// Finds an image in an OCI layout (image-layout.md) and reads its documents.
pub(super) fn find(
    container: &Container,
    expected: &'static str,
    name: Option<&str>,
    limits: &Limits,
) -> Result<Found, Error> {
    let not_one = |problem: &str| Error::NotAnImage {
        path: container.path().clone(),
        expected,
        problem: Text::new(problem),
    };
    let marker = container.read("oci-layout", limits)?;
    let marker = marker.ok_or_else(|| not_one("the file oci-layout is missing"))?;
    let marker: Marker = parse(&marker).map_err(|problem| not_one(&problem.to_string()))?;
    if marker.image_layout_version != "1.0.0" {
        return Err(not_one("its version is not 1.0.0"));
    }
    let index = container.read("index.json", limits)?;
    let index = index.ok_or_else(|| not_one("the file index.json is missing"))?;
    let index = parse_index(&index, None).map_err(|problem| Error::Document {
        document: Text::new(format!("index.json of {}", container.path())),
        problem,
    })?;
    let layout = Layout { container, limits };
    let chosen = layout.choose(&index, name)?;
    layout.image(&chosen)
}

struct Layout<'a> {
    container: &'a Container,
    limits: &'a Limits,
}

impl Layout<'_> {
    /// The image that has the name, or the only one, for this machine.
    fn choose(&self, index: &Index, name: Option<&str>) -> Result<Descriptor, Error> {
        let digest = name.map(|name| name.strip_prefix('@').unwrap_or(name));
        let is_meant = |entry: &&Descriptor| match (name, digest) {
            (Some(name), Some(digest)) => {
                entry.ref_name() == Some(name) || entry.digest.to_string() == digest
            }
            _ => true,
        };
        let mut found: Vec<Descriptor> = Vec::new();
        let mut budget = MAX_INDEXES;
        let mut is_known = false;
        for entry in index.manifests.iter().filter(is_meant) {
            is_known = true;
            match self.for_this_machine(entry, MAX_DEPTH, &mut budget)? {
                Some(manifest) if found.iter().all(|other| other.digest != manifest.digest) => {
                    found.push(manifest);
                }
                _ => {}
            }
        }
        let problem = match (name, found.len()) {
            (Some(_), 1..) | (None, 1) => return Ok(found.swap_remove(0)),
            (None, 2..) => "several images in it; name one after the path and a colon".to_owned(),
            (Some(name), 0) if !is_known => format!("no image named '{}'", Text::new(name)),
            (_, 0) => "no such image for linux/amd64".to_owned(),
        };
        let names =
            index.manifests.iter().filter_map(Descriptor::ref_name).map(Text::new).collect();
        Err(Error::Choice { path: self.container.path().clone(), problem, names })
    }

    /// The manifest itself, or the first one in an index that is for this machine.
    fn for_this_machine(
        &self,
        entry: &Descriptor,
        depth: usize,
        budget: &mut usize,
    ) -> Result<Option<Descriptor>, Error> {
        if entry.platform.as_ref().is_some_and(|platform| !platform.is_ours()) {
            return Ok(None);
        }
        match Media::of(&entry.media_type) {
            Media::Manifest => Ok(Some(entry.clone())),
            Media::Index => {
                if depth == 0 || *budget == 0 {
                    let problem = "indexes are nested too deeply, or too many";
                    let problem = DocumentError::value("mediaType", &entry.media_type, problem);
                    return Err(self.malformed("index", &entry.digest, problem));
                }
                *budget -= 1;
                let document = self.container.document(&entry.digest, entry.size, self.limits)?;
                let index = parse_index(&document, Some(&entry.media_type))
                    .map_err(|problem| self.malformed("index", &entry.digest, problem))?;
                for entry in &index.manifests {
                    if let Some(found) = self.for_this_machine(entry, depth - 1, budget)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Reads manifest and configuration.
    fn image(&self, entry: &Descriptor) -> Result<Found, Error> {
        let document = self.container.document(&entry.digest, entry.size, self.limits)?;
        let Manifest { config, layers, annotations, .. } =
            parse_manifest(&document, Some(&entry.media_type))
                .map_err(|problem| self.malformed("manifest", &entry.digest, problem))?;
        self.limits.check(Limit::Layers, layers.len() as u64)?;
        let document = self.container.document(&config.digest, config.size, self.limits)?;
        let (mut said, diff_ids) = parse_config(&document)
            .map_err(|problem| self.malformed("configuration", &config.digest, problem))?;
        if diff_ids.len() != layers.len() {
            let count = diff_ids.len().to_string();
            let problem = "the manifest has another number of layers";
            let problem = DocumentError::value("rootfs.diff_ids.length", count, problem);
            return Err(self.malformed("configuration", &config.digest, problem));
        }
        said.annotations = annotations.unwrap_or_default().into_iter().collect();
        let layers = layers.into_iter().zip(diff_ids).map(|(layer, diff_id)| Layer {
            name: Text::new(layer.digest.to_string()),
            place: LayerPlace::Blob { digest: layer.digest, size: layer.size },
            diff_id,
        });
        let layers = layers.collect();
        Ok(Found { digest: entry.digest.clone(), config: said, layers })
    }

    fn malformed(&self, kind: &str, digest: &Digest, problem: DocumentError) -> Error {
        let document = Text::new(format!("{kind} {digest}"));
        Error::Document { document, problem }
    }
}

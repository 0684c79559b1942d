use super::{
    Container, Document, Documents, OciImage, Search,
    oci::{Descriptor, Index, parse_index},
    parse,
};
use crate::{Error, Limits, Text};
use serde::Deserialize;

/// The file that says that a directory is a layout.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

/// The documents of a layout.
struct Layout<'a> {
    container: &'a Container,
    limits: &'a Limits,
}

impl Documents for Layout<'_> {
    fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        self.container.document(&descriptor.digest, descriptor.size, self.limits)
    }
}

/// Finds an image in an OCI layout (image-layout.md) and reads its documents.
pub(crate) fn find(
    container: &Container,
    expected: &'static str,
    name: Option<&str>,
    limits: &Limits,
) -> Result<OciImage, Error> {
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
    let (indexes, chosen) = layout.choose(&index, name)?;
    OciImage::read(indexes, &chosen, &layout, limits)
}

impl Layout<'_> {
    /// The image that has the name, or the only one, for this machine, and the indexes that led to
    /// it.
    fn choose(
        &self,
        index: &Index,
        name: Option<&str>,
    ) -> Result<(Vec<Document>, Descriptor), Error> {
        let digest = name.map(|name| name.strip_prefix('@').unwrap_or(name));
        let is_meant = |entry: &&Descriptor| match (name, digest) {
            (Some(name), Some(digest)) => {
                entry.ref_name() == Some(name) || entry.digest.to_string() == digest
            }
            _ => true,
        };
        let mut found: Vec<(Vec<Document>, Descriptor)> = Vec::new();
        let mut search = Search::new(self);
        let mut is_known = false;
        for entry in index.manifests.iter().filter(is_meant) {
            is_known = true;
            let mut way = Vec::new();
            match search.for_this_machine(entry, &mut way)? {
                Some(manifest)
                    if found.iter().all(|(_, other)| other.digest != manifest.digest) =>
                {
                    found.push((way, manifest));
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
}

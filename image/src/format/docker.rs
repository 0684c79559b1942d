use super::{DocumentError, parse};
use crate::{Text, error::Error};
use serde::Deserialize;

/// An image in the file `manifest.json` of what `docker save` writes.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct SavedImage {
    /// The file that is its configuration.
    pub config: String,
    /// Its names: `REPOSITORY:TAG`.
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    /// The files that are its layers, from the lowest one.
    pub layers: Vec<String>,
}

impl SavedImage {
    /// Its names.
    pub fn tags(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }
}

/// Parses the file `manifest.json`.
///
/// # Errors
/// If it is not such a file.
pub fn parse_saved_images(document: &[u8]) -> Result<Vec<SavedImage>, DocumentError> {
    parse(document)
}

/// The image that has `name` as one of its tags, or the only one.
pub(crate) fn choose<'a>(
    archive: Text,
    images: &'a [SavedImage],
    name: Option<&str>,
) -> Result<&'a SavedImage, Error> {
    let problem = match (name, images) {
        (None, [image]) => return Ok(image),
        (None, []) => "no image in it".to_owned(),
        (None, _) => "several images in it; name one after the path and a colon".to_owned(),
        (Some(name), images) => {
            let is_meant = |tag: &String| full_name(tag) == full_name(name);
            if let Some(image) = images.iter().find(|image| image.tags().iter().any(is_meant)) {
                return Ok(image);
            }
            format!("no image named '{}'", Text::new(name))
        }
    };
    let names = images.iter().flat_map(SavedImage::tags).map(Text::new).collect();
    Err(Error::Choice { path: archive, problem, names })
}

/// A name as Docker means it, without what may be left out.
fn full_name(name: &str) -> String {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let (repository, tag) = split_tag(name);
    format!("{repository}:{}", tag.unwrap_or("latest"))
}

/// Repository and tag. A colon before the last slash belongs to a port.
pub(crate) fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}

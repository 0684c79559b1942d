//! Formats of images: what their documents say, and where their layers are.
//!
//! The functions that parse take bytes, so that they can be fuzzed; every one checks all that it
//! gives back.

pub mod aci;
mod archive;
mod container;
mod docker;
mod documents;
mod layout;
pub mod oci;
pub(crate) mod time;

pub(crate) use container::{Container, Section, check_digest, open_file};
pub use docker::{SavedImage, parse_saved_images};
pub(crate) use docker::{choose as choose_saved_image, split_tag};
pub(crate) use documents::{Document, Documents, MAX_DEPTH, OciImage, Search, version_of};
pub(crate) use layout::find as find_in_layout;

use crate::Text;

/// What is wrong with a document of an image.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not the JSON that it should be.
    #[error("is malformed: {0}")]
    Json(Text),
    /// It is for another kind of machine.
    #[error("the image is for {os}/{architecture}; only linux/amd64 can be run")]
    Platform {
        /// As the document says.
        os: Text,
        /// As the document says.
        architecture: Text,
    },
    /// It is meant to be read in two ways.
    #[error("has parts of an index and of a manifest; it could be taken for either")]
    Ambiguous,
    /// A value in it can't be used.
    #[error("{field} is '{value}': {problem}")]
    Value {
        /// Where it is.
        field: &'static str,
        /// What it is.
        value: Text,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl DocumentError {
    fn json(error: &serde_json::Error) -> Self {
        Self::Json(Text::new(error.to_string()))
    }

    pub(crate) fn value(
        field: &'static str,
        value: impl AsRef<[u8]>,
        problem: &'static str,
    ) -> Self {
        Self::Value { field, value: Text::new(value), problem }
    }
}

/// Parses a document. Its nesting is bounded to 128 by the JSON library, its size by the caller.
fn parse<'a, T: serde::Deserialize<'a>>(document: &'a [u8]) -> Result<T, DocumentError> {
    serde_json::from_slice(document).map_err(|error| DocumentError::json(&error))
}

/// The platform that can be run, as OCI and appc name it.
const OS: &str = "linux";
const ARCHITECTURE: &str = "amd64";

fn check_platform(os: &str, architecture: &str) -> Result<(), DocumentError> {
    if os == OS && architecture == ARCHITECTURE {
        return Ok(());
    }
    Err(DocumentError::Platform { os: Text::new(os), architecture: Text::new(architecture) })
}

/// Strings become arguments and environments of programs, which end at a NUL.
fn check_string(field: &'static str, value: &str) -> Result<(), DocumentError> {
    if value.contains('\0') {
        return Err(DocumentError::value(field, value, "it holds a NUL"));
    }
    Ok(())
}

/// A path as mount points and working directories have it.
fn check_absolute(field: &'static str, path: &str) -> Result<(), DocumentError> {
    check_string(field, path)?;
    if !path.starts_with('/') || path.split('/').any(|component| component == "..") {
        return Err(DocumentError::value(field, path, "it is not an absolute path without '..'"));
    }
    Ok(())
}

/// Whether the text is an ACName (appc, types.md): lower-case letters and digits, with single
/// dashes between them.
fn is_ac_name(text: &str) -> bool {
    is_words_with(text, b"-")
}

/// Whether the text is an AC Identifier (appc, types.md).
fn is_ac_identifier(text: &str) -> bool {
    is_words_with(text, b"-._~/")
}

/// Words of lower-case letters and digits, with one of `separators` between each two.
fn is_words_with(text: &str, separators: &[u8]) -> bool {
    text.as_bytes()
        .split(|byte| separators.contains(byte))
        .all(|word| !word.is_empty() && word.iter().all(is_lower_alphanumeric))
}

fn is_lower_alphanumeric(byte: &u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9')
}

/// Makes an ACName of any text, as far as there is one in it.
pub(crate) fn to_ac_name(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let words = lower.as_bytes().split(|byte| !is_lower_alphanumeric(byte));
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let name = String::from_utf8(words.join(&b'-')).ok()?;
    (!name.is_empty()).then_some(name)
}

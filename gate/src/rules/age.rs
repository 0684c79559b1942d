//! How old an image may be.
//!
//! Somebody who controls a registry, or the way to it, can hand out an old image with known holes;
//! its signature is as good as ever. A rule says from when on images below a name are accepted.

use super::check::{Finding, ImageFacts};
use crate::{
    instant,
    strict::{JsonError, Members},
    version::Version,
};
use sandbox_image::Text;

/// `notBefore` and `minimumVersion`.
#[derive(Debug, Clone, Default)]
pub(super) struct Age {
    not_before: Option<i64>,
    minimum: Option<(String, Version)>,
}

impl Age {
    /// Takes its members, if they are there.
    pub(super) fn take(members: &mut Members) -> Result<Self, JsonError> {
        let not_before = match members.optional_string("notBefore")? {
            None => None,
            Some(text) => Some(instant::parse(&text).ok_or_else(|| {
                let problem = "should be a time as 2026-01-01T00:00:00Z";
                JsonError::at(&members.path_of("notBefore"), problem)
            })?),
        };
        let minimum = match members.optional_string("minimumVersion")? {
            None => None,
            Some(text) => match Version::parse(&text) {
                Some(version) => Some((text, version)),
                None => {
                    let problem = "should be a version as 1.2.3";
                    return Err(JsonError::at(&members.path_of("minimumVersion"), problem));
                }
            },
        };
        Ok(Self { not_before, minimum })
    }

    /// Whether it asks for nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.not_before.is_none() && self.minimum.is_none()
    }

    pub(super) fn findings(&self, image: &ImageFacts<'_>) -> Vec<Finding> {
        let since = self.not_before.map(|earliest| since(earliest, image));
        let minimum = self.minimum.as_ref();
        since.into_iter().chain(minimum.map(|(text, least)| at_least(text, least, image))).collect()
    }
}

fn since(earliest: i64, image: &ImageFacts<'_>) -> Finding {
    let not_before = instant::format(earliest);
    let demand = format!("notBefore {not_before}");
    let made = "was made, by its own account,";
    let signed = image.signed.map(|time| (time, "was signed"));
    match signed.or_else(|| image.created.map(|time| (time, made))) {
        None => {
            let problem = format!(
                "nothing says when the image was signed or made, and notBefore {not_before} asks \
                 for it"
            );
            Finding::unmet(demand, problem)
        }
        Some((time, what)) => {
            let line = format!("the image {what} at {}", instant::format(time));
            if time < earliest {
                Finding::unmet(demand, format!("{line}, before {not_before}"))
            } else {
                Finding::met(demand, format!("{line}, not before {not_before}"))
            }
        }
    }
}

fn at_least(text: &str, least: &Version, image: &ImageFacts<'_>) -> Finding {
    let demand = format!("minimumVersion {text}");
    match image.version.map(|version| (Text::new(version), Version::parse(version))) {
        None => {
            let problem =
                format!("the image says no version, and minimumVersion {text} asks for one");
            Finding::unmet(demand, problem)
        }
        Some((version, None)) => {
            let problem = format!(
                "the image's version '{version}' can't be compared with minimumVersion {text}: it \
                 is not of the form 1.2.3"
            );
            Finding::unmet(demand, problem)
        }
        Some((version, Some(parsed))) if parsed < *least => {
            Finding::unmet(demand, format!("the image's version {version} is older than {text}"))
        }
        Some((version, Some(_))) => {
            Finding::met(demand, format!("the image's version {version} is at least {text}"))
        }
    }
}

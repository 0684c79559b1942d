//! Which name a signature has to give to the image: `signedIdentity`.

use super::docker_reference::{DockerReference, is_host, is_name};
use crate::strict::{JsonError, Members, Value};
use sandbox_image::Text;

/// What a signature has to call the image (containers-policy.json(5), "signedIdentity").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedIdentity {
    /// With a tag: exactly the image's name; with a digest: its repository. What holds if the
    /// policy says nothing.
    MatchRepoDigestOrExact,
    /// Exactly the image's name.
    MatchExact,
    /// The image's repository.
    MatchRepository,
    /// One given name with a tag or digest, whatever the image is called.
    ExactReference(String),
    /// One given repository, whatever the image is called.
    ExactRepository(String),
    /// As [`SignedIdentity::MatchRepoDigestOrExact`], after a prefix of the image's name was
    /// replaced.
    RemapIdentity {
        /// What the image's name has to begin with to be changed: whole components.
        prefix: String,
        /// What the signature has in its place.
        signed_prefix: String,
    },
    /// Nothing: the digest alone is compared. It isn't of containers-policy.json(5), and may only
    /// be used with `sigstoreSigned`: bundles as cosign 3 makes them sign a digest and no name, so
    /// nothing else can accept them. An image that the key signed for one repository is then
    /// accepted in each repository of the scope.
    MatchDigest,
}

/// The types that a policy may name.
const TYPES: &str = "matchExact, matchRepoDigestOrExact, matchRepository, exactReference, \
                     exactRepository, remapIdentity and, with sigstoreSigned, matchDigest";

impl SignedIdentity {
    pub(super) fn parse(value: Value, path: &str, sigstore: bool) -> Result<Self, JsonError> {
        let mut members = Members::of(value, path)?;
        let identity = match members.string("type")?.as_str() {
            "matchRepoDigestOrExact" => Self::MatchRepoDigestOrExact,
            "matchExact" => Self::MatchExact,
            "matchRepository" => Self::MatchRepository,
            "matchDigest" if sigstore => Self::MatchDigest,
            "exactReference" => {
                let text = members.string("dockerReference")?;
                match DockerReference::parse(&text) {
                    Some(reference) if !reference.is_name_only() => {
                        Self::ExactReference(reference.to_string())
                    }
                    _ => {
                        let problem = "should be an image's name with a tag or digest";
                        return Err(JsonError::at(&members.path_of("dockerReference"), problem));
                    }
                }
            }
            "exactRepository" => {
                let text = members.string("dockerRepository")?;
                match DockerReference::parse(&text) {
                    Some(reference) => Self::ExactRepository(reference.name),
                    None => {
                        let problem = "should be the name of a repository";
                        return Err(JsonError::at(&members.path_of("dockerRepository"), problem));
                    }
                }
            }
            "remapIdentity" => {
                let mut prefix = |name: &str| {
                    let text = members.string(name)?;
                    if is_host(&text) || is_name(&text) {
                        return Ok(text);
                    }
                    let problem = "should be HOST[:PORT] or HOST[:PORT]/PATH, with its host and \
                                   without a tag";
                    Err(JsonError::at(&members.path_of(name), problem))
                };
                let (prefix, signed_prefix) = (prefix("prefix")?, prefix("signedPrefix")?);
                Self::RemapIdentity { prefix, signed_prefix }
            }
            other => {
                let problem = format!("'{}' is not one of {TYPES}", Text::new(other));
                return Err(JsonError::at(&members.path_of("type"), problem));
            }
        };
        members.finish()?;
        Ok(identity)
    }

    /// Whether a signature that calls the image `signed` fits. `image` is what it is called here,
    /// if it comes from a registry.
    pub(crate) fn check(
        &self,
        image: Option<&DockerReference>,
        signed: Option<&str>,
    ) -> Result<(), String> {
        if *self == Self::MatchDigest {
            return Ok(());
        }
        let Some(text) = signed else {
            return Err(format!(
                "it is over a digest alone and names no image, so '{}' can't be met; a bundle of \
                 cosign 3 is accepted only with \"signedIdentity\": {{\"type\": \"matchDigest\"}}",
                self.name()
            ));
        };
        let signed = DockerReference::parse(text).ok_or_else(|| {
            format!("it is for '{}', which is not an image's name", Text::new(text))
        })?;
        let image = || {
            image.ok_or_else(|| {
                format!(
                    "'{}' compares with the name in a registry, and the image has none; use \
                     exactReference or exactRepository",
                    self.name()
                )
            })
        };
        let expected = match self {
            Self::MatchDigest => return Ok(()),
            Self::MatchExact => exact(image()?, &signed),
            Self::MatchRepoDigestOrExact => exact_or_repository(image()?, &signed),
            Self::MatchRepository => repository(&image()?.name, &signed),
            Self::ExactRepository(name) => repository(name, &signed),
            Self::ExactReference(reference) => {
                (*reference != signed.to_string()).then(|| reference.clone())
            }
            Self::RemapIdentity { prefix, signed_prefix } => {
                exact_or_repository(&remap(image()?, prefix, signed_prefix)?, &signed)
            }
        };
        match expected {
            None => Ok(()),
            Some(expected) => Err(format!(
                "it is for {}, and '{}' asks for {}",
                Text::new(signed.to_string()),
                self.name(),
                Text::new(expected)
            )),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::MatchRepoDigestOrExact => "matchRepoDigestOrExact",
            Self::MatchExact => "matchExact",
            Self::MatchRepository => "matchRepository",
            Self::ExactReference(_) => "exactReference",
            Self::ExactRepository(_) => "exactRepository",
            Self::RemapIdentity { .. } => "remapIdentity",
            Self::MatchDigest => "matchDigest",
        }
    }
}

// Each of these returns what was expected, if it is not what was signed.

/// A tag decides even if there is a digest as well: what the digest names is checked anyway.
fn exact(image: &DockerReference, signed: &DockerReference) -> Option<String> {
    let expected = match image.tag {
        Some(_) => DockerReference { digest: None, ..image.clone() },
        None => image.clone(),
    };
    if expected.is_name_only() {
        return Some(format!("{expected} with a tag or digest"));
    }
    (*signed != expected).then(|| expected.to_string())
}

fn exact_or_repository(image: &DockerReference, signed: &DockerReference) -> Option<String> {
    match (&image.tag, &image.digest) {
        (None, Some(_)) if signed.is_name_only() => {
            Some(format!("{} with a tag or digest", image.name))
        }
        (None, Some(_)) => repository(&image.name, signed),
        _ => exact(image, signed),
    }
}

fn repository(name: &str, signed: &DockerReference) -> Option<String> {
    (signed.name != name).then(|| format!("the repository {name}"))
}

fn remap(
    image: &DockerReference,
    prefix: &str,
    signed_prefix: &str,
) -> Result<DockerReference, String> {
    let rest = match image.name.strip_prefix(prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => return Ok(image.clone()),
    };
    let name = format!("{signed_prefix}{rest}");
    if !is_name(&name) {
        return Err(format!("remapIdentity makes '{}' of the image's name", Text::new(name)));
    }
    Ok(DockerReference { name, ..image.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(identity: &SignedIdentity, image: &str, signed: &str) -> bool {
        let image = DockerReference::parse(image).unwrap();
        identity.check(Some(&image), Some(signed)).is_ok()
    }

    /// containers-policy.json(5), each of the paragraphs under "signedIdentity".
    #[test]
    fn as_the_manual_says() {
        use SignedIdentity::*;
        let digest = format!("@sha256:{}", "1".repeat(64));
        let other = format!("@sha256:{}", "2".repeat(64));
        let by_digest = format!("example.com/a/b{digest}");
        for (identity, image, signed, expected) in [
            (MatchExact, "example.com/a/b:1", "example.com/a/b:1", true),
            (MatchExact, "example.com/a/b:1", "example.com/a/b:2", false),
            (MatchExact, "example.com/a/b:1", "example.com/a/b", false),
            (MatchExact, &by_digest, "example.com/a/b:1", false),
            (MatchExact, &by_digest, &by_digest, true),
            (MatchRepoDigestOrExact, "example.com/a/b:1", "example.com/a/b:1", true),
            (MatchRepoDigestOrExact, "example.com/a/b:1", "example.com/a/b:2", false),
            (MatchRepoDigestOrExact, "example.com/a/b:1", "example.com/a/b", false),
            (MatchRepoDigestOrExact, "example.com/a/b:1", &by_digest, false),
            (MatchRepoDigestOrExact, &by_digest, "example.com/a/b:1", true),
            (MatchRepoDigestOrExact, &by_digest, &format!("example.com/a/b{other}"), true),
            (MatchRepoDigestOrExact, &by_digest, "example.com/a/b", false),
            (MatchRepoDigestOrExact, &by_digest, "example.com/a/c:1", false),
            (MatchRepoDigestOrExact, &format!("example.com/a:1{digest}"), "example.com/a:1", true),
            (MatchRepoDigestOrExact, &format!("example.com/a:1{digest}"), "example.com/a:2", false),
            (MatchRepoDigestOrExact, "example.com/a", "example.com/a", false),
            (MatchRepository, "example.com/a/b:1", "example.com/a/b", true),
            (MatchRepository, "example.com/a/b:1", "example.com/a/b:9", true),
            (MatchRepository, "example.com/a/b:1", "example.com/a:1", false),
            (MatchRepository, "example.com/a/b:1", "example.com/a/bc", false),
            (MatchRepository, "docker.io/library/busybox:1", "busybox", true),
            (ExactReference("example.com/o:1".into()), "mirror.com/a:3", "example.com/o:1", true),
            (ExactReference("example.com/o:1".into()), "mirror.com/a:3", "example.com/o:2", false),
            (ExactRepository("example.com/o".into()), "mirror.com/a:3", "example.com/o:2", true),
            (ExactRepository("example.com/o".into()), "mirror.com/a:3", "example.com/x:2", false),
        ] {
            assert_eq!(fits(&identity, image, signed), expected, "{identity:?} {image} {signed}");
        }
        let remap = RemapIdentity {
            prefix: "mirror.com:5000/vendor".into(),
            signed_prefix: "vendor.example".into(),
        };
        for (image, signed, expected) in [
            ("mirror.com:5000/vendor/p/i:1", "vendor.example/p/i:1", true),
            ("mirror.com:5000/vendor/p/i:1", "vendor.example/p/i:2", false),
            ("mirror.com:5000/vendor/p/i:1", "mirror.com:5000/vendor/p/i:1", false),
            // A prefix ends where a component ends.
            ("mirror.com:5000/vendors/p:1", "vendor.examples/p:1", false),
            ("mirror.com:5000/vendors/p:1", "mirror.com:5000/vendors/p:1", true),
            // What remains would be no name.
            ("mirror.com:5000/vendor:1", "vendor.example:1", false),
        ] {
            assert_eq!(fits(&remap, image, signed), expected, "{image} {signed}");
        }
    }

    #[test]
    fn without_a_name_in_a_registry_only_the_exact_ones_can_hold() {
        use SignedIdentity::*;
        for (identity, expected) in [
            (MatchExact, false),
            (MatchRepository, false),
            (MatchRepoDigestOrExact, false),
            (RemapIdentity { prefix: "a.b".into(), signed_prefix: "a.b".into() }, false),
            (ExactReference("a.b/c:1".into()), true),
            (ExactRepository("a.b/c".into()), true),
            (MatchDigest, true),
        ] {
            assert_eq!(identity.check(None, Some("a.b/c:1")).is_ok(), expected, "{identity:?}");
            assert_eq!(
                identity.check(None, None).is_ok(),
                identity == MatchDigest,
                "without a name in the signature either: {identity:?}"
            );
        }
    }
}

use crate::{Digest, Text, http::parse_authority};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The registry of references that name none.
pub const DOCKER_IO: &str = "docker.io";

/// An image in a registry: `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`.
///
/// `Display` is the canonical text, which names all parts: `docker.io/library/debian:13`. The
/// registry is in lower case, so that a rule for it can't be passed by writing it differently.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The text does not name an image in a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryReferenceError {
    /// There is nothing, or more than any registry takes.
    #[error("'{0}' is not a name of 1 to {max} characters", max = RegistryReference::MAX)]
    Length(Text),
    /// The registry is not HOST or HOST:PORT.
    #[error("'{text}': '{registry}' is not a registry's HOST[:PORT]")]
    Registry {
        /// All of it.
        text: Text,
        /// The part that is wrong.
        registry: Text,
    },
    /// The repository's name is not allowed.
    #[error(
        "'{text}': '{repository}' is not a repository's name: it consists of lower-case letters \
         and digits, with single '.', '_', '-' or '/' between them"
    )]
    Repository {
        /// All of it.
        text: Text,
        /// The part that is wrong.
        repository: Text,
    },
    /// The tag is not allowed.
    #[error("'{text}': '{tag}' is not a tag: up to 128 letters, digits, '_', '.' and '-'")]
    Tag {
        /// All of it.
        text: Text,
        /// The part that is wrong.
        tag: Text,
    },
    /// The digest is not one.
    #[error("'{text}': '{digest}' is not a digest of the form sha256:HEX or sha512:HEX")]
    Digest {
        /// All of it.
        text: Text,
        /// The part that is wrong.
        digest: Text,
    },
}

impl RegistryReference {
    /// The longest name (registry and repository) in bytes, as in other implementations.
    pub const MAX: usize = 255;
    /// The tag that is meant where there is neither tag nor digest.
    pub const DEFAULT_TAG: &str = "latest";

    /// Reads a reference as `docker` does: the first component is a registry if it holds a dot or
    /// a colon or is `localhost`; otherwise the registry is `docker.io`, whose repositories of one
    /// component are below `library/`.
    ///
    /// # Errors
    /// See [`RegistryReferenceError`].
    pub fn parse(text: &str) -> Result<Self, RegistryReferenceError> {
        let whole = || Text::new(text);
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let refused =
                    |_| RegistryReferenceError::Digest { text: whole(), digest: Text::new(digest) };
                (rest, Some(digest.parse::<Digest>().map_err(refused)?))
            }
            None => (text, None),
        };
        // A colon after the last slash is before a tag; one before it is before a port.
        let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_end..].find(':') {
            Some(colon) => (&rest[..name_end + colon], Some(&rest[name_end + colon + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(RegistryReferenceError::Tag { text: whole(), tag: Text::new(tag) });
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest),
            _ => (DOCKER_IO, name),
        };
        let registry = canonical_registry(registry).ok_or_else(|| {
            RegistryReferenceError::Registry { text: whole(), registry: Text::new(registry) }
        })?;
        if !is_repository(repository) {
            let repository = Text::new(repository);
            return Err(RegistryReferenceError::Repository { text: whole(), repository });
        }
        let repository = if registry == DOCKER_IO && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        if registry.len() + 1 + repository.len() > Self::MAX {
            return Err(RegistryReferenceError::Length(whole()));
        }
        Ok(Self { registry, repository, tag: tag.map(str::to_owned), digest })
    }

    /// `HOST[:PORT]`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name of the repository in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `REGISTRY/REPOSITORY`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag as it was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest as it was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The tag that is asked for if there is no digest: the default one where none was given.
    pub fn tag_or_default(&self) -> &str {
        self.tag.as_deref().unwrap_or(Self::DEFAULT_TAG)
    }

    /// The same repository, and in it what has the digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository, and in it what has the tag. Nothing if that can't be a tag.
    pub fn with_tag(&self, tag: &str) -> Option<Self> {
        let tag = is_tag(tag).then(|| tag.to_owned())?;
        Some(Self { tag: Some(tag), digest: None, ..self.clone() })
    }
}

impl FromStr for RegistryReference {
    type Err = RegistryReferenceError;

    fn from_str(text: &str) -> Result<Self, RegistryReferenceError> {
        Self::parse(text)
    }
}

impl fmt::Display for RegistryReference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.registry, self.repository)?;
        match (&self.tag, &self.digest) {
            (None, None) => write!(out, ":{}", Self::DEFAULT_TAG),
            (tag, digest) => {
                tag.iter().try_for_each(|tag| write!(out, ":{tag}"))?;
                digest.iter().try_for_each(|digest| write!(out, "@{digest}"))
            }
        }
    }
}

impl fmt::Debug for RegistryReference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl Serialize for RegistryReference {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RegistryReference {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Whether the first component of a name is a registry, as `docker` tells it.
fn is_registry(component: &str) -> bool {
    component.contains(['.', ':', '[']) || component.eq_ignore_ascii_case("localhost")
}

pub(super) fn canonical_registry(registry: &str) -> Option<String> {
    let (host, port) = parse_authority(registry).ok()?;
    // A port of zeros and digits has one spelling only.
    let port = match (port, registry.rsplit_once(':')) {
        (Some(port), Some((_, digits))) if digits == port.to_string() => format!(":{port}"),
        (Some(_), _) => return None,
        (None, _) => String::new(),
    };
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" if port.is_empty() => Some(DOCKER_IO.to_owned()),
        _ => Some(format!("{host}{port}")),
    }
}

/// Components of lower-case letters and digits; between those `.`, `_`, `__` or any dashes.
pub(crate) fn is_repository(name: &str) -> bool {
    !name.is_empty() && name.split('/').all(is_component)
}

fn is_component(component: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut bytes = component.as_bytes();
    loop {
        let word = bytes.iter().take_while(|byte| is_word(byte)).count();
        if word == 0 {
            return false;
        }
        bytes = &bytes[word..];
        if bytes.is_empty() {
            return true;
        }
        let separator = bytes.iter().take_while(|byte| !is_word(byte)).count();
        match &bytes[..separator] {
            b"." | b"_" | b"__" => {}
            dashes if dashes.iter().all(|&byte| byte == b'-') => {}
            _ => return false,
        }
        bytes = &bytes[separator..];
    }
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
        && tag.as_bytes().first().is_some_and(|&first| is_word(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_have_one_canonical_text() {
        let digest = format!("@sha256:{HEX}");
        for (text, canonical) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:13", "docker.io/library/debian:13"),
            ("library/debian", "docker.io/library/debian:latest"),
            ("docker.io/debian", "docker.io/library/debian:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest"),
            ("team/app:V1", "docker.io/team/app:V1"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x:1", "localhost:5000/x:1"),
            ("Quay.IO/a/b/c__d-e---f.g:1", "quay.io/a/b/c__d-e---f.g:1"),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ] {
            let reference = RegistryReference::parse(text).unwrap();
            assert_eq!(reference.to_string(), canonical, "{text}");
            assert_eq!(RegistryReference::parse(canonical).unwrap().to_string(), canonical);
        }
        let both = RegistryReference::parse(&format!("debian:13{digest}")).unwrap();
        assert_eq!(both.to_string(), format!("docker.io/library/debian:13{digest}"));
        assert_eq!((both.tag(), both.digest().unwrap().hex()), (Some("13"), HEX));
        let pinned = RegistryReference::parse(&format!("debian{digest}")).unwrap();
        assert_eq!(pinned.to_string(), format!("docker.io/library/debian{digest}"));
    }

    #[test]
    fn what_is_no_reference() {
        let long = "a/".repeat(130) + "a";
        for text in [
            "",
            ":1",
            "debian:",
            "debian:-x",
            "debian:a b",
            "debian@sha256:abc",
            "debian@md5:d41d8cd98f00b204e9800998ecf8427e",
            "/debian",
            "debian/",
            "a//b",
            "../b",
            "a/../b",
            "a/./b",
            "library/Debian",
            "a..b/c",
            "deb_-ian",
            "a___b",
            "user@host/x",
            "host:0/x",
            "host:05000/x",
            "host:99999/x",
            "exa mple.com/x",
            "https://example.com/x",
            "example.com/x?y",
            "example.com/x%2f",
            "example.com/\u{e9}",
            &long,
            &format!("debian:{}", "a".repeat(129)),
        ] {
            assert!(RegistryReference::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_reference_reads_back_as_itself(text in "[a-zA-Z0-9._:/@-]{1,40}") {
            if let Ok(first) = RegistryReference::parse(&text) {
                let again = RegistryReference::parse(&first.to_string()).unwrap();
                prop_assert_eq!(again.name(), first.name());
                prop_assert_eq!(again.to_string(), first.to_string());
            }
        }
    }
}

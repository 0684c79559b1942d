//! Names of images in registries, as they are in signatures and in the policy.

use sandbox_image::Digest;
use std::fmt;

/// A name in the fully expanded form, with what comes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DockerReference {
    /// `docker.io/library/debian`.
    pub name: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl DockerReference {
    /// Parses `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`; what is left out of the name is expanded.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().ok()?)),
            None => (text, None),
        };
        // A port has a slash behind it.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return None;
        }
        let name = expand(name)?;
        is_name(&name).then(|| Self { name, tag: tag.map(str::to_owned), digest })
    }

    pub(crate) fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }
}

impl fmt::Display for DockerReference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(out, "@{digest}"))
    }
}

/// Adds the host and the namespace that Docker means if they are left out.
fn expand(name: &str) -> Option<String> {
    if name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        // That would be an image ID.
        return None;
    }
    Some(match name.split_once('/') {
        Some(("docker.io" | "index.docker.io", path)) if !path.contains('/') => {
            format!("docker.io/library/{path}")
        }
        Some(("index.docker.io", path)) => format!("docker.io/{path}"),
        Some((host, _)) if is_host_by_looks(host) => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    })
}

/// Whether the first component of a name is a host, and not a namespace of Docker Hub.
pub(crate) fn is_host_by_looks(component: &str) -> bool {
    component == "localhost"
        || component.contains(['.', ':'])
        || component.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Whether it is a fully expanded name: a host and at least one component of a path.
pub(crate) fn is_name(name: &str) -> bool {
    let mut components = name.split('/');
    let host = components.next().unwrap_or_default();
    let mut count = 0;
    name.len() <= 255
        && is_host(host)
        && components.all(|component| {
            count += 1;
            is_path_component(component)
        })
        && count > 0
}

/// `HOST[:PORT]`.
pub(crate) fn is_host(text: &str) -> bool {
    if !is_host_by_looks(text) {
        return false;
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                ("localhost", rest.strip_prefix(':').or((!rest.is_empty()).then_some("")))
            }
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_label = |label: &str| {
        label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(is_label)
        && port
            .is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Words of lower-case letters and digits with `.`, `_`, `__` or dashes between them.
fn is_path_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let mut separators = bytes.split(|&byte| is_word(byte)).filter(|part| !part.is_empty());
    bytes.first().copied().is_some_and(is_word)
        && bytes.last().copied().is_some_and(is_word)
        && separators.all(|part| {
            matches!(part, b"." | b"_" | b"__") || part.iter().all(|&byte| byte == b'-')
        })
}

pub(crate) fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_expanded() {
        let hex = "a".repeat(64);
        for (text, expected) in [
            ("busybox", "docker.io/library/busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("docker.io/busybox", "docker.io/library/busybox"),
            ("index.docker.io/a/b", "docker.io/a/b"),
            ("a/b", "docker.io/a/b"),
            ("localhost/a", "localhost/a"),
            ("localhost:5000/a:1", "localhost:5000/a:1"),
            ("[::1]:5000/a", "[::1]:5000/a"),
            ("example.com/a__b-c.d", "example.com/a__b-c.d"),
        ] {
            assert_eq!(DockerReference::parse(text).unwrap().to_string(), expected, "{text}");
        }
        let digest = format!("example.com/a:1@sha256:{hex}");
        assert_eq!(DockerReference::parse(&digest).unwrap().to_string(), digest);
        for refused in [
            "",
            "/",
            "a/",
            "/a",
            "A",
            "example.com/A",
            "a:",
            "a:-x",
            "a@sha256:00",
            "a b",
            "example.com//a",
            "a___b",
            "-a",
            "a-",
            "example..com/a",
            "example.com:x/a",
            "[::1/a",
            "[::1]5/a",
            "exa\u{301}mple.com/a",
            &hex,
        ] {
            assert_eq!(DockerReference::parse(refused), None, "{refused}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_the_same(text in "[a-zA-Z0-9./:@_\\[\\]-]{0,40}") {
            if let Some(reference) = DockerReference::parse(&text) {
                prop_assert_eq!(DockerReference::parse(&reference.to_string()), Some(reference));
            }
        }
    }
}

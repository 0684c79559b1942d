//! What an image argument of the command line means.

mod id;
pub(crate) mod place;

use crate::{
    Text,
    discovery::{AppcName, AppcNameError},
    http::{Url, UrlError},
    registry::{RegistryReference, RegistryReferenceError},
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

pub use id::ImageIdPrefix;

/// What an image argument of the command line means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reference {
    /// `docker://NAME`, or a name that can only be one of a registry.
    Registry {
        /// Where it is.
        image: RegistryReference,
    },
    /// `oci:DIRECTORY[:NAME]`: an OCI image layout.
    OciLayout {
        /// The layout's directory.
        #[serde(with = "place")]
        directory: PathBuf,
        /// Which of its images: a value of the annotation `org.opencontainers.image.ref.name`, or
        /// a manifest's digest. Needed if there are several.
        name: Option<String>,
    },
    /// `oci-archive:FILE[:NAME]`: the same as a tar file.
    OciArchive {
        /// The tar file.
        #[serde(with = "place")]
        file: PathBuf,
        /// As of a layout.
        name: Option<String>,
    },
    /// `docker-archive:FILE[:NAME]`: a file as `docker save` writes it.
    DockerArchive {
        /// The tar file.
        #[serde(with = "place")]
        file: PathBuf,
        /// Which of its images: one of its tags. Needed if there are several.
        name: Option<String>,
    },
    /// A path, or `file:` and an absolute path: an App Container Image.
    Aci {
        /// The ACI.
        #[serde(with = "place")]
        file: PathBuf,
    },
    /// `https://HOST/PATH.aci`: an App Container Image on a web server.
    AciUrl {
        /// Where it is.
        url: Url,
    },
    /// `NAME[:VERSION][,LABEL=VALUE…]`: an App Container Image that is found by its name.
    Appc {
        /// The name, with the labels that were asked for.
        name: AppcName,
    },
    /// `sha512-HEX` or `sha256-HEX`: an image of the store, by its ID or the beginning of it.
    Id {
        /// The ID.
        prefix: ImageIdPrefix,
    },
}

/// An image argument can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// There is nothing to look at.
    #[error("the image argument is empty")]
    Empty,
    /// Its kind is known, and not supported.
    #[error("cannot fetch '{argument}': {kind} are not supported; {SUPPORTED}")]
    Unsupported {
        /// The whole argument.
        argument: Text,
        /// What kind it is.
        kind: &'static str,
    },
    /// A path is missing after the scheme.
    #[error("'{0}' names no path; {SUPPORTED}")]
    NoPath(Text),
    /// The part after the path, or a name, is not text.
    #[error("in '{0}' the image's name is not UTF-8")]
    NotText(Text),
    /// A `file:` URL that rkt would not take either.
    #[error("'{0}' is not of the form file:///PATH.aci")]
    FileUrl(Text),
    /// A URL of something that does not look like an ACI.
    #[error("'{0}' is not of the form https://HOST/PATH.aci")]
    NotAnAci(Text),
    /// A URL is malformed.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// An image ID is malformed.
    #[error(
        "'{0}' is not an image ID: it is sha512- or sha256- and at least 2 hexadecimal digits in \
         lower case, from its beginning"
    )]
    Id(Text),
    /// A reference to a registry is malformed.
    #[error(transparent)]
    Registry(#[from] RegistryReferenceError),
    /// A name is neither that of an ACI nor one of a registry.
    #[error(
        "'{argument}' is no name of an App Container Image: {problem}; if a registry has it, \
         write docker://{argument}; {SUPPORTED}"
    )]
    Name {
        /// The whole argument.
        argument: Text,
        /// What is wrong with it.
        problem: AppcNameError,
    },
    /// The path of an image does not lead anywhere.
    #[error("cannot find {path}: {source}")]
    Missing {
        /// The path.
        path: Text,
        /// What the system says.
        source: io::Error,
    },
}

const SUPPORTED: &str = "what can be fetched is docker://NAME[:TAG|@DIGEST], \
                         oci:DIRECTORY[:NAME], oci-archive:FILE[:NAME], \
                         docker-archive:FILE[:NAME], and an ACI's path, https URL or name";

impl Reference {
    /// Reads an argument as rkt does, in this order: an image ID, a scheme, an absolute path, an
    /// existing file, a name, a path. Looks whether a relative path exists, and at nothing else.
    ///
    /// A name is that of an ACI, to be discovered, as in rkt. It is a registry's if it could not
    /// be discovered anyway: if it holds a digest (`@sha256:`), or its first component is
    /// `localhost`, has a port, or has no dot.
    ///
    /// # Errors
    /// See [`ReferenceError`].
    pub fn parse(argument: &OsStr) -> Result<Self, ReferenceError> {
        let bytes = argument.as_bytes();
        if bytes.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if bytes.starts_with(b"sha512-") || bytes.starts_with(b"sha256-") {
            let prefix = std::str::from_utf8(bytes).ok().and_then(ImageIdPrefix::parse);
            let prefix = prefix.ok_or_else(|| ReferenceError::Id(Text::new(bytes)))?;
            return Ok(Self::Id { prefix });
        }
        let scheme = bytes.iter().position(|&byte| byte == b':');
        match scheme.map(|colon| (&bytes[..colon], &bytes[colon + 1..])) {
            Some((b"docker", rest)) => {
                let name = text(bytes, rest.strip_prefix(b"//").unwrap_or(rest))?;
                Ok(Self::Registry { image: RegistryReference::parse(name)? })
            }
            Some((b"oci", rest)) => {
                let (directory, name) = path_and_name(bytes, rest)?;
                Ok(Self::OciLayout { directory, name })
            }
            Some((b"oci-archive", rest)) => {
                let (file, name) = path_and_name(bytes, rest)?;
                Ok(Self::OciArchive { file, name })
            }
            Some((b"docker-archive", rest)) => {
                let (file, name) = path_and_name(bytes, rest)?;
                Ok(Self::DockerArchive { file, name })
            }
            Some((b"file", rest)) => match rest.strip_prefix(b"//") {
                Some(path) if path.starts_with(b"/") && path.ends_with(b".aci") => {
                    Ok(Self::Aci { file: path_of(path) })
                }
                _ => Err(ReferenceError::FileUrl(Text::new(bytes))),
            },
            Some((b"http" | b"https", _)) => {
                let url: Url = text(bytes, bytes)?.parse()?;
                if !url.path().split('?').next().is_some_and(|path| path.ends_with(".aci")) {
                    return Err(ReferenceError::NotAnAci(Text::new(bytes)));
                }
                Ok(Self::AciUrl { url })
            }
            Some((b"cimd", _)) => Err(ReferenceError::Unsupported {
                argument: Text::new(bytes),
                kind: "cimd: references",
            }),
            _ if bytes[0] == b'/' || Path::new(argument).is_file() => {
                Ok(Self::Aci { file: path_of(bytes) })
            }
            Some(_) => name(text(bytes, bytes)?),
            None if bytes.windows(2).any(|pair| pair == b"./") || bytes.ends_with(b".aci") => {
                Ok(Self::Aci { file: path_of(bytes) })
            }
            None => name(text(bytes, bytes)?),
        }
    }

    /// The directory or file that holds the image, if it is on this machine.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::OciLayout { directory, .. } => Some(directory),
            Self::OciArchive { file, .. }
            | Self::DockerArchive { file, .. }
            | Self::Aci { file } => Some(file),
            Self::Registry { .. } | Self::AciUrl { .. } | Self::Appc { .. } | Self::Id { .. } => {
                None
            }
        }
    }

    /// The same reference with an absolute path without symbolic links, so that it means the same
    /// everywhere, and policies can tell where the image is from.
    ///
    /// # Errors
    /// [`ReferenceError::Missing`]
    pub fn resolved(&self) -> Result<Self, ReferenceError> {
        let mut resolved = self.clone();
        match &mut resolved {
            Self::OciLayout { directory: path, .. }
            | Self::OciArchive { file: path, .. }
            | Self::DockerArchive { file: path, .. }
            | Self::Aci { file: path } => {
                *path = path.canonicalize().map_err(|source| ReferenceError::Missing {
                    path: Text::of_os(&path),
                    source,
                })?;
            }
            Self::Registry { .. } | Self::AciUrl { .. } | Self::Appc { .. } | Self::Id { .. } => {}
        }
        Ok(resolved)
    }
}

/// The argument as it was given, as far as it can be shown.
impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path, name) = match self {
            Self::Registry { image } => return write!(out, "{image}"),
            Self::AciUrl { url } => return write!(out, "{url}"),
            Self::Appc { name } => return write!(out, "{name}"),
            Self::Id { prefix } => return write!(out, "{prefix}"),
            Self::OciLayout { directory, name } => ("oci:", directory, name.as_deref()),
            Self::OciArchive { file, name } => ("oci-archive:", file, name.as_deref()),
            Self::DockerArchive { file, name } => ("docker-archive:", file, name.as_deref()),
            Self::Aci { file } => ("", file, None),
        };
        write!(out, "{scheme}{}", Text::of_os(path))?;
        name.map_or(Ok(()), |name| write!(out, ":{}", Text::new(name)))
    }
}

/// A name without a scheme: an ACI's, unless it can only be a registry's.
fn name(argument: &str) -> Result<Reference, ReferenceError> {
    let has_digest = argument.contains("@sha256:") || argument.contains("@sha512:");
    let is_registry = match argument.split_once('/') {
        Some((first, _)) => first == "localhost" || first.contains(':') || !first.contains('.'),
        // What follows a colon here is a version or tag, never a port.
        None => !argument.split(':').next().unwrap_or_default().contains('.'),
    };
    if has_digest || is_registry {
        return Ok(Reference::Registry { image: RegistryReference::parse(argument)? });
    }
    match AppcName::parse(argument) {
        Ok(name) => Ok(Reference::Appc { name }),
        Err(problem) => Err(ReferenceError::Name { argument: Text::new(argument), problem }),
    }
}

fn text<'a>(whole: &[u8], part: &'a [u8]) -> Result<&'a str, ReferenceError> {
    std::str::from_utf8(part).map_err(|_| ReferenceError::NotText(Text::new(whole)))
}

/// `PATH[:NAME]`; as in other tools the path ends at the first colon, the name may hold some.
fn path_and_name(whole: &[u8], rest: &[u8]) -> Result<(PathBuf, Option<String>), ReferenceError> {
    let (path, name) = match rest.iter().position(|&byte| byte == b':') {
        Some(colon) => (&rest[..colon], &rest[colon + 1..]),
        None => (rest, &[][..]),
    };
    if path.is_empty() {
        return Err(ReferenceError::NoPath(Text::new(whole)));
    }
    let name = text(whole, name)?;
    Ok((path_of(path), (!name.is_empty()).then(|| name.to_owned())))
}

fn path_of(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

use crate::Text;
use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

/// What an image argument of the command line means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `oci:DIRECTORY[:NAME]`: an OCI image layout.
    OciLayout {
        /// The layout's directory.
        directory: PathBuf,
        /// Which of its images: a value of the annotation `org.opencontainers.image.ref.name`, or
        /// a manifest's digest. Needed if there are several.
        name: Option<String>,
    },
    /// `oci-archive:FILE[:NAME]`: the same as a tar file.
    OciArchive {
        /// The tar file.
        file: PathBuf,
        /// As of a layout.
        name: Option<String>,
    },
    /// `docker-archive:FILE[:NAME]`: a file as `docker save` writes it.
    DockerArchive {
        /// The tar file.
        file: PathBuf,
        /// Which of its images: one of its tags. Needed if there are several.
        name: Option<String>,
    },
    /// A path, or `file:` and an absolute path: an App Container Image.
    Aci {
        /// The ACI.
        file: PathBuf,
    },
}

/// An image argument can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// There is nothing to look at.
    #[error("the image argument is empty")]
    Empty,
    /// Its kind is known, and not supported.
    #[error("cannot fetch '{argument}': images from a {kind} are not supported yet; {SUPPORTED}")]
    NotYet {
        /// The whole argument.
        argument: Text,
        /// What kind it is.
        kind: &'static str,
    },
    /// A path is missing after the scheme.
    #[error("'{0}' names no path; {SUPPORTED}")]
    NoPath(Text),
    /// The part after the path is not text.
    #[error("in '{0}' the image's name is not UTF-8")]
    NotText(Text),
    /// A `file:` URL that rkt would not take either.
    #[error("'{0}' is not of the form file:///PATH.aci")]
    FileUrl(Text),
}

const SUPPORTED: &str = "what can be run is oci:DIRECTORY[:NAME], oci-archive:FILE[:NAME], \
                         docker-archive:FILE[:NAME] and the path of an ACI";

impl Reference {
    /// Reads an argument as rkt does, in this order: an image ID, a scheme, an absolute path, an
    /// existing file, a name, a path. Looks whether a relative path exists, and at nothing else.
    ///
    /// # Errors
    /// See [`ReferenceError`].
    pub fn parse(argument: &OsStr) -> Result<Self, ReferenceError> {
        let bytes = argument.as_bytes();
        if bytes.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let not_yet = |kind| Err(ReferenceError::NotYet { argument: Text::new(bytes), kind });
        let scheme = bytes.iter().position(|&byte| byte == b':');
        match scheme.map(|colon| (&bytes[..colon], &bytes[colon + 1..])) {
            _ if bytes.starts_with(b"sha512-") => not_yet("store, by image ID,"),
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
            Some((b"docker", _)) => not_yet("Docker registry"),
            Some((b"http" | b"https", _)) => not_yet("web server"),
            Some((b"cimd", _)) => not_yet("cimd: reference"),
            _ if bytes[0] == b'/' || Path::new(argument).is_file() => {
                Ok(Self::Aci { file: path_of(bytes) })
            }
            Some(_) => not_yet("registry, by name,"),
            None if bytes.windows(2).any(|pair| pair == b"./") || bytes.ends_with(b".aci") => {
                Ok(Self::Aci { file: path_of(bytes) })
            }
            None => not_yet("registry, by name,"),
        }
    }

    /// The directory or file that holds the image.
    pub fn path(&self) -> &Path {
        match self {
            Self::OciLayout { directory, .. } => directory,
            Self::OciArchive { file, .. }
            | Self::DockerArchive { file, .. }
            | Self::Aci { file } => file,
        }
    }

    fn scheme_and_name(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::OciLayout { name, .. } => ("oci:", name.as_deref()),
            Self::OciArchive { name, .. } => ("oci-archive:", name.as_deref()),
            Self::DockerArchive { name, .. } => ("docker-archive:", name.as_deref()),
            Self::Aci { .. } => ("", None),
        }
    }
}

/// The argument as it was given, as far as it can be shown.
impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, name) = self.scheme_and_name();
        write!(out, "{scheme}{}", Text::of_os(self.path()))?;
        name.map_or(Ok(()), |name| write!(out, ":{}", Text::new(name)))
    }
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
    let name = std::str::from_utf8(name).map_err(|_| ReferenceError::NotText(Text::new(whole)))?;
    Ok((path_of(path), (!name.is_empty()).then(|| name.to_owned())))
}

fn path_of(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

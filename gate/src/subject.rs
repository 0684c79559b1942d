//! What is judged.

use sandbox_image::{Digest, Text, evidence::Signature};
use std::fmt;

/// An image that is to run, with all that is known about it.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// The image's ID.
    pub id: &'a Digest,
    /// What it is called, and where it comes from.
    pub identity: Identity<'a>,
    /// The digests that a signature may be over: the manifest of this platform, and the index
    /// that it was reached through.
    pub manifests: &'a [Digest],
    /// The signatures that were found with it.
    pub signatures: &'a [Signature],
    /// The version that it has by its own account.
    pub version: Option<&'a str>,
    /// When it was made by its own account, in seconds since 1970.
    pub created: Option<i64>,
}

/// What an image is called, by where it comes from.
#[derive(Debug, Clone)]
pub enum Identity<'a> {
    /// From a registry, in the fully expanded form.
    Docker {
        /// `docker.io`, `localhost:5000`.
        registry: &'a str,
        /// `library/debian`.
        repository: &'a str,
        /// The tag; `latest` has to be said.
        tag: Option<&'a str>,
        /// The digest that it was asked for by.
        digest: Option<&'a Digest>,
    },
    /// From an OCI image layout.
    Oci {
        /// Its directory, absolute and without symbolic links.
        path: &'a str,
        /// Which of its images.
        name: Option<&'a str>,
    },
    /// From an OCI image layout in a tar file.
    OciArchive {
        /// The file, absolute and without symbolic links.
        path: &'a str,
        /// Which of its images.
        name: Option<&'a str>,
    },
    /// From a file as `docker save` writes it.
    DockerArchive {
        /// The file, absolute and without symbolic links.
        path: &'a str,
        /// Which of its images.
        name: Option<&'a str>,
    },
    /// An App Container Image.
    Aci {
        /// The name in its manifest.
        name: &'a str,
        /// The labels in its manifest.
        labels: &'a [(String, String)],
    },
}

impl<'a> Identity<'a> {
    /// What the prefixes of gate.d are compared with: the name, or the path of a local file.
    pub(crate) fn key(&self) -> String {
        match *self {
            Self::Docker { registry, repository, .. } => format!("{registry}/{repository}"),
            Self::Oci { path, .. }
            | Self::OciArchive { path, .. }
            | Self::DockerArchive { path, .. } => path.to_owned(),
            Self::Aci { name, .. } => name.to_owned(),
        }
    }
}

/// As a policy writes it: the transport, and the most specific name.
impl fmt::Display for Identity<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = |out: &mut fmt::Formatter<'_>, transport, path: &str, name: Option<&str>| {
            write!(out, "{transport}:{}", Text::new(path))?;
            name.map_or(Ok(()), |name| write!(out, ":{}", Text::new(name)))
        };
        match *self {
            Self::Docker { registry, repository, tag, digest } => {
                write!(out, "docker:{}/{}", Text::new(registry), Text::new(repository))?;
                if let Some(tag) = tag {
                    write!(out, ":{}", Text::new(tag))?;
                }
                digest.map_or(Ok(()), |digest| write!(out, "@{digest}"))
            }
            Self::Oci { path, name } => local(out, "oci", path, name),
            Self::OciArchive { path, name } => local(out, "oci-archive", path, name),
            Self::DockerArchive { path, name } => local(out, "docker-archive", path, name),
            Self::Aci { name, labels } => {
                write!(out, "aci:{}", Text::new(name))?;
                let version = labels.iter().find(|(name, _)| name == "version");
                version.map_or(Ok(()), |(_, version)| write!(out, ":{}", Text::new(version)))
            }
        }
    }
}

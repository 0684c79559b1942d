//! The certificates that a connection needs, as files of the host. The parent reads them: the
//! fetcher opens no file.

use super::{Secret, parse_authority};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// What servers are believed to be, and what this client says it is. All of it is PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// Certificates of the authorities that are trusted for every host.
    pub roots: Vec<String>,
    /// What is for one host only, by `HOST` or, where the port is not 443, `HOST:PORT`.
    pub hosts: BTreeMap<String, HostCertificates>,
}

/// Certificates for one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostCertificates {
    /// Certificates of the authorities that are trusted for this host, besides the others.
    pub roots: Vec<String>,
    /// What the client shows if the server asks for it.
    pub client: Option<ClientCertificate>,
}

/// A certificate of this client and its private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// The certificate, and those between it and the authority's.
    pub chain: String,
    /// Its private key.
    pub key: Secret,
}

/// Where certificates are.
#[derive(Clone, Debug)]
pub struct CertificatePaths {
    /// Files with the authorities of the system; the first one that exists counts.
    pub bundles: Vec<PathBuf>,
    /// Directories with a directory for each host; in it `*.crt` are authorities, `*.cert` and
    /// `*.key` of the same name the client's (containers-certs.d(5)). All of them count.
    pub hosts: Vec<PathBuf>,
}

impl CertificatePaths {
    /// The places of Debian and of other container tools. `bundle` is the value of the
    /// environment variable `SSL_CERT_FILE`.
    pub fn system(bundle: Option<PathBuf>) -> Self {
        let bundles = match bundle.filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => vec![path],
            None => vec![
                "/etc/ssl/certs/ca-certificates.crt".into(),
                "/etc/pki/tls/certs/ca-bundle.crt".into(),
                "/etc/ssl/cert.pem".into(),
            ],
        };
        let hosts = vec!["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()];
        Self { bundles, hosts }
    }
}

/// A file with certificates can't be read.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// The operating system refuses.
    #[error("read {}: {source}", crate::Text::of_os(.path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is larger than any that is needed, or not text.
    #[error("{}: not a PEM file of at most {MAX_FILE} bytes", crate::Text::of_os(.0))]
    NotPem(PathBuf),
    /// There is a client's certificate without its key.
    #[error("{}: its private key is missing; it belongs into {}", crate::Text::of_os(.certificate), crate::Text::of_os(.key))]
    NoKey {
        /// The certificate.
        certificate: PathBuf,
        /// Where the key should be.
        key: PathBuf,
    },
}

/// Debian's bundle has 220 KiB.
const MAX_FILE: u64 = 4 << 20;

impl Certificates {
    /// Reads the authorities of the system and those of every host that has its own: a redirect, a
    /// token server or a page of discovery may lead to any. What the client shows of itself is read
    /// for `hosts` (`HOST[:PORT]` each) alone, so that nobody else gets to use it; of several
    /// certificates for one host the first in the order of names.
    ///
    /// # Errors
    /// See [`CertificatesError`]. What does not exist is no error.
    pub fn load<'a>(
        paths: &CertificatePaths,
        hosts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, CertificatesError> {
        let mut certificates = Self::default();
        for path in &paths.bundles {
            if let Some(bundle) = read(path)? {
                certificates.roots.push(bundle);
                break;
            }
        }
        let asked: BTreeSet<_> = hosts.into_iter().filter_map(host_key).collect();
        for directory in &paths.hosts {
            for path in list(directory)? {
                let name = path.file_name().and_then(|name| name.to_str());
                let Some(host) = name.and_then(host_key) else { continue };
                let found = HostCertificates::read(&path, asked.contains(&host))?;
                let known = certificates.hosts.entry(host).or_default();
                known.roots.extend(found.roots);
                known.client = known.client.take().or(found.client);
            }
        }
        certificates.hosts.retain(|_, found| *found != HostCertificates::default());
        Ok(certificates)
    }
}

impl HostCertificates {
    fn read(directory: &Path, with_client: bool) -> Result<Self, CertificatesError> {
        let mut found = Self::default();
        for path in list(directory)? {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.roots.extend(read(&path)?),
                Some("cert") if with_client && found.client.is_none() => {
                    let key = path.with_extension("key");
                    let secret = read(&key)?;
                    let secret = secret.ok_or_else(|| CertificatesError::NoKey {
                        certificate: path.clone(),
                        key,
                    })?;
                    let key = Secret::new(secret);
                    found.client = read(&path)?.map(|chain| ClientCertificate { chain, key });
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// What is in a directory, in the order of names; nothing if it is none.
fn list(directory: &Path) -> Result<Vec<PathBuf>, CertificatesError> {
    let failed = |source| CertificatesError::Io { path: directory.into(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// How [`Certificates::hosts`] names a host; nothing if it can't be one, and not the name of a
/// directory either.
pub(crate) fn host_key(host: &str) -> Option<String> {
    match parse_authority(host).ok()? {
        (host, None | Some(443)) => Some(host),
        (host, Some(port)) => Some(format!("{host}:{port}")),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read(path: &Path) -> Result<Option<String>, CertificatesError> {
    let failed = |source| CertificatesError::Io { path: path.into(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    match file.take(MAX_FILE + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 <= MAX_FILE => Ok(Some(text)),
        Ok(_) => Err(CertificatesError::NotPem(path.into())),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(CertificatesError::NotPem(path.into()))
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_own_certificates() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        for host in ["registry.example:5000", "other.example"] {
            fs::create_dir_all(at("one").join(host)).unwrap();
            fs::create_dir_all(at("two").join(host)).unwrap();
        }
        fs::write(at("bundle"), "system").unwrap();
        fs::write(at("one/registry.example:5000/ca.crt"), "one").unwrap();
        fs::write(at("two/registry.example:5000/ca.crt"), "two").unwrap();
        fs::write(at("two/registry.example:5000/client.cert"), "client").unwrap();
        fs::write(at("one/other.example/ca.crt"), "other").unwrap();
        fs::write(at("one/other.example/client.cert"), "other's client").unwrap();
        let paths = CertificatePaths {
            bundles: vec![at("missing"), at("bundle")],
            hosts: vec![at("one"), at("two"), at("missing")],
        };
        let hosts = ["registry.example:5000", "../one", "unknown.example"];
        let problem = Certificates::load(&paths, hosts).unwrap_err().to_string();
        assert!(problem.contains("client.key"), "{problem}");

        fs::write(at("two/registry.example:5000/client.key"), "geheim").unwrap();
        let found = Certificates::load(&paths, hosts).unwrap();
        assert_eq!(found.roots, ["system"]);
        assert_eq!(
            found.hosts.keys().collect::<Vec<_>>(),
            ["other.example", "registry.example:5000"]
        );
        // Nobody has asked for that host: where it is led to, it shows nothing of itself.
        assert_eq!(found.hosts["other.example"].roots, ["other"]);
        assert_eq!(found.hosts["other.example"].client, None);
        let host = &found.hosts["registry.example:5000"];
        assert_eq!(host.roots, ["one", "two"]);
        assert_eq!(host.client.as_ref().unwrap().chain, "client");
        assert!(!format!("{found:?}").contains("geheim"));
        assert_eq!(host_key("a.example:443").unwrap(), "a.example");
    }
}

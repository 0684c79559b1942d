//! rkt's `auth.d`: files of the kinds `auth` (web servers) and `dockerAuth` (registries).

use super::files;
use crate::{
    Text,
    http::{Authorization, Secret, parse_authority},
    registry::{Credential, DOCKER_IO, Place},
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// What rkt's configuration says about credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RktAuth {
    domains: BTreeMap<String, Authorization>,
    registries: BTreeMap<String, Credential>,
}

/// A file of `auth.d` can't be used. Nothing of its content is shown but names.
#[derive(Debug, thiserror::Error)]
pub enum RktAuthError {
    /// The operating system refuses.
    #[error("read {}: {source}", Text::of_os(.path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is malformed.
    #[error("{}: {problem}", Text::of_os(.path))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Two files of one directory are about the same.
    #[error("{}: '{key}' is in another file of this directory already", Text::of_os(.path))]
    Twice {
        /// The file that comes later.
        path: PathBuf,
        /// The domain or registry.
        key: Text,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    rkt_kind: String,
    rkt_version: String,
}

#[derive(Deserialize)]
struct Domains {
    domains: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
    credentials: DomainCredentials,
}

#[derive(Deserialize)]
struct DomainCredentials {
    user: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
}

#[derive(Deserialize)]
struct Registries {
    registries: Vec<String>,
    credentials: RegistryCredentials,
}

#[derive(Deserialize)]
struct RegistryCredentials {
    user: String,
    password: Secret,
}

impl RktAuth {
    /// Reads `auth.d/*.json` of rkt's configuration directories, given in the order system, local,
    /// user: what a later directory says about a domain or registry replaces what an earlier one
    /// does. Directories that do not exist say nothing.
    ///
    /// # Errors
    /// See [`RktAuthError`].
    pub fn load<'a>(directories: impl IntoIterator<Item = &'a Path>) -> Result<Self, RktAuthError> {
        let mut auth = Self::default();
        for directory in directories {
            auth.read(&directory.join("auth.d"))?;
        }
        Ok(auth)
    }

    fn read(&mut self, directory: &Path) -> Result<(), RktAuthError> {
        let failed = |source| RktAuthError::Io { path: directory.into(), source };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(failed)?.path());
        }
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        let mut seen = BTreeSet::new();
        for path in paths {
            let bytes = match files::read(&path) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(source) => return Err(RktAuthError::Io { path, source }),
            };
            let malformed = |problem| RktAuthError::Malformed { path: path.clone(), problem };
            for (key, entry) in entries_of(&bytes).map_err(malformed)? {
                let is_registry = matches!(entry, Entry::Registry(_));
                if !seen.insert((is_registry, key.clone())) {
                    return Err(RktAuthError::Twice { path, key: Text::new(key) });
                }
                match entry {
                    Entry::Domain(authorization) => {
                        self.domains.insert(key, authorization);
                    }
                    Entry::Registry(credential) => {
                        self.registries.insert(key, credential);
                    }
                }
            }
        }
        Ok(())
    }

    /// What is sent to web servers, by `HOST[:PORT]`: for [`crate::http::Options`]. All of it, since
    /// discovery decides only later which of them is asked.
    pub fn authorizations(&self) -> &BTreeMap<String, Authorization> {
        &self.domains
    }

    /// The credential for a registry.
    pub fn credential(&self, place: &Place) -> Option<&Credential> {
        self.registries.get(&place.registry)
    }
}

enum Entry {
    Domain(Authorization),
    Registry(Credential),
}

/// What one file says.
fn entries_of(bytes: &[u8]) -> Result<Vec<(String, Entry)>, String> {
    let json = |error| files::json_problem(&error);
    let Kind { rkt_kind, rkt_version } = serde_json::from_slice(bytes).map_err(json)?;
    if rkt_version != "v1" {
        return Err(format!("rktVersion '{}' is not v1", Text::new(rkt_version)));
    }
    let mut found = Vec::new();
    match rkt_kind.as_str() {
        "auth" => {
            let Domains { domains, kind, credentials } =
                serde_json::from_slice(bytes).map_err(json)?;
            let DomainCredentials { user, password, token } = credentials;
            let authorization = match (kind.as_str(), user, password, token) {
                ("basic", Some(user), Some(password), _) if !user.is_empty() => {
                    Authorization::basic(&user, &password)
                }
                ("oauth", _, _, Some(token)) if !token.expose().is_empty() => {
                    Authorization::bearer(&token)
                }
                ("basic" | "oauth", ..) => {
                    return Err(format!("credentials of the type {kind} are incomplete"));
                }
                (kind, ..) => {
                    let kind = Text::new(kind);
                    return Err(format!("the type '{kind}' is not supported; basic and oauth are"));
                }
            };
            if domains.is_empty() {
                return Err("it names no domains".to_owned());
            }
            for domain in domains {
                found.push((host(&domain)?, Entry::Domain(authorization.clone())));
            }
        }
        "dockerAuth" => {
            let Registries { registries, credentials } =
                serde_json::from_slice(bytes).map_err(json)?;
            let RegistryCredentials { user, password } = credentials;
            if registries.is_empty() || user.is_empty() {
                return Err("it names no registries, or no user".to_owned());
            }
            for registry in registries {
                let registry = match host(&registry)?.as_str() {
                    "index.docker.io" | "registry-1.docker.io" => DOCKER_IO.to_owned(),
                    registry => registry.to_owned(),
                };
                let (user, password) = (user.clone(), password.clone());
                found.push((registry, Entry::Registry(Credential::Basic { user, password })));
            }
        }
        kind => {
            return Err(format!("rktKind '{}' is neither auth nor dockerAuth", Text::new(kind)));
        }
    }
    Ok(found)
}

/// `HOST[:PORT]` in lower case.
fn host(text: &str) -> Result<String, String> {
    match parse_authority(text) {
        Ok((host, None)) => Ok(host),
        Ok((host, Some(port))) => Ok(format!("{host}:{port}")),
        Err(problem) => Err(problem.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str, content: &str) {
        let auth = directory.join("auth.d");
        fs::create_dir_all(&auth).unwrap();
        fs::write(auth.join(name), content).unwrap();
    }

    const BASIC: &str = r#"{"rktKind":"auth","rktVersion":"v1","domains":["coreos.com","Tectonic.com:8443"],
        "type":"basic","credentials":{"user":"foo","password":"geheim"}}"#;
    const OAUTH: &str = r#"{"rktKind":"auth","rktVersion":"v1","domains":["coreos.com"],
        "type":"oauth","credentials":{"token":"geheim"}}"#;
    const DOCKER: &str = r#"{"rktKind":"dockerAuth","rktVersion":"v1",
        "registries":["index.docker.io","quay.io"],"credentials":{"user":"foo","password":"geheim"}}"#;

    #[test]
    fn later_directories_override() {
        let (system, local) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(system.path(), "a.json", BASIC);
        write(system.path(), "b.json", DOCKER);
        write(system.path(), "c.txt", "not JSON");
        write(local.path(), "z.json", OAUTH);
        let missing = system.path().join("missing");
        let auth = RktAuth::load([system.path(), missing.as_path(), local.path()]).unwrap();
        let secret = Secret::new("geheim");
        assert_eq!(auth.authorizations()["coreos.com"], Authorization::bearer(&secret));
        assert_eq!(
            auth.authorizations()["tectonic.com:8443"],
            Authorization::basic("foo", &secret)
        );
        assert_eq!(auth.registries.keys().collect::<Vec<_>>(), [DOCKER_IO, "quay.io"]);
        assert!(!format!("{auth:?}").contains("geheim"));
    }

    #[test]
    fn the_same_key_twice_in_one_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "a.json", BASIC);
        write(directory.path(), "b.json", OAUTH);
        let problem = RktAuth::load([directory.path()]).unwrap_err().to_string();
        assert!(problem.contains("b.json") && problem.contains("coreos.com"), "{problem}");
        assert!(!problem.contains("geheim"), "{problem}");
    }

    #[test]
    fn malformed_files_are_refused_without_showing_them() {
        for content in [
            "geheim",
            r#"{"rktKind":"auth"}"#,
            &BASIC.replace("v1", "v2"),
            &BASIC.replace("\"auth\"", "\"paths\""),
            &BASIC.replace("basic", "aws"),
            &BASIC.replace("basic", "oauth"),
            &BASIC.replace("coreos.com", "https://coreos.com/"),
            &BASIC.replace("\"geheim\"", "[\"geheim\"]"),
            &DOCKER.replace("foo", ""),
        ] {
            let directory = tempfile::tempdir().unwrap();
            write(directory.path(), "a.json", content);
            let problem = RktAuth::load([directory.path()]).unwrap_err().to_string();
            assert!(problem.contains("a.json") && !problem.contains("geheim"), "{problem}");
        }
    }
}

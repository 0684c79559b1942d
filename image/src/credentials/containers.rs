//! containers-auth.json(5), and Docker's config.json, which has the same format.

use super::helper::{self, HelperError};
use crate::{
    Text,
    http::Secret,
    registry::{Credential, DOCKER_IO, Place},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use std::{collections::BTreeMap, env, ffi::OsString, io, path::PathBuf, time::Duration};

/// How long a helper may take: it may ask its user.
const HELPER_TIME: Duration = Duration::from_secs(60);

/// Where such files may be, as the environment says.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `REGISTRY_AUTH_FILE`: if it is set, no other file is read.
    pub only: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub config: Option<PathBuf>,
    /// `DOCKER_CONFIG`.
    pub docker: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `PATH`, where helpers are; that of this process if it is not given.
    pub helpers: Option<OsString>,
}

impl Places {
    /// What this process's environment says.
    pub fn of_environment() -> Self {
        let path = |name| env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self {
            only: path("REGISTRY_AUTH_FILE"),
            runtime: path("XDG_RUNTIME_DIR"),
            config: path("XDG_CONFIG_HOME"),
            docker: path("DOCKER_CONFIG"),
            home: path("HOME"),
            helpers: None,
        }
    }

    /// The files, in the order in which they count.
    fn files(&self) -> Vec<PathBuf> {
        if let Some(only) = &self.only {
            return vec![only.clone()];
        }
        let runtime = self.runtime.clone().or_else(|| {
            let user = rustix::process::getuid().as_raw();
            // Where other tools write it if there is no such directory.
            Some(PathBuf::from(format!("/run/containers/{user}")))
        });
        let below_home = |name| self.home.as_ref().map(|home| home.join(name));
        let config = self.config.clone().or_else(|| below_home(".config"));
        let docker = self.docker.clone().or_else(|| below_home(".docker"));
        let mut files: Vec<_> = match (&self.runtime, runtime) {
            (Some(_), Some(runtime)) => vec![runtime.join("containers/auth.json")],
            (None, Some(runtime)) => vec![runtime.join("auth.json")],
            _ => Vec::new(),
        };
        files.extend(config.map(|config| config.join("containers/auth.json")));
        files.extend(docker.map(|docker| docker.join("config.json")));
        files
    }
}

/// A credential can't be found out.
#[derive(Debug, thiserror::Error)]
pub enum ContainersError {
    /// The operating system refuses.
    #[error("read {}: {source}", Text::of_os(.path))]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is malformed.
    #[error("{}: {problem}", Text::of_os(.path))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong; nothing of the file's content.
        problem: String,
    },
    /// A helper that a file names fails.
    #[error("{}: {problem}", Text::of_os(.path))]
    Helper {
        /// The file that names it.
        path: PathBuf,
        /// What is wrong.
        problem: HelperError,
    },
}

/// A file, as far as it is used.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

/// The files that there are.
pub struct Sources {
    files: Vec<(PathBuf, Document)>,
    helpers: Option<OsString>,
    helper_time: Duration,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.files.iter().map(|(path, _)| path)).finish()
    }
}

impl Sources {
    /// Reads the files at their usual places, as far as they exist.
    ///
    /// # Errors
    /// If one can't be read or is malformed.
    pub fn load(places: &Places) -> Result<Self, ContainersError> {
        let mut files = Vec::new();
        for path in places.files() {
            let bytes = match super::files::read(&path) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(source) => return Err(ContainersError::Io { path, source }),
            };
            match serde_json::from_slice(&bytes) {
                Ok(document) => files.push((path, document)),
                Err(error) => {
                    let problem = super::files::json_problem(&error);
                    return Err(ContainersError::Malformed { path, problem });
                }
            }
        }
        let helpers = places.helpers.clone();
        Ok(Self { files, helpers, helper_time: HELPER_TIME })
    }

    /// The credential for a repository: of the first file that has one, and in it of the most
    /// specific key. A file's helpers are asked if they are for the registry; then come its own
    /// entries, and at last its store.
    ///
    /// # Errors
    /// If an entry is malformed or a helper fails.
    pub fn credential(&self, place: &Place) -> Result<Option<Credential>, ContainersError> {
        for (path, document) in &self.files {
            let ask = |helper: &str, host: &str| {
                helper::ask(helper, host, self.helpers.as_deref(), self.helper_time)
                    .map_err(|problem| ContainersError::Helper { path: path.clone(), problem })
            };
            if let Some((key, helper)) =
                document.cred_helpers.iter().find(|(key, _)| is_registry(key, &place.registry))
                && let Some(credential) = ask(helper, key)?
            {
                return Ok(Some(credential));
            }
            for key in keys(place) {
                let entry = document.auths.iter().find(|(name, _)| canonical(name) == key);
                let Some((name, entry)) = entry else { continue };
                let malformed = |problem: &str| ContainersError::Malformed {
                    path: path.clone(),
                    problem: format!("auths, '{}': {problem}", Text::new(name)),
                };
                if let Some(credential) = entry.credential().map_err(malformed)? {
                    return Ok(Some(credential));
                }
            }
            if let Some(store) = document.creds_store.as_ref().filter(|store| !store.is_empty()) {
                // Docker's own registry is known to stores by the name that it had at first.
                let host = match place.registry.as_str() {
                    DOCKER_IO => "https://index.docker.io/v1/",
                    registry => registry,
                };
                if let Some(credential) = ask(store, host)? {
                    return Ok(Some(credential));
                }
            }
        }
        Ok(None)
    }
}

impl Entry {
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        let some =
            |secret: &Option<Secret>| secret.clone().filter(|secret| !secret.expose().is_empty());
        if let Some(token) = some(&self.identitytoken) {
            return Ok(Some(Credential::Identity(token)));
        }
        if let Some(token) = some(&self.registrytoken) {
            return Ok(Some(Credential::Bearer(token)));
        }
        if let Some(auth) = some(&self.auth) {
            let refused = "its auth is not the base64 of USER:PASSWORD";
            let bytes = STANDARD.decode(auth.expose().trim()).map_err(|_| refused)?;
            let text = String::from_utf8(bytes).map_err(|_| refused)?;
            // Docker has written NULs at the end.
            let (user, password) = text.trim_end_matches('\0').split_once(':').ok_or(refused)?;
            let password = Secret::new(password);
            return Ok(Some(Credential::Basic { user: user.to_owned(), password }));
        }
        match (self.username.as_ref().filter(|user| !user.is_empty()), some(&self.password)) {
            (Some(user), Some(password)) => {
                Ok(Some(Credential::Basic { user: user.clone(), password }))
            }
            _ => Ok(None),
        }
    }
}

/// The keys that an entry for a repository can have, the most specific first.
fn keys(place: &Place) -> Vec<String> {
    let name = place.name();
    let mut keys = vec![name.clone()];
    let mut rest = name.as_str();
    while let Some(slash) = rest.rfind('/') {
        rest = &rest[..slash];
        keys.push(rest.to_owned());
    }
    keys
}

/// A key without what Docker writes around the name of a registry.
fn canonical(key: &str) -> String {
    let without_scheme = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let name = match without_scheme {
        // It was a URL: what follows the host is a version, not a namespace.
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => key.trim_end_matches('/'),
    };
    let (host, rest) = match name.find('/') {
        Some(slash) => name.split_at(slash),
        None => (name, ""),
    };
    let host = match host.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_IO.to_owned(),
        host => host.to_owned(),
    };
    format!("{host}{rest}")
}

fn is_registry(key: &str, registry: &str) -> bool {
    canonical(key) == registry
}

#[cfg(test)]
#[path = "containers_tests.rs"]
mod tests;

//! The credentials of `auth.d` as `sandbox config` shows them. What is sent to servers is read
//! elsewhere (`sandbox_image::credentials`), by the same rules.

use super::files::{Entry, entries_of};
use super::{Directories, SettingsError};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What stands for a secret that is not shown.
const HIDDEN: &str = "***";

/// Credentials by what they are for, as `auth.d` has them.
#[derive(Clone, Default)]
pub struct Credentials {
    domains: BTreeMap<String, Domain>,
    registries: BTreeMap<String, Map<String, Value>>,
}

#[derive(Clone)]
struct Domain {
    kind: String,
    credentials: Map<String, Value>,
}

#[derive(Deserialize)]
struct DomainFile {
    domains: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
    credentials: Map<String, Value>,
}

#[derive(Deserialize)]
struct RegistryFile {
    registries: Vec<String>,
    credentials: Map<String, Value>,
}

impl Credentials {
    /// Reads the files. What a stronger directory says about a domain or registry wins.
    ///
    /// # Errors
    /// The first file that can't be used, and the same thing said twice within one directory.
    pub fn load(directories: &Directories) -> Result<Self, SettingsError> {
        let mut all = Self::default();
        for directory in directories.in_order() {
            let mut own = Self::default();
            for (kind, entry) in entries_of(&directory.join("auth.d"), &["auth", "dockerAuth"])? {
                match kind {
                    "auth" => own.add_domains(&entry)?,
                    _ => own.add_registries(&entry)?,
                }
            }
            all.domains.extend(own.domains);
            all.registries.extend(own.registries);
        }
        Ok(all)
    }

    fn add_domains(&mut self, entry: &Entry) -> Result<(), SettingsError> {
        let file: DomainFile = entry.parse()?;
        for domain in file.domains {
            let found = Domain { kind: file.kind.clone(), credentials: file.credentials.clone() };
            if self.domains.insert(domain.clone(), found).is_some() {
                return Err(entry.wrong(format!("auth for domain {domain:?} is already specified")));
            }
        }
        Ok(())
    }

    fn add_registries(&mut self, entry: &Entry) -> Result<(), SettingsError> {
        let file: RegistryFile = entry.parse()?;
        for registry in file.registries {
            let found = file.credentials.clone();
            if self.registries.insert(registry.clone(), found).is_some() {
                return Err(entry.wrong(format!(
                    "credentials for docker registry {registry:?} are already specified"
                )));
            }
        }
        Ok(())
    }

    /// One document for each domain and registry, in the form of the files.
    pub fn documents(&self, show_secrets: bool) -> Vec<Value> {
        let domains = self.domains.iter().map(|(domain, found)| {
            json!({
                "rktVersion": "v1",
                "rktKind": "auth",
                "domains": [domain],
                "type": found.kind,
                "credentials": shown(&found.credentials, show_secrets),
            })
        });
        let registries = self.registries.iter().map(|(registry, credentials)| {
            json!({
                "rktVersion": "v1",
                "rktKind": "dockerAuth",
                "registries": [registry],
                "credentials": shown(credentials, show_secrets),
            })
        });
        domains.chain(registries).collect()
    }
}

/// Credentials with their secrets hidden: all but the user's name, whatever it is called.
fn shown(credentials: &Map<String, Value>, show_secrets: bool) -> Map<String, Value> {
    let hide = |(name, value): (&String, &Value)| match name.as_str() {
        "user" => (name.clone(), value.clone()),
        _ if show_secrets => (name.clone(), value.clone()),
        _ => (name.clone(), Value::from(HIDDEN)),
    };
    credentials.iter().map(hide).collect()
}

/// Secrets are not for logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.documents(false)).finish()
    }
}

//! `service.json`: which policy holds for which pod, and who gets which secret.
//!
//! ```json
//! {
//!   "version": 1,
//!   "name": "verifier of the team",
//!   "rules": [
//!     {"policy": "strict", "tenant": "blue", "imagePrefix": "registry.example.com/blue"},
//!     {"policy": "team"}
//!   ],
//!   "secrets": [{"name": "db", "policy": "strict", "tenant": "blue"}]
//! }
//! ```
//!
//! The first rule that a pod fits names the policy that it has to pass. A pod fits if its host is
//! among `hosts`, its tenant is `tenant` and all its images are below `imagePrefix`; what is left
//! out fits all. Without a rule that fits, evidence is refused.

use super::{Rate, SecretName};
use crate::record::{Record, VersionOne};
use sandbox_image::Text;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// The longest file that is read.
pub(super) const MAX_SETTINGS: u64 = 1 << 20;

/// What a service goes by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSettings {
    /// 1.
    pub version: VersionOne,
    /// Whose verifier it is, for those who read its tokens.
    #[serde(default = "default_name")]
    pub name: String,
    /// Seconds for which a token is valid.
    #[serde(default = "default_token_life")]
    pub token_life: u64,
    /// Seconds for which a challenge is.
    #[serde(default = "default_challenge_life")]
    pub challenge_life: u64,
    /// How many verdicts are kept.
    #[serde(default = "default_keep")]
    pub keep_verdicts: u32,
    /// Which policy holds for which pod; the first one that fits.
    pub rules: Vec<Rule>,
    /// Who gets which secret; any one that fits.
    #[serde(default)]
    pub secrets: Vec<SecretRule>,
    /// How often one may ask.
    #[serde(default)]
    pub limits: Limits,
}

/// Which policy holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Name of a file of `policies/`, without `.json`.
    pub policy: String,
    /// Names of files of `hosts/`, without `.json`.
    #[serde(default)]
    pub hosts: Option<BTreeSet<String>>,
    /// Whose pod it is.
    #[serde(default)]
    pub tenant: Option<String>,
    /// What images are called in the hosts' policies: this, or what follows it after `/`, `:` or
    /// `@`.
    #[serde(default)]
    pub image_prefix: Option<String>,
}

/// Who gets a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRule {
    /// Name of a file of `secrets/`.
    pub name: SecretName,
    /// The policy that the pod has to have passed.
    pub policy: String,
    /// As in [`Rule`].
    #[serde(default)]
    pub hosts: Option<BTreeSet<String>>,
    /// As in [`Rule`].
    #[serde(default)]
    pub tenant: Option<String>,
    /// As in [`Rule`].
    #[serde(default)]
    pub image_prefix: Option<String>,
    /// What the verdict has to be.
    #[serde(default)]
    pub accept: Accept,
}

/// What a verdict has to be for a secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accept {
    /// The policy leaves nothing open that decides what runs.
    #[default]
    Affirming,
    /// No check failed; what the policy doesn't ask for can be anything, a guest-init that tells
    /// everybody among it.
    Warning,
}

/// How often one may ask.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// One address, for anything.
    pub address: Rate,
    /// One enrolled host, for verdicts.
    pub host: Rate,
    /// Connections at once; half of them for one address.
    pub connections: u32,
}

impl Default for Limits {
    /// A host that launches a hundred pods at once, each with secrets, asks four hundred times.
    fn default() -> Self {
        Self {
            address: Rate { burst: 1000, per_second: 50 },
            host: Rate { burst: 400, per_second: 20 },
            connections: 256,
        }
    }
}

fn default_name() -> String {
    "sandbox attest serve".to_owned()
}

fn default_token_life() -> u64 {
    3600
}

fn default_challenge_life() -> u64 {
    60
}

fn default_keep() -> u32 {
    10_000
}

impl ServiceSettings {
    /// Reads the file's bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let settings: Self = serde_json::from_slice(bytes)
            .map_err(|error| Text::message(error.to_string()).to_string())?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.len() > 200 {
            return Err("name should have 1 to 200 bytes".to_owned());
        }
        let most = crate::verify::token::MAX_LIFE.as_secs();
        if !(1..=most).contains(&self.token_life) {
            return Err(format!("tokenLife should be 1 to {most} seconds"));
        }
        if !(1..=3600).contains(&self.challenge_life) {
            return Err("challengeLife should be 1 to 3600 seconds".to_owned());
        }
        if self.rules.is_empty() {
            return Err("rules has none, so that no evidence could pass".to_owned());
        }
        let rules = self.rules.iter().map(|rule| (&rule.policy, &rule.hosts, &rule.image_prefix));
        let secrets = self.secrets.iter();
        let secrets = secrets.map(|rule| (&rule.policy, &rule.hosts, &rule.image_prefix));
        for (policy, hosts, prefix) in rules.chain(secrets) {
            let names = [policy].into_iter().chain(hosts.iter().flatten());
            if let Some(name) = names.into_iter().find(|name| !is_file_name(name)) {
                return Err(format!("'{}' is not a name of a file", Text::new(name)));
            }
            if prefix.as_ref().is_some_and(String::is_empty) {
                return Err("an imagePrefix is empty: leave it out to mean all".to_owned());
            }
        }
        let Limits { address, host, connections } = self.limits;
        if [address, host].iter().any(|rate| rate.burst == 0 || rate.per_second == 0) {
            return Err("limits of 0 would let nobody ask".to_owned());
        }
        if !(2..=4096).contains(&connections) {
            return Err("limits.connections should be 2 to 4096".to_owned());
        }
        Ok(())
    }

    /// How long tokens are valid.
    pub(super) fn token_life(&self) -> Duration {
        Duration::from_secs(self.token_life)
    }

    /// The policy for a pod.
    pub(super) fn policy_for(&self, host: &str, record: &Record) -> Option<&str> {
        let fits = |rule: &&Rule| {
            fits(
                host,
                record,
                rule.hosts.as_ref(),
                rule.tenant.as_ref(),
                rule.image_prefix.as_ref(),
            )
        };
        self.rules.iter().find(fits).map(|rule| rule.policy.as_str())
    }

    /// The policies that pods of a host can be held against.
    pub(super) fn policies_of<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a str> {
        let may = move |rule: &&Rule| rule.hosts.as_ref().is_none_or(|hosts| hosts.contains(host));
        self.rules.iter().filter(may).map(|rule| rule.policy.as_str())
    }
}

impl SecretRule {
    /// Whether it is about a pod that has passed `policy`.
    pub(super) fn fits(&self, host: &str, policy: &str, record: &Record) -> bool {
        self.policy == policy
            && fits(
                host,
                record,
                self.hosts.as_ref(),
                self.tenant.as_ref(),
                self.image_prefix.as_ref(),
            )
    }
}

fn fits(
    host: &str,
    record: &Record,
    hosts: Option<&BTreeSet<String>>,
    tenant: Option<&String>,
    prefix: Option<&String>,
) -> bool {
    hosts.is_none_or(|hosts| hosts.contains(host))
        && tenant.is_none_or(|tenant| *tenant == record.tenant)
        && prefix.is_none_or(|prefix| {
            !record.apps.is_empty()
                && record.apps.iter().all(|app| crate::verify::below(&app.image.identity, prefix))
        })
}

/// Whether it can be the name of a file, without its ending, that belongs to nobody else.
pub(super) fn is_file_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=200).contains(&name.len())
        && name.bytes().all(fits)
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

//! All that this host says about images, read at once.

use crate::{
    Identity, SourceError,
    keystore::{Broken, Key, Keystore, KeystoreError, Trusted, parse},
    policy::{Applicable, KeySource, Place, Policy, Requirement},
    rules::{DigestsAsked, HostRules, Rules, Twice},
    source,
    strict::JsonError,
};
use sandbox_image::{Algorithm, Digest, Text};
use std::{
    collections::BTreeMap,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// Where the host's rules are.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The policy for images of OCI and Docker. Absent, it refuses all of them.
    pub policy: PathBuf,
    /// The directory of the host's own rules: its files `*.json`.
    pub rules: PathBuf,
    /// rkt's configuration of the system, which holds `trustedkeys`.
    pub system_config: PathBuf,
    /// rkt's configuration of this machine, which holds `trustedkeys`, too.
    pub local_config: PathBuf,
}

/// The host's rules as they were at one moment. They are used whole or not at all.
#[derive(Debug)]
pub struct HostPolicy {
    path: PathBuf,
    policy: Option<Policy>,
    /// The files of keys that the policy names; nothing for one that is not there.
    key_files: BTreeMap<PathBuf, Option<Vec<u8>>>,
    rules: HostRules,
    trusted: Vec<Trusted>,
    broken: Vec<Broken>,
    digest: Digest,
}

/// The host's rules can't be used, so nothing is decided.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file can't be read, or others can write to it.
    #[error("cannot use the policy: {0}")]
    Source(#[from] SourceError),
    /// A file is not what it should be.
    #[error("cannot use the policy: {path}: {problem}")]
    Malformed {
        /// The file.
        path: Text,
        /// What is wrong with it.
        problem: JsonError,
    },
    /// Two files of rules of version 1 speak of one prefix.
    #[error("cannot use the policy: '{prefix}' has a rule in {one} and another in {other}")]
    Ambiguous {
        /// The prefix.
        prefix: Text,
        /// The file that comes first.
        one: Text,
        /// The other one.
        other: Text,
    },
    /// Trusted keys can't be read.
    #[error("cannot use the trusted keys: {0}")]
    Keys(#[from] KeystoreError),
}

impl HostPolicy {
    /// The most bytes that a file of keys may have.
    const MAX_KEYS: usize = 4 * 1024 * 1024;

    /// Reads everything.
    ///
    /// # Errors
    /// See [`PolicyError`]. A file of keys that the policy names and that is missing or malformed
    /// is no error here: it refuses the images that would need it. So does a malformed file of
    /// trusted keys, and those that it may have been meant to refuse.
    pub fn load(paths: &Paths) -> Result<Self, PolicyError> {
        let mut record = Record::default();
        let policy = source::read(&paths.policy, Policy::MAX)?;
        record.add("policy", &paths.policy, policy.as_deref());
        let policy = match policy {
            None => None,
            Some(document) => Some(Policy::parse(&document).map_err(malformed(&paths.policy))?),
        };
        let mut key_files = BTreeMap::new();
        for path in policy.iter().flat_map(Policy::key_paths) {
            if !key_files.contains_key(path) {
                key_files.insert(path.clone(), source::read(path, Self::MAX_KEYS)?);
            }
        }
        for (path, content) in &key_files {
            record.add("key", path, content.as_deref());
        }
        let rules = rules(&paths.rules, &mut record)?;
        let keys = Keystore::new(&paths.system_config, &paths.local_config).load()?;
        for (path, content) in &keys.files {
            record.add("trusted", path, content.as_deref());
        }
        Ok(Self {
            path: paths.policy.clone(),
            policy,
            key_files,
            rules,
            trusted: keys.keys,
            broken: keys.broken,
            digest: record.digest(),
        })
    }

    /// The digest of all that was read: with the same digest the same is decided (times aside).
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The keys that a detached signature of an ACI of this name is held against when it is
    /// fetched: those of every requirement that could ask for one. Which of them count is decided
    /// at each launch.
    pub fn keys_for_aci(&self, name: &str) -> Vec<Key> {
        let place = Place::of(&Identity::Aci { name, labels: &[] });
        let scoped = place.ok().and_then(|place| self.policy.as_ref()?.scoped(&place));
        let Some(Applicable { requirements, .. }) = scoped else {
            return self.trusted_for(name).into_iter().map(|trusted| trusted.key.clone()).collect();
        };
        let sources = requirements.iter().filter_map(|requirement| match requirement {
            Requirement::SignedBy { keys, .. } => Some(keys),
            _ => None,
        });
        // A source that can't be read refuses the image when it is judged, and says why.
        sources.flat_map(|source| self.keyring(source).unwrap_or_default()).collect()
    }

    /// The policy, or the file that is missing.
    pub(crate) fn policy(&self) -> (&Path, Option<&Policy>) {
        (&self.path, self.policy.as_ref())
    }

    /// Which programs' digests rules ask for, so that a [`crate::Launch`] has to say them.
    pub fn digests_asked(&self) -> DigestsAsked {
        self.rules.digests_asked()
    }

    pub(crate) fn rules(&self) -> &HostRules {
        &self.rules
    }

    /// The keys that are trusted for an ACI: those of its name, of what its name is below, and
    /// those for all. A name is below another by whole components: `example.com/fo` is nothing to
    /// `example.com/foo`, other than in rkt.
    pub(crate) fn trusted_for(&self, name: &str) -> Vec<&Trusted> {
        self.trusted.iter().filter(|trusted| trusted.scope.holds(name)).collect()
    }

    /// What is wrong with files of trusted keys that could decide about an ACI. Such a file may have
    /// been meant to trust a key, or to take one back.
    pub(crate) fn broken_for(&self, name: &str) -> impl Iterator<Item = &str> {
        let broken = self.broken.iter().filter(move |broken| broken.scope.holds(name));
        broken.map(|broken| broken.problem.as_str())
    }

    /// The OpenPGP keys of a requirement.
    pub(crate) fn keyring(&self, source: &KeySource) -> Result<Vec<Key>, String> {
        let mut keys = Vec::new();
        for (place, content) in self.contents(source)? {
            keys.extend(parse(content).map_err(|error| format!("{place}: {error}"))?);
        }
        Ok(keys)
    }

    /// The files or data of a requirement's keys, each with a word for where it is.
    pub(crate) fn contents<'a>(
        &'a self,
        source: &'a KeySource,
    ) -> Result<Vec<(String, &'a [u8])>, String> {
        let paths = match source {
            KeySource::Data(list) => {
                let named = |(place, data): (usize, &'a Vec<u8>)| {
                    (format!("the key data {}", place + 1), data.as_slice())
                };
                return Ok(list.iter().enumerate().map(named).collect());
            }
            KeySource::Paths(paths) => paths,
        };
        let find = |path: &'a PathBuf| match self.key_files.get(path) {
            Some(Some(content)) => Ok((Text::of_os(path).to_string(), content.as_slice())),
            _ => Err(format!(
                "{}: there is no such file, and the policy names it",
                Text::of_os(path)
            )),
        };
        paths.iter().map(find).collect()
    }
}

fn malformed(path: &Path) -> impl Fn(JsonError) -> PolicyError {
    move |problem| PolicyError::Malformed { path: Text::of_os(path), problem }
}

/// The rules of all files in the directory. Other files than `*.json` are left alone, and so are
/// hidden ones, as editors leave them.
fn rules(directory: &Path, record: &mut Record) -> Result<HostRules, PolicyError> {
    let mut rules = HostRules::default();
    for name in source::list(directory)? {
        if !name.as_bytes().ends_with(b".json") || name.as_bytes().starts_with(b".") {
            continue;
        }
        let path = directory.join(name);
        let Some(document) = source::read(&path, Rules::MAX)? else {
            // It was there a moment ago, or is a symbolic link to nothing: a rule is missing.
            return Err(SourceError::new(&path, "is listed and can't be found").into());
        };
        record.add("rules", &path, Some(&document));
        let parsed = Rules::parse(&document).map_err(malformed(&path))?;
        rules.add(&path, parsed).map_err(|Twice { prefix, other }| PolicyError::Ambiguous {
            prefix,
            one: Text::of_os(other),
            other: Text::of_os(&path),
        })?;
    }
    Ok(rules)
}

/// What was read, so that two readings can be told apart by a digest.
#[derive(Default)]
struct Record(Vec<u8>);

impl Record {
    /// Every part has its length before it, so that none can look like two.
    fn add(&mut self, what: &str, path: &Path, content: Option<&[u8]>) {
        let there: &[u8] = if content.is_some() { b"+" } else { b"-" };
        for part in
            [what.as_bytes(), path.as_os_str().as_bytes(), there, content.unwrap_or_default()]
        {
            self.0.extend(part.len().to_string().into_bytes());
            self.0.push(b':');
            self.0.extend(part);
        }
    }

    fn digest(&self) -> Digest {
        Digest::of(Algorithm::Sha256, &self.0)
    }
}

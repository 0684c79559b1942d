//! What a service knows, in files.
//!
//! ```text
//! service.json           rules (see `ServiceSettings`)
//! signing-key.pem        signs tokens; made at the first start. signing-key.pub is for the hosts
//! hosts/NAME.json        enrolments, as 'sandbox attest enroll sign' writes them
//! policies/NAME.json     policies, as 'sandbox attest verify' takes them
//! secrets/NAME           bytes; nobody else may read them
//! verdicts/              what was decided
//! ```

use super::{Rate, SecretName, ServiceSettings, settings};
use crate::{
    evidence::Enrolment,
    log::Bank,
    secret,
    verify::{MAX_POLICY, Policy},
    wire::Name,
};
use p256::{
    ecdsa::SigningKey,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding},
};
use rsa::rand_core::OsRng;
use sandbox_image::{Digest, Text};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// The private key, made at the first start.
const KEY: &str = "signing-key.pem";
/// Its public half.
const PUBLIC_KEY: &str = "signing-key.pub";
/// Rules.
const SETTINGS: &str = "service.json";
/// Enrolments.
const HOSTS: &str = "hosts";
/// Policies.
const POLICIES: &str = "policies";
/// Secrets.
const SECRETS: &str = "secrets";
/// Verdicts.
pub(super) const VERDICTS: &str = "verdicts";

/// The longest key or enrolment.
const MAX_SMALL: u64 = 64 << 10;
/// The most hosts and policies.
const MAX_FILES: usize = 10_000;

/// What is in the directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The system refuses.
    #[error("cannot {action} {}: {source}", Text::of_os(path))]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {problem}", Text::of_os(path))]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what it should be.
        problem: String,
    },
}

/// The directory of a service.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

/// All that is in it, checked.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) settings: ServiceSettings,
    /// By the names of their AKs.
    pub(super) hosts: BTreeMap<Vec<u8>, Host>,
    pub(super) policies: BTreeMap<String, NamedPolicy>,
}

/// A host.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) enrolment: Enrolment,
    /// What a quote of it has to be of.
    pub(super) select: BTreeMap<Bank, BTreeSet<u32>>,
}

#[derive(Clone, Debug)]
pub(super) struct NamedPolicy {
    pub(super) policy: Policy,
    pub(super) digest: Digest,
}

impl Directory {
    /// Opens a directory, and makes what is missing in it but for the rules.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        for place in [
            path.to_owned(),
            path.join(HOSTS),
            path.join(POLICIES),
            path.join(SECRETS),
            path.join(VERDICTS),
        ] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&place);
            made.map_err(|source| io(&place, "make")(source))?;
            let found = fs::metadata(&place).map_err(io(&place, "look at"))?;
            if found.mode() & 0o022 != 0 {
                let problem = "others may write to it, and could enrol hosts or change policies; \
                               its mode should be 0700";
                return Err(DirectoryError::Content { path: place, problem: problem.to_owned() });
            }
        }
        Ok(Self(path.to_owned()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The key that signs verdicts. It is made if there is none.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn signing_key(&self) -> Result<SigningKey, DirectoryError> {
        let path = self.0.join(KEY);
        let problem = |problem: &str| DirectoryError::Content {
            path: path.clone(),
            problem: problem.to_owned(),
        };
        let key = match read_private(&path, MAX_SMALL) {
            Ok(pem) => std::str::from_utf8(&pem)
                .ok()
                .and_then(|pem| SigningKey::from_pkcs8_pem(pem).ok())
                .ok_or_else(|| problem("not a private key of P-256 in PEM (PKCS #8)"))?,
            Err(DirectoryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let key = SigningKey::random(&mut OsRng);
                let pem = key.to_pkcs8_pem(LineEnding::LF);
                let pem = pem.map_err(|_| problem("the new key can't be written in PEM"))?;
                write(&path, pem.as_bytes(), 0o600)?;
                key
            }
            Err(error) => return Err(error),
        };
        // The file beside it is for people: it always shows the key that signs.
        let public = public_pem(&key).ok_or_else(|| problem("it has no public key"))?;
        let beside = self.0.join(PUBLIC_KEY);
        if fs::read(&beside).ok().as_deref() != Some(public.as_bytes()) {
            write(&beside, public.as_bytes(), 0o644)?;
        }
        Ok(key)
    }

    /// The public half of it, in PEM.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn public_key(&self) -> Result<String, DirectoryError> {
        let problem = || DirectoryError::Content {
            path: self.0.join(KEY),
            problem: "it has no public key".to_owned(),
        };
        public_pem(&self.signing_key()?).ok_or_else(problem)
    }

    /// Reads everything but the secrets; and what is odd about it, for people.
    pub(super) fn load(&self) -> Result<(Known, Vec<String>), DirectoryError> {
        let path = self.0.join(SETTINGS);
        let content = read(&path, settings::MAX_SETTINGS)?;
        let settings = ServiceSettings::parse(&content)
            .map_err(|problem| DirectoryError::Content { path, problem })?;
        let mut policies = BTreeMap::new();
        for (name, path) in self.list(POLICIES)? {
            let problem = |problem: String| DirectoryError::Content { path: path.clone(), problem };
            let content = read(&path, MAX_POLICY as u64)?;
            let policy = Policy::parse(&content).map_err(|error| problem(error.to_string()))?;
            let digest = policy.digest().map_err(|error| problem(error.to_string()))?;
            policies.insert(name, NamedPolicy { policy, digest });
        }
        self.check_rules(&settings, &policies)?;
        let (mut hosts, mut odd) = (BTreeMap::new(), Vec::new());
        for (name, path) in self.list(HOSTS)? {
            let problem = |problem: String| DirectoryError::Content { path: path.clone(), problem };
            let content = read(&path, MAX_SMALL)?;
            let enrolment: Enrolment = serde_json::from_slice(&content)
                .map_err(|error| problem(Text::message(error.to_string()).to_string()))?;
            let own: Vec<_> = settings
                .policies_of(&name)
                .filter_map(|policy| Some((policy, policies.get(policy)?)))
                .collect();
            let Some((first, select)) =
                own.first().map(|(name, named)| (*name, named.policy.selection().clone()))
            else {
                odd.push(format!("no rule is about host {name}: its evidence is refused"));
                continue;
            };
            if let Some((other, _)) =
                own.iter().find(|(_, named)| *named.policy.selection() != select)
            {
                return Err(problem(format!(
                    "policies {first} and {other} hold for this host and select other registers; \
                     a quote is of one selection, so make 'pcrs.select' the same in both"
                )));
            }
            if !own.iter().any(|(_, named)| believes(&named.policy, &enrolment)) {
                odd.push(format!(
                    "no policy for host {name} names its key or who has enrolled it: its evidence \
                     will not pass"
                ));
            }
            let key = enrolment.attestation_key.as_bytes().to_vec();
            let host = Host { name, enrolment, select };
            if let Some(twin) = hosts.insert(key, host) {
                return Err(problem(format!("host {} has the same key", twin.name)));
            }
        }
        if hosts.is_empty() {
            odd.push(format!("no host is enrolled in {}", Text::of_os(self.0.join(HOSTS))));
        }
        Ok((Known { settings, hosts, policies }, odd))
    }

    fn check_rules(
        &self,
        settings: &ServiceSettings,
        policies: &BTreeMap<String, NamedPolicy>,
    ) -> Result<(), DirectoryError> {
        let path = self.0.join(SETTINGS);
        let named = settings.rules.iter().map(|rule| &rule.policy);
        let named = named.chain(settings.secrets.iter().map(|rule| &rule.policy));
        if let Some(missing) = named.into_iter().find(|name| !policies.contains_key(*name)) {
            let problem = format!(
                "there is no policy '{missing}': it should be in {}",
                Text::of_os(self.0.join(POLICIES).join(format!("{missing}.json")))
            );
            return Err(DirectoryError::Content { path, problem });
        }
        for rule in &settings.secrets {
            // Whether it can be read is seen now, and not when a pod waits for it.
            self.secret(&rule.name)?;
        }
        Ok(())
    }

    /// Reads a secret.
    pub(super) fn secret(&self, name: &SecretName) -> Result<Zeroizing<Vec<u8>>, DirectoryError> {
        let path = self.0.join(SECRETS).join(name.as_str());
        read_private(&path, secret::MAX as u64)
    }

    /// The files of a directory that end in `.json`, in the order of their names.
    fn list(&self, directory: &str) -> Result<Vec<(String, PathBuf)>, DirectoryError> {
        let place = self.0.join(directory);
        let failed = io(&place, "read");
        let mut found = Vec::new();
        for entry in fs::read_dir(&place).map_err(&failed)? {
            let path = entry.map_err(&failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // Editors leave such files while they write.
            if name.starts_with('.') || !name.ends_with(".json") {
                continue;
            }
            let name = name.trim_end_matches(".json").to_owned();
            if !settings::is_file_name(&name) {
                let problem = "its name should have letters, digits, '.', '_' and '-' alone";
                return Err(DirectoryError::Content { path, problem: problem.to_owned() });
            }
            found.push((name, path));
            if found.len() > MAX_FILES {
                let problem = format!("more than {MAX_FILES} files");
                return Err(DirectoryError::Content { path: place.clone(), problem });
            }
        }
        found.sort();
        Ok(found)
    }
}

impl Known {
    /// The host with this AK.
    pub(super) fn host(&self, key: &Name) -> Option<&Host> {
        self.hosts.get(key.as_bytes())
    }

    /// How often one address may ask.
    pub(super) fn address_rate(&self) -> Rate {
        self.settings.limits.address
    }
}

/// Whether a policy believes an enrolled key.
fn believes(policy: &Policy, enrolment: &Enrolment) -> bool {
    let keys = &policy.document().attestation_keys;
    keys.trust_on_first_use
        || keys.pinned.contains(&enrolment.attestation_key.to_string())
        || enrolment.verify(policy.enrollers()).is_ok()
}

fn public_pem(key: &SigningKey) -> Option<String> {
    key.verifying_key().to_public_key_pem(LineEnding::LF).ok()
}

fn io<'a>(path: &'a Path, action: &'static str) -> impl Fn(io::Error) -> DirectoryError + 'a {
    move |source| DirectoryError::Io { action, path: path.to_owned(), source }
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, DirectoryError> {
    let file = File::open(path).map_err(io(path, "read"))?;
    bounded(file, path, most)
}

fn bounded(file: File, path: &Path, most: u64) -> Result<Vec<u8>, DirectoryError> {
    let mut content = Vec::with_capacity(usize::try_from(most).unwrap_or_default().min(4096));
    file.take(most + 1).read_to_end(&mut content).map_err(io(path, "read"))?;
    if content.len() as u64 > most {
        let problem = format!("it has more than {most} bytes");
        return Err(DirectoryError::Content { path: path.to_owned(), problem });
    }
    Ok(content)
}

/// Reads a file that nobody else may read.
fn read_private(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, DirectoryError> {
    let file = File::open(path).map_err(io(path, "read"))?;
    let found = file.metadata().map_err(io(path, "look at"))?;
    let problem = |problem: &str| DirectoryError::Content {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    if !found.is_file() {
        return Err(problem("it is not a regular file"));
    }
    if found.mode() & 0o077 != 0 {
        return Err(problem("others may read it; its mode should be 0600"));
    }
    // No copy is left behind by a buffer that grows.
    let size = usize::try_from(found.len().min(most)).unwrap_or_default();
    let mut content = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(most + 1).read_to_end(&mut content).map_err(io(path, "read"))?;
    match content.len() as u64 > most {
        true => Err(problem(&format!("it has more than {most} bytes"))),
        false => Ok(content),
    }
}

/// Writes a file for good, all of it or nothing.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), DirectoryError> {
    let unfinished = path.with_extension(format!("{}.new", std::process::id()));
    let written = || -> io::Result<()> {
        let options = OpenOptions::new().write(true).create_new(true).mode(mode).clone();
        let mut file = options.open(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    };
    written().map_err(|source| {
        let _ = fs::remove_file(&unfinished);
        io(path, "write")(source)
    })
}

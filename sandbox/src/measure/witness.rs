//! What a pod gets once its guest runs and has said its key: secrets, and evidence that this key is
//! signed along with.

use super::{MeasureError, Remote, enrolment, nonce, own_register};
use crate::options::{SecretOption, SecretSource};
use sandbox_attestation::Bank;
use sandbox_attestation::evidence::{Evidence, Nonce};
use sandbox_attestation::record::Uuid;
use sandbox_attestation::sealed::{MAX_FILE, SealedSecret};
use sandbox_attestation::secret::{KEY, MAX_COUNT};
use sandbox_attestation::service::SecretName;
use sandbox_attestation::session::{About, Ask, Attestor, Release};
use sandbox_attestation::settings::Settings;
use sandbox_attestation::verify::{self, Policy};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The secrets of a pod, in their order.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Vec<Wanted>);

/// One of them.
#[derive(Clone, Debug)]
struct Wanted {
    name: String,
    from: From,
}

/// Who has it.
#[derive(Clone, Debug)]
enum From {
    Service(SecretName),
    /// The file's content, and its path for messages.
    Sealed(Box<SealedSecret>, PathBuf),
}

impl Secrets {
    /// What the command line asks for. Files are read here, so that one that is none is found before
    /// anything is launched.
    ///
    /// # Errors
    /// [`MeasureError::Secret`]
    pub fn of(options: &[SecretOption]) -> Result<Self, MeasureError> {
        let refused = |problem: String| Err(MeasureError::Secret(problem));
        if options.len() > MAX_COUNT {
            return refused(format!("a pod can have at most {MAX_COUNT} secrets"));
        }
        let mut secrets: Vec<Wanted> = Vec::new();
        for SecretOption { name, source } in options {
            if secrets.iter().any(|other| other.name == *name) {
                return refused(format!("multiple secrets with name {name}"));
            }
            let from = match source {
                SecretSource::Service(key) => From::Service(key.clone()),
                SecretSource::Sealed(file) => From::Sealed(Box::new(sealed(file)?), file.clone()),
            };
            secrets.push(Wanted { name: name.clone(), from });
        }
        Ok(Self(secrets))
    }

    /// Their names in the pod.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|wanted| wanted.name.clone()).collect()
    }

    /// The same, as the guest is told of them.
    pub fn for_guest(&self) -> Vec<sandbox_protocol::Secret> {
        let secret = |wanted: &Wanted| sandbox_protocol::Secret {
            name: wanted.name.clone(),
            sealed_as: match &wanted.from {
                From::Service(key) => key.as_str().to_owned(),
                From::Sealed(..) => wanted.name.clone(),
            },
        };
        self.0.iter().map(secret).collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a service has to give some.
    pub fn need_service(&self) -> bool {
        self.of_service().next().is_some()
    }

    fn of_service(&self) -> impl Iterator<Item = &SecretName> {
        self.0.iter().filter_map(|wanted| match &wanted.from {
            From::Service(key) => Some(key),
            From::Sealed(..) => None,
        })
    }
}

fn sealed(file: &Path) -> Result<SealedSecret, MeasureError> {
    let failed = |error| MeasureError::Read { path: file.to_owned(), error };
    let mut content = Vec::new();
    let most = u64::try_from(MAX_FILE).unwrap_or(u64::MAX);
    File::open(file).map_err(failed)?.take(most + 1).read_to_end(&mut content).map_err(failed)?;
    SealedSecret::parse(&content)
        .map_err(|error| MeasureError::Secret(format!("{}: {error}", file.display())))
}

/// Who can prove a pod whose launch is in the log.
#[derive(Clone, Debug)]
pub struct Witness {
    pub(super) program: PathBuf,
    pub(super) settings: Settings,
    pub(super) pod: Uuid,
    pub(super) remote: Option<Remote>,
    pub(super) policy: Option<Policy>,
    pub(super) secrets: Secrets,
}

impl Witness {
    /// The pod's secrets, each sealed for the key that its guest has made; all of them or none. No
    /// secret is in the clear in this process at any time.
    ///
    /// # Errors
    /// See [`MeasureError`].
    pub fn secrets(&self, guest_key: &[u8; KEY]) -> Result<Vec<Vec<u8>>, MeasureError> {
        let wanted: Vec<SecretName> = {
            let all: BTreeSet<_> = self.secrets.of_service().cloned().collect();
            all.into_iter().collect()
        };
        let given = match (&self.remote, wanted.is_empty()) {
            (_, true) => Vec::new(),
            (None, false) => {
                let problem = "the pod was launched without one, so that none can give it secrets";
                return Err(MeasureError::Verifier(problem.to_owned()));
            }
            (Some(remote), false) => {
                let (program, settings) = (&self.program, &self.settings);
                remote.secrets(program, settings, &self.pod, guest_key.to_vec(), &wanted)?
            }
        };
        let secrets = self.secrets.0.iter().map(|wanted| match &wanted.from {
            From::Service(key) => {
                let given = given.iter().find(|given| given.name == *key);
                given
                    .map(|given| given.sealed.clone())
                    .ok_or_else(|| MeasureError::Secret(format!("the service has not given {key}")))
            }
            From::Sealed(sealed, file) => self
                .release(sealed, &wanted.name, guest_key)
                .map_err(|error| MeasureError::Secret(format!("{}: {error}", file.display()))),
        });
        secrets.collect()
    }

    /// Has the TPM open a secret, for a pod whose evidence passes the policy that is in it.
    fn release(
        &self,
        sealed: &SealedSecret,
        name: &str,
        guest_key: &[u8; KEY],
    ) -> Result<Vec<u8>, MeasureError> {
        let policy = sealed.policy().map_err(|error| MeasureError::Secret(error.to_string()))?;
        if let Some(policy) = policy {
            let nonce = nonce()?;
            let evidence = self.quoted(nonce.clone(), guest_key, policy.selection().clone())?;
            let verdict = verify::verify(&evidence, &nonce, &policy, SystemTime::now());
            if !verdict.passed() {
                let failed = verdict.failed().map(|(check, why)| format!("{check}: {why}"));
                return Err(MeasureError::NotReleased(failed.collect::<Vec<_>>().join("; ")));
            }
        }
        let release = Release {
            sealed: sealed.clone(),
            pod: self.pod.clone(),
            name: name.to_owned(),
            guest_key: guest_key.to_vec().into(),
        };
        Ok(Attestor::start(&self.program, &self.settings)?.release(release)?)
    }

    /// Evidence for a program in the pod, as JSON.
    ///
    /// # Errors
    /// See [`MeasureError`].
    pub fn evidence(&self, guest_key: &[u8; KEY], nonce: &[u8]) -> Result<Vec<u8>, MeasureError> {
        let selection = match &self.policy {
            Some(policy) => policy.selection().clone(),
            None => own_register(&self.settings),
        };
        let evidence = self.quoted(Nonce::new(nonce)?, guest_key, selection)?;
        evidence.to_json().map_err(|error| MeasureError::Secret(error.to_string()))
    }

    fn quoted(
        &self,
        nonce: Nonce,
        guest_key: &[u8; KEY],
        selection: BTreeMap<Bank, BTreeSet<u32>>,
    ) -> Result<Evidence, MeasureError> {
        let enrolled = enrolment(&self.settings.directory)?;
        let key = Some(guest_key.to_vec());
        let about = About::now(self.pod.clone(), nonce, key, enrolled, SystemTime::now());
        let ask = Ask {
            pod: Some(self.pod.clone()),
            qualifying_data: about.qualifying_data(),
            selection,
        };
        let quoted = Attestor::start(&self.program, &self.settings)?.quote(ask)?;
        Ok(quoted.into_evidence(about)?)
    }
}

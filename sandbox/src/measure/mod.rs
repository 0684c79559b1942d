//! Measured launch: a pod is written into the TPM before it runs, and its end after it.
//!
//! ```text
//! Meter::start ─▶ sandbox-attest starts, installation is measured   (beside the fetch of images)
//! Meter::launch ─▶ record ─▶ log, fsync, extend, quote ─▶ verified here ─▶ Launch
//!                                                      └─▶ and by a service ([`Remote`])
//!                                     the pod runs
//! Launch::end ─▶ the end is logged and extended
//! ```
//!
//! This program never opens the TPM: `sandbox-attest` does, which does nothing else
//! ([`sandbox_attestation::session`]). Whatever fails refuses the launch; then, if the record may
//! have come into the TPM, its end is written there, too. A supervisor that is killed leaves its
//! pod's directory, and whoever removes that writes the end ([`Launch::of`]).

mod installed;
mod record;
mod remote;
mod shown;
mod witness;

pub use installed::{Installed, InstalledError};
pub use record::{Parts, RecordError};
pub use remote::{Remote, RemoteOptions};
pub use shown::{Attestation, attestation};
pub use witness::{Secrets, Witness};

use crate::installation::Installation;
use crate::pod::{DirectoryError, PodDir};
use sandbox_attestation::evidence::{Enrolment, Evidence, Nonce, NonceError, PcrValue};
use sandbox_attestation::log::{self, Bank, LogError};
use sandbox_attestation::record::{End, FormError, Reason, Record, Uuid};
use sandbox_attestation::service::{Challenge, ClientError};
use sandbox_attestation::session::{
    About, Ask, AssembleError, Attestor, Bytes, Quoted, SessionError, Times,
};
use sandbox_attestation::settings::{Settings, SettingsError};
use sandbox_attestation::verify::{self, Policy, PolicyError, Verdict};
use sandbox_gate::Verifier;
use sandbox_image::Text;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What this host demands of evidence about its own pods; without the file, that the TPM and the log
/// agree.
pub const POLICY: &str = "/etc/sandbox/attest-policy.json";

/// The enrolment, in the directory of the settings.
pub const ENROLMENT: &str = "enrolment.json";

/// The file of a pod's directory that says where in the log its launch is. It and [`VERDICT`] are about
/// one boot and the TPM's registers of it: when power is lost, these are, too. So both files are written
/// whole, and not synced; what lost its power may find them empty.
const LAUNCH: &str = "launch.json";

/// The file of a pod's directory with what came out of the verification.
const VERDICT: &str = "attestation.json";

/// Bytes of a nonce that is made up here.
const NONCE: usize = 32;

/// Why a pod can't be launched as one that is measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// See [`SettingsError`].
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// See [`InstalledError`].
    #[error(transparent)]
    Installed(#[from] InstalledError),
    /// See [`RecordError`].
    #[error(transparent)]
    Record(#[from] RecordError),
    /// `sandbox-attest` can't do it.
    #[error("the launch is not measured, so it is refused: {0}")]
    Session(#[from] SessionError),
    /// See [`AssembleError`].
    #[error("the evidence cannot be made: {0}")]
    Evidence(#[from] AssembleError),
    /// The log that came with the quote is none.
    #[error("the log that came with the quote: {0}")]
    Log(#[from] LogError),
    /// The host's own policy for evidence can't be used.
    #[error("{}: {error}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: PolicyError,
    },
    /// A file can't be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file of ours is not what we wrote.
    #[error("{}: {error}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// What the TPM signed does not prove what it should.
    #[error("the launch is refused: what the TPM signed does not pass {policy}: {checks}")]
    Refused {
        /// What demanded it.
        policy: String,
        /// The checks that failed, each with its reason.
        checks: String,
    },
    /// The service that has to verify launches can't be used.
    #[error("the launch cannot be verified by a service: {0}")]
    Verifier(String),
    /// There is no key whose name a service could know.
    #[error(
        "this host has no attestation key that a service could know; 'sandbox attest init' makes \
         one, and 'sandbox attest enroll' has it enrolled"
    )]
    NoKey,
    /// See [`ClientError`].
    #[error("the launch is refused: {0}")]
    Service(#[from] ClientError),
    /// A secret can't be had.
    #[error("secrets of the pod: {0}")]
    Secret(String),
    /// The policy of a sealed secret is not met.
    #[error("what the TPM signed of the pod does not pass the policy of the sealed secret: {0}")]
    NotReleased(String),
    /// The pod gets less than it was promised.
    #[error("the verifier {url} does not give the pod its secrets: {why}")]
    Withheld {
        /// The service.
        url: Text,
        /// Each secret, with the service's reason.
        why: String,
    },
    /// The launch was refused after it had been written, and its end can't be.
    #[error(
        "{refused}; and that the pod never ran cannot be written into the TPM: {error}; 'sandbox \
         gc' tries again"
    )]
    Unended {
        /// Why it was refused.
        refused: Box<MeasureError>,
        /// Why the end can't be written.
        error: Box<MeasureError>,
    },
    /// See [`DirectoryError`].
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The disk for what the apps write can't be looked at.
    #[error("cannot look at the scratch disk: {0}")]
    Scratch(io::Error),
    /// The kernel has no random numbers.
    #[error("cannot make a random number: {0}")]
    Random(io::Error),
    /// Never, of a nonce that was made here.
    #[error(transparent)]
    Nonce(#[from] NonceError),
    /// A UUID is none.
    #[error(transparent)]
    Form(#[from] FormError),
}

/// What measures a launch.
#[derive(Debug)]
pub struct Meter {
    settings: Settings,
    policy: Option<Policy>,
    program: PathBuf,
    attestor: Attestor,
    installed: Installed,
    remote: Option<Remote>,
}

/// A launch that is in the log and the TPM, or is about to be. If it is dropped, the pod has never
/// run, and that is written, too.
#[derive(Debug)]
pub struct Launch {
    entry: Entry,
    program: PathBuf,
    /// How long log and TPM took, where they did it now.
    times: Times,
    is_over: bool,
    /// The service that has verified it.
    remote: Option<Remote>,
    /// What this host demands.
    policy: Option<Policy>,
}

/// What came out of a verification, as the pod's directory keeps it.
#[derive(Serialize)]
struct Kept<'a> {
    #[serde(flatten)]
    verdict: &'a Verdict,
    /// What a service has said, if one was asked.
    remote: Option<remote::Kept>,
}

/// Where in the log a pod's launch is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    pod: Uuid,
    /// Not known before it is written: whoever was killed in between has to look for it.
    number: Option<u64>,
    /// The boot that it is in the log of. The next one has another log, and a TPM that has forgotten.
    boot_id: String,
    settings: Settings,
}

impl Meter {
    /// Starts what opens the TPM, and measures the installation meanwhile. With `service`, a service
    /// has to verify the launch, too.
    ///
    /// # Errors
    /// See [`MeasureError`].
    pub fn start(
        installation: &Installation,
        service: Option<&RemoteOptions>,
    ) -> Result<Self, MeasureError> {
        let settings = Settings::load(Path::new(Settings::PATH))?;
        let remote = service.map(|options| Remote::new(&settings, options)).transpose()?;
        let program = installation.attestor.clone();
        let attestor = Attestor::start(&program, &settings)?;
        let policy = host_policy(Path::new(POLICY))?;
        let installed = Installed::measure(installation, &settings.directory)?;
        Ok(Self { settings, policy, program, attestor, installed, remote })
    }

    /// Who verifies.
    pub fn verifier(&self) -> Verifier {
        if self.remote.is_some() { Verifier::Service } else { Verifier::Local }
    }

    /// Has a service verify it, besides this host, if it doesn't yet.
    ///
    /// # Errors
    /// See [`MeasureError`].
    pub fn require_service(&mut self) -> Result<(), MeasureError> {
        if self.remote.is_none() {
            self.remote = Some(Remote::new(&self.settings, &RemoteOptions::default())?);
        }
        Ok(())
    }

    /// Whether the service is the one that this host's settings name, and not only somebody's
    /// choice.
    pub fn service_is_the_hosts(&self) -> bool {
        self.settings.verifier.is_some()
    }

    /// What was measured of the installation.
    pub fn installed(&self) -> &Installed {
        &self.installed
    }

    /// Writes a launch into log and TPM, has it signed, and verifies that. The pod's directory keeps
    /// where it is in the log, and what came out.
    ///
    /// # Errors
    /// See [`MeasureError`]. That the pod never ran is written then, too; if it can't be, the error is
    /// [`MeasureError::Unended`], and the directory must stay.
    pub fn launch(
        self,
        record: Record,
        directory: &PodDir,
    ) -> Result<(Launch, Installed), MeasureError> {
        let Self { settings, policy, program, attestor, installed, remote } = self;
        let pod = record.pod.clone();
        let challenge = remote.as_ref().map(|remote| remote.challenge(&settings, &pod));
        let challenge = challenge.transpose()?;
        let own = policy.as_ref().map(|policy| policy.selection().clone());
        // One quote does for both, unless this host wants to see other registers than the service.
        let shared =
            challenge.filter(|challenge| own.as_ref().is_none_or(|own| *own == challenge.select));
        let (nonce, selection) = match shared.clone() {
            Some(Challenge { nonce, select, .. }) => (nonce, select),
            None => (nonce()?, own.unwrap_or_else(|| own_register(&settings))),
        };
        let enrolment = enrolment(&settings.directory)?;
        let about = About::now(pod.clone(), nonce, None, enrolment, SystemTime::now());
        let ask =
            Ask { pod: Some(pod.clone()), qualifying_data: about.qualifying_data(), selection };
        let entry = Entry {
            pod: pod.clone(),
            number: None,
            boot_id: boot_id()?,
            settings: settings.clone(),
        };
        directory.write_whole(LAUNCH, &document(&entry)?)?;
        // Who is elsewhere has to see the whole log.
        let launched = match shared.is_some() {
            true => attestor.launch(record, Some(ask)),
            false => attestor.launch_briefly(record, ask),
        };
        // Where the record is in neither log nor TPM there is nothing to be ended.
        let number = match &launched {
            Ok(launched) => Some(launched.recnum),
            Err(SessionError::Failed(failure)) => failure.recorded,
            Err(_) => None,
        };
        let is_over = matches!(&launched, Err(SessionError::Failed(_))) && number.is_none();
        let times = launched.as_ref().map(|launched| launched.times).unwrap_or_default();
        let launch = Launch {
            entry: Entry { number, ..entry },
            program: program.clone(),
            times,
            is_over,
            remote: remote.clone(),
            policy: policy.clone(),
        };
        let verify = || -> Result<(), MeasureError> {
            let launched = launched?;
            directory.write_whole(LAUNCH, &document(&launch.entry)?)?;
            let Some(quoted) = launched.quote else {
                let problem = "no quote".to_owned();
                return Err(SessionError::Nonsense { program, problem }.into());
            };
            let (evidence, verdict) = verified(*quoted, about, policy.as_ref())?;
            let answer = match &remote {
                None => None,
                Some(remote) if shared.is_some() => Some((remote, remote.judge(&evidence, &[])?)),
                Some(remote) => Some((remote, remote.prove(&program, &settings, &pod, None, &[])?)),
            };
            let remote = answer.map(|(remote, answer)| remote.kept(&answer));
            let kept = Kept { verdict: &verdict, remote };
            Ok(directory.write_whole(VERDICT, &document(&kept)?)?)
        };
        let Err(refused) = verify() else { return Ok((launch, installed)) };
        match launch.end(End::Reason(Reason::Aborted)) {
            Ok(()) => Err(refused),
            Err(error) => {
                let (refused, error) = (Box::new(refused), Box::new(error));
                Err(MeasureError::Unended { refused, error })
            }
        }
    }
}

impl Launch {
    /// The launch of a pod that nobody has, by its directory; `None` for one that was not
    /// measured, or was before this boot.
    ///
    /// # Errors
    /// See [`MeasureError`].
    pub fn of(directory: &Path, program: &Path) -> Result<Option<Self>, MeasureError> {
        let path = directory.join(LAUNCH);
        let content = read(&path)?.filter(|content| !content.is_empty());
        let Some(content) = content else { return Ok(None) };
        let entry: Entry = serde_json::from_slice(&content)
            .map_err(|error| MeasureError::Malformed { path, error })?;
        if entry.boot_id != boot_id()? {
            return Ok(None);
        }
        Ok(Some(Self {
            entry,
            program: program.to_owned(),
            times: Times::default(),
            is_over: false,
            remote: None,
            policy: None,
        }))
    }

    /// The number of its record; 0 if it is not known, which the first record of a log has that is
    /// of no pod.
    pub fn number(&self) -> u64 {
        self.entry.number.unwrap_or_default()
    }

    /// How long log and TPM took.
    pub fn times(&self) -> Times {
        self.times
    }

    /// Who can prove it while it runs, and get its secrets.
    pub fn witness(&self, secrets: Secrets) -> Witness {
        Witness {
            program: self.program.clone(),
            settings: self.entry.settings.clone(),
            pod: self.entry.pod.clone(),
            remote: self.remote.clone(),
            policy: self.policy.clone(),
            secrets,
        }
    }

    /// Writes the pod's end into log and TPM.
    ///
    /// # Errors
    /// See [`MeasureError`].
    pub fn end(mut self, end: End) -> Result<(), MeasureError> {
        if std::mem::replace(&mut self.is_over, true) {
            return Ok(());
        }
        self.write_end(end)
    }

    /// Writes that the pod has never run. This is tried once, here: whoever gets an error keeps the
    /// pod's directory for `gc`.
    ///
    /// # Errors
    /// See [`MeasureError`].
    pub fn abort(&mut self) -> Result<(), MeasureError> {
        if std::mem::replace(&mut self.is_over, true) {
            return Ok(());
        }
        self.write_end(End::Reason(Reason::Aborted))
    }

    fn write_end(&self, end: End) -> Result<(), MeasureError> {
        let Entry { pod, number, settings, .. } = &self.entry;
        let number = match number {
            Some(number) => Some(*number),
            None => find(pod, settings, &self.program)?,
        };
        if let Some(number) = number {
            Attestor::start(&self.program, settings)?.exit(pod.clone(), number, end)?;
        }
        Ok(())
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        if !self.is_over {
            // What failed first is what has to be told. `gc` finds what is left, and tries again.
            let _ = self.write_end(End::Reason(Reason::Aborted));
        }
    }
}

/// Looks for a pod's launch in the log of this boot, unless its end is there as well.
fn find(pod: &Uuid, settings: &Settings, program: &Path) -> Result<Option<u64>, MeasureError> {
    let ask = Ask {
        pod: Some(pod.clone()),
        qualifying_data: Bytes::default(),
        selection: own_register(settings),
    };
    let quoted = Attestor::start(program, settings)?.quote(ask)?;
    let parsed = log::parse(quoted.log.as_bytes(), &log::Limits::default())?;
    let mut open = log::unfinished(&parsed.entries).into_iter();
    Ok(open.find(|(_, of)| *of == pod).map(|(number, _)| number))
}

/// Makes evidence of a quote, and holds it against what this host demands.
fn verified(
    quoted: Quoted,
    about: About,
    policy: Option<&Policy>,
) -> Result<(Evidence, Verdict), MeasureError> {
    let own;
    let (policy, name) = match policy {
        Some(policy) => (policy, POLICY.to_owned()),
        None => {
            own = least_policy(&quoted)?;
            (&own, "a comparison of TPM and log".to_owned())
        }
    };
    let (nonce, seen) = (about.nonce.clone(), quoted.seen.clone());
    let evidence = quoted.into_evidence(about)?;
    let now = SystemTime::now();
    let verdict = verify::verify_since(&evidence, seen.as_ref(), &nonce, policy, now);
    if verdict.passed() {
        return Ok((evidence, verdict));
    }
    let failed: Vec<_> = verdict.failed().map(|(check, why)| format!("{check}: {why}")).collect();
    Err(MeasureError::Refused { policy: name, checks: failed.join("; ") })
}

/// What a host without a policy demands of itself: that its own key signed, and that the log leads
/// from what the register held first to what it holds now.
fn least_policy(quoted: &Quoted) -> Result<Policy, MeasureError> {
    let start = match &quoted.seen {
        Some(seen) => Some(seen.start.clone()),
        None => {
            let parsed = log::parse(quoted.log.as_bytes(), &log::Limits::default())?;
            log::start(&parsed.entries).cloned()
        }
    };
    let mut before_log = BTreeMap::new();
    if let Some(start) = start {
        for (bank, value) in &start.pcr_before {
            before_log.insert(*bank, [PcrValue(value.clone())]);
        }
    }
    let registers = quoted.pcrs.iter();
    let select: BTreeMap<_, Vec<_>> =
        registers.map(|(bank, values)| (*bank, values.keys().copied().collect())).collect();
    let document = json!({
        "version": 1,
        "attestationKeys": {"pinned": [format!("{:?}", quoted.identity.ak_name)]},
        "pcrs": {"select": select, "log": quoted.pcr, "beforeLog": before_log},
    });
    Policy::parse(document.to_string().as_bytes())
        .map_err(|error| MeasureError::Policy { path: POLICY.into(), error })
}

/// The register that launches are written into, alone.
fn own_register(settings: &Settings) -> BTreeMap<Bank, BTreeSet<u32>> {
    BTreeMap::from([(Bank::Sha256, BTreeSet::from([settings.pcr.into()]))])
}

/// The host's own policy for evidence.
fn host_policy(path: &Path) -> Result<Option<Policy>, MeasureError> {
    let failed = |error| MeasureError::Policy { path: path.to_owned(), error };
    read(path)?.map(|content| Policy::parse(&content).map_err(failed)).transpose()
}

/// The word of whoever has enrolled this host, if somebody has.
///
/// # Errors
/// See [`MeasureError`].
pub fn enrolment(directory: &Path) -> Result<Option<Enrolment>, MeasureError> {
    let path = directory.join(ENROLMENT);
    let Some(content) = read(&path)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&content);
    parsed.map(Some).map_err(|error| MeasureError::Malformed { path, error })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, MeasureError> {
    let most = u64::try_from(verify::MAX_POLICY).unwrap_or(u64::MAX);
    let read = || -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        fs::File::open(path)?.take(most + 1).read_to_end(&mut content)?;
        Ok(content)
    };
    match read() {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(MeasureError::Read { path: path.to_owned(), error }),
    }
}

fn document(document: &impl Serialize) -> Result<Vec<u8>, MeasureError> {
    serde_json::to_vec_pretty(document)
        .map_err(|error| MeasureError::Malformed { path: LAUNCH.into(), error })
}

fn boot_id() -> Result<String, MeasureError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let read = fs::read_to_string(path);
    let text = read.map_err(|error| MeasureError::Read { path: path.to_owned(), error })?;
    Ok(text.trim_end().to_owned())
}

fn nonce() -> Result<Nonce, MeasureError> {
    Ok(Nonce::new(random::<NONCE>()?)?)
}

/// Random bytes of the kernel.
///
/// # Errors
/// [`MeasureError::Random`]
pub fn random<const N: usize>() -> Result<[u8; N], MeasureError> {
    let mut bytes = [0; N];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match got {
        // The kernel gives up to 256 bytes whole.
        Ok(count) if count == N => Ok(bytes),
        Ok(_) => Err(MeasureError::Random(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(MeasureError::Random(error.into())),
    }
}

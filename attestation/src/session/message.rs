//! What `sandbox` and `sandbox-attest` say to each other.

use crate::{
    credential::Credential,
    log::Bank,
    record::{End, Record, Uuid},
    sealed::SealedSecret,
    settings::Settings,
    verify::Seen,
};
use sandbox_image::Text;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

/// The version of these messages: both programs are of one installation.
pub const VERSION: u32 = 1;

/// The first message: what holds for the request that follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Opening {
    /// [`VERSION`].
    pub version: u32,
    /// Which TPM, which register, which log.
    pub settings: Settings,
    /// How long the program may take.
    pub patience: Patience,
}

/// How long the program may take before it answers that it could not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Patience {
    /// For its turn, while others use log and TPM, in milliseconds.
    pub turn: u64,
    /// For everything after that, in milliseconds.
    pub work: u64,
}

impl Patience {
    /// Until the program must have answered.
    pub fn total(&self) -> Duration {
        Duration::from_millis(self.turn.saturating_add(self.work))
    }
}

impl Default for Patience {
    /// A hundred launches at once, each with a quote, take a slow chip two minutes, and the ends of
    /// those that are over by then wait behind them. Making an RSA endorsement key takes it 15
    /// seconds.
    fn default() -> Self {
        Self { turn: 600_000, work: 45_000 }
    }
}

/// The one thing that a process of the program is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// Write a launch into the log and the TPM.
    Launch {
        /// What is launched.
        record: Box<Record>,
        /// And quote, in the same turn.
        quote: Option<Ask>,
        /// With the quote comes only what was written since, see [`Quoted::seen`].
        briefly: bool,
    },
    /// Write the end of a launch into the log and the TPM.
    Exit {
        /// The pod.
        pod: Uuid,
        /// The number of its launch.
        launch: u64,
        /// How it ended.
        end: End,
    },
    /// Let the TPM sign what its registers hold.
    Quote(Ask),
    /// Make the keys.
    Init(InitOptions),
    /// Say what is there. Log and register stay as they are.
    Status,
    /// Prove that the attestation key is in the same TPM as the endorsement key.
    Activate(Credential),
    /// Keep a key for [`crate::sealed`], so that it is given out only while registers hold what they
    /// hold now.
    Seal {
        /// The key, of [`crate::secret::KEY`] bytes.
        key: Bytes,
        /// The registers.
        selection: BTreeMap<Bank, BTreeSet<u32>>,
    },
    /// Get such a key back, open with it what it was kept for, and seal that for a guest.
    Release(Box<Release>),
}

/// A secret that a TPM keeps the key of, and who gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Release {
    /// The secret.
    pub sealed: SealedSecret,
    /// The pod.
    pub pod: Uuid,
    /// The secret's name in it.
    pub name: String,
    /// The public key of its guest.
    pub guest_key: Bytes,
}

/// What a TPM has sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SealedKey {
    /// The registers that decide.
    pub selection: BTreeMap<Bank, BTreeSet<u32>>,
    /// `TPMT_PUBLIC` of the sealed data object.
    pub public: Bytes,
    /// `TPM2B_PRIVATE` of it, without its size.
    pub private: Bytes,
}

/// What to quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ask {
    /// Whose records come in full; all others come as digests. `None`: all in full.
    pub pod: Option<Uuid>,
    /// What the TPM signs along with the registers, at most [`Ask::MAX_QUALIFYING`] bytes.
    pub qualifying_data: Bytes,
    /// Which registers of which banks, as a verifier's policy has it
    /// ([`crate::verify::Policy::selection`]). The register of our log is added in the first active
    /// bank of SHA-256, SHA-384, SHA-512, unless it is there in one of these. Empty: in that bank 0
    /// to 9, 11 to 14, and that register.
    pub selection: BTreeMap<Bank, BTreeSet<u32>>,
}

impl Ask {
    /// The most that every TPM takes as qualifying data: a SHA-256 digest and its algorithm.
    pub const MAX_QUALIFYING: usize = 34;
}

/// Which keys to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InitOptions {
    /// How the attestation key signs.
    pub algorithm: Algorithm,
    /// Which endorsement key it hangs under. `None`: the one that has a certificate, ECC first.
    pub endorsement: Option<Endorsement>,
    /// Also where there is a key: verifiers then have to enrol this host again.
    pub replace: bool,
}

/// How an attestation key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// ECDSA on NIST P-256 with SHA-256.
    #[default]
    EcdsaP256,
    /// RSASSA (PKCS #1 v1.5) with 2048 bits and SHA-256.
    Rsassa2048,
}

/// The endorsement key, by the template of the TCG's "EK Credential Profile" that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endorsement {
    /// Template L-1.
    Rsa2048,
    /// Template L-2.
    EccP256,
}

/// What the program answers, once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Answer {
    /// The launch is in log and TPM.
    Launched(Launched),
    /// The exit is in log and TPM.
    Recorded {
        /// The number of its record.
        recnum: u64,
    },
    /// The quote.
    Quoted(Box<Quoted>),
    /// The keys are there.
    Ready(Box<Identity>),
    /// What is there.
    Status(Box<Status>),
    /// The credential's secret.
    Activated {
        /// The secret, that only this TPM could find out.
        secret: Bytes,
    },
    /// The key is sealed.
    Sealed(SealedKey),
    /// The secret, sealed for the guest.
    Released {
        /// See [`crate::secret::seal`].
        sealed: Bytes,
    },
    /// It could not be done.
    Failed(Failure),
}

/// A launch that is in log and TPM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Launched {
    /// The number of its record.
    pub recnum: u64,
    /// The quote, where one was asked for.
    pub quote: Option<Box<Quoted>>,
    /// What the host's owner should know.
    pub warnings: Vec<String>,
    /// How long it took.
    pub times: Times,
}

/// How long a request took, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Times {
    /// Until its turn came, while others used log and TPM.
    pub wait: u64,
    /// From then on until the answer.
    pub work: u64,
    /// Of that, in the TPM: from when it gets a command until it has answered.
    pub tpm: u64,
}

impl fmt::Display for Times {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wait, work, tpm } = self;
        write!(out, "{wait} us until its turn, {work} us in it, {tpm} us of them in the TPM")
    }
}

/// What a TPM signed, and what is needed to check it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quoted {
    /// `TPMS_ATTEST`, exactly as it was signed.
    pub attest: Bytes,
    /// `TPMT_SIGNATURE`.
    pub signature: Bytes,
    /// The registers that are in the quote.
    pub pcrs: BTreeMap<Bank, BTreeMap<u32, Bytes>>,
    /// Whose signature it is.
    pub identity: Identity,
    /// The register of our log.
    pub pcr: u8,
    /// The running boot.
    pub boot_id: Uuid,
    /// The log up to this quote, as it is in its file ([`crate::log`]): the asked pod's own records
    /// in full, others as digests.
    pub log: String,
    /// What the program knows of the log before that, where only what was written since the launch
    /// was asked for. It has held this against the register in the same turn.
    pub seen: Option<Seen>,
    /// The firmware's log (`binary_bios_measurements`), where it can be read.
    pub firmware_log: Option<Bytes>,
    /// What the host's owner should know.
    pub warnings: Vec<String>,
}

/// The keys of a host: public parts only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// How the attestation key signs.
    pub algorithm: Algorithm,
    /// Which template makes the endorsement key.
    pub endorsement: Endorsement,
    /// `TPMT_PUBLIC` of the attestation key.
    pub ak_public: Bytes,
    /// Its name: `TPMI_ALG_HASH` and digest.
    pub ak_name: Bytes,
    /// `TPMT_PUBLIC` of the endorsement key.
    pub ek_public: Bytes,
    /// The vendor's certificate of it (DER), where the TPM holds one.
    pub ek_certificate: Option<Bytes>,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Status {
    /// The TPM's maker, as it spells itself.
    pub manufacturer: String,
    /// The version of its firmware, two words of 32 bits.
    pub firmware: u64,
    /// Its active banks that launches are written into.
    pub banks: Vec<Bank>,
    /// The register of our log.
    pub pcr: u8,
    /// What it holds now.
    pub values: BTreeMap<Bank, Bytes>,
    /// The running boot.
    pub boot_id: Uuid,
    /// The records of the running boot.
    pub records: u64,
    /// How the log compares with the register.
    pub log: LogState,
    /// The keys, once they have been made.
    pub identity: Option<Identity>,
    /// The TPM's clock, where there is a key to ask for it.
    pub clock: Option<Clock>,
    /// What the host's owner should know.
    pub warnings: Vec<String>,
}

/// The TPM's clock and counters (`TPMS_CLOCK_INFO`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Clock {
    /// Milliseconds that the TPM has had power, ever.
    pub clock: u64,
    /// How often it was reset.
    pub reset_count: u32,
    /// How often it was resumed or restarted since the last reset.
    pub restart_count: u32,
    /// Whether no higher value of `clock` can have been reported.
    pub safe: bool,
}

/// How the log compares with the TPM's register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase", deny_unknown_fields)]
pub enum LogState {
    /// Nothing was written since the boot.
    Empty,
    /// The register holds exactly what the log says.
    Agrees,
    /// A process was killed while it wrote: the next launch puts it in order.
    Interrupted,
    /// They contradict each other.
    Differs {
        /// How.
        problem: String,
    },
}

/// Why it could not be done, as the program says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[error("{message}")]
pub struct Failure {
    /// What sort of reason.
    pub kind: FailureKind,
    /// What was tried, what was found, what to do; one line that can be shown.
    pub message: String,
    /// The launch's record may be in log and TPM though the launch is refused: an exit has to be
    /// recorded for it.
    pub recorded: Option<u64>,
}

impl Failure {
    /// One of a kind; the message is made safe to show.
    pub fn new(kind: FailureKind, message: impl fmt::Display) -> Self {
        let message = Text::message(message.to_string().as_bytes()).to_string();
        Self { kind, message, recorded: None }
    }
}

/// What sort of reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The TPM can't be opened.
    NoTpm,
    /// Others use log and TPM, and it did not become our turn.
    Busy,
    /// The TPM did not answer in time.
    TimedOut,
    /// The TPM answered with an error.
    Tpm,
    /// The TPM has no room for sessions or keys.
    Full,
    /// No bank that can be used is active, or one that was asked for isn't.
    BankOff,
    /// The TPM can't do what is needed.
    Unsupported,
    /// The log and the register contradict each other.
    LogMismatch,
    /// The log can't be read or written.
    Log,
    /// There is no attestation key, or it is not this TPM's.
    Key,
    /// There is a key already.
    KeyExists,
    /// Ours in the TPM are protected by a password, or it is locked.
    Denied,
    /// Files in the directory.
    Storage,
    /// The request can't be meant.
    Request,
}

/// Bytes, in JSON as base64.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0 {
            write!(out, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Self).map_err(D::Error::custom)
    }
}

/// The program, and where it was looked for, in errors.
pub(super) fn named(program: &std::path::Path) -> Text {
    Text::of_os(program)
}

//! What is measured: the documents whose digests a PCR is extended with.
//!
//! Each is an object of canonical JSON ([`crate::canonical`]) with the members `version`, which is
//! 1, `event`, which says what happened, and `bootId`, the boot that it happened in
//! (`/proc/sys/kernel/random/boot_id`):
//!
//! | `event` | members | |
//! |---|---|---|
//! | `start` | `pcrBefore`, `resetCount`, `restartCount`, `program`, `time` | the log of this boot begins: [`Start`] |
//! | `launch` | `number`, `record`, `time` | a pod is about to be launched: [`Launch`] |
//! | `exit` | `pod`, `launch`, `end` | it ended, or didn't begin: [`Exit`] |
//!
//! `record` has all that decides what the pod is and what it may do:
//!
//! | member | value | |
//! |---|---|---|
//! | `version` | 1 | of the record |
//! | `pod` | UUID | |
//! | `tenant` | text | who sees this record in full; everybody else sees its digest |
//! | `apps` | list of [`App`] | `name`; `image`: what it is made of; `signature`: why it may run; `exec`, `environment`, `user`, `group`, `workingDirectory`, `mounts`, `isolators`: how it runs |
//! | `podManifest` | digest | of the manifest, in canonical JSON, after all defaults |
//! | `policyDigest` | digest | of the rules that the launch was decided by |
//! | `kernel` | `digest`, `version` | the guest's kernel |
//! | `guestInit` | digest | the guest's first process |
//! | `monitor` | digest | `sandbox-vmm` |
//! | `fileServer` | digest or `null` | `sandbox-fs`, if the pod shares directories |
//! | `supervisor` | digest | `sandbox` |
//! | `commandLine` | text | the kernel's |
//! | `cpus`, `memoryMib`, `scratchBytes` | numbers | |
//! | `volumes` | list of [`Volume`] | `name`, `kind`, `path`, `readOnly`, `content` |
//! | `network` | `null` | |
//! | `label` | `process`, `file`, or `null` | SELinux |
//! | `seccomp` | digest or `null` | of the system call filters of monitor and file server, in canonical form (`sandbox-seccomp`) |
//! | `secrets` | list of `name` | |
//! | `guestKey` | 64 hexadecimal digits or `null` | |
//!
//! A digest is `sha256:` or `sha512:` and lower-case hexadecimal digits. `content` is `verified`
//! where every byte that is read is checked against a digest of the record, and `unverified` where
//! the host can change it.
//!
//! Members are never left out: what there is not is `null`. One that is not known, or missing, or
//! there twice, refuses the document, and so does another `version`: a verifier that doesn't know
//! what a member means can't say what runs. What a later version adds has a new number.
//!
//! No secret is in it. Values of an environment are there as digests with a salt that is kept with
//! the pod ([`Variable`]).

mod launch;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
mod text;

pub use launch::{
    App, Content, Image, Isolator, Kernel, Label, Mount, Network, Record, Secret, Signature,
    Variable, Verity, Volume,
};
pub(crate) use text::pcrs as hex_by_bank;
pub use text::{FormError, Hex, Uuid};
pub(crate) use text::{from_hex, to_hex};

use crate::{
    canonical::{self, CanonicalError, NotCanonical, ReadError},
    log::Pcrs,
};
use sandbox_image::Text;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The one version of the schema that there is.
pub const VERSION: u64 = 1;

/// [`VERSION`]; a document of another one is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VersionOne;

impl Serialize for VersionOne {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(VERSION)
    }
}

impl<'de> Deserialize<'de> for VersionOne {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u64::deserialize(from)? {
            VERSION => Ok(Self),
            other => Err(D::Error::custom(RecordError::Version(other.to_string()))),
        }
    }
}

/// The member that says which event it is, as [`Event`] is written.
const TAG: &str = "event";

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// The log of a boot begins.
    Start(Start),
    /// A pod is about to be launched.
    Launch(Box<Launch>),
    /// A pod ended.
    Exit(Exit),
}

/// The first event of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Start {
    /// Of this schema.
    pub version: VersionOne,
    /// The boot that the log is of.
    pub boot_id: Uuid,
    /// When, as RFC 3339 writes it: by the host's clock, which proves nothing.
    pub time: String,
    /// What the PCR held before this event, in each active bank.
    #[serde(with = "text::pcrs")]
    pub pcr_before: Pcrs,
    /// The TPM's count of resets (TPM 2.0 part 2, `TPMS_CLOCK_INFO`).
    pub reset_count: u32,
    /// Its count of restarts.
    pub restart_count: u32,
    /// The version of what writes the log.
    pub program: String,
}

/// A pod is about to be launched. It is not before this was extended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Launch {
    /// Of this schema.
    pub version: VersionOne,
    /// The boot that the log is of.
    pub boot_id: Uuid,
    /// When, by the host's clock.
    pub time: String,
    /// The number of the entry, so that the digest stands for the place in the log, too.
    pub number: u64,
    /// What is launched.
    pub record: Record,
}

/// A pod ended, or didn't begin. There is nothing in it that a verifier who knows the pod's launch
/// can't guess, so that whoever hands a log on can't hide it behind its digest: the verifier makes
/// the digests of all possible ends, and finds the entry. So it has no time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exit {
    /// Of this schema.
    pub version: VersionOne,
    /// The boot that the log is of.
    pub boot_id: Uuid,
    /// The pod.
    pub pod: Uuid,
    /// The number of its [`Launch`].
    pub launch: u64,
    /// How.
    pub end: End,
}

/// How a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum End {
    /// By itself, with this exit status.
    Status(u8),
    /// Otherwise.
    Reason(Reason),
}

/// Why a pod ended that didn't by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// The guest, the monitor or the supervisor broke down.
    Crash,
    /// It was asked to stop.
    Stopped,
    /// It never started.
    Aborted,
}

/// A document is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is not in its canonical form, in which alone it has one digest.
    #[error("it is not canonical JSON: {0}")]
    NotCanonical(#[from] NotCanonical),
    /// It is of another version.
    #[error("it has version {0} of the schema, and this program knows version {VERSION}")]
    Version(String),
    /// It is of another schema.
    #[error("it is not an event that is known here: {0}")]
    Schema(Text),
}

impl Event {
    /// Reads an event in canonical JSON.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn parse(text: &[u8]) -> Result<Self, RecordError> {
        // With another version of the schema most of it can't be read; that is what to say then.
        Self::read(text).map_err(|error| match other_version(text) {
            Some(version) => RecordError::Version(version),
            None => error,
        })
    }

    fn read(text: &[u8]) -> Result<Self, RecordError> {
        fn event<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, ReadError> {
            canonical::from_slice_without(text, TAG)
        }
        let event = match canonical::string_member(text, TAG)?.as_deref() {
            Some("start") => event(text).map(Self::Start),
            Some("launch") => event(text).map(|launch| Self::Launch(Box::new(launch))),
            Some("exit") => event(text).map(Self::Exit),
            Some(other) => Err(ReadError::Schema(format!("there is no event '{other}'"))),
            None => Err(ReadError::Schema(format!("missing field `{TAG}`"))),
        };
        event.map_err(|error| match error {
            ReadError::NotCanonical(error) => RecordError::NotCanonical(error),
            ReadError::Schema(problem) => RecordError::Schema(Text::new(problem)),
        })
    }

    /// The bytes whose digest is extended.
    ///
    /// # Errors
    /// [`CanonicalError`] if a number in it has no canonical form.
    pub fn to_canonical(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::to_vec(self)
    }

    /// The boot that it is of.
    pub fn boot_id(&self) -> &Uuid {
        match self {
            Self::Start(event) => &event.boot_id,
            Self::Launch(event) => &event.boot_id,
            Self::Exit(event) => &event.boot_id,
        }
    }

    /// The pod that it is about.
    pub fn pod(&self) -> Option<&Uuid> {
        match self {
            Self::Start(_) => None,
            Self::Launch(event) => Some(&event.record.pod),
            Self::Exit(event) => Some(&event.pod),
        }
    }
}

/// The version that a document has, if it is not the one that is known.
fn other_version(text: &[u8]) -> Option<String> {
    let document: serde_json::Value = canonical::from_slice(text).ok()?;
    let versions = ["/version", "/record/version"].into_iter();
    let mut versions = versions.filter_map(|path| document.pointer(path)?.as_u64());
    versions.find(|&version| version != VERSION).map(|version| version.to_string())
}

use crate::{
    evidence::{Counts, Nonce},
    record::Record,
};
use sandbox_image::Text;
use serde::Serialize;
use std::fmt;

/// Everything that is checked, in the order in which it is done. A check that stands on another
/// one is not done if that one fails, so that the first failure is the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckName {
    /// The AK can't leave its TPM, was made in it, and signs only what the TPM made.
    AttestationKey,
    /// The AK is one that the policy names, or that an enroller has seen in the TPM of the EK.
    KeyBinding,
    /// The EK is one of a manufacturer that the policy names, or is named itself.
    EndorsementKey,
    /// The quote is signed in the way that is fixed in the AK, and with a hash function that nobody
    /// can fool.
    QuoteAlgorithm,
    /// The AK signed it.
    QuoteSignature,
    /// What is signed is a quote, made by a TPM.
    QuoteForm,
    /// It was made for this nonce, this pod and this guest's key.
    Nonce,
    /// It is of the registers that the policy asks for.
    PcrSelection,
    /// The values that came with it are those that it is of.
    PcrValues,
    /// Registers of the host hold what the policy says.
    PcrReference,
    /// The TPM's clock has not gone back.
    Clock,
    /// The firmware's log leads to the registers' values.
    FirmwareLog,
    /// The log's records are numbered without a gap, and are of one register.
    LogNumbers,
    /// Every record's digest is that of its content.
    LogDigests,
    /// The log leads to its register's value.
    LogReplay,
    /// Every content is of a kind that is known here.
    LogContents,
    /// The log begins where the register began.
    LogBeginning,
    /// Nothing of the log is of another boot than the quote: records, and resets of the TPM.
    Boot,
    /// The TPM has not been reset more or less often than the enroller has seen.
    EnrolmentCounts,
    /// The log says that the pod was launched, once.
    PodLaunch,
    /// And not that it has ended.
    PodRunning,
    /// The guest's key is the one that was measured.
    GuestKey,
    /// The guest's kernel.
    Kernel,
    /// The guest's first process.
    GuestInit,
    /// The monitor.
    Monitor,
    /// The file server.
    FileServer,
    /// The system call filters of monitor and file server.
    Filters,
    /// The supervisor.
    Supervisor,
    /// The command line of the guest's kernel.
    CommandLine,
    /// Images of the pod's apps.
    Images,
    /// What the apps read of their images is what was measured.
    Content,
    /// What the pod sees of the host.
    Volumes,
    /// The pod's manifest: its apps, their programs, restrictions and volumes.
    PodManifest,
    /// An image's signature was demanded, and good.
    Signature,
    /// The policy that let the pod run.
    HostPolicy,
    /// The SELinux label.
    Label,
    /// The evidence is not old, by the host's clock.
    EvidenceAge,
    /// The pod is not old, by the host's clock.
    PodAge,
}

impl CheckName {
    /// All of them, in their order.
    pub const ALL: [Self; 38] = [
        Self::AttestationKey,
        Self::KeyBinding,
        Self::EndorsementKey,
        Self::QuoteAlgorithm,
        Self::QuoteSignature,
        Self::QuoteForm,
        Self::Nonce,
        Self::PcrSelection,
        Self::PcrValues,
        Self::PcrReference,
        Self::Clock,
        Self::FirmwareLog,
        Self::LogNumbers,
        Self::LogDigests,
        Self::LogReplay,
        Self::LogContents,
        Self::LogBeginning,
        Self::Boot,
        Self::EnrolmentCounts,
        Self::PodLaunch,
        Self::PodRunning,
        Self::GuestKey,
        Self::Kernel,
        Self::GuestInit,
        Self::Monitor,
        Self::FileServer,
        Self::Filters,
        Self::Supervisor,
        Self::CommandLine,
        Self::Images,
        Self::Content,
        Self::Volumes,
        Self::PodManifest,
        Self::Signature,
        Self::HostPolicy,
        Self::Label,
        Self::EvidenceAge,
        Self::PodAge,
    ];

    /// As it is in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AttestationKey => "attestation-key",
            Self::KeyBinding => "key-binding",
            Self::EndorsementKey => "endorsement-key",
            Self::QuoteSignature => "quote-signature",
            Self::QuoteAlgorithm => "quote-algorithm",
            Self::QuoteForm => "quote-form",
            Self::Nonce => "nonce",
            Self::PcrSelection => "pcr-selection",
            Self::PcrValues => "pcr-values",
            Self::PcrReference => "pcr-reference",
            Self::Clock => "clock",
            Self::FirmwareLog => "firmware-log",
            Self::LogNumbers => "log-numbers",
            Self::LogDigests => "log-digests",
            Self::LogReplay => "log-replay",
            Self::LogContents => "log-contents",
            Self::LogBeginning => "log-beginning",
            Self::Boot => "boot",
            Self::EnrolmentCounts => "enrolment-counts",
            Self::PodLaunch => "pod-launch",
            Self::PodRunning => "pod-running",
            Self::GuestKey => "guest-key",
            Self::Kernel => "kernel",
            Self::GuestInit => "guest-init",
            Self::Monitor => "monitor",
            Self::FileServer => "file-server",
            Self::Filters => "filters",
            Self::Supervisor => "supervisor",
            Self::CommandLine => "command-line",
            Self::Images => "images",
            Self::Content => "content",
            Self::Volumes => "volumes",
            Self::PodManifest => "pod-manifest",
            Self::Signature => "signature",
            Self::HostPolicy => "host-policy",
            Self::Label => "label",
            Self::EvidenceAge => "evidence-age",
            Self::PodAge => "pod-age",
        }
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// What came out of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", content = "why", rename_all = "kebab-case")]
pub enum CheckResult {
    /// It holds.
    Passed,
    /// It doesn't, and why.
    Failed(String),
    /// It was not done, and why: the policy doesn't ask for it, or what it stands on failed.
    NotDone(String),
}

/// A check and what came out of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which one.
    pub name: CheckName,
    /// And what.
    #[serde(flatten)]
    pub result: CheckResult,
}

/// What the verdict is, in the words of attestation results (draft-ietf-rats-ear, `ear.status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Everything that runs has been measured, and is what the policy names.
    Affirming,
    /// No check failed; but the policy leaves something open that decides what runs, or believes a
    /// key because it has been shown one.
    Warning,
    /// A check failed.
    Contraindicated,
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
        })
    }
}

/// Why a key is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// The policy names it.
    Pinned,
    /// An enroller whom the policy names has seen the AK in the EK's TPM.
    Enrolled,
    /// The policy lets any key do. Whoever wants to recognise it the next time pins its name.
    FirstUse,
}

/// What was learnt. Everything here has been checked as far as the checks it stands on passed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// UUID of the pod.
    pub pod: String,
    /// What was asked with.
    pub nonce: Option<Nonce>,
    /// Name of the AK.
    pub attestation_key: Option<String>,
    /// Name of the EK.
    pub endorsement_key: Option<String>,
    /// Why the AK is believed.
    pub trust: Option<Trust>,
    /// The TPM's counters in the quote.
    pub counts: Option<Counts>,
    /// Milliseconds for which the TPM has been powered.
    pub clock: Option<u64>,
    /// The boot that the log is of.
    pub boot_id: Option<String>,
    /// Number of the launch record.
    pub launch: Option<u64>,
    /// Number of records.
    pub records: u64,
    /// And of those whose content is not shown, after the launch.
    pub hidden_since_launch: u64,
    /// The guest's key, in hexadecimal digits, which the quote is bound to.
    pub guest_key: Option<String>,
    /// What was launched.
    pub record: Option<Record>,
}

/// What a verifier says of evidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// 1.
    pub version: u32,
    /// The short of it.
    pub status: Status,
    /// The same by what it is about.
    pub vector: super::token::Vector,
    /// Every check, in order, each once.
    pub checks: Vec<Check>,
    /// What was learnt.
    pub facts: Facts,
}

impl Verdict {
    /// Whether no check failed.
    pub fn passed(&self) -> bool {
        self.status != Status::Contraindicated
    }

    /// What came out of a check.
    pub fn result(&self, name: CheckName) -> Option<&CheckResult> {
        self.checks.iter().find(|check| check.name == name).map(|check| &check.result)
    }

    /// The checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = (CheckName, &str)> {
        self.checks.iter().filter_map(|check| match &check.result {
            CheckResult::Failed(why) => Some((check.name, why.as_str())),
            _ => None,
        })
    }
}

/// One line for each check, failures with their reason, and a summary.
impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { name, result } in &self.checks {
            match result {
                CheckResult::Passed => writeln!(out, "passed    {name}")?,
                CheckResult::Failed(why) => {
                    writeln!(out, "FAILED    {name:<17} {}", Text::message(why))?;
                }
                CheckResult::NotDone(why) => {
                    writeln!(out, "not done  {name:<17} {}", Text::message(why))?;
                }
            }
        }
        let pod = Text::new(&self.facts.pod);
        match self.status {
            Status::Affirming => write!(out, "pod {pod} is what the policy demands"),
            Status::Warning => {
                write!(out, "pod {pod}: nothing failed, and not everything was asked for")
            }
            Status::Contraindicated => write!(out, "pod {pod} must not be trusted"),
        }
    }
}

/// Collects results, and sees to it that each check has one.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<(CheckName, CheckResult)>);

impl Findings {
    /// Notes what came out of a check; the value if it passed.
    pub(super) fn note<T>(&mut self, name: CheckName, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => {
                self.0.push((name, CheckResult::Passed));
                Some(value)
            }
            Err(why) => {
                self.0.push((name, CheckResult::Failed(why)));
                None
            }
        }
    }

    /// Notes a check that is not asked for.
    pub(super) fn skip(&mut self, name: CheckName, why: impl Into<String>) {
        self.0.push((name, CheckResult::NotDone(why.into())));
    }

    /// Notes the checks that can't be done since another one failed.
    pub(super) fn blocked(&mut self, names: &[CheckName], by: CheckName) {
        for &name in names {
            self.skip(name, format!("it stands on {by}, which did not pass"));
        }
    }

    /// Whether a check has passed.
    pub(super) fn passed(&self, name: CheckName) -> bool {
        self.0.iter().any(|(other, result)| *other == name && *result == CheckResult::Passed)
    }

    /// Whether a check has failed.
    pub(super) fn failed(&self, name: CheckName) -> bool {
        let failed = |result: &CheckResult| matches!(result, CheckResult::Failed(_));
        self.0.iter().any(|(other, result)| *other == name && failed(result))
    }

    /// Every check in its order. One that nobody noted counts as failed: forgetting one must not
    /// make a verdict better.
    pub(super) fn finish(mut self) -> Vec<Check> {
        CheckName::ALL
            .into_iter()
            .map(|name| {
                let place = self.0.iter().position(|(other, _)| *other == name);
                let result = place.map_or_else(
                    || CheckResult::Failed("the verifier has not done it".to_owned()),
                    |place| self.0.swap_remove(place).1,
                );
                Check { name, result }
            })
            .collect()
    }
}

use crate::verify::{Check, CheckName, CheckResult, Status, Trust};
use serde::{Deserialize, Serialize};

/// The trustworthiness vector of attestation results (draft-ietf-rats-ar4si, 2.3.4). 2 to 31
/// affirm, 32 to 95 and -33 to -96 warn, 96 to 127 contraindicate. Only what a TPM can tell is in
/// it: memory is not encrypted, and nothing is said of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Vector {
    /// Whose TPM it is, and that the pod is there: 2; 97 if it is none that is known; -33 if any is
    /// believed; 99 if something signed or logged was changed.
    pub instance_identity: i8,
    /// Manifest or host's policy, and what else was demanded of how the pod runs: 2; 36 if neither
    /// was; 96.
    pub configuration: i8,
    /// Kernel, first process, monitor and file server: 3; 33 if one of them was not demanded; 96.
    pub executables: i8,
    /// Images: 2; 32 if it was not demanded that they are known and verified; 96.
    pub file_system: i8,
    /// The host's registers: 2; -33 if no values of them were demanded; 97.
    pub hardware: i8,
}

/// What has to hold for the evidence to be somebody's word at all.
const IDENTITY: [CheckName; 2] = [CheckName::KeyBinding, CheckName::EndorsementKey];
const CONFIGURATION: [CheckName; 7] = [
    CheckName::CommandLine,
    CheckName::Volumes,
    CheckName::PodManifest,
    CheckName::Signature,
    CheckName::HostPolicy,
    CheckName::Label,
    CheckName::Filters,
];
const EXECUTABLES: [CheckName; 5] = [
    CheckName::Kernel,
    CheckName::GuestInit,
    CheckName::Monitor,
    CheckName::FileServer,
    CheckName::Supervisor,
];
const FILES: [CheckName; 2] = [CheckName::Images, CheckName::Content];
const HARDWARE: [CheckName; 2] = [CheckName::PcrReference, CheckName::FirmwareLog];

impl Vector {
    /// Of checks.
    pub(in crate::verify) fn of(checks: &[Check], trust: Option<Trust>, file_server: bool) -> Self {
        let result =
            |name| checks.iter().find(|check| check.name == name).map(|check| &check.result);
        let failed = |names: &[CheckName]| {
            names.iter().any(|name| matches!(result(*name), Some(CheckResult::Failed(_))))
        };
        let passed = |name: &CheckName| matches!(result(*name), Some(CheckResult::Passed));
        let about = [&CONFIGURATION[..], &EXECUTABLES, &FILES, &HARDWARE, &IDENTITY].concat();
        let broken = checks.iter().any(|check| {
            matches!(check.result, CheckResult::Failed(_)) && !about.contains(&check.name)
        });
        let executables = &EXECUTABLES[..if file_server { 4 } else { 3 }];
        Self {
            instance_identity: match trust {
                _ if failed(&IDENTITY) => 97,
                _ if broken => 99,
                Some(Trust::FirstUse) => -33,
                Some(Trust::Pinned | Trust::Enrolled) => 2,
                None => 97,
            },
            configuration: match () {
                () if failed(&CONFIGURATION) => 96,
                () if passed(&CheckName::PodManifest) || passed(&CheckName::HostPolicy) => 2,
                () => 36,
            },
            executables: match () {
                () if failed(&EXECUTABLES) => 96,
                () if executables.iter().all(passed) => 3,
                () => 33,
            },
            file_system: match () {
                () if failed(&FILES) => 96,
                () if FILES.iter().all(passed) => 2,
                () => 32,
            },
            hardware: match () {
                () if failed(&HARDWARE) => 97,
                () if passed(&CheckName::PcrReference) => 2,
                () => -33,
            },
        }
    }

    /// The worst of it; a check that failed is worse than all that a vector can say.
    pub(in crate::verify) fn status(self, checks: &[Check]) -> Status {
        let all = [
            self.instance_identity,
            self.configuration,
            self.executables,
            self.file_system,
            self.hardware,
        ];
        if checks.iter().any(|check| matches!(check.result, CheckResult::Failed(_))) {
            Status::Contraindicated
        } else if all.iter().all(|claim| (2..32).contains(claim)) {
            Status::Affirming
        } else {
            Status::Warning
        }
    }
}

//! What an error of the TPM or its libraries means.

use sandbox_attestation::session::{Failure, FailureKind};
use tss_esapi::Error;

/// The parts of the TSS that pass on the TPM's own answers: the TPM itself, and the resource manager
/// in its place (TSS 2.0 Overview, "Response Codes").
const FROM_TPM: [u32; 3] = [0, 11, 12];
/// The part of the TSS that carries commands to the TPM.
const TCTI: u32 = 10;

/// An answer in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code {
    layer: u32,
    code: u32,
}

impl Code {
    /// The number of an error, if it is not the wrapper's own.
    pub(super) fn of(error: &Error) -> Option<Self> {
        let Error::Tss2Error(code) = error else { return None };
        // The library keeps the number to itself, and shows it when it shows the inner value.
        let shown = match code {
            tss_esapi::constants::response_code::Tss2ResponseCode::Success => return None,
            tss_esapi::constants::response_code::Tss2ResponseCode::FormatZero(code) => {
                code.to_string()
            }
            tss_esapi::constants::response_code::Tss2ResponseCode::FormatOne(code) => {
                code.to_string()
            }
        };
        Self::parse(&shown)
    }

    fn parse(shown: &str) -> Option<Self> {
        let digits = shown.rsplit_once("0x")?.1;
        let number = u32::from_str_radix(digits, 16).ok()?;
        Some(Self { layer: number >> 16 & 0xff, code: number & 0xffff })
    }

    /// The TPM's answer; of one that names a parameter, a handle or a session, without which one it
    /// is (part 2, "TPM_RC").
    pub(super) fn tpm(self) -> Option<u32> {
        if !FROM_TPM.contains(&self.layer) {
            return None;
        }
        Some(if self.code & 0x80 == 0 { self.code } else { self.code & 0xbf })
    }

    /// The TPM asks for the same command again: `TPM_RC_RETRY`, `TPM_RC_YIELDED`,
    /// `TPM_RC_TESTING`, `TPM_RC_NV_RATE`. It has done nothing of it yet.
    pub(super) fn again(self) -> bool {
        matches!(self.tpm(), Some(0x922 | 0x908 | 0x90a | 0x920))
    }

    /// No room for keys or sessions: `TPM_RC_OBJECT_MEMORY`, `TPM_RC_SESSION_MEMORY`,
    /// `TPM_RC_MEMORY`, `TPM_RC_SESSION_HANDLES`, `TPM_RC_OBJECT_HANDLES`.
    pub(super) fn full(self) -> bool {
        matches!(self.tpm(), Some(0x902..=0x906))
    }

    /// The connection to the TPM.
    fn connection(self) -> bool {
        self.layer == TCTI
    }
}

/// The failure that an error of a step amounts to.
pub(super) fn failure(step: &str, error: &Error) -> Failure {
    let Some(code) = Code::of(error) else {
        return Failure::new(FailureKind::Tpm, format!("cannot {step}: {error}"));
    };
    if code.connection() {
        let message = format!("cannot {step}: the connection to the TPM failed ({error})");
        return Failure::new(FailureKind::NoTpm, message);
    }
    let (kind, advice) = match code.tpm() {
        _ if code.full() => (
            FailureKind::Full,
            "it has no room for keys or sessions; other programs hold them: use the kernel's \
             resource manager, \"tcti\":\"device:/dev/tpmrm0\"",
        ),
        _ if code.again() => (FailureKind::Busy, "it is busy with itself; try again"),
        // TPM_RC_LOCKOUT.
        Some(0x921) => {
            (FailureKind::Denied, "it is locked after wrong passwords; wait, or clear it")
        }
        // TPM_RC_AUTH_FAIL, TPM_RC_BAD_AUTH.
        Some(0x08e | 0x0a2) => {
            (FailureKind::Denied, "a password is set, and sandbox knows of none: remove it")
        }
        // TPM_RC_HIERARCHY.
        Some(0x085) => {
            (FailureKind::Denied, "the endorsement hierarchy is switched off in the firmware")
        }
        // TPM_RC_INTEGRITY.
        Some(0x09f) => (FailureKind::Key, "what was loaded is not of this TPM, or was changed"),
        // TPM_RC_COMMAND_CODE, TPM_RC_CURVE, TPM_RC_SCHEME, TPM_RC_KEY_SIZE.
        Some(0x143 | 0x0a6 | 0x092 | 0x087) => (FailureKind::Unsupported, "it can't do that"),
        // TPM_RC_INITIALIZE, TPM_RC_FAILURE.
        Some(0x100 | 0x101) => (FailureKind::Tpm, "it needs a reset of the host"),
        _ => (FailureKind::Tpm, "that is not expected of it"),
    };
    let number = code.code;
    Failure::new(
        kind,
        format!("cannot {step}: the TPM answered {error} (0x{number:03x}); {advice}"),
    )
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn answers_are_told_apart() {
        let code = |number: u32| Code::parse(&format!("Response code value: {number:#x}")).unwrap();
        assert!(code(0x922).again() && code(0x908).again() && code(0x90a).again());
        // The same number from the connection is another thing.
        assert!(!code(0x000a_0922).again() && code(0x000a_000a).connection());
        assert!(code(0x902).full() && code(0x000b_0903).full());
        // TPM_RC_INTEGRITY for parameter 1, TPM_RC_AUTH_FAIL for session 1.
        assert_eq!(code(0x1df).tpm(), Some(0x09f));
        assert_eq!(code(0x98e).tpm(), Some(0x08e));
        assert_eq!(Code::parse("nothing"), None);
    }
}

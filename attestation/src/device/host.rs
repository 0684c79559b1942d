//! What the host itself tells: its boot, its clock, what its firmware and systemd have measured.

use sandbox_attestation::{
    record::Uuid,
    session::{Failure, FailureKind},
};
use sandbox_image::instant;
use serde::Deserialize;
use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    time::SystemTime,
};

/// Where systemd logs what it has measured, see systemd-pcrextend(8).
const SYSTEMD: &str = "/run/log/systemd/tpm2-measure.log";
/// The most of that log that is looked at.
const MAX_SYSTEMD: u64 = 4 << 20;
/// The most of the firmware's log. Firmware sets 64 KiB or so apart for it.
const MAX_FIRMWARE: u64 = 1 << 20;

/// The running boot, as the kernel names it.
pub(super) fn boot() -> Result<Uuid, Failure> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let failed = |problem: String| {
        Failure::new(FailureKind::Storage, format!("cannot read {PATH}: {problem}"))
    };
    let text = std::fs::read_to_string(PATH).map_err(|error| failed(error.to_string()))?;
    text.trim_end().parse().map_err(|error| failed(format!("{error}")))
}

/// Now, as RFC 3339 has it, in UTC.
pub(super) fn now() -> String {
    instant::format(instant::seconds(SystemTime::now()))
}

/// The firmware's log of the TPM that `tcti` names, where the kernel has it.
pub(super) fn firmware_log(tcti: &str) -> Option<Vec<u8>> {
    let number =
        tcti.strip_prefix("device:/dev/tpmrm").or_else(|| tcti.strip_prefix("device:/dev/tpm"))?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let path = format!("/sys/kernel/security/tpm{number}/binary_bios_measurements");
    let log = bounded(Path::new(&path), MAX_FIRMWARE).ok()?;
    (!log.is_empty() && log.len() as u64 <= MAX_FIRMWARE).then_some(log)
}

/// Whether systemd measures into `pcr`, in words.
pub(super) fn systemd(pcr: u8) -> Option<String> {
    let log = bounded(Path::new(SYSTEMD), MAX_SYSTEMD).ok()?;
    names(&log, pcr).then(|| {
        format!(
            "systemd measures into register {pcr}, too ({SYSTEMD}): a launch can be refused when \
             it does so again; choose another as \"pcr\" in /etc/sandbox/attest.json, and reboot"
        )
    })
}

/// Whether a log of systemd (RFC 7464) names a register.
fn names(log: &[u8], pcr: u8) -> bool {
    #[derive(Deserialize)]
    struct Record {
        pcr: Option<u64>,
    }
    log.split(|&byte| byte == 0x1e).any(|record| {
        serde_json::from_slice::<Record>(record)
            .is_ok_and(|record| record.pcr == Some(u64::from(pcr)))
    })
}

fn bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemds_use_of_a_register_is_seen() {
        let log =
            b"\x1e{\"pcr\":11,\"digests\":[],\"content_type\":\"systemd\"}\n\x1e{\"nv_index\":1}\n\
            \x1e{\"pcr\":15,\"digests\":[],\"content\":{\"pcr\":14}}\n\x1e{\"pcr\":9";
        assert!(names(log, 11) && names(log, 15));
        assert!(!names(log, 14) && !names(log, 9) && !names(b"", 0));
    }

    #[test]
    fn only_a_device_of_the_kernel_has_a_firmware_log() {
        for tcti in ["swtpm:port=1", "device:/dev/tpm", "device:/dev/tpmrm../../etc", "device:/x"] {
            assert_eq!(firmware_log(tcti), None);
        }
    }
}

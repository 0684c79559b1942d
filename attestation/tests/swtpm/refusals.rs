//! What must not be launched.

use super::{
    place::{PROGRAM, Place, record, tcti, two_ports},
    proxy::{Deed, EXTEND, between},
};
use sandbox_attestation::{
    Bank,
    session::{Ask, Attestor, Bytes, FailureKind, LogState, SessionError},
    settings::Settings,
};
use std::{collections::BTreeMap, path::Path, time::Instant};

#[track_caller]
fn refused(place: &Place, kind: FailureKind, because: &str) {
    let before = std::fs::read(place.log_file()).ok();
    let error = place.launch(9).unwrap_err();
    assert_eq!(error.kind(), Some(kind), "{error}");
    assert!(error.to_string().contains(because), "{error}");
    assert_eq!(std::fs::read(place.log_file()).ok(), before, "the log was changed");
}

#[test]
fn a_register_that_somebody_else_extended() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    place.tool("tpm2_pcrextend", &[&format!("15:sha256={}", "ab".repeat(32))]);
    refused(&place, FailureKind::LogMismatch, "somebody else extended it");
    let status = place.attestor().status().unwrap();
    assert!(matches!(status.log, LogState::Differs { .. }), "{status:?}");
}

#[test]
fn a_bank_of_the_register_that_somebody_else_extended() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    place.tool("tpm2_pcrextend", &[&format!("15:sha512={}", "ab".repeat(64))]);
    refused(&place, FailureKind::LogMismatch, "sha512");
}

#[test]
fn a_log_that_is_shorter_longer_or_edited() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    place.launch(2).unwrap();
    let whole = std::fs::read(place.log_file()).unwrap();
    let starts: Vec<_> = (0..whole.len()).filter(|&at| whole[at] == 0x1e).collect();
    let without = |from: usize, to: usize| [&whole[..from], &whole[to..]].concat();
    let edited = String::from_utf8(whole.clone()).unwrap().replacen("\"cpus\":1", "\"cpus\":2", 1);
    for (what, log) in [
        ("the last record is missing", without(starts[2], whole.len())),
        ("a record in the middle is missing", without(starts[1], starts[2])),
        ("the first record is missing", without(0, starts[1])),
        ("the last two are missing", without(starts[1], whole.len())),
        ("a record twice", [&whole[..], &whole[starts[2]..]].concat()),
        ("a record was edited", edited.into_bytes()),
        ("another beginning", [b"{}\n", &whole[..]].concat()),
    ] {
        std::fs::write(place.log_file(), &log).unwrap();
        let error = place.launch(3).unwrap_err();
        let kind = error.kind().unwrap();
        assert!(
            matches!(kind, FailureKind::Log | FailureKind::LogMismatch),
            "{what}: {kind:?} {error}"
        );
        assert_eq!(std::fs::read(place.log_file()).unwrap(), log, "{what}: changed");
    }
    std::fs::write(place.log_file(), whole).unwrap();
    place.launch(3).unwrap();
    place.agrees();
}

#[test]
fn after_a_reset_of_the_tpm_alone() {
    let Some(mut place) = Place::new() else { return };
    place.launch(1).unwrap();
    place.power_off();
    place.power_on();
    refused(&place, FailureKind::LogMismatch, "holds 0000");
}

#[test]
fn after_the_register_was_changed_in_the_settings() {
    let Some(mut place) = Place::new() else { return };
    place.launch(1).unwrap();
    place.settings.pcr = 14;
    refused(&place, FailureKind::LogMismatch, "is of register 15");
}

#[test]
fn without_a_tpm() {
    let Some(mut place) = Place::new() else { return };
    place.launch(1).unwrap();
    place.power_off();
    let begin = Instant::now();
    refused(&place, FailureKind::NoTpm, "open the TPM");
    assert!(begin.elapsed().as_secs() < 20);
    place.settings.tcti = "device:/dev/nonexistent".into();
    refused(&place, FailureKind::NoTpm, "/dev/nonexistent");
}

#[test]
fn a_tcti_that_would_be_misread() {
    let Some(mut place) = Place::new() else { return };
    place.settings.tcti = format!("swtpm:path={}", place.path("socket").display());
    refused(&place, FailureKind::Request, "expected is 'swtpm:host=");
}

#[test]
fn with_no_bank_that_counts() {
    let Some(mut place) = Place::new() else { return };
    place.tool("tpm2_pcrallocate", &["sha1:all+sha256:none+sha384:none+sha512:none"]);
    // Takes effect with the next start.
    place.tool("tpm2_shutdown", &["-c"]);
    place.power_off();
    place.power_on();
    refused(&place, FailureKind::BankOff, "(active: sha1)");

    place.tool("tpm2_pcrallocate", &["sha1:none+sha256:none+sha384:all+sha512:none"]);
    place.tool("tpm2_shutdown", &["-c"]);
    place.power_off();
    place.power_on();
    place.launch(1).unwrap();
    let entries = place.agrees();
    assert_eq!(entries[0].digests.keys().copied().collect::<Vec<_>>(), [Bank::Sha384]);
    let selection = BTreeMap::from([(Bank::Sha256, [0].into())]);
    let ask = Ask { pod: None, qualifying_data: Bytes::default(), selection };
    let error = place.attestor().quote(ask).unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::BankOff), "{error}");
}

#[test]
fn what_can_not_be_quoted_is_refused_before_anything_is_written() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    let before = place.register(15);
    let ask = Ask { pod: None, qualifying_data: vec![0; 35].into(), selection: BTreeMap::new() };
    let error = place.attestor().launch(record(2), Some(ask)).unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Request), "{error}");
    assert_eq!((place.register(15), place.entries().len()), (before, 2));
}

#[test]
fn a_tpm_that_refuses_to_extend() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    // TPM_RC_FAILURE.
    let port = between(place.port, |command| match command {
        EXTEND => Deed::Answer(0x101),
        _ => Deed::Pass,
    });
    let settings = Settings { tcti: tcti(port), ..place.settings.clone() };
    let error = place.attestor_at(&settings).launch(record(2), None).unwrap_err();
    let SessionError::Failed(failure) = error else { panic!("{error}") };
    assert_eq!((failure.kind, failure.recorded), (FailureKind::Tpm, Some(2)));
    assert!(failure.message.contains("0x101"), "{failure}");
}

#[test]
fn a_directory_that_is_not_ours_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    let open = std::fs::Permissions::from_mode(0o770);
    std::fs::set_permissions(&place.settings.directory, open).unwrap();
    refused(&place, FailureKind::Storage, "0770");
}

#[test]
fn a_program_that_is_not_there_or_another() {
    let settings = Settings { tcti: tcti(two_ports()), ..Settings::default() };
    let error = Attestor::start(Path::new("/nonexistent"), &settings).unwrap_err();
    assert!(matches!(error, SessionError::Start { .. }), "{error}");
    let error = Attestor::start(Path::new("/bin/cat"), &settings)
        .and_then(|attestor| attestor.status().map(drop))
        .unwrap_err();
    // It says what it is told.
    assert!(matches!(error, SessionError::Nonsense { .. }), "{error}");
    let error = Attestor::start(Path::new("/bin/false"), &settings)
        .and_then(|attestor| attestor.status().map(drop))
        .unwrap_err();
    assert!(matches!(error, SessionError::Ended { .. }), "{error}");
}

#[test]
fn the_program_says_what_is_missing_when_a_person_starts_it() {
    let output =
        std::process::Command::new(PROGRAM).stdin(std::process::Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("sandbox starts this"), "{said}");
}

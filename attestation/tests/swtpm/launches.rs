//! What a launch leaves behind.

use super::place::{Place, pod, record, unhex};
use sandbox_attestation::{
    Bank,
    evidence::{Evidence, Nonce},
    log::{Limits, parse},
    record::{End, Event, Reason},
    session::{About, Ask, FailureKind, LogState},
    verify::{Policy, verify, verify_since},
};
use std::collections::BTreeMap;

fn ask(qualifying: &[u8]) -> Ask {
    Ask { pod: None, qualifying_data: qualifying.to_vec().into(), selection: BTreeMap::new() }
}

#[test]
fn launches_and_exits_are_in_the_log_and_in_every_bank() {
    let Some(place) = Place::new() else { return };
    let first = place.launch(1).unwrap();
    let second = place.launch(2).unwrap();
    let exit = place.attestor().exit(pod(1), first.recnum, End::Status(3)).unwrap();
    assert_eq!((first.recnum, second.recnum, exit), (1, 2, 3));
    assert_eq!(first.warnings, Vec::<String>::new());

    let entries = place.agrees();
    assert_eq!(entries.len(), 4);
    assert_eq!(entries[0].digests.len(), 4, "swtpm has four banks");
    let Some(Event::Start(start)) = &entries[0].content else { panic!("{entries:?}") };
    assert!(start.pcr_before.values().flatten().all(|&byte| byte == 0));
    let Some(Event::Launch(launch)) = &entries[1].content else { panic!("{entries:?}") };
    assert_eq!((launch.number, &launch.record), (1, &record(1)));
    let Some(Event::Exit(exit)) = &entries[3].content else { panic!("{entries:?}") };
    assert_eq!((&exit.pod, exit.launch, exit.end), (&pod(1), 1, End::Status(3)));
}

#[test]
fn an_exit_is_written_once_and_only_for_a_launch() {
    let Some(place) = Place::new() else { return };
    let launch = place.launch(1).unwrap().recnum;
    let exit =
        |number, launch| place.attestor().exit(pod(number), launch, End::Reason(Reason::Stopped));
    let recnum = exit(1, launch).unwrap();
    assert_eq!(exit(1, launch).unwrap(), recnum);
    for (number, launch) in [(2, launch), (1, 0), (1, recnum), (1, 99), (1, u64::MAX)] {
        let error = exit(number, launch).unwrap_err();
        assert_eq!(error.kind(), Some(FailureKind::Request), "{number} {launch}: {error}");
    }
    assert_eq!(place.agrees().len(), 3);
}

#[test]
fn a_quote_is_accepted_by_an_independent_tool() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    let nonce = [7; 32];
    let quoted = place.attestor().quote(ask(&nonce)).unwrap();

    let public = &quoted.identity.ak_public.0;
    let size = u16::try_from(public.len()).unwrap().to_be_bytes();
    std::fs::write(place.path("ak.pub"), [&size, public.as_slice()].concat()).unwrap();
    std::fs::write(place.path("message"), &quoted.attest.0).unwrap();
    std::fs::write(place.path("signature"), &quoted.signature.0).unwrap();
    let check = |nonce: &str| {
        let arguments =
            ["-u", "ak.pub", "-m", "message", "-s", "signature", "-g", "sha256", "-q", nonce];
        std::process::Command::new("tpm2_checkquote")
            .args(arguments)
            .current_dir(place.path(""))
            .env("TPM2TOOLS_TCTI", "none")
            .output()
            .unwrap()
    };
    let output = check(&"07".repeat(32));
    assert!(output.status.success(), "{output:?}");
    assert!(!check(&"08".repeat(32)).status.success());

    // What is said to be in the registers is what another tool reads there.
    let said = &quoted.pcrs[&Bank::Sha256];
    assert_eq!(said.len(), 15);
    assert_eq!(said[&15].0, place.register(15)[&Bank::Sha256]);
    assert_eq!(said[&0].0, place.register(0)[&Bank::Sha256]);
}

#[test]
fn evidence_of_a_launch_is_believed_by_a_verifier_and_no_other() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    let document = |pin: &str| {
        serde_json::json!({
            "version": 1,
            "attestationKeys": {"pinned": [pin]},
            "pcrs": {"select": {"sha256": [0, 7, 15]}, "log": 15},
        })
    };
    let policy = |pin: &[u8]| {
        let pin: String = pin.iter().map(|byte| format!("{byte:02x}")).collect();
        Policy::parse(document(&pin).to_string().as_bytes()).unwrap()
    };
    let identity = place.attestor().status().unwrap().identity.unwrap();
    let trusting = policy(&identity.ak_name.0);
    let about = About {
        pod: pod(2),
        nonce: Nonce::new([9; 32]).unwrap(),
        guest_key: None,
        time: "2026-01-01T00:00:00Z".into(),
        enrolment: None,
    };
    let ask = Ask {
        pod: Some(pod(2)),
        qualifying_data: about.qualifying_data(),
        selection: trusting.selection().clone(),
    };
    let quoted = place.attestor().launch(record(2), Some(ask)).unwrap().quote.unwrap();
    let evidence = quoted.into_evidence(about.clone()).unwrap();
    let evidence = Evidence::parse(&evidence.to_json().unwrap()).unwrap();
    let now = std::time::SystemTime::now();
    let verdict = verify(&evidence, &about.nonce, &trusting, now);
    assert!(verdict.passed(), "{verdict}");

    let other = Nonce::new([8; 32]).unwrap();
    assert!(!verify(&evidence, &other, &trusting, now).passed());
    let distrusting = policy(&[&[0, 11][..], &[1; 32]].concat());
    assert!(!verify(&evidence, &about.nonce, &distrusting, now).passed());
}

#[test]
fn a_quote_can_be_of_more_registers_than_the_tpm_gives_at_once() {
    let Some(place) = Place::new() else { return };
    let all = || (0..24).collect();
    let selection = BTreeMap::from([(Bank::Sha1, all()), (Bank::Sha384, all())]);
    let ask = Ask { pod: None, qualifying_data: vec![1].into(), selection };
    let quoted = place.attestor().quote(ask).unwrap();
    let counts: Vec<_> = quoted.pcrs.iter().map(|(bank, values)| (*bank, values.len())).collect();
    assert_eq!(counts, [(Bank::Sha1, 24), (Bank::Sha384, 24)]);
    assert_eq!(quoted.pcrs[&Bank::Sha384][&17].0, vec![0xff; 48]);
    assert_eq!(quoted.pcrs[&Bank::Sha384][&15].0, place.register(15)[&Bank::Sha384]);
}

#[test]
fn a_launch_is_quoted_in_the_same_turn_and_others_records_are_digests() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    let ask = Ask { pod: Some(pod(2)), ..ask(&[9; 34]) };
    let launched = place.attestor().launch(record(2), Some(ask)).unwrap();
    let quoted = launched.quote.unwrap();
    let log = parse(quoted.log.as_bytes(), &Limits::default()).unwrap().entries;
    let shown: Vec<_> = log.iter().map(|entry| entry.content.is_some()).collect();
    assert_eq!((launched.recnum, shown), (2, vec![true, false, true]));
    assert_eq!(quoted.boot_id, *log[0].content.as_ref().unwrap().boot_id());
    // Digests stay, so that it can be replayed.
    let full = place.agrees();
    assert!(log.iter().zip(&full).all(|(seen, entry)| seen.digests == entry.digests));
    assert_eq!(quoted.pcrs[&Bank::Sha256][&15].0, place.register(15)[&Bank::Sha256]);
}

#[test]
fn status_tells_and_changes_nothing() {
    let Some(place) = Place::new() else { return };
    let status = place.attestor().status().unwrap();
    assert_eq!((status.log, status.records, status.identity), (LogState::Empty, 0, None));
    assert_eq!(status.banks, Bank::ALL);
    assert_eq!(status.manufacturer, "IBM");
    assert!(place.register(15).values().flatten().all(|&byte| byte == 0));

    place.launch(1).unwrap();
    let before = place.register(15);
    let status = place.attestor().status().unwrap();
    assert_eq!((status.log, status.records, status.pcr), (LogState::Agrees, 2, 15));
    assert!(status.identity.is_some() && status.clock.is_some());
    assert_eq!(status.values[&Bank::Sha512].0, before[&Bank::Sha512]);
    assert_eq!(place.register(15), before);
}

#[test]
fn the_counters_in_the_log_are_the_tpms() {
    let Some(mut place) = Place::new() else { return };
    place.power_off();
    place.power_on();
    place.launch(1).unwrap();
    let Some(Event::Start(start)) = place.entries().remove(0).content else { panic!() };
    let clock = place.tool("tpm2_readclock", &[]);
    for (name, count) in
        [("reset_count", start.reset_count), ("restart_count", start.restart_count)]
    {
        assert!(clock.contains(&format!("{name}: {count}")), "{clock}: {name} is not {count}");
    }
}

#[test]
fn a_register_that_others_used_is_warned_about() {
    let Some(place) = Place::new() else { return };
    place.tool("tpm2_pcrextend", &[&format!("15:sha256={}", "ab".repeat(32))]);
    let warnings = place.attestor().status().unwrap().warnings;
    assert!(warnings[0].contains("register 15 holds something"), "{warnings:?}");
    let launched = place.launch(1).unwrap();
    assert!(launched.warnings[0].contains("was not untouched"), "{:?}", launched.warnings);
    let Some(Event::Start(start)) = place.agrees().remove(0).content else { panic!() };
    assert_ne!(start.pcr_before[&Bank::Sha256], unhex(&"00".repeat(32)));
}

#[test]
fn another_register_can_be_chosen() {
    let Some(mut place) = Place::new() else { return };
    place.settings.pcr = 14;
    place.launch(1).unwrap();
    place.agrees();
    assert!(place.register(15).values().flatten().all(|&byte| byte == 0));
}

/// What is known of the log without reading it is believed where it fits, and else it is read.
#[test]
fn a_checkpoint_that_is_lost_old_or_torn_costs_only_time() {
    let Some(place) = Place::new() else { return };
    let file = place.settings.directory.join("checkpoint.json");
    place.launch(1).unwrap();
    let old = std::fs::read(&file).unwrap();
    let first = place.launch(2).unwrap().recnum;
    let torn = old[..old.len() / 2].to_vec();
    for (next, content) in (first + 1..).zip([None, Some(old), Some(torn), Some(Vec::new())]) {
        match content {
            Some(content) => std::fs::write(&file, content).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        assert_eq!(place.launch(3).unwrap().recnum, next);
        assert_eq!(place.agrees().len() as u64, next + 1);
        // And there is one again that is believed.
        let now = std::fs::read_to_string(&file).unwrap();
        assert!(now.contains(&format!("\"records\":{}", next + 1)), "{now}");
    }
}

/// A log that was edited behind the checkpoint's back is read, and refused.
#[test]
fn an_edit_of_the_log_is_seen_in_spite_of_the_checkpoint() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    place.launch(2).unwrap();
    let whole = std::fs::read(place.log_file()).unwrap();
    let mut edited = whole.clone();
    let at = whole.windows(6).position(|it| it == b"tenant").unwrap() + 10;
    edited[at] ^= 1;
    std::fs::write(place.log_file(), edited).unwrap();
    let error = place.launch(3).unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Log), "{error}");
    std::fs::write(place.log_file(), whole).unwrap();
    assert_eq!(place.launch(3).unwrap().recnum, 3);
}

/// A launch whose quote comes with its own record only is verified from what was known before.
#[test]
fn a_brief_launch_is_verified_from_what_was_seen() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    let nonce = Nonce::new(vec![7; 32]).unwrap();
    let about = About::now(pod(2), nonce.clone(), None, None, std::time::SystemTime::now());
    let ask = Ask {
        pod: Some(pod(2)),
        qualifying_data: about.qualifying_data(),
        selection: BTreeMap::from([(Bank::Sha256, [15].into())]),
    };
    let launched = place.attestor().launch_briefly(record(2), ask).unwrap();
    let quoted = *launched.quote.unwrap();
    assert_eq!(quoted.log.lines().count(), 1);
    let seen = quoted.seen.clone().unwrap();
    assert_eq!((seen.records, launched.recnum), (2, 2));
    let policy = format!(
        r#"{{"version":1,"attestationKeys":{{"pinned":["{:?}"]}},
            "pcrs":{{"select":{{"sha256":[15]}},"log":15}}}}"#,
        quoted.identity.ak_name
    );
    let policy = Policy::parse(policy.as_bytes()).unwrap();
    let evidence = quoted.into_evidence(about).unwrap();
    let now = std::time::SystemTime::now();
    let verdict = verify_since(&evidence, Some(&seen), &nonce, &policy, now);
    assert!(verdict.passed(), "{verdict}");
    assert_eq!(verdict.facts.records, 3);
    // It is no evidence for those who have seen nothing.
    assert!(!verify(&evidence, &nonce, &policy, now).passed());
    let mut other = seen.clone();
    other.values.get_mut(&Bank::Sha256).unwrap()[0] ^= 1;
    assert!(!verify_since(&evidence, Some(&other), &nonce, &policy, now).passed());
    let mut other = seen.clone();
    other.records += 1;
    assert!(!verify_since(&evidence, Some(&other), &nonce, &policy, now).passed());
    let mut other = seen.clone();
    other.start.pcr_before.get_mut(&Bank::Sha256).unwrap()[0] = 1;
    assert!(!verify_since(&evidence, Some(&other), &nonce, &policy, now).passed());
    let mut changed = evidence.clone();
    changed.log.records[0].digests[1].digest[0] ^= 1;
    assert!(!verify_since(&changed, Some(&seen), &nonce, &policy, now).passed());
}

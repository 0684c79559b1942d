mod certificates;
pub(crate) mod machine;
mod parts;
mod tampering;
mod tokens;

use super::*;
use machine::{Machine, judge, now};

#[test]
fn evidence_of_a_good_host_passes_every_check() {
    let verdict = judge(&Machine::new().evidence(), Machine::policy(), now());
    let open: Vec<_> =
        verdict.checks.iter().filter(|check| check.result != CheckResult::Passed).collect();
    // There is no firmware's log.
    assert_eq!(open.len(), 1, "{verdict}");
    assert_eq!(open[0].name, CheckName::FirmwareLog);
    assert_eq!(verdict.status, Status::Affirming, "{verdict:?}");
    assert_eq!(verdict.facts.launch, Some(2));
    assert_eq!(verdict.facts.hidden_since_launch, 2);
    assert_eq!(verdict.facts.trust, Some(Trust::Enrolled));
    assert_eq!(verdict.facts.record.unwrap().tenant, "blue");
}

#[test]
fn every_check_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> =
        CheckName::ALL.iter().map(|name| name.as_str()).collect();
    assert_eq!(names.len(), CheckName::ALL.len());
    for name in CheckName::ALL {
        assert_eq!(serde_json::to_value(name).unwrap(), name.as_str());
    }
}

/// What was valid once stays valid: the file that fuzzing begins with, and its policy. They are made
/// anew with `SANDBOX_BLESS=1`.
#[test]
fn files_of_this_version_are_still_read() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/seeds");
    let evidence = Machine::new().evidence().to_json().unwrap();
    let policy = serde_json::to_vec_pretty(&Machine::policy()).unwrap();
    let files = [("evidence/good.json", evidence), ("verify_policy/good.json", policy)];
    let [evidence, policy] = files.map(|(name, made)| {
        let path = std::path::Path::new(directory).join(name);
        if std::env::var_os("SANDBOX_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &made).unwrap();
        }
        let file = std::fs::read(&path).unwrap();
        assert!(file == made, "{name} is not what is written any more");
        file
    });
    let evidence = Evidence::parse(&evidence).unwrap();
    let policy = Policy::parse(&policy).unwrap();
    let verdict = verify(&evidence, &machine::nonce(), &policy, now());
    assert_eq!(verdict.status, Status::Affirming, "{verdict}");
}

//! The host's files as a whole.

use super::*;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn a_policy_that_is_not_all_understood_is_not_used() {
    for (name, policy, problem) in [
        ("a member that nobody knows", r#"{"default": [{"type": "reject"}], "x": 1}"#, "'x'"),
        ("no default", "{}", "default"),
        ("no JSON", "default: reject", "policy.json"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let error = case(name).policy(policy.to_owned()).host(folder.path()).unwrap_err();
        assert!(matches!(error, PolicyError::Malformed { .. }), "{name}");
        assert!(error.to_string().contains(problem), "{name}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let error = case("rules").rule(r#""prefix": "a""#).host(folder.path()).unwrap_err();
    assert!(error.to_string().contains("rules.json"), "{error}");
}

#[test]
fn a_file_that_others_can_write_to_decides_nothing() {
    for file in ["policy.json", "gate.d/rules.json", "gate.d"] {
        let folder = tempfile::tempdir().unwrap();
        let case =
            case("writable").docker("", ACCEPT).rule(r#""prefix": "a.b", "minimumVersion": "1""#);
        case.host(folder.path()).unwrap();
        fs::set_permissions(folder.path().join(file), fs::Permissions::from_mode(0o777)).unwrap();
        let error = HostPolicy::load(&paths(folder.path())).unwrap_err();
        assert!(error.to_string().contains("others than its owner"), "{file}: {error}");
    }
}

#[test]
fn two_rules_for_one_prefix_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let rule = r#""prefix": "a.b", "minimumVersion": "1""#;
    case("one").rule(rule).host(folder.path()).unwrap();
    let gate = folder.path().join("gate.d");
    fs::copy(gate.join("rules.json"), gate.join("other.json")).unwrap();
    let error = HostPolicy::load(&paths(folder.path())).unwrap_err();
    assert!(matches!(error, PolicyError::Ambiguous { .. }), "{error}");
    // Files of other names are no rules.
    fs::rename(gate.join("other.json"), gate.join("other.json.bak")).unwrap();
    HostPolicy::load(&paths(folder.path())).unwrap();
}

#[test]
fn the_digest_is_of_all_that_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let key = folder.join("key");
    fs::write(&key, KEYS.alice.armored()).unwrap();
    let list =
        format!(r#"{{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "{}"}}"#, key.display());
    let host = case("all of it")
        .docker("", &list)
        .rule(r#""prefix": "a.b", "minimumVersion": "1""#)
        .trust("example.com", "alice")
        .host(folder)
        .unwrap();
    let mut seen = vec![host.digest().clone()];
    let mut look = |what: &str| {
        let digest = HostPolicy::load(&paths(folder)).unwrap().digest().clone();
        assert!(!seen.contains(&digest), "{what}");
        seen.push(digest);
    };
    fs::write(&key, KEYS.bob.armored()).unwrap();
    look("another key in the policy's file");
    fs::remove_file(&key).unwrap();
    look("the policy's key is gone");
    fs::write(folder.join("gate.d/more.json"), r#"{"version": 1, "images": []}"#).unwrap();
    look("another file of rules");
    let trusted = folder.join("etc/trustedkeys/prefix.d/example.com");
    fs::write(trusted.join(KEYS.bob.fingerprint()), KEYS.bob.armored()).unwrap();
    look("another trusted key");
    fs::write(trusted.join(KEYS.alice.fingerprint()), "").unwrap();
    look("a trusted key is masked");
    fs::write(folder.join("policy.json"), policy("docker", &[])).unwrap();
    look("another policy");
    fs::remove_file(folder.join("policy.json")).unwrap();
    look("no policy");
}

#[test]
fn what_comes_from_an_image_is_escaped() {
    let judgement = case("escapes")
        .docker("", &signed_by(&["alice"], ""))
        .signed(simple(&KEYS.alice, &manifest(), "x\u{1b}[2Jy"))
        .of(docker("example.com", "a\u{1b}]0;b", Some("1")))
        .judge();
    let text = format!("{judgement:?} {}", judgement.steps.join("\n"));
    assert!(!text.contains('\u{1b}') && !judgement.is_allowed(), "{text}");
    let Outcome::Refused { reasons } = &judgement.outcome else { panic!("{text}") };
    assert!(!Reason::list(reasons).contains('\u{1b}'));
}

#[test]
fn the_steps_explain_how_it_came_about() {
    let judgement = case("steps")
        .docker("example.com", &signed_by(&["alice"], ""))
        .signed(simple(&KEYS.alice, &manifest(), "example.com/team/app:1"))
        .rule(r#""prefix": "example.com", "minimumVersion": "1""#)
        .version("2")
        .judge();
    let steps = judgement.steps.join("\n");
    for part in [
        "the image is docker:example.com/team/app:1",
        "1 signature",
        "scope 'example.com' of transport docker in",
        "1 requirement",
        &format!("signed by {}", KEYS.alice.fingerprint()),
        "2026-02-01T00:00:00Z",
        "the image's version 2 is at least 1",
        "allowed by",
    ] {
        assert!(steps.contains(part), "{part}: {steps}");
    }
}

//! What is in the directory.

use super::World;
use crate::{
    service::{Directory, Service},
    verify::tests::machine::{Machine, key},
};
use serde_json::json;
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path};

fn problem(world: &World) -> String {
    match Directory::open(&world.at("")).map(Service::open) {
        Ok(Ok(_)) => panic!("it is used"),
        Ok(Err(error)) | Err(error) => error.to_string(),
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_key_is_made_once_and_shown() {
    let world = World::new();
    let directory = world.open();
    let shown = directory.public_key().unwrap();
    assert!(shown.starts_with("-----BEGIN PUBLIC KEY-----"));
    assert_eq!(fs::read_to_string(world.at("signing-key.pub")).unwrap(), shown);
    let private = world.at("signing-key.pem");
    assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
    // The file for people is put right; the private one is what counts.
    fs::write(world.at("signing-key.pub"), "another").unwrap();
    assert_eq!(world.open().public_key().unwrap(), shown);
    assert_eq!(fs::read_to_string(world.at("signing-key.pub")).unwrap(), shown);
    assert!(!format!("{:?}", world.service()).contains("PRIVATE"));
    mode(&private, 0o644);
    assert!(problem(&world).contains("others may read it"));
    world.put("signing-key.pem", "x");
    assert!(problem(&world).contains("not a private key"));
}

#[test]
fn what_others_can_change_or_read_is_refused() {
    let world = World::new();
    mode(&world.at("hosts"), 0o770);
    assert!(problem(&world).contains("others may write"));
    mode(&world.at("hosts"), 0o700);
    world.put("secrets/db", "x");
    world.settings(json!({"secrets": [{"name": "db", "policy": "team"}]}));
    world.service();
    mode(&world.at("secrets/db"), 0o640);
    assert!(problem(&world).contains("0600"));
    world.put("secrets/db", vec![0; (64 << 10) + 1]);
    assert!(problem(&world).contains("more than 65536"));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let world = World::new();
    for (settings, expected) in [
        (json!({"rules": []}), "no evidence could pass"),
        (json!({"rules": [{"policy": "other"}]}), "there is no policy 'other'"),
        (json!({"rules": [{"policy": "../team"}]}), "not a name of a file"),
        (json!({"rules": [{"policy": "team", "hosts": ["/"]}]}), "not a name of a file"),
        (json!({"rules": [{"policy": "team", "imagePrefix": ""}]}), "imagePrefix is empty"),
        (json!({"rules": [{"policy": "team", "x": 1}]}), "unknown field"),
        (json!({"secrets": [{"name": "db", "policy": "team"}]}), "secrets/db"),
        (json!({"secrets": [{"name": "../db", "policy": "team"}]}), "name of a secret"),
        (json!({"secrets": [{"name": "db", "policy": "x"}]}), "there is no policy 'x'"),
        (json!({"tokenLife": 0}), "tokenLife"),
        (json!({"tokenLife": 86401}), "tokenLife"),
        (json!({"challengeLife": 0}), "challengeLife"),
        (json!({"name": ""}), "name"),
        (json!({"version": 2}), "version"),
        (json!({"limits": {"connections": 1}}), "connections"),
        (json!({"limits": {"host": {"burst": 0, "perSecond": 1}}}), "let nobody ask"),
    ] {
        world.settings(settings.clone());
        let problem = problem(&world);
        assert!(problem.contains(expected), "{settings}: {problem}");
    }
    world.settings(json!({}));
    world.put("policies/broken.json", "{");
    assert!(problem(&world).contains("broken.json"));
    fs::remove_file(world.at("policies/broken.json")).unwrap();
    world.put("hosts/broken.json", "{}");
    assert!(problem(&world).contains("broken.json"));
    fs::remove_file(world.at("hosts/broken.json")).unwrap();
    // Editors leave such things.
    world.put("hosts/.web.json.swp", "x");
    world.put("hosts/web.json~", "x");
    world.enrol("twin", &world.machine.evidence());
    assert!(problem(&world).contains("has the same key"));
}

#[test]
fn policies_for_one_host_ask_for_one_quote() {
    let world = World::new();
    let mut other = Machine::policy();
    let registers = BTreeSet::from([0, 7, 14, 15]);
    other.pcrs.select.insert(crate::Bank::Sha256, registers);
    world.policy("other", other);
    world.service();
    let rules = json!([{"policy": "other", "tenant": "red"}, {"policy": "team"}]);
    world.settings(json!({"rules": rules}));
    assert!(problem(&world).contains("select other registers"));
    // For another host it may be another.
    let rules = json!([{"policy": "other", "hosts": ["x"]}, {"policy": "team"}]);
    world.settings(json!({"rules": rules}));
    world.service();
}

#[test]
fn a_host_that_could_never_pass_is_told_of() {
    let world = World::new();
    let mut policy = Machine::policy();
    policy.attestation_keys.enrollers.clear();
    world.policy("team", policy);
    let (_, odd) = Service::open(world.open()).unwrap();
    assert!(odd[0].contains("will not pass"), "{odd:?}");
    world.settings(json!({"rules": [{"policy": "team", "hosts": ["x"]}]}));
    let (_, odd) = Service::open(world.open()).unwrap();
    assert!(odd[0].contains("no rule is about host web"), "{odd:?}");
}

#[test]
fn what_is_read_anew_holds_unless_it_is_wrong() {
    let mut world = World::new();
    let service = world.service();
    let mut twin = World::new();
    twin.machine.ak = key(81);
    world.enrol("twin", &twin.machine.evidence());
    service.reload().unwrap();
    twin.ask(&service, &[]).unwrap();
    world.put("service.json", "{");
    assert!(service.reload().unwrap_err().to_string().contains("service.json"));
    world.ask(&service, &[]).unwrap();
    world.settings(json!({}));
    fs::remove_file(world.at("hosts/web.json")).unwrap();
    service.reload().unwrap();
    // A nonce that was made before is no way around.
    let evidence = world.machine.evidence();
    assert!(super::send(&service, &evidence, &[]).unwrap_err().why.contains("enrolled"));
}

#[test]
fn the_newest_verdicts_are_kept() {
    let mut world = World::new();
    world.settings(json!({"keepVerdicts": 3}));
    let service = world.service();
    world.put("verdicts/000000000001-old-00000000.json", "{}");
    world.put("verdicts/000000000002-old-00000000.123.new", "{");
    let reopened = world.service();
    drop(service);
    for _ in 0..3 {
        world.ask(&reopened, &[]).unwrap();
    }
    let kept = world.kept();
    assert_eq!(kept.len(), 3);
    assert!(kept.iter().all(|name| !name.contains("old")), "{kept:?}");
}

/// "no secret leaves without a trace"
#[test]
fn a_verdict_that_can_not_be_kept_is_not_given() {
    let mut world = World::new();
    let service = world.service();
    fs::remove_dir_all(world.at("verdicts")).unwrap();
    let refusal = world.ask(&service, &[]).unwrap_err();
    assert!(refusal.status == 503 && refusal.why.contains("can't be kept"), "{refusal}");
}

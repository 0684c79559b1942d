//! Who gets a secret.

use super::{World, send};
use crate::verify::tests::machine::{Machine, POD, app, digest};
use sandbox_protocol::secret::PrivateKey;
use serde_json::{Value, json};

/// A pod whose guest has made a key.
struct Guest {
    world: World,
    key: PrivateKey,
}

impl Guest {
    fn new(rule: Value) -> Self {
        let world = World::new();
        world.put("secrets/db", "hunter2");
        let mut all = json!({"name": "db", "policy": "team"});
        all.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        world.settings(json!({"secrets": [all]}));
        let mut guest = Self { world, key: PrivateKey::generate() };
        let public = guest.key.public().to_vec();
        guest.world.machine.guest_key = Some(public.clone());
        guest.world.machine.quoted_guest_key = Some(public);
        guest.record()["guestKey"] = Value::Null;
        guest
    }

    fn record(&mut self) -> &mut Value {
        &mut self.world.machine.events[2]["record"]
    }

    /// The secret that the guest gets, or why it gets none.
    fn ask(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let service = self.world.service();
        let answer = self.world.ask(&service, &[name]).map_err(|refusal| refusal.why)?;
        match (&answer.secrets[..], &answer.withheld[..]) {
            ([sealed], []) => {
                assert_eq!(sealed.name.as_str(), name);
                assert!(!sealed.sealed.windows(7).any(|window| window == b"hunter2"));
                Ok(self.key.open(POD, name, &sealed.sealed).unwrap().to_vec())
            }
            ([], [withheld]) => Err(withheld.why.clone()),
            _ => panic!("{answer:?}"),
        }
    }
}

#[test]
fn the_genuine_pod_gets_its_secret_and_its_guest_alone_can_read_it() {
    let mut guest = Guest::new(json!({}));
    assert_eq!(guest.ask("db").unwrap(), b"hunter2");
    // It is noted, without what it is.
    let kept = guest.world.kept();
    let kept = std::fs::read_to_string(guest.world.at("verdicts").join(&kept[0])).unwrap();
    assert!(kept.contains(r#""secrets":["db"]"#) && !kept.contains("hunter2"), "{kept}");
}

/// "Secret released to the genuine pod only: tampered kernel, init, image, command line, volume or
/// policy each get none."
#[test]
fn a_pod_that_was_tampered_with_gets_none() {
    type Tamper = fn(&mut Value);
    let tampers: [(&str, Tamper); 13] = [
        ("kernel", |record| record["kernel"]["digest"] = digest("x").into()),
        ("guest-init", |record| record["guestInit"] = digest("x").into()),
        ("monitor", |record| record["monitor"] = digest("x").into()),
        ("file-server", |record| record["fileServer"] = digest("x").into()),
        ("supervisor", |record| record["supervisor"] = digest("x").into()),
        ("images", |record| record["apps"][0]["image"]["verityRoot"] = "cd".repeat(32).into()),
        ("images", |record| {
            let evil = app("evil", "example.com/evil");
            record["apps"].as_array_mut().unwrap().push(evil);
        }),
        ("content", |record| record["apps"][0]["image"]["content"] = "unverified".into()),
        ("command-line", |record| record["commandLine"] = "init=/bin/sh".into()),
        ("volumes", |record| record["volumes"][0]["path"] = "/etc".into()),
        ("volumes", |record| record["volumes"][0]["readOnly"] = false.into()),
        ("pod-manifest", |record| record["podManifest"] = digest("x").into()),
        ("host-policy", |record| record["policyDigest"] = digest("x").into()),
    ];
    for (check, tamper) in tampers {
        let mut guest = Guest::new(json!({}));
        tamper(guest.record());
        let why = guest.ask("db").unwrap_err();
        assert_eq!(why, "the pod did not pass", "{check}");
        let kept = guest.world.kept();
        let kept = std::fs::read(guest.world.at("verdicts").join(&kept[0])).unwrap();
        let kept: Value = serde_json::from_slice(&kept).unwrap();
        let checks = kept["verdict"]["checks"].as_array().unwrap();
        let failed = checks.iter().find(|found| found["name"] == check).unwrap();
        assert_eq!(failed["result"], "failed", "{check}");
        assert_eq!(kept["secrets"], json!([]), "{check}");
    }
}

#[test]
fn a_pod_that_has_ended_gets_none() {
    let mut guest = Guest::new(json!({}));
    let exit = crate::verify::tests::machine::exit(POD, 2);
    guest.world.machine.events.push(exit);
    assert_eq!(guest.ask("db").unwrap_err(), "the pod did not pass");
}

#[test]
fn without_a_key_of_the_guest_there_is_nobody_to_give_it_to() {
    let mut guest = Guest::new(json!({}));
    guest.world.machine.guest_key = None;
    guest.world.machine.quoted_guest_key = None;
    assert!(guest.ask("db").unwrap_err().contains("no key of the pod's guest"));
}

/// The host that passes the evidence on puts a key of its own in the guest's place.
#[test]
fn a_key_that_the_quote_is_not_about_gets_none() {
    let mut guest = Guest::new(json!({}));
    guest.world.machine.guest_key = Some(PrivateKey::generate().public().to_vec());
    assert!(guest.ask("db").unwrap_err().starts_with("nonce"));
    // One that can't be a key is refused, too.
    let mut guest = Guest::new(json!({}));
    guest.world.machine.guest_key = Some(vec![0; 32]);
    guest.world.machine.quoted_guest_key = Some(vec![0; 32]);
    assert!(guest.ask("db").unwrap_err().contains("key"));
}

#[test]
fn a_rule_gives_it_to_those_it_is_about() {
    for (fits, rule) in [
        (true, json!({"tenant": "blue"})),
        (false, json!({"tenant": "red"})),
        (true, json!({"imagePrefix": "example.com/team"})),
        (false, json!({"imagePrefix": "example.com/other"})),
        (true, json!({"hosts": ["web"]})),
        (false, json!({"hosts": ["db"]})),
    ] {
        let mut guest = Guest::new(rule.clone());
        match guest.ask("db") {
            Ok(secret) => assert!(fits && secret == b"hunter2", "{rule}"),
            Err(why) => assert!(!fits && why == "no rule gives it to this pod", "{rule}: {why}"),
        }
    }
}

#[test]
fn whether_there_is_such_a_secret_is_not_told() {
    let mut guest = Guest::new(json!({"tenant": "red"}));
    let there = guest.ask("db").unwrap_err();
    assert_eq!(guest.ask("not-there").unwrap_err(), there);
}

#[test]
fn a_verdict_that_leaves_something_open_is_not_enough_unless_the_rule_says_so() {
    let lax = |guest: &Guest| {
        let mut policy = Machine::policy();
        policy.guest_inits = None;
        guest.world.policy("team", policy);
    };
    let mut guest = Guest::new(json!({}));
    lax(&guest);
    let why = guest.ask("db").unwrap_err();
    assert!(why.contains("'warning'") && why.contains("affirming"), "{why}");
    let mut guest = Guest::new(json!({"accept": "warning"}));
    lax(&guest);
    assert_eq!(guest.ask("db").unwrap(), b"hunter2");
}

#[test]
fn a_secret_of_another_policy_is_not_given() {
    let mut guest = Guest::new(json!({"policy": "strict"}));
    guest.world.policy("strict", Machine::policy());
    assert_eq!(guest.ask("db").unwrap_err(), "no rule gives it to this pod");
}

#[test]
fn a_secret_that_can_not_be_read_is_not_given_and_the_others_are() {
    let guest = Guest::new(json!({}));
    let mut world = guest.world;
    world.put("secrets/other", "hunter3");
    let rules = json!([{"name": "db", "policy": "team"}, {"name": "other", "policy": "team"}]);
    world.settings(json!({"secrets": rules}));
    let service = world.service();
    std::fs::remove_file(world.at("secrets/db")).unwrap();
    let evidence = world.evidence(&service);
    let answer = send(&service, &evidence, &["db", "other"]).unwrap();
    assert_eq!(answer.withheld[0].why, "the service cannot read it");
    assert_eq!(answer.secrets[0].name.as_str(), "other");
}

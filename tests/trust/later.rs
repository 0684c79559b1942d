//! Every launch asks the policy, however the image is named and whenever it was fetched.

use crate::cases::Expected::{Allowed, Refused, Runs};
use crate::cases::Table;
use crate::world::{World, anything, docker, reject};
use sandbox_tests::signatures::Keyring;
use serde_json::json;
use std::fs;

#[test]
fn an_image_that_was_fetched_before_is_judged_by_the_policy_of_now() {
    let world = World::new(&["team/app"]);
    let name = world.name("team/app");
    let gpg = Keyring::new();
    let alice = gpg.key("alice");
    let key = world.key("alice.asc", &gpg.export(&alice));
    let signature = gpg.sign_image(&alice, &name, &world.digest);

    let host = world.host_with(&world.anything());
    let id = host.fetch(&name);
    let mut table = Table::default();
    table.case("by its ID, as long as the policy takes it", &host, &id, &Runs);
    // The answer is kept with the pod.
    host.policy(&json!({"default": reject()}));
    table.case("by its name, after the policy was tightened", &host, &name, &Refused(&["reject"]));
    table.case("by its ID, after the policy was tightened", &host, &id, &Refused(&["reject"]));
    table.case("by a part of its ID", &host, &id[..16], &Refused(&["reject"]));
    fs::remove_file(host.at("/etc/sandbox/policy.json")).unwrap();
    table.case("by its ID, without a policy", &host, &id, &Refused(&["policy.json"]));
    let signed = docker(json!({world.door.name(): [key.signs()]}));
    host.policy(&signed);
    table.case(
        "fetched unsigned where no signature was asked for",
        &host,
        &id,
        &Refused(&["signature"]),
    );
    // Signed since then: what is fetched anew has its signature with it.
    let place = format!("team/app@{}/signature-1", world.digest.replace(':', "="));
    host.put(&format!("/var/signatures/{place}"), &signature);
    host.looks_aside(&world.door.name(), &host.at("/var/signatures"));
    host.sandbox(["fetch", "--pull-policy=update", &name]).exits(0);
    table.case("signed since then, and fetched again", &host, &id, &Allowed);
    // What the policy was told by a file, it is told by the file of now.
    fs::write(&key.0, gpg.export(&gpg.key("mallory"))).unwrap();
    table.case("the key's file has another key now", &host, &id, &Refused(&["key"]));
    fs::write(&key.0, gpg.export(&alice)).unwrap();
    table.case("the key is back", &host, &id, &Allowed);
    gpg.revoke(&alice);
    fs::write(&key.0, gpg.export(&alice)).unwrap();
    table.case("the key was revoked after the fetch", &host, &id, &Refused(&["revoked"]));
}

/// An image that was not taken is fetched again when it is asked for again, and not half there.
#[test]
fn what_was_refused_is_not_in_the_store() {
    let world = World::new(&["team/app"]);
    let name = world.name("team/app");
    let host = world.host_with(&json!({"default": reject()}));
    host.refuses(&name, &["reject"]);
    // Not by its ID either.
    host.run(world.digest.replace(':', "-")).end().exits(254).prints("");
    host.sandbox(["policy", "check", &name]).exits(1).mentions("refused").mentions("reject");
    host.has_nothing();
    // The host's own answer to an attacker who offers another repository's content.
    host.policy(&docker(json!({world.repository("other"): anything()})));
    host.refuses(&name, &["reject"]);
}

/// `--insecure-options=image` is the only way past a policy.
#[test]
fn an_image_that_the_policy_refuses_runs_only_if_the_check_is_switched_off() {
    let world = World::new(&["team/app"]);
    let name = world.name("team/app");
    let host = world.host_with(&json!({"default": reject()}));
    for others in ["none", "capabilities,paths,seccomp", "tls,http,pubkey"] {
        let option = format!("--insecure-options={others}");
        host.sandbox(["policy", "check", &option, &name]).exits(1).mentions("refused");
    }
    host.sandbox(["policy", "check", "--insecure-options=image", &name]).exits(0);
    host.sandbox(["fetch", "--insecure-options=image", &name]).exits(0);
    // That it was fetched so does not help it afterwards.
    Refused(&["reject"]).check(&host, &name);
}

/// "The answer, the key's fingerprint and the policy's digest are kept with the pod."
#[test]
fn what_was_decided_is_kept_with_the_pod() {
    let world = World::new(&["team/app"]);
    let name = world.name("team/app");
    let gpg = Keyring::new();
    let alice = gpg.key("alice");
    let key = world.key("alice.asc", &gpg.export(&alice));
    let host = world.host_with(&docker(json!({world.door.name(): [key.signs()]})));
    let place = format!("team/app@{}/signature-1", world.digest.replace(':', "="));
    let signature = gpg.sign_image(&alice, &name, &world.digest);
    host.put(&format!("/var/signatures/{place}"), &signature);
    host.looks_aside(&world.door.name(), &host.at("/var/signatures"));
    let mut pod = host.run(&name).with("--interactive").script("echo up; read line").start_open();
    pod.wait_for("up");
    let pods = fs::read_dir(host.data().join("pods/run")).unwrap();
    let kept: Vec<String> = pods
        .map(|pod| fs::read_to_string(pod.unwrap().path().join("gate.json")).unwrap())
        .collect();
    pod.end().exits(1);
    let [kept] = &kept[..] else { panic!("one pod: {kept:?}") };
    let check = host.sandbox(["policy", "check", "--format=json", &name]).exits(0).text();
    let check: serde_json::Value = serde_json::from_str(&check).unwrap();
    for part in
        [&alice.fingerprint.to_lowercase(), &world.digest, check["policy_digest"].as_str().unwrap()]
    {
        assert!(kept.to_lowercase().contains(part), "should have {part}: {kept}");
    }
}

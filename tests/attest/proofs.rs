//! What can be proven.

use crate::tpm::{Measured, NONCE};
use sandbox_tests::command::Tool;
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;

/// "Nothing starts that hasn't been written into the TPM first": a running pod is proven with a nonce
/// that somebody else made up, until it ends.
#[test]
fn a_pod_is_proven_while_it_runs_and_not_after() {
    let measured = Measured::new(15);
    let (mut pod, uuid) = measured.pod();
    let evidence = measured.evidence(&uuid);
    let policy = measured.policy(&evidence, json!({}));
    measured.verify(&evidence, &policy, NONCE).exits(0).mentions("passed    pod-running");
    // What was made for one question answers no other.
    let other = NONCE.replace("00", "ff");
    measured.verify(&evidence, &policy, &other).exits(1).mentions("FAILED    nonce");
    // It needs neither this host's files nor its TPM.
    let elsewhere = sandbox_tests::Host::new();
    let words = ["attest", "verify", evidence.to_str().unwrap(), "--policy"];
    let nonce = format!("--nonce={NONCE}");
    elsewhere.sandbox(words.into_iter().chain([policy.to_str().unwrap(), &nonce])).exits(0);

    writeln!(pod.stdin.as_mut().unwrap()).unwrap();
    pod.end().exits(3).prints("up\n");
    let evidence = measured.evidence(&uuid);
    measured.verify(&evidence, &policy, NONCE).exits(1).mentions("FAILED    pod-running");
    measured.has_no_pods();
}

/// The TCG's own tool believes what we have signed.
#[test]
fn tpm2_tools_take_the_quote() {
    let measured = Measured::new(15);
    let (mut pod, uuid) = measured.pod();
    let evidence: Value =
        serde_json::from_slice(&fs::read(measured.evidence(&uuid)).unwrap()).unwrap();
    writeln!(pod.stdin.as_mut().unwrap()).unwrap();
    pod.end().exits(3);
    let file = |name: &str, content: &[u8]| {
        let path = measured.directory.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let bytes = |value: &Value| {
        let text = value.as_str().unwrap();
        Tool::new("base64").with(["--decode"]).stdin(text).run()
    };
    let attest = bytes(&evidence["quote"]["attest"]);
    let key = bytes(&evidence["attestationKey"]);
    let sized = [&u16::try_from(key.len()).unwrap().to_be_bytes()[..], &key].concat();
    // What the TPM signed along is in the quote, behind the magic, the type and the signer's name.
    let name = 8 + usize::from(u16::from_be_bytes([attest[6], attest[7]]));
    let data: String =
        attest[name + 2..name + 34].iter().map(|byte| format!("{byte:02x}")).collect();
    let check = |message: &[u8]| {
        Tool::new("sh")
            .with([
                "-c",
                "tpm2_checkquote -u \"$1\" -m \"$2\" -s \"$3\" -g sha256 -q \"$4\" >&2; echo $?",
            ])
            .with(["sh"])
            .with([file("key", &sized), file("message", message)])
            .with([file("signature", &bytes(&evidence["quote"]["signature"]))])
            .with([&data])
            .text()
    };
    assert_eq!(check(&attest), "0");
    let mut changed = attest.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(check(&changed), "1");
}

/// The record has what was decided and what runs, and no value of the environment.
#[test]
fn the_record_says_what_runs_and_no_secret() {
    let measured = Measured::new(15);
    let id = measured.host.fetch(&measured.image);
    let volume = measured.directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let saved = measured.directory.path().join("saved");
    let run = measured.host.run(&measured.image).with("--tpm-attest");
    let run = run.with("--set-env=PASSWORD=geheim-4711").with("--tenant=blue");
    let run = run.with(format!("--uuid-file-save={}", saved.display()));
    run.volume("v", &volume, ",readOnly=true", "/v").sh("echo $PASSWORD").prints("geheim-4711\n");
    let record = measured.record(fs::read_to_string(saved).unwrap().trim());
    assert_eq!(record["tenant"], "blue");
    let image = &record["apps"][0]["image"];
    assert_eq!(image["id"].as_str().unwrap().replace(':', "-"), id);
    assert_eq!(image["verityRoot"], measured.host.verity(&id).as_str());
    assert_eq!(record["volumes"][0]["path"], volume.to_str().unwrap());
    let kernel = Tool::new("sha256sum").with(["/usr/lib/sandbox/vmlinux"]).text();
    assert_eq!(record["kernel"]["digest"], format!("sha256:{}", &kernel[..64]).as_str());
    let names = record["apps"][0]["environment"].as_array().unwrap();
    assert!(names.iter().any(|variable| variable["name"] == "PASSWORD"), "{names:?}");
    let log = fs::read_to_string(measured.log()).unwrap();
    assert!(!log.contains("geheim"), "{log}");
}

/// A pod that nobody proves is not in the log, and costs nothing of the TPM.
#[test]
fn what_is_not_to_be_measured_is_not() {
    let measured = Measured::new(15);
    measured.host.run(&measured.image).sh("echo plain").exits(0).prints("plain\n");
    assert!(!measured.state().exists());
}

/// kill -9 of the supervisor: `gc` writes the end that it could not write.
#[test]
fn a_pod_whose_supervisor_was_killed_ends_at_the_next_gc() {
    let measured = Measured::new(15);
    let (pod, uuid) = measured.pod();
    let evidence = measured.evidence(&uuid);
    let policy = measured.policy(&evidence, json!({}));
    pod.signal(rustix::process::Signal::KILL);
    drop(pod.end());
    measured.host.sandbox(["gc"]).exits(0).mentions(&uuid);
    let evidence = measured.evidence(&uuid);
    measured.verify(&evidence, &policy, NONCE).exits(1).mentions("FAILED    pod-running");
    // Twice is fine.
    measured.host.sandbox(["gc"]).exits(0).prints("");
    measured.host.sandbox(["attest", "status"]).exits(0).mentions("agrees");
}

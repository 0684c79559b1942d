//! Enrolment: somebody else has seen the key in the TPM.

use crate::tpm::{Measured, NONCE};
use sandbox_tests::Host;
use sandbox_tests::command::Tool;
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;

#[test]
fn a_key_counts_once_an_enroller_has_seen_it_in_its_tpm() {
    let measured = Measured::new(15);
    let enroller = Host::new();
    let at = |name: &str| measured.directory.path().join(name).to_str().unwrap().to_owned();
    let step = |host: &Host, words: &[&str], out: &str| {
        let ended = host.sandbox(["attest", "enroll"].iter().chain(words)).exits(0);
        fs::write(at(out), &ended.stdout).unwrap();
    };
    let key = at("enroller.pem");
    Tool::new("openssl")
        .with(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key])
        .run();
    let public = Tool::new("openssl").with(["pkey", "-in", &key, "-pubout"]).text();

    step(&measured.host, &["candidate"], "candidate");
    let expected = format!("--expected={}", at("expected"));
    step(&enroller, &["challenge", &at("candidate"), &expected], "challenge");
    step(&measured.host, &["answer", &at("challenge")], "answer");
    let key = format!("--key={key}");
    step(&enroller, &["sign", &at("expected"), &at("answer"), &key], "enrolment");

    // Who has not got the TPM can't answer.
    let mut wrong: Value = serde_json::from_slice(&fs::read(at("answer")).unwrap()).unwrap();
    wrong["secret"] = json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    fs::write(at("wrong"), wrong.to_string()).unwrap();
    let words = ["attest", "enroll", "sign", &at("expected"), &at("wrong"), &key];
    enroller.sandbox(words).fails_saying(&["answer is wrong"]);

    let policy = json!({"attestationKeys": {"enrollers": [public]},
                        "endorsementKeys": {"byEnroller": true}});
    let (mut pod, uuid) = measured.pod();
    let evidence = measured.evidence(&uuid);
    let before = measured.policy(&evidence, policy.clone());
    measured.verify(&evidence, &before, NONCE).exits(1).mentions("FAILED    key-binding");
    step(&measured.host, &["install", &at("enrolment")], "place");
    let evidence = measured.evidence(&uuid);
    measured.verify(&evidence, &before, NONCE).exits(0).mentions("passed    key-binding");
    writeln!(pod.stdin.as_mut().unwrap()).unwrap();
    pod.end().exits(3);

    // An enrolment is of one key.
    measured.host.sandbox(["attest", "init", "--replace"]).exits(0);
    let install = ["attest", "enroll", "install", &at("enrolment")];
    measured.host.sandbox(install).fails_saying(&["another key"]);
}

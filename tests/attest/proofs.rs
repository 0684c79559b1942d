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
    // What is about one pod says nothing of another.
    let pod_option = |pod: &str| format!("--pod={pod}");
    let policy_option = format!("--policy={}", policy.display());
    let verify = |pod: &str| {
        let nonce = format!("--nonce={NONCE}");
        let words = ["attest", "verify", evidence.to_str().unwrap(), &nonce, &policy_option];
        measured.host.sandbox(words.into_iter().chain([pod_option(pod).as_str()]))
    };
    verify(&uuid).exits(0);
    let another = "6f0e9b1c-7d52-4bb4-9c0e-2f4bd3a6f1f0";
    let refused = verify(another).exits(1).prints("");
    refused
        .check("should name both", |it| it.stderr.contains(another) && it.stderr.contains(&uuid));
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

/// The TCG's own tool reads the log as it reads that of firmware, and computes what the TPM holds.
#[test]
fn tpm2_tools_read_the_log() {
    // The tool begins with zeros: nothing else on this host has used this register.
    let measured = Measured::new(8);
    measured.sh("true").exits(0);
    let (mut pod, uuid) = measured.pod();
    let file = |name: &str| measured.directory.path().join(name);
    let option = |name: &str, value: &str| format!("--{name}={value}");
    for (name, more) in [("all", None), ("own", Some(option("pod", &uuid)))] {
        let out = option("out", file(name).to_str().unwrap());
        let words = ["attest".to_owned(), "export".to_owned(), "--format=tcg2".to_owned(), out];
        measured.host.sandbox(words.into_iter().chain(more)).exits(0);
        let events = Tool::new("tpm2_eventlog").with([file(name)]).text();
        let (_, computed) = events.split_once("pcrs:").expect("registers");
        for bank in ["sha1", "sha256", "sha384", "sha512"] {
            let read = Tool::new("tpm2_pcrread").with([format!("{bank}:8")]).text();
            let value = read.split("0x").nth(1).expect("a value").trim().to_lowercase();
            assert!(computed.contains(&value), "{bank} is {value}, and computed is {computed}");
        }
    }
    let own = fs::read(file("own")).unwrap();
    assert!(own.len() < fs::read(file("all")).unwrap().len());
    // The other forms have the same records.
    let log = measured.host.sandbox(["attest", "export"]).exits(0).text();
    assert_eq!(log.trim(), fs::read_to_string(measured.log()).unwrap().trim());
    let out = option("out", file("tlv").to_str().unwrap());
    measured.host.sandbox(["attest", "export", "--format=cel-tlv", &out]).exits(0);
    let tlv = fs::read(file("tlv")).unwrap();
    // Type 0, and eight bytes: the number of the first record.
    assert_eq!(tlv[..13], [0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    // A file that is there is not written over.
    measured.host.sandbox(["attest", "export", &out]).fails_saying(&["tlv"]);
    writeln!(pod.stdin.as_mut().unwrap()).unwrap();
    pod.end().exits(3);
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

/// "`sandbox attest reference IMAGE` computes the expected record on another machine from the image
/// alone": with another store and another configuration, and without a TPM.
#[test]
fn a_policy_made_elsewhere_fits_the_pod_that_it_was_made_for_and_no_other() {
    let measured = Measured::new(15);
    measured.sh("true").exits(0);
    let elsewhere = sandbox_tests::Host::trusting();
    let volume = measured.directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let volume = format!("--volume=v,kind=host,source={},readOnly=true", volume.display());
    // The options before the image, those after it, and the script.
    type Line<'a> = (&'a [&'a str], &'a [&'a str], &'a str);
    let expected: Line<'_> = (
        &["--set-env=MODE=production", &volume],
        &["--mount=volume=v,target=/v", "--memory=100M"],
        "echo up; read line; exit 3",
    );
    let policy = measured.directory.path().join("reference.json");
    let (out, base) = (format!("--out={}", policy.display()), measured.keys());
    let base = format!("--base={}", base.display());
    let mut words: Vec<&str> = vec!["attest", "reference", &base, &out];
    words.extend(expected.0);
    words.push(measured.image.to_str().unwrap());
    words.extend(expected.1);
    words.extend(["--exec=/bin/sh", "--", "-c", expected.2]);
    elsewhere.sandbox(&words).exits(0);

    let outcome = |line: Line<'_>| {
        let saved = measured.directory.path().join("saved");
        let mut run = measured.host.run_pod();
        run = run.with("--tpm-attest").with("--interactive");
        run = run.with(format!("--uuid-file-save={}", saved.display()));
        run = line.0.iter().fold(run, |run, word| run.with(*word));
        run = run.with(&measured.image);
        run = line.1.iter().fold(run, |run, word| run.with(*word));
        let mut pod = run.script(line.2).start_open();
        pod.wait_for("up");
        let uuid = fs::read_to_string(saved).unwrap().trim().to_owned();
        let ended = measured.verify(&measured.evidence(&uuid), &policy, NONCE);
        writeln!(pod.stdin.as_mut().unwrap()).unwrap();
        pod.end();
        ended
    };
    outcome(expected).exits(0).mentions("passed    pod-manifest").mentions("passed    volumes");
    let manifest = "FAILED    pod-manifest";
    outcome((&["--set-env=MODE=test", &volume], expected.1, expected.2))
        .exits(1)
        .mentions(manifest);
    outcome((expected.0, expected.1, "echo up; read line")).exits(1).mentions(manifest);
    let more = ["--mount=volume=v,target=/v", "--memory=101M"];
    outcome((expected.0, &more, expected.2)).exits(1).mentions(manifest);
    let writable = volume.replace("true", "false");
    let first = ["--set-env=MODE=production", &writable];
    outcome((&first, expected.1, expected.2)).exits(1).mentions("FAILED    volumes");
}

//! Who gets a secret, and who doesn't: sealed to this host's TPM, with a policy for the pod.

use crate::tpm::Measured;
use sandbox_tests::command::Tool;
use sandbox_tests::image::Image;
use sandbox_tests::sandbox::{Ended, Run};
use sandbox_tests::tar::Tar;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// What nobody else may have.
pub const SECRET: &str = "Zaunkoenig-4711-im-Holunder";

/// What a pod says that has it.
pub const SAYS: &str = "test -f /run/secrets/db && cat /run/secrets/db";

/// A register that nobody extends and everybody may set back: it stands for what has booted.
const BOOTED: &str = "sha256:16";

/// A host with a secret for one pod.
struct Sealed {
    measured: Measured,
    file: PathBuf,
}

impl Sealed {
    /// The secret is for a pod like one that has run before.
    fn new() -> Self {
        let measured = Measured::new(15);
        let record = measured.ran(&measured.image);
        let file = measured.directory.path().join("db.sealed");
        let sealed = Self { measured, file };
        sealed.seal(&reference_values(&record));
        sealed
    }

    /// Seals it anew, with this policy.
    fn seal(&self, policy: &Value) {
        let evidence = self.measured.evidence(&self.measured.last());
        let policy = self.measured.policy(&evidence, policy.clone());
        let _ = fs::remove_file(&self.file);
        let words = ["attest", "seal", "--pcrs", BOOTED].map(OsString::from);
        let policy = ["--policy".into(), policy.into_os_string()];
        let out = ["--out".into(), self.file.clone().into_os_string()];
        let mut seal = self.measured.host.start(words.into_iter().chain(policy).chain(out));
        seal.stdin.take().unwrap().write_all(SECRET.as_bytes()).unwrap();
        seal.end().exits(0).prints("");
    }

    /// A pod of an image that wants it.
    fn run(&self, image: &OsString) -> Run {
        let run = self.measured.host.run(image).with("--tpm-attest");
        run.with(format!("--secret=db=sealed:{}", self.file.display()))
    }

    /// The pod that it is for gets it.
    #[track_caller]
    fn is_given(&self) {
        self.run(&self.measured.image).sh(SAYS).exits(0).prints(SECRET);
    }

    /// The pod has not got it, for this reason, and has never run.
    #[track_caller]
    fn is_not_given(&self, ended: Ended, words: &[&str]) {
        ended.fails_saying(words).never_shows(SECRET);
        self.measured.has_no_pods();
        let log = fs::read_to_string(self.measured.log()).unwrap();
        let last = log.split('\u{1e}').next_back().unwrap();
        assert!(last.contains("\"aborted\""), "{last}");
    }
}

/// Reference values: all that a pod with this record is.
pub fn reference_values(record: &Value) -> Value {
    json!({
        "kernels": [record["kernel"]["digest"]],
        "guestInits": [record["guestInit"]],
        "monitors": [record["monitor"]],
        "supervisors": [record["supervisor"]],
        "commandLines": [record["commandLine"]],
        "images": [{"verityRoot": record["apps"][0]["image"]["verityRoot"]}],
        "content": "verified",
        "volumes": [],
        "podManifests": [record["podManifest"]],
        "hostPolicies": [record["policyDigest"]],
    })
}

impl Measured {
    /// The record of a pod that runs as those do that want the secret, and ends.
    pub fn ran(&self, image: &OsString) -> Value {
        self.host.run(image).with("--tpm-attest").sh(SAYS).exits(1);
        self.record(&self.last())
    }

    /// Does something on this host while it has another initramfs.
    pub fn with_initramfs<T>(&self, initramfs: &Path, something: impl FnOnce() -> T) -> T {
        let enter = self.host.at("enter");
        let script = fs::read_to_string(&enter).unwrap();
        let bind = format!("mount --bind {} /usr/lib/sandbox/initramfs\nexec", initramfs.display());
        fs::write(&enter, script.replace("exec", &bind)).unwrap();
        let done = something();
        fs::write(&enter, script).unwrap();
        done
    }

    /// The pod that was launched last.
    pub fn last(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap();
        let entries = log.split('\u{1e}').filter(|line| !line.trim().is_empty());
        let contents = entries.map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut pods = contents
            .filter_map(|entry| entry["content"]["record"]["pod"].as_str().map(str::to_owned));
        pods.next_back().expect("a launch")
    }
}

/// A copy of a file, changed where nobody needs it.
pub fn tampered(file: &str, directory: &Path) -> PathBuf {
    let copy = directory.join("tampered");
    let mut content = fs::read(file).unwrap();
    content.extend([0; 512]);
    fs::write(&copy, content).unwrap();
    copy
}

/// "Secret released to the genuine pod only"; it is a file in memory.
#[test]
fn the_genuine_pod_gets_the_secret() {
    let sealed = Sealed::new();
    sealed.is_given();
    let record = sealed.measured.record(&sealed.measured.last());
    assert_eq!(record["secrets"], json!([{"name": "db"}]));
}

#[test]
fn a_tampered_kernel_gets_none() {
    let sealed = Sealed::new();
    let kernel = tampered("/usr/lib/sandbox/vmlinux", sealed.measured.directory.path());
    let run = sealed.run(&sealed.measured.image).with(format!("--kernel={}", kernel.display()));
    sealed.is_not_given(run.sh(SAYS), &["db.sealed", "policy", "kernel"]);
    sealed.is_given();
}

#[test]
fn a_tampered_guest_init_gets_none() {
    let sealed = Sealed::new();
    let initramfs = tampered("/usr/lib/sandbox/initramfs", sealed.measured.directory.path());
    let run = || sealed.run(&sealed.measured.image).sh(SAYS);
    let ended = sealed.measured.with_initramfs(&initramfs, run);
    sealed.is_not_given(ended, &["db.sealed", "policy", "guest-init"]);
    sealed.is_given();
}

#[test]
fn a_tampered_image_gets_none() {
    let sealed = Sealed::new();
    let layer = Tar::new().file("etc/tampered", 0o644, "x").finish();
    let image =
        Image::tiny_and([layer]).layout(&sealed.measured.directory.path().join("tampered-image"));
    let ended = sealed.run(&image).sh(SAYS);
    sealed.is_not_given(ended, &["db.sealed", "policy", "image"]);
    sealed.is_given();
}

/// The kernel's, and the app's.
#[test]
fn a_tampered_command_line_gets_none() {
    let sealed = Sealed::new();
    let ended = sealed.run(&sealed.measured.image).sh(&format!("{SAYS} | tee /tmp/x"));
    sealed.is_not_given(ended, &["db.sealed", "policy", "manifest"]);
    sealed.is_given();
    let record = sealed.measured.record(&sealed.measured.last());
    let mut policy = reference_values(&record);
    let command_line = record["commandLine"].as_str().unwrap();
    policy["commandLines"] = json!([format!("{command_line} init=/bin/sh")]);
    sealed.seal(&policy);
    let ended = sealed.run(&sealed.measured.image).sh(SAYS);
    sealed.is_not_given(ended, &["db.sealed", "policy", "command"]);
}

#[test]
fn a_tampered_volume_gets_none() {
    let sealed = Sealed::new();
    let volume = sealed.measured.directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let run = sealed.run(&sealed.measured.image).volume("v", &volume, "", "/v");
    sealed.is_not_given(run.sh(SAYS), &["db.sealed", "policy", "volume"]);
    sealed.is_given();
}

#[test]
fn a_tampered_policy_gets_none() {
    let sealed = Sealed::new();
    // The host's, by which its gate decides.
    let rules = json!({"version": 2, "rules": [{"require": {"tpm": true}}]});
    let file = sealed.measured.host.put("/etc/sandbox/gate.d/all.json", rules.to_string());
    let ended = sealed.run(&sealed.measured.image).sh(SAYS);
    sealed.is_not_given(ended, &["db.sealed", "policy", "host"]);
    fs::remove_file(file).unwrap();
    // The one that goes with the secret: exchanged for another, and taken off.
    let genuine = fs::read(&sealed.file).unwrap();
    let document: Value = serde_json::from_slice(&genuine).unwrap();
    let looser = document["policy"].as_str().unwrap().replace("\"volumes\":[]", "\"volumes\":null");
    assert_ne!(document["policy"], looser.as_str());
    for policy in [json!(looser), Value::Null] {
        let mut changed = document.clone();
        changed["policy"] = policy;
        fs::write(&sealed.file, changed.to_string()).unwrap();
        let ended = sealed.run(&sealed.measured.image).sh(SAYS);
        sealed.is_not_given(ended, &["db.sealed", "changed on its way"]);
    }
    fs::write(&sealed.file, genuine).unwrap();
    sealed.is_given();
}

/// The local form is about what the host has booted.
#[test]
fn a_host_that_has_booted_something_else_gets_none() {
    let sealed = Sealed::new();
    let digest = "22".repeat(32);
    Tool::new("tpm2_pcrextend").with([format!("16:sha256={digest}")]).run();
    let ended = sealed.run(&sealed.measured.image).sh(SAYS);
    Tool::new("tpm2_pcrreset").with(["16"]).run();
    sealed.is_not_given(ended, &["db.sealed", "sha256:16", "do not hold"]);
    sealed.is_given();
    // One that was sealed by another TPM does not even load.
    let mut document: Value = serde_json::from_slice(&fs::read(&sealed.file).unwrap()).unwrap();
    let private = document["key"]["private"].as_str().unwrap().to_owned();
    let other = if private.contains('A') { "B" } else { "A" };
    document["key"]["private"] =
        json!(private.replacen(if other == "B" { 'A' } else { 'B' }, other, 1));
    fs::write(&sealed.file, document.to_string()).unwrap();
    let ended = sealed.run(&sealed.measured.image).sh(SAYS);
    sealed.is_not_given(ended, &["db.sealed", "another TPM"]);
}

/// "never on the host's disk": neither while the pod runs nor after it, nor in what is said.
#[test]
fn the_secret_is_nowhere_on_the_hosts_disk() {
    let sealed = Sealed::new();
    let record = sealed.measured.record(&sealed.measured.last());
    let mut policy = reference_values(&record);
    policy.as_object_mut().unwrap().remove("podManifests");
    sealed.seal(&policy);
    let run = sealed.run(&sealed.measured.image).with("--interactive").with("--scratch=64Mi");
    let script = "test $(cat /run/secrets/db | wc -c) = 27 && echo up; read line";
    let mut pod = run.script(script).start_open();
    pod.wait_for("up");
    let nowhere = || {
        sealed.measured.host.never_keeps(SECRET);
        // Log, keys, sealed file, volumes; and what programs leave elsewhere.
        for place in [sealed.measured.directory.path(), Path::new("/tmp"), Path::new("/var")] {
            let script = "! grep -rlaF -- \"$1\" \"$2\"";
            let words = ["-c".into(), script.into(), "sh".into(), SECRET.into(), place.into()];
            Tool::new("sh").with::<OsString>(words).run();
        }
    };
    nowhere();
    writeln!(pod.stdin.as_mut().unwrap()).unwrap();
    pod.end().exits(0).prints("up\n").never_shows(SECRET);
    nowhere();
    sealed.measured.has_no_pods();
}

/// What can't be given is found before anything is launched.
#[test]
fn a_secret_that_nobody_can_give_starts_nothing() {
    let sealed = Sealed::new();
    let launches =
        || fs::read_to_string(sealed.measured.log()).unwrap().matches("\"launch\"").count();
    let before = launches();
    let run = || sealed.measured.host.run(&sealed.measured.image);
    let secret = format!("--secret=db=sealed:{}", sealed.file.display());
    run().with(&secret).sh("echo started").fails_saying(&["--tpm-attest"]);
    let twice = run().with("--tpm-attest").with(&secret).with(&secret);
    twice.sh("echo started").fails_saying(&["multiple secrets with name db"]);
    let missing = run().with("--tpm-attest").with("--secret=db=sealed:/not/there");
    missing.sh("echo started").fails_saying(&["/not/there"]);
    let none = run().with("--tpm-attest").with("--secret=db=service");
    none.sh("echo started").fails_saying(&["service"]);
    fs::write(&sealed.file, "{}").unwrap();
    let broken = run().with("--tpm-attest").with(&secret);
    broken.sh("echo started").fails_saying(&["db.sealed", "attest seal"]);
    assert_eq!(launches(), before);
    sealed.measured.has_no_pods();
}

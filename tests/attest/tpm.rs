//! A host whose launches are measured, with a log of its own.

use sandbox_attestation::log::{self, Bank, Limits, Parsed};
use sandbox_attestation::record::{End, Event, Launch};
use sandbox_tests::command::Tool;
use sandbox_tests::image::Image;
use sandbox_tests::sandbox::{Ended, Running};
use sandbox_tests::{Host, temporary};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

/// What a verifier asks with.
pub const NONCE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// There is one TPM, and a register belongs to one log at a time.
static TPM: Mutex<()> = Mutex::new(());

/// A host and its log.
pub struct Measured {
    pub host: Host,
    pub image: OsString,
    pub directory: TempDir,
    pub pcr: u8,
    _tpm: MutexGuard<'static, ()>,
}

impl Measured {
    /// One that takes every image and writes into this register.
    pub fn new(pcr: u8) -> Self {
        let tpm = TPM.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = temporary();
        let image = Image::tiny_and([]).layout(&directory.path().join("image"));
        let measured = Self { host: Host::trusting(), image, directory, pcr, _tpm: tpm };
        measured.settings(json!({}));
        measured
    }

    /// The register of its log.
    pub fn pcr(&self) -> u8 {
        self.pcr
    }

    /// Changes the settings.
    pub fn settings(&self, changes: Value) {
        let mut settings = json!({"version": 1, "pcr": self.pcr, "directory": self.state()});
        let changes = changes.as_object().unwrap().clone();
        settings.as_object_mut().unwrap().extend(changes);
        self.host.put("/etc/sandbox/attest.json", settings.to_string());
    }

    /// Where log and keys are.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("attest")
    }

    /// The log of this boot.
    pub fn log(&self) -> PathBuf {
        let logs = fs::read_dir(self.state().join("log")).unwrap();
        let logs: Vec<_> = logs.map(|log| log.unwrap().path()).collect();
        let [log] = &logs[..] else { panic!("one log, and not {logs:?}") };
        log.clone()
    }

    /// Runs a script to its end.
    pub fn sh(&self, script: &str) -> Ended {
        self.host.run(&self.image).with("--tpm-attest").sh(script)
    }

    /// A pod that runs until it gets a line, and its UUID.
    pub fn pod(&self) -> (Running, String) {
        let saved = self.directory.path().join("uuid");
        let mut option = OsString::from("--uuid-file-save=");
        option.push(&saved);
        let run = self.host.run(&self.image).with("--tpm-attest").with("--interactive");
        let mut pod = run.with(option).script("echo up; read line; exit 3").start_open();
        pod.wait_for("up");
        (pod, fs::read_to_string(saved).unwrap().trim().to_owned())
    }

    /// Evidence of a pod, in a file.
    pub fn evidence(&self, pod: &str) -> PathBuf {
        let file = self.directory.path().join("evidence.json");
        let _ = fs::remove_file(&file);
        let (nonce, out) = (format!("--nonce={NONCE}"), format!("--out={}", file.display()));
        let pcrs = format!("--pcrs=sha256:{}", self.pcr);
        self.host.sandbox(["attest", "quote", pod, &nonce, &pcrs, &out]).exits(0);
        file
    }

    /// The name of the key that signs.
    pub fn key(&self) -> String {
        let status = self.host.sandbox(["attest", "status"]).exits(0).text();
        let line = status.lines().find_map(|line| line.strip_prefix("attestation key"));
        line.unwrap_or_else(|| panic!("no key in\n{status}")).trim().to_owned()
    }

    /// What a verifier demands that knows the host's key; besides, `more`.
    pub fn policy(&self, evidence: &Path, more: Value) -> PathBuf {
        let evidence: Value = serde_json::from_slice(&fs::read(evidence).unwrap()).unwrap();
        let before = &evidence["log"]["records"][0]["content"]["pcrBefore"]["sha256"];
        let mut policy = json!({
            "version": 1,
            "attestationKeys": {"pinned": [self.key()]},
            "pcrs": {"select": {"sha256": [self.pcr]}, "log": self.pcr,
                     "beforeLog": {"sha256": [before]}},
        });
        policy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let file = self.directory.path().join("policy.json");
        fs::write(&file, policy.to_string()).unwrap();
        file
    }

    /// A policy that knows the host's key and register, and demands nothing else.
    pub fn keys(&self) -> PathBuf {
        let start = self.events().into_iter().next();
        let Some(Event::Start(start)) = start else { panic!("{start:?}") };
        let before: String =
            start.pcr_before[&Bank::Sha256].iter().map(|byte| format!("{byte:02x}")).collect();
        let policy = json!({
            "version": 1,
            "attestationKeys": {"pinned": [self.key()]},
            "pcrs": {"select": {"sha256": [self.pcr]}, "log": self.pcr,
                     "beforeLog": {"sha256": [before]}},
        });
        let file = self.directory.path().join("keys.json");
        fs::write(&file, policy.to_string()).unwrap();
        file
    }

    /// Verifies evidence.
    pub fn verify(&self, evidence: &Path, policy: &Path, nonce: &str) -> Ended {
        let (nonce, policy) =
            (format!("--nonce={nonce}"), format!("--policy={}", policy.display()));
        self.host.sandbox(["attest", "verify", evidence.to_str().unwrap(), &nonce, &policy])
    }

    /// The record of a pod's launch, as the log has it.
    pub fn record(&self, pod: &str) -> Value {
        let log = fs::read_to_string(self.log()).unwrap();
        let entries = log.split('\u{1e}').filter(|line| !line.trim().is_empty());
        let mut contents =
            entries.map(|line| serde_json::from_str::<Value>(line).unwrap()["content"].clone());
        let is_its = |content: &Value| content["record"]["pod"] == pod;
        contents.find(is_its).expect("a record of the launch")["record"].clone()
    }

    /// What happened, as the log has it: parsed by the library that others verify with, and held
    /// against the register as the TCG's own tool reads it.
    pub fn events(&self) -> Vec<Event> {
        let Parsed { entries, torn } =
            log::parse(&fs::read(self.log()).unwrap(), &Limits::default()).unwrap();
        assert_eq!(torn, None);
        let before = &log::start(&entries).expect("a beginning").pcr_before;
        for (bank, value) in log::replay(before, &entries).unwrap() {
            let read = Tool::new("tpm2_pcrread").with([format!("{bank}:{}", self.pcr)]).text();
            let digits: String = value.iter().map(|byte| format!("{byte:02X}")).collect();
            assert!(read.contains(&digits), "the log leads to {digits} in {bank}, and\n{read}");
        }
        entries.into_iter().map(|entry| entry.content.expect("all are here in full")).collect()
    }

    /// The launches of the log: number, pod, and how each ended.
    pub fn launches(&self) -> Vec<(u64, String, Option<End>)> {
        let events = self.events();
        let end = |launch: &Launch| {
            let mut ends = events.iter().filter_map(|event| match event {
                Event::Exit(exit) if exit.launch == launch.number => {
                    assert_eq!(exit.pod, launch.record.pod);
                    Some(exit.end)
                }
                _ => None,
            });
            let end = ends.next();
            assert!(ends.next().is_none(), "record {} ended twice", launch.number);
            end
        };
        let launches = events.iter().filter_map(|event| match event {
            Event::Launch(launch) => Some(launch),
            _ => None,
        });
        launches.map(|it| (it.number, it.record.pod.to_string(), end(it))).collect()
    }

    /// Whether no pod has left anything.
    pub fn has_no_pods(&self) {
        let left = Tool::new("find").with([self.host.data().join("pods")]);
        let left = left.with(["-mindepth", "2"]).text();
        assert_eq!(left, "");
    }
}

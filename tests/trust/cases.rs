//! Tables of cases: an attack or a rule, and what has to come of it.

use crate::world::OUTPUT;
use sandbox_tests::Host;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// The file of a public key.
#[derive(Clone)]
pub struct Key(pub PathBuf);

impl Key {
    /// A requirement: simple signing with this OpenPGP key.
    pub fn signs(&self) -> Value {
        json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": self.0})
    }

    /// A requirement: this key of cosign's.
    pub fn cosigns(&self) -> Value {
        json!({"type": "sigstoreSigned", "keyPath": self.0})
    }
}

/// What has to come of a case.
pub enum Expected<'a> {
    /// The image runs, in a microVM.
    Runs,
    /// The policy's answer is yes.
    Allowed,
    /// A launch is refused, with all these words.
    Refused(&'a [&'a str]),
}

/// Cases that are tried one after the other; all of them, whichever fail.
#[derive(Default)]
pub struct Table {
    tried: usize,
    failed: Vec<String>,
}

impl Table {
    /// The case `rule`: this image on this host.
    pub fn case(&mut self, rule: &str, host: &Host, image: &str, expected: &Expected<'_>) {
        self.tried += 1;
        let tried = catch_unwind(AssertUnwindSafe(|| expected.check(host, image)));
        let verdict = if tried.is_ok() { "ok" } else { "FAILED" };
        println!("case {rule} ... {verdict}");
        if tried.is_err() {
            self.failed.push(rule.to_owned());
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let (failed, tried) = (&self.failed, self.tried);
            assert!(
                failed.is_empty(),
                "{} of {tried} cases:\n  {}",
                failed.len(),
                failed.join("\n  ")
            );
        }
    }
}

impl Expected<'_> {
    #[track_caller]
    pub fn check(&self, host: &Host, image: &str) {
        match self {
            Self::Runs => drop(host.run(image).end().exits(0).prints(OUTPUT)),
            Self::Allowed => {
                host.sandbox(["policy", "check", image]).exits(0).mentions("allowed");
            }
            Self::Refused(words) => refused(host, image, words),
        }
    }
}

/// A launch is refused, for a reason that has these words, before anything of the pod is there.
#[track_caller]
pub fn refused(host: &Host, image: &str, words: &[&str]) {
    let ended = host.run(image).end().exits(254).prints("");
    for word in words {
        let said = ended.stderr.to_lowercase();
        assert!(said.contains(&word.to_lowercase()), "should say {word:?}\n{}", ended.shown());
    }
    let pods = std::fs::read_dir(host.data().join("pods/run"));
    let pods = pods.map_or(0, |entries| entries.count());
    assert_eq!(pods, 0, "there is a pod\n{}", ended.shown());
}

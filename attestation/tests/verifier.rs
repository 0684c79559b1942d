//! Against a TPM in software, with tools that know nothing of us: what they sign is verified here,
//! and the challenges that are made here they can answer. Without them these tests say so and end.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

use p256::ecdsa::SigningKey;
use rand::RngCore as _;
use sandbox_attestation::{
    Bank,
    credential::Credential,
    evidence::{
        Counts, Endorsement, Enrolment, Evidence, EvidenceLog, LoggedRecord, Nonce, PcrValue,
        Quote, qualifying_data,
    },
    log::Entry,
    record::Event,
    verify::{Policy, Status, Trust, verify},
    wire::{Attest, Public},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};
use tempfile::TempDir;

const POD: &str = "11111111-2222-4333-8444-555555555555";
const BOOT: &str = "0c0c0c0c-2222-4333-8444-555555555555";

/// A TPM of its own, in a directory of its own.
struct Tpm {
    directory: TempDir,
    process: Child,
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Tpm {
    /// Nothing if there are no tools.
    fn start() -> Option<Self> {
        for program in ["swtpm", "tpm2_quote"] {
            let found = Command::new(program).arg("--version").output();
            if found.is_err() {
                eprintln!("skipped: {program} is not installed");
                return None;
            }
        }
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::create_dir(directory.path().join("state")).unwrap();
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .args(["--tpmstate", &format!("dir={}", path("state"))])
            .args(["--server", &format!("type=unixio,path={}", path("tpm"))])
            .args(["--ctrl", &format!("type=unixio,path={}", path("tpm.ctrl"))])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let tpm = Self { directory, process };
        let end = Instant::now() + Duration::from_secs(10);
        while !tpm.path("tpm.ctrl").exists() {
            assert!(Instant::now() < end, "swtpm does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(tpm)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a tool in the TPM's directory, and forgets what it left in the TPM.
    fn run(&self, command: &str) {
        let tool = |command: &str| {
            let mut words = command.split(' ');
            let mut tool = Command::new(words.next().unwrap());
            tool.args(words).current_dir(self.directory.path());
            tool.env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.path("tpm").display()));
            tool.output().unwrap()
        };
        let output = tool(command);
        assert!(output.status.success(), "{command}: {output:?}");
        tool("tpm2_flushcontext -t");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Makes an EK and an AK below it.
    fn keys(&self, algorithm: &str, scheme: &str) -> (Public, Public) {
        self.run(&format!("tpm2_createek -c ek.ctx -G {algorithm} -u ek.pub"));
        self.run(&format!(
            "tpm2_createak -C ek.ctx -c ak.ctx -G {algorithm} -g sha256 -s {scheme} -u ak.pub \
             -n ak.name"
        ));
        let ek = Public::parse_sized(&self.read("ek.pub")).unwrap();
        let ak = Public::parse_sized(&self.read("ak.pub")).unwrap();
        assert_eq!(ak.name().as_bytes(), self.read("ak.name"));
        (ek, ak)
    }

    /// What the TPM says to a challenge; nothing if it refuses.
    fn activate(&self, credential: &Credential) -> Option<Vec<u8>> {
        // The tool's file has eight bytes of its own before the two structures.
        let file =
            [&0xbadc_c0de_u32.to_be_bytes()[..], &1_u32.to_be_bytes(), &credential.to_bytes()];
        fs::write(self.path("credential"), file.concat()).unwrap();
        self.run("tpm2_startauthsession --policy-session -S session.ctx");
        self.run("tpm2_policysecret -S session.ctx -c e");
        let output = Command::new("tpm2_activatecredential")
            .args(["-c", "ak.ctx", "-C", "ek.ctx", "-i", "credential", "-o", "secret"])
            .args(["-P", "session:session.ctx"])
            .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.path("tpm").display()))
            .current_dir(self.directory.path())
            .output()
            .unwrap();
        self.run("tpm2_flushcontext session.ctx");
        output.status.success().then(|| self.read("secret"))
    }

    /// Asks for a quote: the structure, and its signature.
    fn quote(&self, selection: &str, asked: &str) -> (Vec<u8>, Vec<u8>) {
        self.run(&format!(
            "tpm2_quote -c ak.ctx -l {selection} -q {asked} -m attest -s signature -o values -g sha256"
        ));
        (self.read("attest"), self.read("signature"))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(of: &str) -> Value {
    json!(format!("sha256:{}", hex(&Bank::Sha256.digest(of.as_bytes()))))
}

fn launch() -> Value {
    json!({
        "event": "launch", "version": 1, "bootId": BOOT, "time": "2026-01-01T00:00:00Z",
        "number": 1,
        "record": {
            "version": 1, "pod": POD, "tenant": "blue",
            "apps": [{
                "name": "web",
                "image": {
                    "reference": "docker://example.com/web", "identity": "example.com/web",
                    "id": digest("image"), "manifestDigests": [digest("image manifest")],
                    "verityRoot": "ab".repeat(32), "erofsVersion": 1,
                    "verity": {"dataBlocks": 1, "hashStart": 1}, "content": "verified",
                },
                "signature": {
                    "rule": "policy.json", "answer": "accepted", "keys": [], "time": "2026",
                },
                "exec": ["/bin/serve"], "environment": [], "user": "0", "group": "0",
                "workingDirectory": "/", "mounts": [], "isolators": [],
            }],
            "podManifest": digest("manifest"), "policyDigest": digest("policy"),
            "kernel": {"digest": digest("kernel"), "version": "6.12"},
            "guestInit": digest("init"), "monitor": digest("monitor"), "fileServer": null,
            "supervisor": digest("sandbox"), "commandLine": "quiet", "cpus": 1, "memoryMib": 256,
            "scratchBytes": 0, "volumes": [], "network": null, "label": null, "seccomp": null,
            "secrets": [], "guestKey": null,
        },
    })
}

/// Extends the log into the TPM as it is written.
fn log(tpm: &Tpm, events: &[Value]) -> Vec<Entry> {
    let entries = events.iter().zip(0..).map(|(event, number)| {
        let event = sandbox_attestation::canonical::to_vec(event).unwrap();
        Entry::new(number, 15, Event::parse(&event).unwrap(), [Bank::Sha256]).unwrap()
    });
    let entries: Vec<_> = entries.collect();
    for entry in &entries {
        tpm.run(&format!("tpm2_pcrextend 15:sha256={}", hex(&entry.digests[&Bank::Sha256])));
    }
    entries
}

/// The whole way: enrolment, launch, quote, verdict; with `tpm2_checkquote` as a witness.
fn whole_way(algorithm: &str, scheme: &str) {
    let Some(tpm) = Tpm::start() else {
        return;
    };
    let (ek, ak) = tpm.keys(algorithm, scheme);

    // An enroller challenges the TPM.
    let mut random = rand::thread_rng();
    let mut secret = [0; 32];
    random.fill_bytes(&mut secret);
    let credential = Credential::make(&mut random, &ek, &ak.name(), &secret).unwrap();
    assert_eq!(tpm.activate(&credential), Some(secret.to_vec()));
    let other = Credential::make(&mut random, &ek, &ek.name(), &secret).unwrap();
    assert_eq!(tpm.activate(&other), None, "a credential for another key's name");
    let enroller = SigningKey::random(&mut random);
    let counts = Attest::parse(&tpm.quote("sha256:15", "00").0).unwrap().clock_info;
    let enrolment = Enrolment::sign(
        &enroller,
        ak.name(),
        ek.name(),
        Some(Counts { reset_count: counts.reset_count, restart_count: counts.restart_count }),
        "2026-01-01T00:00:00Z".to_owned(),
    );

    // A pod is launched.
    let start = json!({
        "event": "start", "version": 1, "bootId": BOOT, "time": "2026-01-01T00:00:00Z",
        "pcrBefore": {"sha256": "00".repeat(32)}, "resetCount": counts.reset_count,
        "restartCount": counts.restart_count, "program": "0.1.0",
    });
    let entries = log(&tpm, &[start, launch()]);

    // A verifier asks.
    let nonce = Nonce::new([0x5a; 32]).unwrap();
    let asked = hex(&qualifying_data(&nonce, POD, None));
    let (attest, signature) = tpm.quote("sha256:0,7,15", &asked);
    let value = entries.iter().fold(vec![0; 32], |value, entry| {
        Bank::Sha256.extended(&value, &entry.digests[&Bank::Sha256])
    });
    let zeros = PcrValue(vec![0; 32]);
    let registers = BTreeMap::from([(0, zeros.clone()), (7, zeros), (15, PcrValue(value))]);
    let mut evidence = Evidence {
        version: 1,
        pod: POD.to_owned(),
        nonce: nonce.clone(),
        guest_key: None,
        time: "2026-01-01T00:00:00Z".to_owned(),
        quote: Quote { attest, signature, pcrs: BTreeMap::from([(Bank::Sha256, registers)]) },
        attestation_key: ak.as_bytes().to_vec(),
        endorsement: Some(Endorsement { public: ek.as_bytes().to_vec(), certificates: vec![] }),
        enrolment: Some(enrolment),
        firmware_log: None,
        log: EvidenceLog {
            pcr: 15,
            records: entries.iter().map(|entry| LoggedRecord::try_from(entry).unwrap()).collect(),
        },
    };
    use p256::pkcs8::{EncodePublicKey as _, LineEnding};
    let policy = json!({
        "version": 1,
        "attestationKeys": {
            "enrollers": [enroller.verifying_key().to_public_key_pem(LineEnding::LF).unwrap()],
        },
        "endorsementKeys": {"pinned": [ek.name().to_string()]},
        "pcrs": {
            "select": {"sha256": [0, 7, 15]},
            "values": {"sha256": {"0": ["00".repeat(32)], "7": ["00".repeat(32)]}},
            "log": 15,
        },
        "kernels": [digest("kernel")], "guestInits": [digest("init")],
        "monitors": [digest("monitor")], "images": [{"verityRoot": "ab".repeat(32)}],
        "content": "verified", "hostPolicies": [digest("policy")], "enrolledThisBoot": true,
    });
    let policy = Policy::parse(policy.to_string().as_bytes()).unwrap();
    let verdict = verify(&evidence, &nonce, &policy, SystemTime::now());
    assert_eq!(verdict.status, Status::Affirming, "{verdict}");
    assert_eq!(verdict.facts.trust, Some(Trust::Enrolled));

    // Others agree with the quote, and with what is wrong with another.
    let checked = |name: &str| {
        let witness =
            format!("tpm2_checkquote -u ak.pub -m {name} -s signature -f values -g sha256");
        let mut words = witness.split(' ');
        let mut witness = Command::new(words.next().unwrap());
        witness.args(words).args(["-q", &asked]).current_dir(tpm.directory.path());
        witness.output().unwrap().status.success()
    };
    assert!(checked("attest"));
    for place in [10, 44, 60, 76, evidence.quote.attest.len() - 1] {
        let good = evidence.quote.attest.clone();
        evidence.quote.attest[place] ^= 1;
        fs::write(tpm.path("changed"), &evidence.quote.attest).unwrap();
        assert!(!checked("changed"), "{place}");
        assert!(!verify(&evidence, &nonce, &policy, SystemTime::now()).passed(), "{place}");
        evidence.quote.attest = good;
    }
}

#[test]
fn a_tpm_with_elliptic_curves_is_believed() {
    whole_way("ecc", "ecdsa");
}

#[test]
fn a_tpm_with_rsa_is_believed() {
    whole_way("rsa", "rsassa");
}

//! A verifier service on another machine, and a host whose pods run if it accepts them.

use crate::tpm::Measured;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::process::Signal;
use sandbox_tests::certificates::{Authority, Identity};
use sandbox_tests::command::Tool;
use sandbox_tests::sandbox::{Ended, Run, Running};
use sandbox_tests::{Host, temporary};
use serde_json::{Value, json};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A service and the machine that it runs on.
pub struct Service {
    machine: Host,
    directory: TempDir,
    authority: Authority,
    identity: Identity,
    address: String,
    running: Option<Running>,
}

impl Service {
    /// One that knows a host and holds its pods against a policy with `demands`.
    pub fn of(measured: &Measured, demands: Value) -> Self {
        let authority = Authority::new();
        let identity = authority.certify(&["127.0.0.1"]);
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let machine = Host::new();
        let directory = temporary();
        let mut service = Self { machine, directory, authority, identity, address, running: None };
        service.key();
        let enroller = service.enrol(measured);
        let mut policy = json!({
            "version": 1,
            "attestationKeys": {"enrollers": [enroller]},
            "endorsementKeys": {"byEnroller": true},
            "pcrs": {"select": {"sha256": [measured.pcr()]}, "log": measured.pcr(),
                     "beforeLog": {"sha256": [before(measured)]}},
        });
        policy.as_object_mut().unwrap().extend(demands.as_object().unwrap().clone());
        service.put("policies/team.json", &policy);
        service.put("service.json", &json!({"version": 1, "rules": [{"policy": "team"}]}));
        service.start();
        service
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join("service").join(name)
    }

    pub fn put(&self, name: &str, document: &Value) {
        fs::write(self.at(name), document.to_string()).unwrap();
    }

    fn serve(&self, words: &[&str]) -> Running {
        let directory = format!("--directory={}", self.at("").display());
        let words = words.iter().copied();
        self.machine.start(["attest", "serve", &directory].into_iter().chain(words))
    }

    /// The public key that verdicts are signed with, in a file.
    fn key(&self) -> PathBuf {
        let shown = self.serve(&["--show-key"]).end().exits(0);
        assert_eq!(shown.text(), fs::read_to_string(self.at("signing-key.pub")).unwrap());
        self.at("signing-key.pub")
    }

    fn start(&mut self) {
        let listen = format!("--listen={}", self.address);
        let certificate = format!("--certificate={}", self.identity.certificate.display());
        let key = format!("--key={}", self.identity.key.display());
        self.running = Some(self.serve(&[&listen, &certificate, &key]));
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&self.address).is_err() {
            assert!(Instant::now() < until, "it does not listen");
            sleep(Duration::from_millis(50));
        }
    }

    /// Ends it as a service manager does.
    fn stop(&mut self) -> Ended {
        let running = self.running.take().expect("it runs");
        running.signal(Signal::TERM);
        running.end().exits(0)
    }

    /// Lets it read its files anew.
    pub fn reload(&self) {
        self.running.as_ref().expect("it runs").signal(Signal::HUP);
        sleep(Duration::from_secs(1));
    }

    /// Somebody enrols the host, and the service gets the enrolment; the enroller's public key.
    fn enrol(&self, measured: &Measured) -> String {
        let enroller = Host::new();
        let at = |name: &str| self.directory.path().join(name).to_str().unwrap().to_owned();
        let step = |host: &Host, words: &[&str], out: &str| {
            let ended = host.sandbox(["attest", "enroll"].iter().chain(words)).exits(0);
            fs::write(at(out), &ended.stdout).unwrap();
        };
        let curve = "ec_paramgen_curve:P-256";
        Tool::new("openssl")
            .with(["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", &at("enroller.pem")])
            .run();
        let expected = format!("--expected={}", at("expected"));
        let key = format!("--key={}", at("enroller.pem"));
        step(&measured.host, &["candidate"], "candidate");
        step(&enroller, &["challenge", &at("candidate"), &expected], "challenge");
        step(&measured.host, &["answer", &at("challenge")], "answer");
        step(&enroller, &["sign", &at("expected"), &at("answer"), &key], "enrolment");
        fs::copy(at("enrolment"), self.at("hosts/web.json")).unwrap();
        Tool::new("openssl").with(["pkey", "-in", &at("enroller.pem"), "-pubout"]).text()
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// A pod that this service has to accept, besides its own host.
    fn run(&self, measured: &Measured) -> Run {
        self.run_with(measured, &self.authority.certificate(), &self.at("signing-key.pub"))
    }

    fn run_with(&self, measured: &Measured, ca: &Path, key: &Path) -> Run {
        self.asked_with(measured.host.run(&measured.image), ca, key)
    }

    /// A pod that is asked for at this service.
    pub fn asked_by(&self, run: Run) -> Run {
        self.asked_with(run, &self.authority.certificate(), &self.at("signing-key.pub"))
    }

    fn asked_with(&self, run: Run, ca: &Path, key: &Path) -> Run {
        run.with(format!("--tpm-attest={}", self.url()))
            .with(format!("--attest-ca={}", ca.display()))
            .with(format!("--attest-key={}", key.display()))
    }

    /// What it names itself as in a host's settings.
    fn settings(&self) -> Value {
        json!({"verifier": {"url": self.url(), "ca": self.authority.certificate(),
                            "key": self.at("signing-key.pub")}})
    }

    /// The verdicts that it has kept, in their order.
    fn verdicts(&self) -> Vec<Value> {
        let files = fs::read_dir(self.at("verdicts")).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| serde_json::from_slice(&fs::read(file).unwrap()).unwrap()).collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.signal(Signal::KILL);
        }
    }
}

/// What the register held before the log.
fn before(measured: &Measured) -> Value {
    measured.sh("true").exits(0);
    let log = fs::read_to_string(measured.log()).unwrap();
    let first = log.split('\u{1e}').find(|line| !line.trim().is_empty()).unwrap();
    let first: Value = serde_json::from_str(first).unwrap();
    first["content"]["pcrBefore"]["sha256"].clone()
}

fn log(measured: &Measured) -> String {
    fs::read_to_string(measured.log()).unwrap()
}

/// The pod's directory keeps the service's signed verdict, which openssl takes, too.
#[test]
fn a_pod_runs_once_the_service_has_accepted_it() {
    let measured = Measured::new(15);
    let mut service = Service::of(&measured, json!({}));
    let saved = measured.directory.path().join("uuid");
    let run = service.run(&measured).with("--interactive");
    let run = run.with(format!("--uuid-file-save={}", saved.display()));
    let mut pod = run.script("echo up; read line; exit 3").start_open();
    pod.wait_for("up");
    let uuid = fs::read_to_string(&saved).unwrap().trim().to_owned();
    let kept = measured.host.data().join("pods/run").join(&uuid).join("attestation.json");
    let kept: Value = serde_json::from_slice(&fs::read(kept).unwrap()).unwrap();
    assert_eq!(kept["remote"]["url"], format!("{}/", service.url()).as_str());
    let token = kept["remote"]["token"].as_str().unwrap();
    let parts: Vec<_> = token.split('.').collect();
    let claims = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let pod_claims = &claims["submods"][&uuid]["ear_verifier_claims"];
    assert_eq!(pod_claims["attestationKey"], measured.key().as_str());
    assert_eq!(pod_claims["trust"], "enrolled");
    assert!(is_signed(&parts, &service.at("signing-key.pub"), measured.directory.path()));
    let changed = [parts[0], &parts[1].replacen('e', "f", 1), parts[2]];
    assert!(!is_signed(&changed, &service.at("signing-key.pub"), measured.directory.path()));

    let verdicts = service.verdicts();
    assert_eq!(verdicts.len(), 1);
    assert_eq!(verdicts[0]["token"], token);
    assert_eq!((&verdicts[0]["host"], &verdicts[0]["policy"]), (&json!("web"), &json!("team")));
    std::io::Write::write_all(pod.stdin.as_mut().unwrap(), b"\n").unwrap();
    pod.end().exits(3);
    measured.has_no_pods();
    let said = service.stop().stderr;
    assert!(said.contains("listening at") && said.contains("policy team: warning"), "{said}");
}

/// Whether openssl finds the signature of a token (RFC 7515: r and s, one after the other) good.
fn is_signed(parts: &[&str], key: &Path, directory: &Path) -> bool {
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    let integer = |bytes: &[u8]| {
        let start = bytes.iter().position(|byte| *byte != 0).unwrap();
        let mut value = bytes[start..].to_vec();
        if value[0] & 0x80 != 0 {
            value.insert(0, 0);
        }
        [&[2, u8::try_from(value.len()).unwrap()][..], &value].concat()
    };
    let both = [integer(&signature[..32]), integer(&signature[32..])].concat();
    let der = [&[0x30, u8::try_from(both.len()).unwrap()][..], &both].concat();
    let [message, file] = ["message", "signature"].map(|name| directory.join(name));
    fs::write(&message, format!("{}.{}", parts[0], parts[1])).unwrap();
    fs::write(&file, der).unwrap();
    let script = "openssl dgst -sha256 -verify \"$1\" -signature \"$2\" \"$3\" >&2; echo $?";
    Tool::new("sh").with(["-c", script, "sh"]).with([key, &file, &message]).text() == "0"
}

#[test]
fn what_the_service_does_not_accept_never_runs() {
    let measured = Measured::new(14);
    let unknown = format!("sha256:{}", "0".repeat(64));
    let service = Service::of(&measured, json!({"kernels": [unknown]}));
    // This host itself has nothing against it.
    measured.sh("echo started").exits(0).prints("started\n");
    let aborted = log(&measured).matches("\"aborted\"").count();
    service.run(&measured).sh("echo started").fails_saying(&["does not accept", "kernel: "]);
    assert_eq!(log(&measured).matches("\"aborted\"").count(), aborted + 1);
    assert_eq!(service.verdicts()[0]["verdict"]["status"], "contraindicated");
    measured.has_no_pods();

    // Nor does one on a host that is not enrolled there any more.
    let host = service.at("hosts/web.json");
    fs::rename(&host, service.at("hosts/web.gone")).unwrap();
    service.reload();
    service.run(&measured).sh("echo started").fails_saying(&["refuses", "enrolled"]);
    assert_eq!(service.verdicts().len(), 1);
    measured.has_no_pods();
    measured.host.sandbox(["attest", "status"]).exits(0).mentions("agrees");
}

/// "a verifier that is down or lies […]: refused, with the reason, and the pod leaves no trace but
/// the log's entry."
#[test]
fn a_service_that_is_not_the_one_that_is_trusted_starts_nothing() {
    let measured = Measured::new(13);
    let mut service = Service::of(&measured, json!({}));
    let (ca, key) = (service.authority.certificate(), service.at("signing-key.pub"));
    let sh = |service: &Service, ca: &Path, key: &Path| {
        service.run_with(&measured, ca, key).sh("echo started")
    };
    sh(&service, &ca, &key).exits(0).prints("started\n");
    // Its TLS is somebody else's, or its verdicts are.
    let other = Authority::new();
    sh(&service, &other.certificate(), &key).fails_saying(&["certificate is refused"]);
    let foreign = measured.directory.path().join("foreign.pem");
    let foreign_key = measured.directory.path().join("foreign.pub");
    let (foreign, foreign_key) = (foreign.to_str().unwrap(), foreign_key.to_str().unwrap());
    let curve = "ec_paramgen_curve:P-256";
    Tool::new("openssl")
        .with(["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", foreign])
        .run();
    Tool::new("openssl").with(["pkey", "-in", foreign, "-pubout", "-out", foreign_key]).run();
    let foreign_key = Path::new(foreign_key);
    sh(&service, &ca, foreign_key).fails_saying(&["not signed by the verifier"]);
    let nothing = measured.directory.path().join("nothing");
    sh(&service, &ca, &nothing).fails_saying(&["nothing"]);
    // It is not there.
    service.stop();
    sh(&service, &ca, &key).fails_saying(&["cannot be asked", &service.address]);
    // Something else is, which says nothing.
    let silent = TcpListener::bind(&service.address).unwrap();
    sh(&service, &ca, &key).fails_saying(&["cannot be asked"]);
    drop(silent);
    measured.has_no_pods();
    // Where the record had been written before, the log says that the pod never ran.
    let log = log(&measured);
    let count = |what: &str| log.matches(what).count();
    let (launches, ends) = (count("\"event\":\"launch\""), count("\"event\":\"exit\""));
    assert!(launches == ends && launches == 3 && count("\"aborted\"") == 1, "{log}");
    service.start();
    sh(&service, &ca, &key).exits(0).prints("started\n");
    measured.host.sandbox(["attest", "status"]).exits(0).mentions("agrees");
}

#[test]
fn a_rule_can_demand_the_service_for_all_pods() {
    let measured = Measured::new(12);
    let mut service = Service::of(&measured, json!({}));
    let rules = json!({"version": 2, "rules": [{"require": {"tpm": "service"}}]});
    measured.host.put("/etc/sandbox/gate.d/all.json", rules.to_string());
    let plain = || measured.host.run(&measured.image).sh("echo started");
    // A service of the user's choice is none of the host's.
    plain().fails_saying(&["service", "verifier"]);
    service.run(&measured).sh("echo started").fails_saying(&["rule of this host", "verifier"]);
    measured.settings(service.settings());
    plain().exits(0).prints("started\n");
    measured.sh("echo started").exits(0);
    let run = measured.host.run(&measured.image).with("--tpm-attest=service");
    run.sh("echo started").exits(0);
    let run = measured.host.run(&measured.image).with(format!("--tpm-attest={}/", service.url()));
    run.sh("echo started").exits(0);
    assert_eq!(service.verdicts().len(), 4);
    let run = measured.host.run(&measured.image).with("--tpm-attest=https://127.0.0.1:1");
    run.sh("echo started").fails_saying(&["verified by", &service.address]);
    service.run(&measured).sh("echo started").fails_saying(&["leave out --attest-ca"]);
    service.stop();
    plain().fails_saying(&["cannot be asked"]);
    measured.has_no_pods();
}

/// The host's own demands are of other registers than the service's: each gets a quote of its own.
#[test]
fn host_and_service_may_want_to_see_different_registers() {
    let measured = Measured::new(11);
    let service = Service::of(&measured, json!({}));
    let own = json!({
        "version": 1,
        "attestationKeys": {"pinned": [measured.key()]},
        "pcrs": {"select": {"sha256": [0, 7, measured.pcr()]}, "log": measured.pcr(),
                 "beforeLog": {"sha256": [before(&measured)]}},
    });
    measured.host.put("/etc/sandbox/attest-policy.json", own.to_string());
    service.run(&measured).sh("echo started").exits(0).prints("started\n");
    assert_eq!(service.verdicts().len(), 1);
    // The service has seen all of the log, and not only this launch.
    let records = service.verdicts()[0]["verdict"]["facts"]["records"].clone();
    assert!(records.as_u64().unwrap() > 5, "{records}");
}

#[test]
fn several_launches_at_once_are_all_answered() {
    let measured = Measured::new(9);
    let service = Service::of(&measured, json!({}));
    let runs: Vec<_> =
        (0..6).map(|_| service.run(&measured).script("echo started").start()).collect();
    for run in runs {
        run.end().exits(0).prints("started\n");
    }
    assert_eq!(service.verdicts().len(), 6);
    measured.has_no_pods();
}

#[test]
fn the_service_does_not_start_with_what_is_wrong_or_open_to_others() {
    let measured = Measured::new(15);
    let mut service = Service::of(&measured, json!({}));
    let listen = format!("--listen={}", service.address);
    let certificate = format!("--certificate={}", service.identity.certificate.display());
    let key = format!("--key={}", service.identity.key.display());
    let words = [&*listen, &certificate, &key];
    service
        .serve(&words)
        .end()
        .exits(254)
        .check("it says so", |ended| ended.stderr.contains("cannot listen at"));
    service.stop();
    let wrong = [&*listen, &certificate, &certificate.replace("--certificate", "--key")];
    service.serve(&wrong).end().fails_saying(&["key"]);
    let private = service.at("signing-key.pem");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o640)).unwrap();
    service.serve(&words).end().fails_saying(&["signing-key.pem", "0600"]);
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(service.at("service.json"), "{").unwrap();
    service.serve(&words).end().fails_saying(&["service.json"]);
}

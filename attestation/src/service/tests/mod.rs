//! The service, with a TPM in software that says whatever a test wants.

mod client;
mod decisions;
mod files;
mod network;
mod parts;
mod secrets;

use super::{ChallengeAnswer, Directory, Document as _, EvidenceAnswer, Refusal, Service};
use crate::{
    evidence::Evidence,
    verify::{
        self,
        tests::machine::{Machine, POD, now},
        token::{self, Claims},
    },
    wire::Public,
};
use p256::{ecdsa::VerifyingKey, pkcs8::DecodePublicKey as _};
use serde_json::{Value, json};
use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};
use tempfile::TempDir;

const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

/// A service's directory and a host that is enrolled there.
struct World {
    directory: TempDir,
    machine: Machine,
}

impl World {
    /// One policy that asks for everything, for everybody.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        drop(Directory::open(&directory.path().join("service")).unwrap());
        let world = Self { directory, machine: Machine::new() };
        world.settings(json!({}));
        world.policy("team", Machine::policy());
        world.enrol("web", &world.machine.evidence());
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join("service").join(name)
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.at(name), content).unwrap();
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn settings(&self, changes: Value) {
        let mut settings = json!({"version": 1, "rules": [{"policy": "team"}]});
        settings.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        self.put("service.json", settings.to_string());
    }

    fn policy(&self, name: &str, policy: verify::Document) {
        self.put(&format!("policies/{name}.json"), serde_json::to_vec(&policy).unwrap());
    }

    fn enrol(&self, name: &str, evidence: &Evidence) {
        let enrolment = serde_json::to_vec(evidence.enrolment.as_ref().unwrap()).unwrap();
        self.put(&format!("hosts/{name}.json"), enrolment);
    }

    fn open(&self) -> Directory {
        Directory::open(&self.at("")).unwrap()
    }

    fn service(&self) -> Service {
        let (service, odd) = Service::open(self.open()).unwrap();
        assert_eq!(odd, Vec::<String>::new());
        service
    }

    fn key(&self) -> VerifyingKey {
        VerifyingKey::from_public_key_pem(&self.open().public_key().unwrap()).unwrap()
    }

    /// The names of the verdicts that are kept.
    fn kept(&self) -> Vec<String> {
        let files = fs::read_dir(self.at("verdicts")).unwrap();
        let mut names: Vec<_> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn host(&self) -> String {
        Public::parse(&self.machine.ak_public()).unwrap().name().to_string()
    }

    fn challenged(&self, service: &Service) -> ChallengeAnswer {
        let request = json!({"version": 1, "host": self.host(), "pod": POD}).to_string();
        let answer = service.challenge(request.as_bytes(), Instant::now()).unwrap();
        ChallengeAnswer::parse(&answer).unwrap()
    }

    /// Evidence for a challenge of the service.
    fn evidence(&mut self, service: &Service) -> Evidence {
        self.machine.nonce = self.challenged(service).nonce;
        self.machine.evidence()
    }

    /// A challenge, and the service's answer to evidence for it.
    fn ask(&mut self, service: &Service, secrets: &[&str]) -> Result<EvidenceAnswer, Refusal> {
        let evidence = self.evidence(service);
        send(service, &evidence, secrets)
    }

    /// What the service has signed.
    fn claims(&self, answer: &EvidenceAnswer) -> Claims {
        token::read(&answer.token, &self.key(), &self.machine.nonce, now()).unwrap()
    }
}

fn request(evidence: &Evidence, secrets: &[&str]) -> Vec<u8> {
    let evidence: Value = serde_json::from_slice(&evidence.to_json().unwrap()).unwrap();
    json!({"version": 1, "evidence": evidence, "secrets": secrets}).to_string().into_bytes()
}

fn send(
    service: &Service,
    evidence: &Evidence,
    secrets: &[&str],
) -> Result<EvidenceAnswer, Refusal> {
    send_at(service, evidence, secrets, (Instant::now(), now()))
}

fn send_at(
    service: &Service,
    evidence: &Evidence,
    secrets: &[&str],
    now: (Instant, SystemTime),
) -> Result<EvidenceAnswer, Refusal> {
    let (answer, _) = service.evidence(&request(evidence, secrets), FROM, now)?;
    Ok(EvidenceAnswer::parse(&answer).unwrap())
}

fn later(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

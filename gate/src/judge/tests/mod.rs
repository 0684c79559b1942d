//! The table: each case is a rule or an attack, and what the gate says to it.

mod aci;
mod age;
mod host_rules;
pub(crate) mod keys;
mod permits;
mod registry;
mod whole;

use super::*;
use crate::{Approval, Launch, Paths, PolicyError, Program, Refusal, verify_detached};
use keys::{Cosign, Pgp, payload};
use pgp::crypto::hash::HashAlgorithm;
use sandbox_image::{Algorithm, evidence::Signature};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{Duration, UNIX_EPOCH},
};

/// When images are judged.
const NOW: &str = "2026-06-01T00:00:00Z";
/// When signatures are made, if nothing else is said.
const SIGNED: &str = "2026-02-01T00:00:00Z";

/// The keys that all cases know, and their files.
struct Keys {
    folder: tempfile::TempDir,
    alice: Pgp,
    bob: Pgp,
    mallory: Pgp,
    expired: Pgp,
    revoked: Pgp,
    cosign: Cosign,
    other: Cosign,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let keys = Keys {
        folder: tempfile::tempdir().unwrap(),
        alice: Pgp::new(1, None, None),
        bob: Pgp::new(2, None, None),
        mallory: Pgp::new(3, None, None),
        expired: Pgp::new(4, Some("2026-03-01T00:00:00Z"), None),
        revoked: Pgp::new(5, None, Some("2026-03-01T00:00:00Z")),
        cosign: Cosign::new(6),
        other: Cosign::new(7),
    };
    for (name, text) in [
        ("alice", keys.alice.armored()),
        ("bob", keys.bob.armored()),
        ("mallory", keys.mallory.armored()),
        ("expired", keys.expired.armored()),
        ("revoked", keys.revoked.armored()),
        ("cosign", keys.cosign.pem()),
        ("other", keys.other.pem()),
        ("garbage", "no key at all".to_owned()),
    ] {
        fs::write(keys.folder.path().join(name), text).unwrap();
    }
    keys
});

fn manifest() -> Digest {
    Digest::of(Algorithm::Sha256, b"manifest")
}

fn index() -> Digest {
    Digest::of(Algorithm::Sha256, b"index")
}

/// The digest of an image that is not there.
fn elsewhere() -> Digest {
    Digest::of(Algorithm::Sha256, b"another manifest")
}

/// A simple signature.
fn simple(key: &Pgp, digest: &Digest, reference: &str) -> Signature {
    key.message(&payload("atomic", digest, reference), SIGNED, HashAlgorithm::Sha256)
}

/// A signature of cosign's tag layout.
fn tagged(key: &Cosign, digest: &Digest, reference: &str) -> Signature {
    key.tagged(&payload("cosign", digest, reference))
}

/// `signedBy` with files of keys, and perhaps a `signedIdentity`.
fn signed_by(names: &[&str], identity: &str) -> String {
    requirement(r#""type": "signedBy", "keyType": "GPGKeys""#, names, identity)
}

/// `sigstoreSigned`, likewise.
fn sigstore(names: &[&str], identity: &str) -> String {
    requirement(r#""type": "sigstoreSigned""#, names, identity)
}

fn requirement(kind: &str, names: &[&str], identity: &str) -> String {
    let paths: Vec<_> = names.iter().map(|name| KEYS.folder.path().join(name)).collect();
    let paths: Vec<_> = paths.iter().map(|path| format!("\"{}\"", path.display())).collect();
    let identity = match identity {
        "" => String::new(),
        identity => format!(r#", "signedIdentity": {{"type": {identity}}}"#),
    };
    format!(r#"{{{kind}, "keyPaths": [{}]{identity}}}"#, paths.join(", "))
}

const ACCEPT: &str = r#"{"type": "insecureAcceptAnything"}"#;
const REJECT: &str = r#"{"type": "reject"}"#;

/// A policy that rejects, but for some scopes of a transport.
fn policy(transport: &str, scopes: &[(&str, &str)]) -> String {
    let scopes: Vec<_> =
        scopes.iter().map(|(scope, list)| format!(r#""{scope}": [{list}]"#)).collect();
    format!(
        r#"{{"default": [{REJECT}], "transports": {{"{transport}": {{{}}}}}}}"#,
        scopes.join(", ")
    )
}

/// A host and an image that is to be judged there.
struct Case {
    name: &'static str,
    policy: Option<String>,
    rules: Option<String>,
    trusted: Vec<(&'static str, &'static str)>,
    identity: Identity<'static>,
    id: Digest,
    manifests: Vec<Digest>,
    signatures: Vec<Signature>,
    version: Option<&'static str>,
    created: Option<&'static str>,
    insecure: bool,
}

/// `docker://example.com/team/app:1`, unsigned, on a host without any rules.
fn case(name: &'static str) -> Case {
    Case {
        name,
        policy: None,
        rules: None,
        trusted: Vec::new(),
        identity: docker("example.com", "team/app", Some("1")),
        id: manifest(),
        manifests: vec![manifest(), index()],
        signatures: Vec::new(),
        version: None,
        created: None,
        insecure: false,
    }
}

fn docker(
    registry: &'static str,
    repository: &'static str,
    tag: Option<&'static str>,
) -> Identity<'static> {
    Identity::Docker { registry, repository, tag, digest: None }
}

impl Case {
    fn policy(self, policy: String) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// A policy for `docker` with one scope.
    fn docker(self, scope: &str, list: &str) -> Self {
        self.policy(policy("docker", &[(scope, list)]))
    }

    /// A rule of version 1.
    fn rule(self, rule: &str) -> Self {
        Self { rules: Some(format!(r#"{{"version": 1, "images": [{{{rule}}}]}}"#)), ..self }
    }

    /// Rules of version 2: the objects, separated by commas.
    fn rules(self, rules: &str) -> Self {
        Self { rules: Some(format!(r#"{{"version": 2, "rules": [{rules}]}}"#)), ..self }
    }

    /// The decision about a pod of this image alone.
    fn decide(&self, launch: &Launch) -> Result<Approval, Refusal> {
        let folder = tempfile::tempdir().unwrap();
        let host =
            self.host(folder.path()).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        crate::decide(&[("app", self.subject())], launch, &host, self.insecure, now())
    }

    /// A file of keys for a prefix; without one, for all.
    fn trust(mut self, prefix: &'static str, key: &'static str) -> Self {
        self.trusted.push((prefix, key));
        self
    }

    fn of(self, identity: Identity<'static>) -> Self {
        Self { identity, ..self }
    }

    fn signed(mut self, signature: Signature) -> Self {
        self.signatures.push(signature);
        self
    }

    fn many(mut self, count: usize, signature: &Signature) -> Self {
        self.signatures.extend(std::iter::repeat_n(signature.clone(), count));
        self
    }

    fn version(self, version: &'static str) -> Self {
        Self { version: Some(version), ..self }
    }

    fn created(self, created: &'static str) -> Self {
        Self { created: Some(created), ..self }
    }

    fn insecure(self) -> Self {
        Self { insecure: true, ..self }
    }

    /// Writes the host's files.
    fn host(&self, folder: &Path) -> Result<HostPolicy, PolicyError> {
        let paths = paths(folder);
        if let Some(policy) = &self.policy {
            fs::write(&paths.policy, policy).unwrap();
        }
        fs::create_dir_all(&paths.rules).unwrap();
        if let Some(rules) = &self.rules {
            fs::write(paths.rules.join("rules.json"), rules).unwrap();
        }
        for (prefix, key) in &self.trusted {
            let scope = match *prefix {
                "" => PathBuf::from("root.d"),
                prefix => Path::new("prefix.d").join(prefix),
            };
            let scope = paths.local_config.join("trustedkeys").join(scope);
            fs::create_dir_all(&scope).unwrap();
            let content = fs::read_to_string(KEYS.folder.path().join(key)).unwrap();
            let fingerprint = match *key {
                "alice" => KEYS.alice.fingerprint(),
                "bob" => KEYS.bob.fingerprint(),
                "expired" => KEYS.expired.fingerprint(),
                "revoked" => KEYS.revoked.fingerprint(),
                "garbage" => "0".repeat(40),
                other => panic!("no key {other}"),
            };
            fs::write(scope.join(fingerprint), content).unwrap();
        }
        HostPolicy::load(&paths)
    }

    fn judge(&self) -> Judgement {
        let folder = tempfile::tempdir().unwrap();
        let host =
            self.host(folder.path()).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let judgement = judge(&self.subject(), &host, self.insecure, now());
        // What is decided is what is told, and permitted.
        let subjects = [("app", self.subject())];
        let approved = crate::decide(&subjects, &launch(), &host, self.insecure, now()).is_ok();
        assert_eq!(approved, judgement.is_allowed(), "{}", self.name);
        judgement
    }

    /// The judgement about the image alone, where a pod may be judged otherwise.
    fn judge_alone(&self) -> Judgement {
        let folder = tempfile::tempdir().unwrap();
        judge(&self.subject(), &self.host(folder.path()).unwrap(), self.insecure, now())
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            id: &self.id,
            identity: self.identity.clone(),
            manifests: &self.manifests,
            signatures: &self.signatures,
            version: self.version,
            created: self.created.map(|time| instant::parse(time).unwrap()),
        }
    }

    /// The image may run, because of this rule.
    fn allowed(self, by: &str) {
        let judgement = self.judge();
        let told = || format!("{}: {judgement:#?}", self.name);
        assert!(judgement.is_allowed(), "{}", told());
        assert!(judgement.rule.contains(by), "not by '{by}': {}", told());
    }

    /// The image may not run, for this reason.
    fn refused(self, because: &str) {
        let judgement = self.judge();
        let told = || format!("{}: {judgement:#?}", self.name);
        let Outcome::Refused { reasons } = &judgement.outcome else { panic!("{}", told()) };
        assert!(!reasons.is_empty(), "{}", told());
        assert!(
            reasons.iter().any(|reason| reason.problem.contains(because)),
            "not because of '{because}': {}",
            told()
        );
        // If it was the policy, it would have run with the option, and only then.
        if !self.insecure && !judgement.rule.contains("gate.d") {
            let host = tempfile::tempdir().unwrap();
            let policy = self.host(host.path()).unwrap();
            let insecure = judge(&self.subject(), &policy, true, now());
            if self.rules.is_none() {
                assert!(insecure.is_allowed(), "{}", told());
                assert_eq!(insecure.rule, "--insecure-options=image", "{}", told());
            }
        }
    }
}

/// A pod without anything that a rule could be against.
pub(crate) fn launch() -> Launch {
    let program = |path: &str| Program { path: path.into(), digest: None };
    Launch {
        kernel: program("/usr/lib/sandbox/vmlinux"),
        kernel_is_installed: true,
        monitor: program("/usr/libexec/sandbox/sandbox-vmm"),
        cpus: 1,
        memory_mib: 256,
        volumes: Vec::new(),
        networks: Vec::new(),
        capabilities: Vec::new(),
        verified: true,
        label: Some("system_u:system_r:sandbox_vmm_t:s0:c1,c2".to_owned()),
        tenant: None,
        attest: None,
    }
}

fn paths(folder: &Path) -> Paths {
    Paths {
        policy: folder.join("policy.json"),
        rules: folder.join("gate.d"),
        system_config: folder.join("usr"),
        local_config: folder.join("etc"),
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(instant::parse(NOW).unwrap().unsigned_abs())
}

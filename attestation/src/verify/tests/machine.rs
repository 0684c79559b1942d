//! A host with a TPM, in software: keys, registers, a log. Everything about it can be changed
//! before it makes evidence.

use super::certificates::{NOW, Spec, at, der, pem};
use crate::{
    canonical,
    evidence::{
        Counts, Endorsement, Enrolment, Evidence, EvidenceLog, LoggedRecord, Nonce, PcrValue,
        Quote, qualifying_data,
    },
    log::{Bank, Entry},
    record::Event,
    verify::{Document, Policy, Verdict, verify},
    wire::{MAGIC, PcrSelection, Public, TYPE_QUOTE, sized},
};
use p256::{
    ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner as _},
    pkcs8::{EncodePublicKey as _, LineEnding},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

pub(crate) const POD: &str = "11111111-2222-4333-8444-555555555555";
pub(crate) const OTHER: &str = "99999999-2222-4333-8444-555555555555";
pub(crate) const BOOT: &str = "0c0c0c0c-2222-4333-8444-555555555555";

/// An AK: fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign.
pub(crate) const AK: u32 = 0x0005_0472;
/// An EK: fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt.
const EK: u32 = 0x0003_00b2;
/// `TPMT_ECC_SCHEME` of ECDSA with SHA-256, and none.
pub(crate) const ECDSA: [u8; 4] = [0, 0x18, 0, 0x0b];

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32].into()).unwrap()
}

pub(crate) fn nonce() -> Nonce {
    Nonce::new([0x5a; 32]).unwrap()
}

pub(crate) fn digest(of: &str) -> String {
    sandbox_image::Digest::of(sandbox_image::Algorithm::Sha256, of.as_bytes()).to_string()
}

/// `TPMT_PUBLIC` of a P-256 key.
pub(crate) fn public(key: &SigningKey, attributes: u32, storage: bool, scheme: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0x23, 0, 0x0b];
    out.extend(attributes.to_be_bytes());
    out.extend(sized(&[]));
    if storage {
        out.extend([0, 6, 0, 128, 0, 0x43]);
    } else {
        out.extend([0, 0x10]);
    }
    out.extend(scheme);
    out.extend([0, 3, 0, 0x10]);
    let point = key.verifying_key().to_encoded_point(false);
    out.extend(sized(point.x().unwrap()));
    out.extend(sized(point.y().unwrap()));
    out
}

pub(crate) struct Machine {
    pub(crate) ak: SigningKey,
    pub(crate) ak_attributes: u32,
    pub(crate) ak_scheme: Vec<u8>,
    pub(crate) ek: SigningKey,
    pub(crate) ek_attributes: u32,
    pub(crate) enroller: SigningKey,
    pub(crate) enrolled_counts: Option<Counts>,
    pub(crate) root: (Spec, SigningKey),
    pub(crate) middle: (Spec, SigningKey),
    pub(crate) leaf: Spec,
    pub(crate) leaf_key: SigningKey,
    pub(crate) magic: u32,
    pub(crate) kind: u16,
    pub(crate) signature_hash: Bank,
    pub(crate) nonce: Nonce,
    pub(crate) quoted_pod: String,
    pub(crate) guest_key: Option<Vec<u8>>,
    pub(crate) quoted_guest_key: Option<Vec<u8>>,
    pub(crate) counts: Counts,
    pub(crate) safe: u8,
    pub(crate) banks: BTreeSet<Bank>,
    pub(crate) selection: BTreeMap<Bank, BTreeSet<u32>>,
    pub(crate) host: BTreeMap<u32, u8>,
    /// What the log's register held before the log.
    pub(crate) before: BTreeMap<Bank, Vec<u8>>,
    pub(crate) events: Vec<Value>,
    /// Records that others than their tenant see.
    pub(crate) redacted: Vec<usize>,
    /// Records that were extended, and are left out of the evidence.
    pub(crate) omitted: Vec<usize>,
    /// Digests that somebody extended past the log.
    pub(crate) strays: Vec<[u8; 32]>,
    /// A digest that was changed in the file.
    pub(crate) scrambled: Option<(usize, Bank)>,
    pub(crate) firmware_log: Option<Vec<u8>>,
    /// Values of registers that are not one byte again and again.
    pub(crate) firmware_values: BTreeMap<u32, Vec<u8>>,
    pub(crate) time: String,
}

pub(crate) fn start() -> Value {
    json!({
        "event": "start", "version": 1, "bootId": BOOT, "time": "2025-12-31T12:00:00Z",
        "pcrBefore": {"sha1": "00".repeat(20), "sha256": "00".repeat(32)},
        "resetCount": 12, "restartCount": 3, "program": "0.1.0",
    })
}

pub(crate) fn app(name: &str, image: &str) -> Value {
    json!({
        "name": name,
        "image": {
            "reference": format!("docker://{image}"), "identity": image, "id": digest(image),
            "manifestDigests": [digest(&format!("manifest of {image}"))],
            "verityRoot": "ab".repeat(32), "erofsVersion": 1,
            "verity": {"dataBlocks": 100, "hashStart": 100}, "content": "verified",
        },
        "signature": {
            "rule": "policy.json: docker: example.com", "answer": "accepted",
            "keys": ["a1b2c3"], "time": "2025-12-31T12:00:00Z",
        },
        "exec": ["/bin/serve", "--port=80"],
        "environment": [{"name": "TOKEN", "salted": "cd".repeat(32)}],
        "user": "0", "group": "0", "workingDirectory": "/", "mounts": [],
        "isolators": [{"name": "os/linux/no-new-privileges", "value": true}],
    })
}

pub(crate) fn launch(number: u64, pod: &str) -> Value {
    json!({
        "event": "launch", "version": 1, "bootId": BOOT, "time": "2025-12-31T23:00:00Z",
        "number": number,
        "record": {
            "version": 1, "pod": pod, "tenant": "blue", "apps": [app("web", "example.com/team/web")],
            "podManifest": digest("manifest"), "policyDigest": digest("policy"),
            "kernel": {"digest": digest("kernel"), "version": "6.12.43-sandbox1"},
            "guestInit": digest("init"), "monitor": digest("monitor"),
            "fileServer": digest("fs"), "supervisor": digest("sandbox"),
            "commandLine": "quiet panic=-1", "cpus": 1, "memoryMib": 256, "scratchBytes": 0,
            "volumes": [
                {"name": "data", "kind": "host", "path": "/srv/data", "readOnly": true,
                 "content": "unverified"},
                {"name": "tmp", "kind": "empty", "path": null, "readOnly": false,
                 "content": "unverified"},
            ],
            "network": null,
            "label": {"process": "system_u:system_r:sandbox_vmm_t:s0:c1,c2",
                      "file": "system_u:object_r:sandbox_file_t:s0:c1,c2"},
            "seccomp": digest("filters"), "secrets": [], "guestKey": "e7".repeat(32),
        },
    })
}

pub(crate) fn exit(pod: &str, launch: u64) -> Value {
    json!({
        "event": "exit", "version": 1, "bootId": BOOT,
        "pod": pod, "launch": launch, "end": {"status": 0},
    })
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            ak: key(1),
            ak_attributes: AK,
            ak_scheme: ECDSA.to_vec(),
            ek: key(2),
            ek_attributes: EK,
            enroller: key(3),
            enrolled_counts: Some(Counts { reset_count: 10, restart_count: 0 }),
            root: (Spec::root(), key(4)),
            middle: (Spec::middle(), key(5)),
            leaf: Spec::leaf(),
            leaf_key: key(2),
            magic: MAGIC,
            kind: TYPE_QUOTE,
            signature_hash: Bank::Sha256,
            nonce: nonce(),
            quoted_pod: POD.to_owned(),
            guest_key: Some(vec![0xe7; 32]),
            quoted_guest_key: Some(vec![0xe7; 32]),
            counts: Counts { reset_count: 12, restart_count: 3 },
            safe: 1,
            banks: BTreeSet::from([Bank::Sha1, Bank::Sha256]),
            selection: BTreeMap::from([(Bank::Sha256, BTreeSet::from([0, 7, 15]))]),
            host: BTreeMap::from([(0, 0x10), (7, 0x17)]),
            before: [Bank::Sha1, Bank::Sha256].map(|bank| (bank, vec![0; bank.size()])).into(),
            events: vec![
                start(),
                launch(1, OTHER),
                launch(2, POD),
                exit(OTHER, 1),
                launch(4, "77777777-2222-4333-8444-555555555555"),
            ],
            redacted: vec![1, 3, 4],
            omitted: Vec::new(),
            strays: Vec::new(),
            scrambled: None,
            firmware_log: None,
            firmware_values: BTreeMap::new(),
            time: "2025-12-31T23:59:00Z".to_owned(),
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let events = self.events.iter().zip(0..);
        events
            .map(|(event, number)| {
                let event = Event::parse(&canonical::to_vec(event).unwrap()).unwrap();
                Entry::new(number, 15, event, self.banks.iter().copied()).unwrap()
            })
            .collect()
    }

    fn register(&self, bank: Bank, register: u32, entries: &[Entry]) -> Vec<u8> {
        if let Some(value) = self.firmware_values.get(&register) {
            return value.clone();
        }
        if register != 15 {
            return vec![self.host.get(&register).copied().unwrap_or_default(); bank.size()];
        }
        let before = self.before[&bank].clone();
        let logged = entries
            .iter()
            .fold(before, |value, entry| bank.extended(&value, &entry.digests[&bank]));
        self.strays.iter().fold(logged, |value, stray| bank.extended(&value, stray))
    }

    pub(crate) fn ak_public(&self) -> Vec<u8> {
        public(&self.ak, self.ak_attributes, false, &self.ak_scheme)
    }

    pub(crate) fn ek_public(&self) -> Vec<u8> {
        public(&self.ek, self.ek_attributes, true, &[0, 0x10])
    }

    /// Signs with the AK as the TPM does.
    pub(crate) fn sign(&self, attest: &[u8]) -> Vec<u8> {
        let digest = self.signature_hash.digest(attest);
        // ECDSA takes digests of at least half the field.
        let signature: Signature = self.ak.sign_prehash(&digest).unwrap();
        let mut out = vec![0, 0x18];
        out.extend(self.signature_hash.algorithm().to_be_bytes());
        out.extend(sized(&signature.r().to_bytes()));
        out.extend(sized(&signature.s().to_bytes()));
        out
    }

    pub(crate) fn evidence(&self) -> Evidence {
        let entries = self.entries();
        let selection = PcrSelection::new(&self.selection);
        let mut pcrs: BTreeMap<Bank, BTreeMap<u32, PcrValue>> = BTreeMap::new();
        let mut joined = Vec::new();
        for (bank, register) in selection.registers() {
            let value = self.register(bank, register, &entries);
            joined.extend(&value);
            pcrs.entry(bank).or_default().insert(register, PcrValue(value));
        }
        let asked =
            qualifying_data(&self.nonce, &self.quoted_pod, self.quoted_guest_key.as_deref());
        let mut attest = self.magic.to_be_bytes().to_vec();
        attest.extend(self.kind.to_be_bytes());
        attest.extend(sized(&[&[0, 0x0b][..], &[0x33; 32]].concat()));
        attest.extend(sized(&asked));
        attest.extend(123_456_u64.to_be_bytes());
        attest.extend(self.counts.reset_count.to_be_bytes());
        attest.extend(self.counts.restart_count.to_be_bytes());
        attest.push(self.safe);
        attest.extend(0x0102_0304_u64.to_be_bytes());
        attest.extend(selection.to_bytes());
        attest.extend(sized(&self.signature_hash.digest(&joined)));
        let signature = self.sign(&attest);
        let records = entries.iter().enumerate().filter(|(at, _)| !self.omitted.contains(at));
        let records = records.map(|(at, entry)| {
            let entry = if self.redacted.contains(&at) { entry.redacted() } else { entry.clone() };
            let mut record = LoggedRecord::try_from(&entry).unwrap();
            for digest in &mut record.digests {
                if self.scrambled == Some((at, digest.hash_alg)) {
                    digest.digest.fill(1);
                }
            }
            record
        });
        let name = |public: Vec<u8>| Public::parse(&public).unwrap().name();
        let (middle, middle_key) = &self.middle;
        let certificates = vec![
            der(&self.leaf.make(self.leaf_key.verifying_key(), middle_key)),
            der(&middle.make(middle_key.verifying_key(), &self.root.1)),
        ];
        Evidence {
            version: 1,
            pod: POD.to_owned(),
            nonce: self.nonce.clone(),
            guest_key: self.guest_key.clone(),
            time: self.time.clone(),
            quote: Quote { attest, signature, pcrs },
            attestation_key: self.ak_public(),
            endorsement: Some(Endorsement { public: self.ek_public(), certificates }),
            enrolment: Some(Enrolment::sign(
                &self.enroller,
                name(self.ak_public()),
                name(self.ek_public()),
                self.enrolled_counts,
                "2025-06-01T00:00:00Z".to_owned(),
            )),
            firmware_log: self.firmware_log.clone(),
            log: EvidenceLog { pcr: 15, records: records.collect() },
        }
    }

    /// A policy that the machine as it is made fulfils, with nothing left open.
    pub(crate) fn policy() -> Document {
        let machine = Self::new();
        let enroller = machine.enroller.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
        let (root, root_key) = &machine.root;
        let root = pem(&root.make(root_key.verifying_key(), root_key));
        let value = |byte: &str| json!([byte.repeat(32)]);
        serde_json::from_value(json!({
            "version": 1,
            "attestationKeys": {"enrollers": [enroller]},
            "endorsementKeys": {"roots": [root]},
            "pcrs": {
                "select": {"sha256": [0, 7, 15]},
                "values": {"sha256": {"0": value("10"), "7": value("17")}},
                "log": 15,
            },
            "kernels": [digest("kernel")], "guestInits": [digest("init")],
            "monitors": [digest("monitor")], "fileServers": [digest("fs")],
            "filters": [digest("filters")],
            "supervisors": [digest("sandbox")], "commandLines": ["quiet panic=-1"],
            "images": [{"verityRoot": "ab".repeat(32), "identity": "example.com/team"}],
            "content": "verified",
            "volumes": [{"name": "data", "path": "/srv/data"}],
            "podManifests": [digest("manifest")],
            "signature": "required", "signers": ["a1b2c3"],
            "hostPolicies": [digest("policy")], "label": "required",
            "maxEvidenceAge": 300, "maxPodAge": 86400,
        }))
        .unwrap()
    }
}

/// Holds evidence, read from its file, against a policy.
pub(crate) fn judge(evidence: &Evidence, policy: Document, now: SystemTime) -> Verdict {
    let file = evidence.to_json().unwrap();
    let evidence = Evidence::parse(&file).unwrap();
    verify(&evidence, &nonce(), &Policy::new(policy).unwrap(), now)
}

pub(crate) fn now() -> SystemTime {
    at(NOW)
}

//! The way from the gate's approval to what can be started.

use super::*;
use crate::installation::Installation;
use sandbox_gate::{DigestsAsked, HostPolicy, Identity, Launch, Paths, Subject, Verifier, decide};
use sandbox_image::Algorithm;
use std::fs;
use std::time::SystemTime;

/// A host with these rules.
struct Host {
    folder: tempfile::TempDir,
    policy: HostPolicy,
}

impl Host {
    fn new(rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name| folder.path().join(name);
        fs::create_dir(at("gate.d")).unwrap();
        let rules = format!(r#"{{"version": 2, "rules": [{rules}]}}"#);
        fs::write(at("gate.d").join("rules.json"), rules).unwrap();
        let paths = Paths {
            policy: at("policy.json"),
            rules: at("gate.d"),
            system_config: at("usr"),
            local_config: at("etc"),
        };
        let policy = HostPolicy::load(&paths).unwrap();
        Self { folder, policy }
    }

    fn approval(&self, launch: &Launch) -> Approval {
        let id = Digest::of(Algorithm::Sha256, b"image");
        let subject = Subject {
            id: &id,
            identity: Identity::Oci { path: "/srv/layout", name: None },
            manifests: &[],
            signatures: &[],
            version: None,
            created: None,
        };
        decide(&[("app", subject)], launch, &self.policy, true, SystemTime::now()).unwrap()
    }

    fn data(&self) -> DataDir {
        DataDir::open(&self.folder.path().join("data")).unwrap()
    }

    /// A pod that is prepared but for its images, which take a store.
    fn prepared(&self) -> PreparedPod {
        let plan = plan();
        let approval = self.approval(plan.launch());
        let directory = PodDir::create(&self.data()).unwrap();
        let parts = PodParts { directory, plan, images: Vec::new(), scratch: None };
        PreparedPod { parts, approval }
    }

    fn pods(&self) -> usize {
        let folders = fs::read_dir(self.data().path().join("pods")).unwrap();
        folders.map(|folder| fs::read_dir(folder.unwrap().path()).unwrap().count()).sum()
    }
}

fn plan() -> Plan {
    let installation = Installation::find().unwrap();
    Plan::new(super::spec::PodSpec::default(), installation, DigestsAsked::default(), None, None)
        .unwrap()
}

#[test]
fn a_permitted_pod_has_the_decision_in_its_directory() {
    let host = Host::new(r#"{"require": {"verity": true}}"#);
    let pod = host.prepared();
    let uuid = pod.uuid();
    assert!(host.data().read(uuid, GATE).is_err());
    let pod = pod.permitted(None, None).unwrap();
    assert_eq!(pod.permit().pod(), uuid.to_string());
    let kept = host.data().read(uuid, GATE).unwrap().unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    assert_eq!(kept[0]["identity"], "oci:/srv/layout");
    assert_eq!(kept[0]["checks"][0]["answer"], "met");
    drop(pod);
    assert_eq!(host.pods(), 0);
}

#[test]
fn a_pod_that_has_to_be_measured_and_is_not_leaves_nothing() {
    let host = Host::new(r#"{"require": {"tpm": true}}"#);
    let other = Uuid::new_v4();
    for measured in [None, Some(other)] {
        let pod = host.prepared();
        assert_eq!(host.pods(), 1);
        let measured =
            measured.map(|other| Measured::new(&other.to_string(), 1, true, Verifier::Service));
        let error = pod.permitted(measured, None).unwrap_err();
        assert!(matches!(error, PrepareError::Refused(_)), "{error}");
        assert!(error.to_string().contains("measured"), "{error}");
        assert_eq!(host.pods(), 0);
    }
    let pod = host.prepared();
    let measured = Measured::new(&pod.uuid().to_string(), 1, true, Verifier::Local);
    let permitted = pod.permitted(Some(measured.clone()), None).unwrap();
    assert_eq!(permitted.permit().measured(), Some(&measured));
}

/// Its launch is in the TPM by then, and nobody else knows that it never ran.
#[test]
fn a_pod_without_a_permit_stays_for_gc_if_its_end_cannot_be_written() {
    let host = Host::new(r#"{"require": {"tpm": "service"}}"#);
    let pod = host.prepared();
    let path = pod.parts.directory.path();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let entry = serde_json::json!({
        "pod": pod.uuid().to_string(),
        "number": 7,
        "bootId": boot.trim_end(),
        "settings": {"version": 1, "directory": host.folder.path().join("attest")},
    });
    fs::write(path.join("launch.json"), entry.to_string()).unwrap();
    let program = host.folder.path().join("no-such-program");
    let mut launch = measure::Launch::of(&path, &program).unwrap().unwrap();
    let measured = Measured::new(&pod.uuid().to_string(), 7, true, Verifier::Local);
    let error = pod.permitted(Some(measured), Some(&mut launch)).unwrap_err();
    assert!(matches!(error, PrepareError::Refused(_)), "{error}");
    assert_eq!(host.pods(), 1);
    let mut buried = Vec::new();
    host.data()
        .collect_garbage(
            |pod| -> Result<(), DirectoryError> {
                buried.push(pod.path());
                Ok(())
            },
            |_| {},
        )
        .unwrap();
    assert_eq!(buried, [path]);
}

#[test]
fn an_approval_is_for_the_plan_that_the_gate_was_asked_about() {
    let host = Host::new("");
    let plan = plan();
    let more = Launch { networks: vec!["lan".to_owned()], ..plan.launch().clone() };
    let error = PreparedPod::prepare(host.approval(&more), &host.data(), plan, Vec::new(), None)
        .unwrap_err();
    assert!(matches!(error, PrepareError::Changed), "{error}");
    assert_eq!(host.pods(), 0);
}

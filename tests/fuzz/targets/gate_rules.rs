//! The host's own rules: whatever they say, a pod that may have more is not easier to launch than one
//! that has less, and what is refused says why.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_gate::{
    HostPolicy, Identity, Launch, LaunchVolume, Measured, Paths, Program, Subject, Verifier,
    decide, rules::Rules,
};
use sandbox_image::{Algorithm, Digest};
use std::{
    fs,
    sync::LazyLock,
    time::{Duration, UNIX_EPOCH},
};

/// A host with these rules and no other files. It is there as long as it is read.
fn host(rules: &[u8]) -> HostPolicy {
    let folder = std::env::temp_dir().join(format!("sandbox-gate-rules-{}", std::process::id()));
    let paths = Paths {
        policy: folder.join("policy.json"),
        rules: folder.join("gate.d"),
        system_config: folder.join("usr"),
        local_config: folder.join("etc"),
    };
    fs::create_dir_all(&paths.rules).expect("a folder for rules can be made");
    fs::write(paths.rules.join("rules.json"), rules).expect("rules can be written");
    let host = HostPolicy::load(&paths);
    fs::remove_dir_all(&folder).expect("the folder can be removed");
    host.expect("rules that can be parsed can be loaded")
}

/// A pod that has next to nothing.
static LITTLE: LazyLock<Launch> = LazyLock::new(|| {
    let program = |path: &str, content: &[u8]| Program {
        path: path.into(),
        digest: Some(Digest::of(Algorithm::Sha256, content)),
    };
    Launch {
        kernel: program("/usr/lib/sandbox/vmlinux", b"abc"),
        kernel_is_installed: true,
        monitor: program("/usr/libexec/sandbox/sandbox-vmm", b"abc"),
        cpus: 1,
        memory_mib: 256,
        volumes: Vec::new(),
        networks: Vec::new(),
        capabilities: Vec::new(),
        verified: true,
        label: Some("label".to_owned()),
        tenant: Some("payments".to_owned()),
        attest: None,
    }
});

/// The same with more.
static MUCH: LazyLock<Launch> = LazyLock::new(|| {
    let volume = |path: &str| LaunchVolume {
        name: "data".to_owned(),
        host: Some(path.into()),
        read_only: false,
    };
    Launch {
        volumes: vec![volume("/srv/data"), volume("/opt/a/b")],
        networks: vec!["lan".to_owned()],
        capabilities: vec![("app".to_owned(), vec!["CAP_NET_ADMIN".to_owned()])],
        kernel_is_installed: false,
        verified: false,
        label: None,
        attest: Some(Verifier::Local),
        ..LITTLE.clone()
    }
});

fuzz_target!(|input: &[u8]| {
    if Rules::parse(input).is_err() {
        return;
    }
    assert!(Rules::parse(&[input, input].concat()).is_err());
    let host = host(input);
    let now = UNIX_EPOCH + Duration::from_secs(1_780_000_000);
    let id = Digest::of(Algorithm::Sha256, b"image");
    let subject = Subject {
        id: &id,
        identity: Identity::Docker {
            registry: "registry.example.com",
            repository: "team/app",
            tag: Some("1"),
            digest: None,
        },
        manifests: &[],
        signatures: &[],
        version: Some("1.5"),
        created: Some(1_779_000_000),
    };
    let subjects = [("app", subject)];
    // Each is permitted wherever the one before is.
    let mut before = false;
    for (launch, by) in [
        (&MUCH, None),
        (&MUCH, Some(Verifier::Local)),
        (&MUCH, Some(Verifier::Service)),
        (&LITTLE, Some(Verifier::Service)),
    ] {
        let measured = by.map(|by| Measured::new("pod", 1, true, by));
        let decided = decide(&subjects, launch, &host, true, now);
        match decided.and_then(|approval| approval.permit("pod", measured)) {
            Ok(permit) => {
                assert_eq!(permit.pod(), "pod");
                before = true;
            }
            Err(refusal) => {
                assert!(!before, "{refusal}");
                assert!(refusal.reasons().count() > 0);
                assert!(refusal.reasons().all(|reason| !reason.problem.is_empty()));
            }
        }
    }
});

//! Records for tests: one as a real launch has it, and any others.

use super::{
    App, Content, End, Event, Exit, Hex, Image, Isolator, Kernel, Label, Launch, Mount, Reason,
    Record, Secret, Signature, Start, Uuid, Variable, Verity, VersionOne, Volume,
};
use crate::log::{Bank, Pcrs};
use proptest::prelude::*;
use sandbox_image::{Algorithm, Digest};
use serde_json::json;

/// The boot of all samples.
pub(crate) fn boot() -> Uuid {
    "0f4a6f0e-61a9-4e0d-9c2e-6f1d7b1f3a55".parse().unwrap()
}

/// A pod by its number.
pub(crate) fn pod(number: u64) -> Uuid {
    format!("6b1c3f3e-0000-4000-8000-{number:012x}").parse().unwrap()
}

fn digest(of: &str) -> Digest {
    Digest::of(Algorithm::Sha256, of.as_bytes())
}

/// What a PCR holds that nobody extended.
pub(crate) fn untouched(banks: &[Bank]) -> Pcrs {
    banks.iter().map(|&bank| (bank, vec![0; bank.size()])).collect()
}

/// The beginning of a log.
pub(crate) fn start(pcr_before: Pcrs) -> Event {
    Event::Start(Start {
        version: VersionOne,
        boot_id: boot(),
        time: "2026-11-24T13:00:00Z".to_owned(),
        pcr_before,
        reset_count: 7,
        restart_count: 0,
        program: "0.1.0".to_owned(),
    })
}

/// A launch of a pod of one app.
pub(crate) fn launch(number: u64, pod: Uuid) -> Event {
    Event::Launch(Box::new(Launch {
        version: VersionOne,
        boot_id: boot(),
        time: "2026-11-24T13:00:01Z".to_owned(),
        number,
        record: record(pod),
    }))
}

/// The end of a pod.
pub(crate) fn exit(launch: u64, pod: Uuid, end: End) -> Event {
    Event::Exit(Exit { version: VersionOne, boot_id: boot(), pod, launch, end })
}

/// A pod of one app, as it is usual.
pub(crate) fn record(pod: Uuid) -> Record {
    let salt = [7; Variable::SALT];
    let variable = |(name, value): (&str, &str)| Variable::new(name, value.as_bytes(), &salt);
    Record {
        version: VersionOne,
        pod,
        tenant: "blue".to_owned(),
        apps: vec![App {
            name: "nginx".to_owned(),
            image: Image {
                reference: "docker://docker.io/library/nginx:1.29".to_owned(),
                identity: "docker:docker.io/library/nginx:1.29".to_owned(),
                id: digest("config"),
                manifest_digests: vec![digest("manifest"), digest("index")],
                verity_root: Some(Hex([0xab; 32])),
                erofs_version: Some(1),
                verity: Some(Verity { data_blocks: 41_000, hash_start: 41_000 }),
                content: Content::Verified,
            },
            signature: Signature {
                rule: "/etc/containers/policy.json: docker: docker.io/library".to_owned(),
                answer: "allowed".to_owned(),
                keys: vec!["7bd0c6a4a1e7f4f7fbcaf1bd1f7bd2c1ab2a9f52".to_owned()],
                time: "2026-11-24T13:00:00Z".to_owned(),
            },
            exec: ["nginx", "-g", "daemon off;"].map(str::to_owned).to_vec(),
            environment: [("NGINX_VERSION", "1.29.3"), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")]
                .map(variable)
                .to_vec(),
            user: "0".to_owned(),
            group: "0".to_owned(),
            working_directory: "/".to_owned(),
            mounts: vec![Mount {
                volume: "html".to_owned(),
                path: "/usr/share/nginx/html".to_owned(),
                read_only: true,
            }],
            isolators: vec![Isolator {
                name: "resource/memory".to_owned(),
                value: json!({"limit": "1G"}),
            }],
        }],
        pod_manifest: digest("pod manifest"),
        policy_digest: digest("policy"),
        kernel: Kernel { digest: digest("kernel"), version: "6.12.43-sandbox1".to_owned() },
        guest_init: digest("guest-init"),
        monitor: digest("monitor"),
        file_server: Some(digest("file server")),
        supervisor: digest("supervisor"),
        command_line: "console=hvc0 panic=-1 quiet rdinit=/init".to_owned(),
        cpus: 2,
        memory_mib: 512,
        scratch_bytes: 0,
        volumes: vec![Volume {
            name: "html".to_owned(),
            kind: "host".to_owned(),
            path: Some("/srv/html".to_owned()),
            read_only: true,
            content: Content::Unverified,
        }],
        network: None,
        label: Some(Label {
            process: "system_u:system_r:sandbox_vmm_t:s0:c1,c2".to_owned(),
            file: "system_u:object_r:sandbox_file_t:s0:c1,c2".to_owned(),
        }),
        seccomp: None,
        secrets: vec![Secret { name: "tls-key".to_owned() }],
        guest_key: None,
    }
}

/// Any text, also such that has to be escaped.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z/:.]{0,20}", "\\PC{0,8}", "[\\x00-\\x7f]{0,8}"]
}

/// Any JSON without fractions.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![text().prop_map(Into::into), any::<i32>().prop_map(Into::into)];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop::collection::btree_map(text(), inner, 0..3)
            .prop_map(|members| members.into_iter().collect())
    })
}

/// Any set of banks but none.
pub(crate) fn banks() -> impl Strategy<Value = Vec<Bank>> {
    prop::sample::subsequence(&Bank::ALL[..], 1..=Bank::ALL.len())
}

/// Any way to end.
pub(crate) fn end() -> impl Strategy<Value = End> {
    const REASONS: [Reason; 3] = [Reason::Crash, Reason::Stopped, Reason::Aborted];
    prop_oneof![
        any::<u8>().prop_map(End::Status),
        prop::sample::select(&REASONS[..]).prop_map(End::Reason)
    ]
}

/// Records that differ from [`record`] in what can be there or not, and in texts.
pub(crate) fn records() -> impl Strategy<Value = Record> {
    let texts = prop::collection::vec(text(), 8);
    let lists = (prop::collection::vec(text(), 0..4), prop::collection::vec(json(), 0..3));
    let numbers = (any::<u32>(), 0..=1_u64 << 53, 0..=1_u64 << 53, any::<[u8; 32]>());
    let there = any::<[bool; 8]>();
    (0..100_u64, 0..3_usize, texts, lists, numbers, there).prop_map(
        |(number, apps, texts, (list, values), (cpus, memory, scratch, key), there)| {
            let mut record = record(pod(number));
            let app = record.apps.pop().unwrap();
            record.apps = vec![app; apps];
            for app in &mut record.apps {
                app.name.clone_from(&texts[0]);
                app.exec.clone_from(&list);
                app.signature.keys.clone_from(&list);
                app.user.clone_from(&texts[1]);
                let isolator = |value: &serde_json::Value| Isolator {
                    name: texts[2].clone(),
                    value: value.clone(),
                };
                app.isolators = values.iter().map(isolator).collect();
                if there[0] {
                    app.image.verity_root = None;
                    app.image.erofs_version = None;
                    app.image.verity = None;
                    app.image.content = Content::Unverified;
                }
                if there[1] {
                    app.environment.clear();
                    app.mounts.clear();
                }
            }
            record.tenant.clone_from(&texts[3]);
            record.command_line.clone_from(&texts[4]);
            record.kernel.version.clone_from(&texts[5]);
            record.volumes[0].path = there[2].then(|| texts[6].clone());
            record.secrets = list.into_iter().map(|name| Secret { name }).collect();
            record.cpus = cpus;
            record.memory_mib = memory;
            record.scratch_bytes = scratch;
            record.guest_key = there[3].then_some(Hex(key));
            record.seccomp = there[4].then(|| digest(&texts[7]));
            record.file_server = there[5].then(|| digest(&texts[0]));
            record.label = record.label.filter(|_| there[6]);
            record
        },
    )
}

/// Any event.
pub(crate) fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        banks().prop_map(|banks| start(untouched(&banks))),
        (records(), 0..1_u64 << 53, text()).prop_map(|(record, number, time)| {
            Event::Launch(Box::new(Launch {
                version: VersionOne,
                boot_id: boot(),
                time,
                number,
                record,
            }))
        }),
        (0..100_u64, 0..1_u64 << 53, end()).prop_map(|(number, launch, end)| exit(
            launch,
            pod(number),
            end
        )),
    ]
}

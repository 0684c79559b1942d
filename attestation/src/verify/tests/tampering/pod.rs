//! The pod and what it is made of.

use super::*;

tampering! {
    never_launched {
        Host(|m| m.events[2] = launch(2, "33333333-2222-4333-8444-555555555555")),
        PodLaunch, "no launch of pod"
    }
    launched_twice {
        Host(|m| m.events.push(launch(5, POD))),
        PodLaunch, "2 launches"
    }
    ended {
        Host(|m| m.events.push(exit(POD, 2))),
        PodRunning, "record 5 says that the pod has ended"
    }
    ended_and_hidden {
        Host(|m| {
            m.events.push(exit(POD, 2));
            m.redacted.push(5)
        }),
        PodRunning, "record 5 says that the pod has ended"
    }
    crashed_and_hidden {
        Host(|m| {
            m.events.push(exit(POD, 2));
            m.events[5]["end"] = json!({"reason": "crash"});
            m.redacted.push(5)
        }),
        PodRunning, "record 5 says that the pod has ended"
    }
    ended_and_hidden_behind_a_bank_that_is_not_quoted {
        Host(|m| {
            m.banks = BTreeSet::from([Bank::Sha256, Bank::Sha384]);
            m.before = m.banks.iter().map(|bank| (*bank, vec![0; bank.size()])).collect();
            let zeros = |bank: Bank| "00".repeat(bank.size());
            m.events[0]["pcrBefore"] =
                json!({"sha256": zeros(Bank::Sha256), "sha384": zeros(Bank::Sha384)});
            m.events.push(exit(POD, 2));
            m.redacted.push(5);
            m.scrambled = Some((5, Bank::Sha384))
        }),
        PodRunning, "record 5 says that the pod has ended"
    }
    guests_key_exchanged_after_the_launch {
        Host(|m| {
            m.guest_key = Some(vec![0xe8; 32]);
            m.quoted_guest_key = Some(vec![0xe8; 32])
        }),
        GuestKey, "another one"
    }
    guests_key_left_out {
        Host(|m| {
            m.guest_key = None;
            m.quoted_guest_key = None
        }),
        GuestKey, "another one"
    }
    another_kernel {
        Host(|m| set(m, "/kernel/digest", json!(other_digest()))),
        Kernel, "does not name"
    }
    another_init {
        Host(|m| set(m, "/guestInit", json!(other_digest()))),
        GuestInit, "does not name"
    }
    another_monitor {
        Host(|m| set(m, "/monitor", json!(other_digest()))),
        Monitor, "does not name"
    }
    another_file_server {
        Host(|m| set(m, "/fileServer", json!(other_digest()))),
        FileServer, "does not name"
    }
    other_filters {
        Host(|m| set(m, "/seccomp", json!(other_digest()))),
        Filters, "does not name"
    }
    no_filters {
        Host(|m| set(m, "/seccomp", json!(null))),
        Filters, "names no system call filters"
    }
    another_supervisor {
        Host(|m| set(m, "/supervisor", json!(other_digest()))),
        Supervisor, "does not name"
    }
    another_command_line {
        Host(|m| set(m, "/commandLine", json!("quiet init=/bin/sh"))),
        CommandLine, "init=/bin/sh"
    }
    another_manifest {
        Host(|m| set(m, "/podManifest", json!(other_digest()))),
        PodManifest, "does not name"
    }
    another_policy {
        Host(|m| set(m, "/policyDigest", json!(other_digest()))),
        HostPolicy, "does not name"
    }
    no_label {
        Host(|m| set(m, "/label", json!(null))),
        Label, "no SELinux label"
    }
    another_image {
        Host(|m| set(m, "/apps/0/image/verityRoot", json!("ba".repeat(32)))),
        Images, "example.com/team/web"
    }
    image_by_another_name {
        Host(|m| {
            set(m, "/apps/0/image/identity", json!("example.com/teams/web"))
        }),
        Images, "example.com/teams/web"
    }
    one_image_more {
        Host(|m| {
            let mut other = app("side", "example.com/evil");
            other["image"]["verityRoot"] = json!("01".repeat(32));
            m.events[2]["record"]["apps"].as_array_mut().unwrap().push(other)
        }),
        Images, "app 'side'"
    }
    no_app {
        Host(|m| set(m, "/apps", json!(Vec::<u8>::new()))),
        Images, "no app"
    }
    content_not_verified {
        Both(|m, p| {
            set(m, "/apps/0/image/content", json!("unverified"));
            p.images = None
        }),
        Content, "the host can change"
    }
    volume_writable {
        Host(|m| set(m, "/volumes/0/readOnly", json!(false))),
        Volumes, "/srv/data, writable"
    }
    volume_of_another_directory {
        Host(|m| set(m, "/volumes/0/path", json!("/etc"))),
        Volumes, "/etc"
    }
    no_signature {
        Host(|m| set(m, "/apps/0/signature/keys", json!([]))),
        Signature, "without a signature"
    }
    signed_by_somebody_else {
        Host(|m| set(m, "/apps/0/signature/keys", json!(["d4"]))),
        Signature, "nobody whom the policy names"
    }
    evidence_is_old {
        Host(|m| m.time = "2025-12-31T23:50:00Z".to_owned()),
        EvidenceAge, "longer ago than 300"
    }
    evidence_is_from_the_future {
        Host(|m| m.time = "2026-01-01T01:00:00Z".to_owned()),
        EvidenceAge, "in the future"
    }
    evidence_without_a_time {
        Host(|m| m.time = "today".to_owned()),
        EvidenceAge, "not a time"
    }
    pod_is_old {
        Host(|m| m.events[2]["time"] = json!("2025-12-30T23:00:00Z")),
        PodAge, "longer ago than 86400"
    }
    firmwares_log_missing {
        Demand(|p| p.firmware_log = FirmwareLog::Required),
        FirmwareLog, "there is none"
    }
    firmwares_log_malformed {
        Host(|m| m.firmware_log = Some(vec![1, 2, 3])),
        FirmwareLog, "ends in the middle"
    }
}

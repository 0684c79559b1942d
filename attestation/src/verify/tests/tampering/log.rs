//! The log.

use super::*;

tampering! {
    record_removed {
        Host(|m| m.omitted = vec![1]),
        LogNumbers, "missing or were moved"
    }
    first_record_removed {
        Host(|m| m.omitted = vec![0]),
        LogNumbers, "record 0 has the number 1"
    }
    last_record_removed {
        Host(|m| m.omitted = vec![4]),
        LogReplay, "does not lead to"
    }
    log_removed {
        File(|e| e.log.records.clear()),
        LogNumbers, "the log is empty"
    }
    records_exchanged {
        File(|e| e.log.records.swap(1, 3)),
        LogNumbers, "missing or were moved"
    }
    records_exchanged_and_numbered_anew {
        File(|e| {
            e.log.records.swap(1, 3);
            (e.log.records[1].recnum, e.log.records[3].recnum) = (1, 3)
        }),
        LogReplay, "does not lead to"
    }
    record_doubled {
        File(|e| {
            let record = e.log.records[1].clone();
            e.log.records.insert(1, record)
        }),
        LogNumbers, "missing or were moved"
    }
    record_added {
        File(|e| {
            let mut record = e.log.records[4].clone();
            record.recnum = 5;
            e.log.records.push(record)
        }),
        LogReplay, "does not lead to"
    }
    record_of_another_register {
        File(|e| e.log.records[3].pcr = 14),
        LogNumbers, "of PCR 14"
    }
    log_of_another_register {
        File(|e| e.log.pcr = 14),
        LogNumbers, "the log is of PCR 14"
    }
    record_without_the_quoted_bank {
        File(|e| e.log.records[3].digests.retain(|digest| digest.hash_alg == Bank::Sha1)),
        LogNumbers, "no digest of sha256"
    }
    record_with_two_digests_of_a_bank {
        File(|e| {
            let digest = e.log.records[3].digests[1].clone();
            e.log.records[3].digests.push(digest)
        }),
        LogNumbers, "two digests of sha256"
    }
    digest_of_a_wrong_length {
        File(|e| {
            e.log.records[3].digests =
                vec![RecordDigest { hash_alg: Bank::Sha256, digest: vec![1; 20] }]
        }),
        LogNumbers, "wrong length"
    }
    digest_changed {
        File(|e| e.log.records[3].digests[1].digest[0] ^= 1),
        LogReplay, "does not lead to"
    }
    image_in_the_record_changed {
        File(|e| set_content(e, 2, &"ab".repeat(32), &"ba".repeat(32))),
        LogDigests, "record 2 has a content that its digest is not of"
    }
    time_in_the_record_changed {
        File(|e| set_content(e, 0, "12:00:00", "13:00:00")),
        LogDigests, "record 0"
    }
    pods_record_without_content {
        File(|e| e.log.records[2].content = None),
        LogDigests, "record 2 has no content"
    }
    pods_record_redacted {
        Host(|m| m.redacted.push(2)),
        PodLaunch, "no launch of pod"
    }
    redacted_record_with_a_content {
        File(|e| e.log.records[1].content = Some(RawValue::from_string("{}".to_owned()).unwrap())),
        LogDigests, "record 1 has a content"
    }
    record_of_an_unknown_type {
        File(|e| {
            let record = &mut e.log.records[1];
            record.content_type = "cel".to_owned()
        }),
        LogContents, "unknown type 'cel'"
    }
    somebody_extended_the_register_past_the_log {
        Host(|m| m.strays.push([7; 32])),
        LogReplay, "does not lead to"
    }
    others_extended_the_register_before_the_log {
        Host(|m| {
            for value in m.before.values_mut() {
                value.fill(9)
            }
            m.events[0]["pcrBefore"] = json!({"sha1": "09".repeat(20), "sha256": "09".repeat(32)})
        }),
        LogReplay, "in use before the log"
    }
    log_hides_what_its_register_held {
        Both(|m, p| {
            for value in m.before.values_mut() {
                value.fill(9)
            }
            p.pcrs.before_log.insert(Bank::Sha256, vec![PcrValue(vec![9; 32])]);
        }),
        LogBeginning, "held something else"
    }
    log_claims_that_its_register_held_something {
        Host(|m| {
            m.events[0]["pcrBefore"] = json!({"sha1": "00".repeat(20), "sha256": "01".repeat(32)})
        }),
        LogBeginning, "held something else"
    }
    log_without_a_beginning {
        Host(|m| {
            m.events[0] = launch(0, OTHER);
        }),
        LogBeginning, "does not say how it begins"
    }
    log_begins_twice {
        Host(|m| m.events.push(start())),
        LogBeginning, "record 5 begins a log"
    }
    log_begins_late {
        Host(|m| {
            m.events[0] = launch(0, OTHER);
            m.events[1] = start();
            m.redacted.retain(|at| *at != 1)
        }),
        LogBeginning, "record 1 begins a log"
    }
    record_calls_itself_another {
        Host(|m| m.events[2]["number"] = json!(3)),
        LogContents, "calls itself record 3"
    }
    policy_wants_every_record {
        Demand(|p| p.redacted_records = false),
        LogContents, "left out"
    }
    record_of_another_boot {
        Host(|m| m.events[2]["bootId"] = json!(OTHER)),
        Boot, "record 2 is of another boot"
    }
    tpm_reset_since {
        Host(|m| m.counts.reset_count += 1),
        Boot, "reset or resumed"
    }
    tpm_resumed_since {
        Host(|m| m.counts.restart_count += 1),
        Boot, "reset or resumed"
    }
    tpm_reset_less_often_than_at_the_enrolment {
        Host(|m| m.enrolled_counts = Some(Counts { reset_count: 13, restart_count: 0 })),
        EnrolmentCounts, "less often"
    }
    enrolled_before_this_boot {
        Demand(|p| p.enrolled_this_boot = true),
        EnrolmentCounts, "since it was enrolled"
    }
    enrolled_without_counters {
        Both(|m, p| {
            m.enrolled_counts = None;
            p.enrolled_this_boot = true
        }),
        EnrolmentCounts, "no counters"
    }
}

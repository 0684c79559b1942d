use super::{BANKS, after, entries, log, text};
use crate::{
    log::{Bank, Entry, Limits, LogError, Parsed, ReplayError, parse, redacted_for, replay},
    record::{End, RecordError, sample},
};
use proptest::prelude::*;

fn read(text: &[u8]) -> Result<Parsed, LogError> {
    parse(text, &Limits::default())
}

/// The log of one pod, with a part of it replaced.
fn tampered(from: &str, to: &str) -> Result<Parsed, LogError> {
    let whole = String::from_utf8(text(&log(1))).unwrap();
    assert!(whole.contains(from), "{from}");
    read(whole.replacen(from, to, 1).as_bytes())
}

/// The same, with the digests made anew, as who can write to the log can.
fn forged(event: crate::record::Event, at: usize) -> Result<Parsed, LogError> {
    let mut entries = log(1);
    entries[at] = Entry::new(entries[at].recnum, 15, event, BANKS).unwrap();
    read(&text(&entries))
}

#[test]
fn an_empty_log_has_no_entries() {
    assert_eq!(read(b"").unwrap(), Parsed { entries: Vec::new(), torn: None });
}

/// RFC 7464, §2.2, and CEL 1.0, "JSON encoding".
#[test]
fn the_form_of_a_record() {
    let entry = Entry {
        recnum: 7,
        pcr: 15,
        digests: [(Bank::Sha1, vec![1; 20]), (Bank::Sha256, vec![0xab; 32])].into(),
        content: None,
    };
    let expected = format!(
        "\x1e{{\"recnum\":7,\"pcr\":15,\"digests\":[\
         {{\"hashAlg\":\"sha1\",\"digest\":\"{}\"}},{{\"hashAlg\":\"sha256\",\"digest\":\"{}\"}}],\
         \"content_type\":\"sandbox-digest\"}}\n",
        "01".repeat(20),
        "ab".repeat(32)
    );
    assert_eq!(String::from_utf8(entry.to_json_seq().unwrap()).unwrap(), expected);
}

#[test]
fn other_tools_read_every_line_as_json() {
    for line in text(&log(2)).split_inclusive(|&byte| byte == b'\n') {
        let record: serde_json::Value = serde_json::from_slice(&line[1..]).unwrap();
        assert_eq!(record["content_type"], "sandbox");
        assert_eq!(record["digests"][1]["hashAlg"], "sha256");
    }
}

#[test]
fn changed_logs_are_refused() {
    use LogError::{Content, Malformed, Number, Register};
    let malformed = |result: Result<Parsed, LogError>| match result {
        Err(Malformed { recnum, .. }) => recnum,
        other => panic!("{other:?}"),
    };
    assert_eq!(tampered("\"cpus\":2", "\"cpus\":3"), Err(Content { recnum: 1, bank: Bank::Sha1 }));
    assert_eq!(tampered("\"recnum\":1", "\"recnum\":2"), Err(Number { recnum: 1, found: 2 }));
    assert_eq!(tampered("\"recnum\":1,\"pcr\":15", "\"recnum\":1,\"pcr\":14"), {
        Err(Register { recnum: 1 })
    });
    // All of these mean the same to a lenient reader.
    assert_eq!(malformed(tampered("\"recnum\":0", "\"recnum\":00")), 0);
    assert_eq!(malformed(tampered("\"pcr\":15", "\"pcr\": 15")), 0);
    assert_eq!(malformed(tampered("\x1e", "")), 0);
    assert_eq!(malformed(tampered("\x1e", "\x1e\x1e")), 0);
    assert_eq!(malformed(tampered("}\n", "}\n\n")), 1);
    assert_eq!(malformed(tampered("\"cpus\":2", "\"cpus\": 2")), 1);
    assert_eq!(malformed(tampered("\"cpus\":2", "\"cpus\":2,\"cpus\":2")), 1);
    assert_eq!(malformed(tampered("sha1", "sha3")), 0);
    assert_eq!(malformed(tampered("\"sandbox\"", "\"systemd\"")), 0);
}

#[test]
fn a_digest_that_was_changed_in_one_bank_is_found() {
    for bank in BANKS {
        let mut entries = log(1);
        entries[1].digests.get_mut(&bank).unwrap()[0] ^= 1;
        assert_eq!(read(&text(&entries)), Err(LogError::Content { recnum: 1, bank }));
    }
}

#[test]
fn entries_that_are_missing_doubled_or_moved_are_found() {
    let entries = log(2);
    let without = |at: usize| [&entries[..at], &entries[at + 1..]].concat();
    assert_eq!(read(&text(&without(1))), Err(LogError::Number { recnum: 1, found: 2 }));
    let doubled = [&entries[..2], &entries[1..]].concat();
    assert_eq!(read(&text(&doubled)), Err(LogError::Number { recnum: 2, found: 1 }));
    let mut moved = entries.clone();
    moved.swap(1, 3);
    assert_eq!(read(&text(&moved)), Err(LogError::Number { recnum: 1, found: 3 }));
}

#[test]
fn an_event_where_it_can_t_be_is_refused() {
    let order = |result: Result<Parsed, LogError>| match result {
        Err(LogError::Order { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    let pod = || sample::pod(0);
    let start = sample::start(sample::untouched(&BANKS));
    assert_eq!(order(forged(start, 1)), "a log begins only once");
    let other_number = sample::launch(2, pod());
    assert_eq!(order(forged(other_number, 1)), "it is a launch of another number");
    let before = "it ends a launch that is not before it";
    assert_eq!(order(forged(sample::exit(2, pod(), End::Status(0)), 2)), before);
    let mut other_boot = sample::exit(1, pod(), End::Status(0));
    if let crate::record::Event::Exit(exit) = &mut other_boot {
        exit.boot_id = sample::pod(0);
    }
    assert_eq!(order(forged(other_boot, 2)), "it is of another boot");
    let no_start = "a log begins with what the PCR held before it";
    assert_eq!(order(forged(sample::launch(0, pod()), 0)), no_start);
    let other_banks = sample::start(sample::untouched(&[Bank::Sha256]));
    let problem = "what the PCR held is of other banks than the log";
    assert_eq!(order(forged(other_banks, 0)), problem);
    let mut redacted = log(1);
    redacted[0].content = None;
    assert_eq!(order(read(&text(&redacted))), no_start);
}

#[test]
fn an_event_of_another_version_is_refused() {
    let whole = String::from_utf8(text(&log(1))).unwrap();
    let content = whole.lines().nth(2).unwrap().split_once("\"content\":").unwrap().1;
    let content = content.strip_suffix('}').unwrap().replace("\"version\":1", "\"version\":2");
    let mut entries = log(1);
    let digests = BANKS.map(|bank| (bank, bank.digest(content.as_bytes())));
    entries[2] = Entry { digests: digests.into(), content: None, ..entries[2].clone() };
    let line = String::from_utf8(entries[2].to_json_seq().unwrap()).unwrap();
    let line = line.replace("sandbox-digest\"", &format!("sandbox\",\"content\":{content}"));
    let text = [text(&entries[..2]), line.into_bytes()].concat();
    let problem = RecordError::Version("2".to_owned());
    assert_eq!(read(&text), Err(LogError::Event { recnum: 2, problem }));
}

#[test]
fn what_is_read_is_bounded() {
    let whole = text(&log(1));
    let limits = Limits { log: whole.len() as u64 - 1, ..Limits::default() };
    let found = whole.len() as u64;
    assert_eq!(parse(&whole, &limits), Err(LogError::Length { found, limit: found - 1 }));
    let limits = Limits { record: 1024, ..Limits::default() };
    assert_eq!(parse(&whole, &limits), Err(LogError::RecordLength { recnum: 1, limit: 1024 }));
    // Also what never ends.
    let endless = vec![b' '; 2000];
    assert_eq!(parse(&endless, &limits), Err(LogError::RecordLength { recnum: 0, limit: 1024 }));
}

#[test]
fn a_long_log_is_read() {
    let start = sample::start(sample::untouched(&[Bank::Sha256]));
    let mut log = entries([start], &[Bank::Sha256]);
    let digests = || [(Bank::Sha256, vec![7; 32])].into();
    log.extend((1..100_000).map(|recnum| Entry {
        recnum,
        pcr: 15,
        digests: digests(),
        content: None,
    }));
    let parsed = read(&text(&log)).unwrap();
    assert_eq!(parsed.entries, log);
    assert_eq!(parsed.torn, None);
}

#[test]
fn a_tenant_sees_its_own_in_full_and_the_same_digests() {
    let entries = log(3);
    let seen = redacted_for(&entries, |pod| *pod == sample::pod(1));
    let full: Vec<_> = seen.iter().filter(|it| it.content.is_some()).map(|it| it.recnum).collect();
    assert_eq!(full, [0, 3, 4]);
    let parsed = read(&text(&seen)).unwrap();
    assert_eq!(parsed.entries, seen);
    assert_eq!(after(&seen, seen.len()), after(&entries, entries.len()));
    let text = String::from_utf8(text(&seen)).unwrap();
    assert!(!text.contains(sample::pod(0).as_str()) && !text.contains(sample::pod(2).as_str()));
}

/// `printf '%064d%s' 0 "$digest" | xxd -r -p | sha256sum`, with 32 times ab as the digest.
#[test]
fn replaying_extends_as_a_tpm_does() {
    let digests = [(Bank::Sha256, vec![0xab; 32])].into();
    let entry = Entry { recnum: 0, pcr: 15, digests, content: None };
    let pcrs = replay(&sample::untouched(&[Bank::Sha256]), &[entry]).unwrap();
    let expected = "debb3e7acfff6dd18d501042273629f0b79cb206bb8c24f59f62ddb80849403b";
    assert_eq!(crate::record::to_hex(&pcrs[&Bank::Sha256]), expected);
}

#[test]
fn a_log_without_a_bank_can_t_be_replayed_in_it() {
    let start = sample::untouched(&[Bank::Sha256, Bank::Sha384]);
    let expected = ReplayError::NoDigest { recnum: 0, bank: Bank::Sha384 };
    assert_eq!(replay(&start, &log(1)), Err(expected));
    let start = [(Bank::Sha256, vec![0; 31])].into();
    let expected = ReplayError::Size { recnum: 0, bank: Bank::Sha256, found: 31 };
    assert_eq!(replay(&start, &log(1)), Err(expected));
}

proptest! {
    #[test]
    fn a_log_is_read_as_it_was_written(
        pods in prop::collection::vec((sample::records(), sample::end(), any::<bool>()), 0..4),
        banks in sample::banks(),
    ) {
        let mut events = vec![sample::start(sample::untouched(&banks))];
        for (number, (record, end, _)) in pods.iter().enumerate() {
            let number = 1 + 2 * number as u64;
            let mut launch = sample::launch(number, record.pod.clone());
            if let crate::record::Event::Launch(launch) = &mut launch {
                launch.record = record.clone();
            }
            events.extend([launch, sample::exit(number, record.pod.clone(), *end)]);
        }
        let mut log = entries(events, &banks);
        for (number, (_, _, redact)) in pods.iter().enumerate() {
            if *redact {
                log[1 + 2 * number] = log[1 + 2 * number].redacted();
            }
        }
        let parsed = read(&text(&log)).unwrap();
        prop_assert_eq!(parsed, Parsed { entries: log, torn: None });
    }

    /// There is one way to write a log: whatever is read without complaint would be written so.
    #[test]
    fn no_two_texts_are_the_same_log(at: prop::sample::Index, byte: u8) {
        let mut whole = text(&redacted_for(&log(2), |pod| *pod == sample::pod(1)));
        let at = at.index(whole.len());
        whole[at] = byte;
        if let Ok(Parsed { entries, torn }) = read(&whole) {
            let torn = torn.unwrap_or(whole.len());
            prop_assert_eq!(&text(&entries)[..], &whole[..torn]);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        let _ = read(&[text(&log(1)), bytes].concat());
    }
}

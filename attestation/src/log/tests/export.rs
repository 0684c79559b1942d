use super::{BANKS, entries, log};
use crate::{
    log::{
        Bank, Entry,
        export::{cel_tlv, tcg2},
        redacted_for,
    },
    record::{sample, to_hex},
};
use std::{io::Write as _, process::Command};

/// The fields of TLV: type and value.
fn fields(mut text: &[u8]) -> Vec<(u8, &[u8])> {
    let mut fields = Vec::new();
    while let Some((&[kind, a, b, c, d], rest)) = text.split_first_chunk() {
        let (value, rest) = rest.split_at(u32::from_be_bytes([a, b, c, d]) as usize);
        fields.push((kind, value));
        text = rest;
    }
    assert!(text.is_empty());
    fields
}

/// CEL 1.0, "TLV encoding": number, register, digests and content of each record, in this order.
#[test]
fn the_fields_of_cel_tlv() {
    let log = redacted_for(&log(2), |pod| *pod == sample::pod(0));
    let text = cel_tlv(&log).unwrap();
    let fields = fields(&text);
    assert_eq!(fields.len(), 4 * log.len());
    for (entry, record) in log.iter().zip(fields.chunks(4)) {
        assert_eq!(record[0], (0, &entry.recnum.to_be_bytes()[..]));
        assert_eq!(record[1], (1, &[15][..]));
        assert_eq!(record[2].0, 3);
        let digests = self::fields(record[2].1);
        assert_eq!(digests[0], (0x04, &entry.digests[&Bank::Sha1][..]));
        assert_eq!(digests[1], (0x0b, &entry.digests[&Bank::Sha256][..]));
        match &entry.content {
            Some(event) => assert_eq!(record[3], (0xb0, &event.to_canonical().unwrap()[..])),
            None => assert_eq!(record[3], (0xb1, &[][..])),
        }
    }
}

#[test]
fn the_bytes_of_a_record_in_cel_tlv() {
    let digests = [(Bank::Sha1, vec![0xab; 20])].into();
    let entry = Entry { recnum: 258, pcr: 14, digests, content: None };
    let expected = [
        "0000000008",
        "0000000000000102",
        "0100000001",
        "0e",
        "0300000019",
        "0400000014",
        &"ab".repeat(20),
        "b100000000",
    ];
    assert_eq!(to_hex(&cel_tlv(&[entry]).unwrap()), expected.concat());
}

/// TCG PC Client Platform Firmware Profile, `TCG_EfiSpecIDEvent` and `TCG_PCR_EVENT2`.
#[test]
fn the_bytes_of_a_crypto_agile_log() {
    let digests = [(Bank::Sha1, vec![0xab; 20])].into();
    let entry = Entry { recnum: 1, pcr: 14, digests, content: None };
    let expected = [
        // PCR 0, EV_NO_ACTION, no digest, 33 bytes.
        "00000000",
        "03000000",
        &"00".repeat(20),
        "21000000",
        // "Spec ID Event03", platform class, version 2.0, UINTN of 64 bits.
        "53706563204944204576656e74303300",
        "00000000",
        "00020002",
        // One algorithm, SHA-1 of 20 bytes; nothing of the vendor's.
        "01000000",
        "0400",
        "1400",
        "00",
        // PCR 14, EV_EVENT_TAG, one digest.
        "0e000000",
        "06000000",
        "01000000",
        "0400",
        &"ab".repeat(20),
        // Eight bytes: the tag of an entry without content, and no data.
        "08000000",
        "30584253",
        "00000000",
    ];
    assert_eq!(to_hex(&tcg2(&[entry]).unwrap()), expected.concat());
}

/// What tpm2-tools reads of a crypto-agile log; nothing where they are not.
fn by_tpm2_eventlog(log: &[u8]) -> Option<String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(log).unwrap();
    let output = match Command::new("tpm2_eventlog").arg(file.path()).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skip: tpm2_eventlog: {error}");
            return None;
        }
    };
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    Some(String::from_utf8(output.stdout).unwrap())
}

/// tpm2_eventlog(1): it parses the log and replays it.
#[test]
fn tpm2_eventlog_replays_a_crypto_agile_log_to_the_same_values() {
    for banks in [&BANKS[..], &[Bank::Sha256], &[Bank::Sha256, Bank::Sha384], &Bank::ALL] {
        let events = log(2).into_iter().map(|entry| entry.content.unwrap());
        let mut log = entries(events.skip(1), banks);
        let start = sample::start(sample::untouched(banks));
        log.insert(0, Entry::new(0, 15, start, banks.iter().copied()).unwrap());
        let log = redacted_for(&log, |pod| *pod == sample::pod(1));
        let Some(text) = by_tpm2_eventlog(&tcg2(&log).unwrap()) else { return };
        assert_eq!(text.matches("EventType: EV_EVENT_TAG").count(), log.len(), "{text}");
        assert!(text.contains("SpecID"), "{text}");
        let before = sample::untouched(banks);
        let (_, pcrs) = text.split_once("\npcrs:\n").unwrap();
        for (bank, value) in crate::log::replay(&before, &log).unwrap() {
            let (_, of_bank) = pcrs.split_once(&format!("  {bank}:\n")).unwrap();
            let line = of_bank.lines().next().unwrap();
            assert_eq!(line.trim(), format!("15 : 0x{}", to_hex(&value)), "{bank}: {text}");
        }
    }
}

//! What the guest reads of its host: control messages, and how answers about evidence begin.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_protocol::evidence::{Header, Kind, MAX_EVIDENCE, MAX_REASON};
use sandbox_protocol::{read_to_guest, write_to_guest};

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    while let Ok(Some(message)) = read_to_guest(&mut rest) {
        // What was read can be written, and is the same when it is read again.
        let mut written = Vec::new();
        write_to_guest(&mut written, &message).expect("a message that was read can be written");
        let again = read_to_guest(&mut written.as_slice()).expect("what was written can be read");
        assert_eq!(again, Some(message));
    }
    for bytes in input.windows(Header::LENGTH) {
        let bytes = bytes.try_into().expect("that many");
        if let Some(header) = Header::parse(bytes) {
            assert_eq!(header.to_bytes(), bytes);
            let most = match header.kind {
                Kind::Evidence => MAX_EVIDENCE,
                Kind::Busy => 0,
                Kind::Refused => MAX_REASON,
            };
            assert!(header.length <= most);
        }
    }
});

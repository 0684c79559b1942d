//! What a guest sends: control messages, and questions for evidence.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_protocol::{evidence, read_to_host, write_to_host};

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    while let Ok(Some(message)) = read_to_host(&mut rest) {
        // What was read can be written, and is the same when it is read again.
        let mut written = Vec::new();
        write_to_host(&mut written, &message).expect("a message that was read can be written");
        let again = read_to_host(&mut written.as_slice()).expect("what was written can be read");
        assert_eq!(again, Some(message));
    }
    let mut rest = input;
    while let Ok(nonce) = evidence::read_question(&mut rest) {
        assert!((1..=evidence::MAX_NONCE).contains(&nonce.len()));
    }
});

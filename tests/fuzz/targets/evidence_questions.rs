//! Questions for evidence that a guest asks its host.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_protocol::evidence::{MAX_NONCE, read_question, write_question};

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    while let Ok(nonce) = read_question(&mut rest) {
        assert!((1..=MAX_NONCE).contains(&nonce.len()));
        let mut written = Vec::new();
        write_question(&mut written, &nonce).expect("a nonce that was read can be sent");
        let start = input.len() - rest.len() - written.len();
        assert_eq!(&input[start..start + written.len()], written, "as it was on the wire");
    }
    let sent = write_question(&mut Vec::new(), input);
    assert_eq!(sent.is_ok(), (1..=MAX_NONCE).contains(&input.len()));
});

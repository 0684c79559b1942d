//! Sealed secrets as they reach a guest, by way of a host that may have changed them.
#![no_main]

use libfuzzer_sys::{arbitrary, fuzz_target};
use sandbox_protocol::secret::{MAX_NAME, OVERHEAD, PrivateKey, is_name, seal};
use std::sync::OnceLock;

const POD: &str = "01234567-89ab-cdef-0123-456789abcdef";

#[derive(Debug, arbitrary::Arbitrary)]
enum Input<'a> {
    /// Sealed by somebody else, or by nobody.
    Foreign {
        pod: &'a str,
        name: &'a str,
        sealed: &'a [u8],
    },
    /// Sealed for this guest, then changed there.
    Changed {
        at: u16,
        bits: u8,
    },
    /// Sealed for this guest, then cut or made longer.
    Length(u8),
    Name(&'a str),
    /// For another key.
    Key(&'a [u8]),
}

/// A key, and what was sealed for it once.
fn sealed() -> &'static (PrivateKey, Vec<u8>) {
    static SEALED: OnceLock<(PrivateKey, Vec<u8>)> = OnceLock::new();
    SEALED.get_or_init(|| {
        let key = PrivateKey::generate();
        let sealed = seal(&key.public(), POD, "db", b"correct horse").expect("it can be sealed");
        (key, sealed)
    })
}

fuzz_target!(|input: Input<'_>| {
    let (key, ours) = sealed();
    match input {
        Input::Foreign { pod, name, sealed } => {
            assert!(key.open(pod, name, sealed).is_err());
        }
        Input::Changed { at, bits } => {
            let mut sealed = ours.clone();
            let at = usize::from(at) % sealed.len();
            sealed[at] ^= bits;
            let opened = key.open(POD, "db", &sealed);
            // The top bit of an X25519 key is no part of it (RFC 7748 §5).
            assert!(bits == 0 || at == 31 && bits == 0x80 || opened.is_err());
            assert!(bits != 0 || opened.is_ok_and(|text| text.as_slice() == b"correct horse"));
        }
        Input::Length(length) => {
            let length = usize::from(length);
            let mut sealed = ours.clone();
            sealed.resize(length, 0);
            assert_eq!(key.open(POD, "db", &sealed).is_ok(), length == ours.len());
        }
        Input::Name(name) => {
            if is_name(name) {
                assert!(!name.is_empty() && name.len() <= MAX_NAME);
                let of_name =
                    |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
                assert!(name.bytes().all(of_name) && !name.starts_with('-'));
                assert!(name == "db" || key.open(POD, name, ours).is_err());
            } else {
                assert!(seal(&key.public(), POD, name, b"").is_err());
            }
        }
        Input::Key(bytes) => {
            if let Ok(sealed) = seal(bytes, POD, "db", b"x") {
                assert_eq!((bytes.len(), sealed.len()), (32, OVERHEAD + 1));
                assert!(bytes == key.public() || key.open(POD, "db", &sealed).is_err());
            }
            if let Ok(other) = PrivateKey::from_bytes(bytes) {
                assert_eq!(other.bytes(), bytes);
                assert!(other.open(POD, "db", ours).is_err());
            }
        }
    }
});

//! The command line of a virtio-fs worker.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_fs::worker::Options;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

fuzz_target!(|line: &[u8]| {
    let words: Vec<OsString> =
        line.split(|byte| *byte == b'\n').map(|word| OsStr::from_bytes(word).into()).collect();
    let Ok(options) = Options::parse(words) else { return };
    assert!(options.fd > 2 && !options.shares.is_empty());
    for (index, share) in options.shares.iter().enumerate() {
        // It becomes an entry of the root directory.
        let name = share.name();
        assert!((1..=255).contains(&name.len()) && !name.starts_with('.') && !name.contains('/'));
        assert!(share.path().is_absolute());
        assert!(!share.path().as_os_str().as_bytes().contains(&0));
        assert!(options.shares[..index].iter().all(|other| other.name() != name));
    }
});

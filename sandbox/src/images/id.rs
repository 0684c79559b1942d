//! Image IDs as rkt writes them.

use sandbox_image::Digest;

/// Digits of an ID that rkt keeps: half of a SHA-512.
const KEY_DIGITS: usize = 64;

/// An ID in full: `sha512-` or `sha256-` and 64 digits.
pub fn key(id: &Digest) -> String {
    short(id, KEY_DIGITS)
}

/// The beginning of an ID, with so many digits.
pub fn short(id: &Digest, digits: usize) -> String {
    let mut text = id.file_name();
    if let Some(dash) = text.find('-') {
        text.truncate(dash + 1 + digits);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox_image::Algorithm;

    /// rkt: `fetch` prints 32 digits, `image list` 12, and with `--full` both print 64.
    #[test]
    fn ids_are_as_long_as_rkts() {
        // FIPS 180-2, appendix C.1.
        let id = Digest::of(Algorithm::Sha512, b"abc");
        assert_eq!(
            key(&id),
            "sha512-ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        );
        assert_eq!(short(&id, 32), "sha512-ddaf35a193617abacc417349ae204131");
        let id = Digest::of(Algorithm::Sha256, b"abc");
        assert_eq!(
            key(&id),
            "sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(short(&id, 12), "sha256-ba7816bf8f01");
    }
}

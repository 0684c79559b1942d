use std::fmt;
use std::str::FromStr;

/// What `--insecure-options` switches off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InsecureOptions(u8);

const IMAGE: u8 = 1 << 0;
const TLS: u8 = 1 << 1;
const HTTP: u8 = 1 << 2;
const PUBKEY: u8 = 1 << 3;
const CAPABILITIES: u8 = 1 << 4;
const PATHS: u8 = 1 << 5;
const SECCOMP: u8 = 1 << 6;
const ALL_FETCH: u8 = IMAGE | TLS | HTTP | PUBKEY;
const ALL_RUN: u8 = CAPABILITIES | PATHS | SECCOMP;

/// The words of the list. "ondisk" has had no meaning since rkt 1.26 and is still accepted.
const WORDS: [(&str, u8); 12] = [
    ("none", 0),
    ("image", IMAGE),
    ("tls", TLS),
    ("ondisk", 0),
    ("http", HTTP),
    ("pubkey", PUBKEY),
    ("capabilities", CAPABILITIES),
    ("paths", PATHS),
    ("seccomp", SECCOMP),
    ("all-fetch", ALL_FETCH),
    ("all-run", ALL_RUN),
    ("all", ALL_FETCH | ALL_RUN),
];

impl InsecureOptions {
    /// Whether images are used that the policy refuses.
    pub fn skip_image_check(self) -> bool {
        self.0 & IMAGE != 0
    }

    /// Whether any certificate of a server is accepted.
    pub fn skip_tls_check(self) -> bool {
        self.0 & TLS != 0
    }

    /// Whether images may be fetched without TLS.
    pub fn allow_http(self) -> bool {
        self.0 & HTTP != 0
    }

    /// Whether keys may be fetched without TLS.
    pub fn allow_http_for_keys(self) -> bool {
        self.0 & PUBKEY != 0
    }
}

impl FromStr for InsecureOptions {
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        let mut options = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for given in list.split(',') {
            let word = given.trim().to_ascii_lowercase();
            let Some((word, bits)) = WORDS.into_iter().find(|(known, _)| *known == word) else {
                return Err(format!("unknown option {given:?}"));
            };
            if seen.contains(&word) {
                return Err(format!("duplicated option {given:?}"));
            }
            seen.push(word);
            options.0 |= bits;
        }
        Ok(options)
    }
}

impl fmt::Display for InsecureOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (word, bits) in WORDS.into_iter().filter(|(_, bits)| bits.count_ones() == 1) {
            if self.0 & bits != 0 {
                write!(out, "{separator}{word}")?;
                separator = ",";
            }
        }
        if separator.is_empty() { out.write_str("none") } else { Ok(()) }
    }
}

//! Where the canaries are.

use std::ffi::{CStr, CString};

/// The variable with `NAME=VALUE` pairs, separated by semicolons.
pub const VARIABLE: &str = "SANDBOX_HOSTILE_TARGETS";

/// The variable with a kernel module in hexadecimal.
pub const MODULE: &str = "SANDBOX_HOSTILE_MODULE";

/// What an attacker knows of the host, each by a short name. All of it is made before the first
/// attempt, which must not allocate.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    pairs: Vec<(CString, CString)>,
    /// A kernel module.
    module: Vec<u8>,
}

impl Targets {
    /// What the environment says, if it says anything.
    pub fn of_environment() -> Option<Self> {
        let mut targets = Self::parse(&std::env::var(VARIABLE).ok()?);
        let digits = std::env::var(MODULE).unwrap_or_default();
        targets.module = vec![0; digits.len() / 2];
        hexadecimal(digits.as_bytes(), &mut targets.module);
        Some(targets)
    }

    /// Reads the pairs. What isn't one is left out.
    pub fn parse(text: &str) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            Some((CString::new(name).ok()?, CString::new(value).ok()?))
        };
        Self { pairs: text.split(';').filter_map(pair).collect(), module: Vec::new() }
    }

    /// A path or another text; empty if it isn't known.
    pub fn text(&self, name: &str) -> &CStr {
        let found = self.pairs.iter().find(|(known, _)| known.to_bytes() == name.as_bytes());
        found.map_or(c"", |(_, value)| value)
    }

    /// The same as a string.
    pub fn str(&self, name: &str) -> &str {
        self.text(name).to_str().unwrap_or_default()
    }

    /// A number; -1 if it isn't known, which as a process or a descriptor is none.
    pub fn number(&self, name: &str) -> i64 {
        self.str(name).parse().unwrap_or(-1)
    }

    /// The number of a process. Without one there must be no attempt: 0 and -1 mean many.
    pub fn process(&self, name: &str) -> Result<i32, i32> {
        i32::try_from(self.number(name)).ok().filter(|pid| *pid > 1).ok_or(libc::ESRCH)
    }

    /// Bytes in hexadecimal, as many as there is room for; how many there were.
    pub fn bytes(&self, name: &str, into: &mut [u8]) -> usize {
        hexadecimal(self.text(name).to_bytes(), into)
    }

    /// A kernel module's bytes, and how many they are.
    pub fn blob(&self) -> (&[u8], usize) {
        (&self.module, self.module.len())
    }
}

fn hexadecimal(digits: &[u8], into: &mut [u8]) -> usize {
    let pairs = digits.chunks_exact(2).zip(into.iter_mut());
    let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
    pairs.map(|(pair, byte)| *byte = value(pair[0]) << 4 | value(pair[1])).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_found_and_what_is_not_is_nobody() {
        let targets = Targets::parse("secret=/a b;pid=12;bytes=00ff7");
        assert_eq!(targets.text("secret"), c"/a b");
        assert_eq!(targets.process("pid"), Ok(12));
        assert_eq!(targets.process("none"), Err(libc::ESRCH));
        assert_eq!(Targets::parse("pid=1").process("pid"), Err(libc::ESRCH));
        let mut bytes = [9; 4];
        assert_eq!(targets.bytes("bytes", &mut bytes), 2);
        assert_eq!(bytes, [0, 0xff, 9, 9]);
    }
}

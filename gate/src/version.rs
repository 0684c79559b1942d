//! The order of versions that `minimumVersion` compares by.
//!
//! It is that of Semantic Versioning 2.0, with as many numbers as there are: `[v]N[.N…]`, then
//! perhaps `-` and a pre-release, then perhaps `+` and a build, which does not count. Numbers are
//! compared as numbers, of any length; missing ones are 0. A version with a pre-release comes
//! before the same without, so `1.2.3-rc1` and `1.2.3-alpine` are both older than `1.2.3` (and not
//! older than `1.2.3-0`, which says that a suffix is fine). What is not of this form has no place
//! in the order and is never new enough.

use std::cmp::Ordering;

/// A version that can be compared.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    /// Decimal digits without leading zeros.
    numbers: Vec<String>,
    /// Empty if it is a release.
    pre: Vec<Identifier>,
}

/// Part of a pre-release: numbers come before words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    /// How many digits, and the digits: the longer number is the larger one.
    Number(usize, String),
    Word(String),
}

impl Version {
    /// The longest version in bytes.
    const MAX: usize = 256;

    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > Self::MAX {
            return None;
        }
        let (text, build) = text.split_once('+').map_or((text, None), |(a, b)| (a, Some(b)));
        let (release, pre) = text.split_once('-').map_or((text, None), |(a, b)| (a, Some(b)));
        if build.is_some_and(|build| !build.split('.').all(is_word)) {
            return None;
        }
        let release = release.strip_prefix('v').unwrap_or(release);
        let numbers = release.split('.').map(number).collect::<Option<Vec<_>>>()?;
        let pre = match pre {
            None => Vec::new(),
            Some(pre) => pre.split('.').map(identifier).collect::<Option<_>>()?,
        };
        Some(Self { numbers, pre })
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn number(text: &str) -> Option<String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.trim_start_matches('0').to_owned())
}

fn identifier(text: &str) -> Option<Identifier> {
    match number(text) {
        Some(digits) => Some(Identifier::Number(digits.len(), digits)),
        None => is_word(text).then(|| Identifier::Word(text.to_owned())),
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let count = self.numbers.len().max(other.numbers.len());
        let at = |version: &Self, place: usize| {
            let digits = version.numbers.get(place).map_or("", String::as_str).to_owned();
            (digits.len(), digits)
        };
        (0..count)
            .map(|place| at(self, place).cmp(&at(other, place)))
            .find(|order| order.is_ne())
            .unwrap_or_else(|| match (self.pre.is_empty(), other.pre.is_empty()) {
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                _ => self.pre.cmp(&other.pre),
            })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// semver.org, 11, and what is added here.
    #[test]
    fn versions_in_their_order() {
        let order = [
            "0",
            "0.9",
            "0.10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.0.1",
            "v1.2.3-0",
            "1.2.3-rc1",
            "1.2.3",
            "2.0.0",
            "24.04",
            "24.10",
            "2026-01-02",
            "2026-11-02",
            "20260101",
            "99999999999999999999999999",
        ];
        for (place, older) in order.iter().enumerate() {
            for newer in &order[place + 1..] {
                let [older, newer] = [older, newer].map(|text| Version::parse(text).unwrap());
                assert!(older < newer, "{older:?} {newer:?}");
            }
        }
        for (one, other) in [("1", "1.0.0"), ("v1.2", "1.2"), ("1.2+a", "1.2+b"), ("24.04", "24.4")]
        {
            assert_eq!(Version::parse(one), Version::parse(other), "{one} {other}");
        }
    }

    #[test]
    fn what_has_no_order_is_no_version() {
        let long = "1".repeat(257);
        for text in [
            "", "latest", "1.", ".1", "1..2", "1:2.3", "1.2~rc1", "1.2-", "1.2-a..b", "1 ", "-1",
            "1.x", "1+", "vv1", "V1", "1.2.3\n", "\u{661}", &long,
        ] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_one(texts in prop::array::uniform3("[0-2]{1,2}(\\.[0-2]{1,2}){0,2}(-[a0-1]{1,2}(\\.[a0-1])?)?")) {
            let [a, b, c] = texts.map(|text| Version::parse(&text).unwrap());
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = Version::parse(&text);
        }
    }
}

//! Values of a record that have one form of writing.

use sandbox_image::Text;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};
use std::{fmt, marker::PhantomData, str::FromStr};

/// A text is not the value that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {expected}")]
pub struct FormError {
    text: Text,
    expected: &'static str,
}

/// A UUID, in lower case and with hyphens, as the kernel writes its boot ID and sandbox the name of
/// a pod.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(String);

impl Uuid {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Uuid {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let fits = |(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        };
        if text.len() == 36 && text.bytes().enumerate().all(fits) {
            return Ok(Self(text.to_owned()));
        }
        Err(FormError { text: Text::new(text), expected: "a UUID in lower case" })
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Bytes that are written as lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> FromStr for Hex<N> {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let mut bytes = [0; N];
        match from_hex(text.as_bytes(), &mut bytes) {
            true => Ok(Self(bytes)),
            false => Err(FormError {
                text: Text::new(text),
                expected: "as many lower-case hexadecimal digits as are due",
            }),
        }
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&to_hex(&self.0))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads lower-case hexadecimal digits; whether there were exactly as many as fill `bytes`.
pub(crate) fn from_hex(digits: &[u8], bytes: &mut [u8]) -> bool {
    const fn value(digit: u8) -> u8 {
        match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => u8::MAX,
        }
    }
    if digits.len() != 2 * bytes.len() {
        return false;
    }
    for (pair, byte) in digits.chunks_exact(2).zip(bytes) {
        let (high, low) = (value(pair[0]), value(pair[1]));
        if high > 15 || low > 15 {
            return false;
        }
        *byte = high << 4 | low;
    }
    true
}

macro_rules! in_json_as_text {
    ($($type:ty $(, const $size:ident)?;)*) => {$(
        impl$(<const $size: usize>)? Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de$(, const $size: usize)?> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str(Reader(PhantomData))
            }
        }
    )*};
}

/// Reads a text without keeping it.
struct Reader<T>(PhantomData<T>);

impl<T: FromStr<Err = FormError>> Visitor<'_> for Reader<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

in_json_as_text! {
    Uuid;
    Hex<N>, const N;
}

/// A member that may be `null` and may not be missing.
pub(super) fn required<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

/// What PCRs hold, as hexadecimal digits of the length that each bank has.
pub(crate) mod pcrs {
    use super::{from_hex, to_hex};
    use crate::log::{Bank, Pcrs};
    use serde::{Deserializer, Serializer, de::Error as _, de::MapAccess, de::Visitor};
    use std::{borrow::Cow, fmt};

    pub(crate) fn serialize<S: Serializer>(pcrs: &Pcrs, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(pcrs.iter().map(|(bank, value)| (bank.name(), to_hex(value))))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Pcrs, D::Error> {
        from.deserialize_map(Reader)
    }

    struct Reader;

    impl<'de> Visitor<'de> for Reader {
        type Value = Pcrs;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("what a PCR holds in each bank")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Pcrs, A::Error> {
            let mut pcrs = Pcrs::new();
            while let Some((bank, digits)) = from.next_entry::<Bank, Cow<'de, str>>()? {
                let mut value = vec![0; bank.size()];
                if !from_hex(digits.as_bytes(), &mut value) {
                    return Err(A::Error::custom(format!("no value of a PCR in bank {bank}")));
                }
                if pcrs.insert(bank, value).is_some() {
                    return Err(A::Error::custom(format!("bank {bank} is there twice")));
                }
            }
            Ok(pcrs)
        }
    }
}

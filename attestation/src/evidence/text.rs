//! Bytes in JSON: hexadecimal digits where people compare them, base64 where nobody does. Of each
//! there is one way to write the same bytes, and only that is read.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
use std::borrow::Cow;

pub(crate) use crate::record::to_hex as hex;

/// The bytes of lower-case hexadecimal digits.
pub(crate) fn parse_hex(digits: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; digits.len() / 2];
    crate::record::from_hex(digits.as_bytes(), &mut bytes).then_some(bytes)
}

/// For a member that may be `null`, and has to be there.
pub(crate) fn required<'de, D: Deserializer<'de>, T: serde::Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    <Option<T>>::deserialize(from)
}

pub(crate) mod hex_bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = <Cow<'de, str>>::deserialize(from)?;
        parse_hex(&text).ok_or_else(|| D::Error::custom("not lower-case hexadecimal digits"))
    }
}

pub(crate) mod optional_hex {
    use super::*;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(crate) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        serde::Serialize::serialize(&bytes.as_deref().map(hex), to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        <Option<Cow<'de, str>>>::deserialize(from)?
            .map(|text| parse_hex(&text))
            .map(|bytes| bytes.ok_or_else(|| D::Error::custom("not lower-case hexadecimal digits")))
            .transpose()
    }
}

pub(crate) mod base64_bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = <Cow<'de, str>>::deserialize(from)?;
        STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

pub(crate) mod optional_base64 {
    use super::*;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(crate) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        serde::Serialize::serialize(&bytes.as_ref().map(|bytes| STANDARD.encode(bytes)), to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        <Option<Cow<'de, str>>>::deserialize(from)?
            .map(|text| STANDARD.decode(text.as_bytes()).map_err(D::Error::custom))
            .transpose()
    }
}

pub(crate) mod base64_list {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(list: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(|bytes| STANDARD.encode(bytes)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        <Vec<Cow<'de, str>>>::deserialize(from)?
            .iter()
            .map(|text| STANDARD.decode(text.as_bytes()).map_err(D::Error::custom))
            .collect()
    }
}

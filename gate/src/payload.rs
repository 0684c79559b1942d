//! What a simple signature says (containers-signature(5)), which cosign took over.
//!
//! Only to be parsed once the signature over it has been checked.

use crate::strict::{JsonError, Members, Value};
use sandbox_image::{Digest, Text};

/// Who makes a payload of which `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadKind {
    /// OpenPGP simple signing: `atomic container signature`.
    Atomic,
    /// Sigstore: `cosign container image signature`.
    Cosign,
}

impl PayloadKind {
    fn name(self) -> &'static str {
        match self {
            Self::Atomic => "atomic container signature",
            Self::Cosign => "cosign container image signature",
        }
    }
}

/// A signed statement: this digest has this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The manifest's digest.
    pub digest: Digest,
    /// The image's name, as the signer gives it.
    pub reference: String,
    /// When it was signed, in seconds since 1970, if it says so.
    pub timestamp: Option<i64>,
}

impl Payload {
    /// The most bytes that a payload may have.
    pub const MAX: usize = 64 * 1024;

    /// Parses a payload.
    ///
    /// # Errors
    /// If it is not of that kind, or has a member that is not known outside of `optional`: what a
    /// signer holds for critical must not be passed over.
    pub fn parse(payload: &[u8], kind: PayloadKind) -> Result<Self, JsonError> {
        let mut members = Members::of(Value::parse(payload, Self::MAX)?, "")?;
        let mut critical = members.object("critical")?;
        let found = critical.string("type")?;
        if found != kind.name() {
            let problem = format!("is '{}' and not '{}'", Text::new(found), kind.name());
            return Err(JsonError::at("critical.type", problem));
        }
        let mut image = critical.object("image")?;
        let digest = image.string("docker-manifest-digest")?;
        let digest = digest
            .parse()
            .map_err(|_| JsonError::at("critical.image.docker-manifest-digest", "is no digest"))?;
        image.finish()?;
        let mut identity = critical.object("identity")?;
        let reference = identity.string("docker-reference")?;
        identity.finish()?;
        critical.finish()?;
        let timestamp = match members.take("optional") {
            None | Some(Value::Null) => None,
            Some(value) => optional(Members::of(value, "optional")?)?,
        };
        members.finish()?;
        Ok(Self { digest, reference, timestamp })
    }
}

/// Two of the optional members are known; the others are for whoever put them there.
fn optional(mut members: Members) -> Result<Option<i64>, JsonError> {
    members.optional_string("creator")?;
    let path = members.path_of("timestamp");
    members.take("timestamp").map(|value| value.integer(&path)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(edit: impl Fn(String) -> String) -> Result<Payload, JsonError> {
        let digest = format!("sha256:{}", "a".repeat(64));
        let payload = format!(
            "{{\"critical\":{{\"identity\":{{\"docker-reference\":\"example.com/a:1\"}},\
             \"image\":{{\"docker-manifest-digest\":\"{digest}\"}},\
             \"type\":\"atomic container signature\"}},\
             \"optional\":{{\"creator\":\"x 1\",\"timestamp\":1500000000}}}}"
        );
        Payload::parse(edit(payload).as_bytes(), PayloadKind::Atomic)
    }

    #[test]
    fn a_payload_says_digest_name_and_time() {
        let payload = text(|payload| payload).unwrap();
        assert_eq!(payload.reference, "example.com/a:1");
        assert_eq!(payload.timestamp, Some(1_500_000_000));
        let without = |payload: String| {
            payload.replace(",\"optional\":{\"creator\":\"x 1\",\"timestamp\":1500000000}", "")
        };
        assert_eq!(text(without).unwrap().timestamp, None);
        let null = |payload: String| {
            payload.replace("{\"creator\":\"x 1\",\"timestamp\":1500000000}", "null")
        };
        assert_eq!(text(null).unwrap().timestamp, None);
    }

    #[test]
    fn what_is_not_known_or_is_there_twice_is_refused() {
        for (from, to) in [
            ("\"identity\":{", "\"more\":1,\"identity\":{"),
            ("\"identity\":{", "\"identity\":{\"more\":1,"),
            ("\"image\":{", "\"image\":{\"more\":1,"),
            ("\"optional\":", "\"more\":1,\"optional\":"),
            ("\"docker-reference\":", "\"docker-reference\":\"b\",\"docker-reference\":"),
            ("{\"critical\":", "{\"critical\":{},\"critical\":"),
            ("\"creator\":", "\"x\":{\"y\":1,\"y\":2},\"creator\":"),
            ("atomic container", "cosign container image"),
            ("sha256:", "sha257:"),
            ("1500000000", "1.5"),
            ("1500000000", "\"1500000000\""),
            ("\"x 1\"", "1"),
            ("{\"critical\":", "[{\"critical\":"),
        ] {
            let edited = text(|payload| {
                assert!(payload.contains(from), "{from}");
                payload.replacen(from, to, 1)
            });
            assert!(edited.is_err(), "{from} -> {to}");
        }
        assert!(text(|payload| payload + " {}").is_err());
    }

    proptest! {
        #[test]
        fn a_payload_with_a_byte_changed_never_gets_another_member(place in 0_usize..220, byte: u8) {
            let document = std::cell::RefCell::new(String::new());
            let original = text(|payload| {
                document.borrow_mut().clone_from(&payload);
                payload
            })
            .unwrap();
            let mut bytes = document.into_inner().into_bytes();
            let place = place % bytes.len();
            bytes[place] = byte;
            if let Ok(payload) = Payload::parse(&bytes, PayloadKind::Atomic) {
                // Only a value can have changed.
                prop_assert_eq!(payload.digest.algorithm(), original.digest.algorithm());
            }
        }
    }
}

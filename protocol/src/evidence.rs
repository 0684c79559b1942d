//! Asking the host for evidence about the pod.
//!
//! For each question guest-init dials [`EVIDENCE_PORT`](crate::EVIDENCE_PORT) anew. It sends the
//! nonce, in front of it its length in one byte; the host answers with a [`Header`] of
//! [`Header::LENGTH`] bytes and what that announces, and closes the connection. Evidence is large and
//! comes rarely: so it never holds up a control message.

use std::io::{self, ErrorKind, Read, Write};

/// Longest nonce, in bytes; no nonce is empty.
pub const MAX_NONCE: usize = 64;

/// Longest evidence, in bytes: what verifiers read at most, with room to spare for the firmware's
/// log and those of many launches.
pub const MAX_EVIDENCE: u32 = 16 << 20;

/// Longest reason for a refusal, in bytes.
pub const MAX_REASON: u32 = 1024;

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Evidence, as JSON.
    Evidence,
    /// Nothing: another question is being answered.
    Busy,
    /// Text that says why there is no evidence.
    Refused,
}

/// How the host's answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// How many bytes of it.
    pub length: u32,
}

impl Header {
    /// Bytes of a header: the kind, and the length in 32 bits, little-endian.
    pub const LENGTH: usize = 5;

    /// What is sent.
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let kind = match self.kind {
            Kind::Evidence => 0,
            Kind::Busy => 1,
            Kind::Refused => 2,
        };
        let [a, b, c, d] = self.length.to_le_bytes();
        [kind, a, b, c, d]
    }

    /// The header that these bytes are; `None` if they are none, or announce more than can follow.
    pub fn parse(bytes: [u8; Self::LENGTH]) -> Option<Self> {
        let [kind, length @ ..] = bytes;
        let (kind, most) = match kind {
            0 => (Kind::Evidence, MAX_EVIDENCE),
            1 => (Kind::Busy, 0),
            2 => (Kind::Refused, MAX_REASON),
            _ => return None,
        };
        let length = u32::from_le_bytes(length);
        (length <= most).then_some(Self { kind, length })
    }
}

/// Sends a question.
///
/// # Errors
/// The connection fails, or the nonce is none.
pub fn write_question(to: &mut impl Write, nonce: &[u8]) -> io::Result<()> {
    match u8::try_from(nonce.len()) {
        Ok(length @ 1..) if nonce.len() <= MAX_NONCE => to.write_all(&[&[length], nonce].concat()),
        _ => Err(ErrorKind::InvalidInput.into()),
    }
}

/// Receives a question: the nonce.
///
/// # Errors
/// The connection fails or ends, or the nonce is none.
pub fn read_question(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0];
    from.read_exact(&mut length)?;
    let length = usize::from(length[0]);
    if length == 0 || length > MAX_NONCE {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut nonce = vec![0; length];
    from.read_exact(&mut nonce)?;
    Ok(nonce)
}

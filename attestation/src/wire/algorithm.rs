use super::{Reader, WireError};
use crate::log::Bank;

/// `TPM_ALG_NULL` (Part 2, 6.3): where an algorithm is, none.
pub(crate) const ALG_NULL: u16 = 0x0010;
/// `TPM_ALG_RSA`.
pub(crate) const ALG_RSA: u16 = 0x0001;
/// `TPM_ALG_ECC`.
pub(crate) const ALG_ECC: u16 = 0x0023;
/// `TPM_ALG_AES`.
pub(crate) const ALG_AES: u16 = 0x0006;
/// `TPM_ALG_CFB`.
pub(crate) const ALG_CFB: u16 = 0x0043;
/// `TPM_ALG_RSASSA`: PKCS #1 1.5.
pub(crate) const ALG_RSASSA: u16 = 0x0014;
/// `TPM_ALG_ECDSA`.
pub(crate) const ALG_ECDSA: u16 = 0x0018;

/// The hash function that a field names.
pub(super) fn read_hash(from: &mut Reader<'_>, field: &str) -> Result<Bank, WireError> {
    let id = from.u16(field)?;
    Bank::from_algorithm(id)
        .ok_or_else(|| from.error(format!("{field} is {id:#06x}, no hash function known here")))
}

/// An elliptic curve (Part 2, 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
}

impl Curve {
    /// Its `TPM_ECC_CURVE`.
    pub fn id(self) -> u16 {
        match self {
            Self::P256 => 0x0003,
            Self::P384 => 0x0004,
        }
    }

    /// Bytes of a coordinate.
    pub fn length(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// AES in CFB mode, which a storage key protects its children with, and an EK its credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symmetric {
    /// With a key of 128 bits.
    Aes128,
    /// With a key of 256 bits.
    Aes256,
}

impl Symmetric {
    /// Bits of its key.
    pub fn bits(self) -> u16 {
        match self {
            Self::Aes128 => 128,
            Self::Aes256 => 256,
        }
    }

    /// `TPMT_SYM_DEF_OBJECT` (Part 2, 11.1.7).
    pub(super) fn read(from: &mut Reader<'_>) -> Result<Option<Self>, WireError> {
        match from.u16("symmetric")? {
            ALG_NULL => return Ok(None),
            ALG_AES => {}
            other => {
                return Err(from.error(format!("symmetric is {other:#06x}, neither AES nor none")));
            }
        }
        let bits = from.u16("symmetric.keyBits")?;
        let mode = from.u16("symmetric.mode")?;
        match (bits, mode) {
            (128, ALG_CFB) => Ok(Some(Self::Aes128)),
            (256, ALG_CFB) => Ok(Some(Self::Aes256)),
            _ => Err(from.error(format!("symmetric is AES-{bits} in mode {mode:#06x}, not CFB"))),
        }
    }
}

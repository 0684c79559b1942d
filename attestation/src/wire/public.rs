use super::algorithm::{ALG_ECC, ALG_ECDSA, ALG_NULL, ALG_RSA, ALG_RSASSA, read_hash};
use super::{Curve, Reader, Symmetric, WireError};
use crate::log::Bank;
use std::fmt;

/// The longest public area that is read: an RSA key of 4,096 bits with a policy has less.
const MAX_PUBLIC: usize = 1024;

/// `TPMA_OBJECT` (Part 2, 8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(pub u32);

impl Attributes {
    /// The key can't leave its TPM.
    pub const FIXED_TPM: u32 = 1 << 1;
    /// Nor its parent.
    pub const FIXED_PARENT: u32 = 1 << 4;
    /// The TPM made it, nobody brought it.
    pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    /// It signs only what the TPM itself made, or decrypts only what the TPM itself uses.
    pub const RESTRICTED: u32 = 1 << 16;
    /// It decrypts.
    pub const DECRYPT: u32 = 1 << 17;
    /// It signs.
    pub const SIGN: u32 = 1 << 18;

    /// Bits that the specification gives no meaning to.
    const RESERVED: u32 = 0xfff0_f009;

    /// Whether all of `bits` are set.
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }
}

/// How a key signs, if that is fixed in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningScheme {
    /// RSASSA, PKCS #1 1.5.
    RsaSsa(Bank),
    /// ECDSA.
    Ecdsa(Bank),
    /// Something else, by its `TPM_ALG_ID`.
    Other(u16),
}

/// The key in a public area.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    /// RSA.
    Rsa {
        /// Big-endian, as long as the key.
        modulus: Vec<u8>,
        /// 65537 where the structure says 0.
        exponent: u32,
    },
    /// A point on a curve; both coordinates as long as the curve's field.
    Ecc {
        /// The curve.
        curve: Curve,
        /// Padded on the left.
        x: Vec<u8>,
        /// Padded on the left.
        y: Vec<u8>,
    },
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { modulus, .. } => write!(out, "Rsa({} bits)", modulus.len() * 8),
            Self::Ecc { curve, .. } => write!(out, "Ecc({curve:?})"),
        }
    }
}

/// `TPMT_PUBLIC` (Part 2, 12.2.4) of an RSA or ECC key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    /// What names are made with.
    pub name_algorithm: Bank,
    /// What the key may do.
    pub attributes: Attributes,
    /// Digest of the policy that authorises its use; empty if there is none.
    pub policy: Vec<u8>,
    /// How it protects children; none for a signing key.
    pub symmetric: Option<Symmetric>,
    /// How it signs, if that is fixed.
    pub scheme: Option<SigningScheme>,
    /// The key.
    pub key: Key,
    bytes: Vec<u8>,
}

impl Public {
    /// Parses a `TPMT_PUBLIC`. A `TPM2B_PUBLIC` is one with two bytes of length before it, see
    /// [`Public::parse_sized`].
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut from = Reader::new("TPMT_PUBLIC", bytes);
        if bytes.len() > MAX_PUBLIC {
            return Err(from.error(format!("{} bytes, more than {MAX_PUBLIC}", bytes.len())));
        }
        let kind = from.u16("type")?;
        let name_algorithm = read_hash(&mut from, "nameAlg")?;
        let attributes = Attributes(from.u32("objectAttributes")?);
        if attributes.0 & Attributes::RESERVED != 0 {
            let problem = format!("objectAttributes {:#010x} has reserved bits", attributes.0);
            return Err(from.error(problem));
        }
        let policy = from.sized(64, "authPolicy")?.to_vec();
        if !policy.is_empty() && policy.len() != name_algorithm.size() {
            return Err(from.error("authPolicy is not as long as a digest of nameAlg"));
        }
        if !matches!(kind, ALG_RSA | ALG_ECC) {
            return Err(from.error(format!("type is {kind:#06x}, neither RSA nor ECC")));
        }
        let symmetric = Symmetric::read(&mut from)?;
        let scheme = read_scheme(&mut from)?;
        let key = if kind == ALG_RSA { read_rsa(&mut from)? } else { read_ecc(&mut from)? };
        from.finish()?;
        let bytes = bytes.to_vec();
        Ok(Self { name_algorithm, attributes, policy, symmetric, scheme, key, bytes })
    }

    /// Parses a `TPM2B_PUBLIC`.
    pub fn parse_sized(bytes: &[u8]) -> Result<Self, WireError> {
        let mut from = Reader::new("TPM2B_PUBLIC", bytes);
        let public = from.sized(MAX_PUBLIC, "publicArea")?;
        from.finish()?;
        Self::parse(public)
    }

    /// The structure as it was parsed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its name (Part 1, 16): what a credential or a certificate of the TPM is bound to.
    pub fn name(&self) -> Name {
        let mut name = self.name_algorithm.algorithm().to_be_bytes().to_vec();
        name.extend(self.name_algorithm.digest(&self.bytes));
        Name(name)
    }
}

/// `TPMT_RSA_SCHEME` or `TPMT_ECC_SCHEME` (Part 2, 11.2.4 and 11.2.5).
fn read_scheme(from: &mut Reader<'_>) -> Result<Option<SigningScheme>, WireError> {
    /// `TPM_ALG_RSAES`, the one scheme without a hash function.
    const ALG_RSAES: u16 = 0x0015;
    /// `TPM_ALG_ECDAA`, the one with a count after it.
    const ALG_ECDAA: u16 = 0x001a;
    /// RSAPSS, OAEP, ECDH, SM2, ECSCHNORR, ECMQV.
    const OTHERS: [u16; 6] = [0x0016, 0x0017, 0x0019, 0x001b, 0x001c, 0x001d];
    let scheme = from.u16("scheme")?;
    match scheme {
        ALG_NULL => Ok(None),
        ALG_RSASSA => read_hash(from, "scheme.hash").map(|hash| Some(SigningScheme::RsaSsa(hash))),
        ALG_ECDSA => read_hash(from, "scheme.hash").map(|hash| Some(SigningScheme::Ecdsa(hash))),
        ALG_RSAES => Ok(Some(SigningScheme::Other(scheme))),
        ALG_ECDAA => {
            read_hash(from, "scheme.hash")?;
            from.u16("scheme.count")?;
            Ok(Some(SigningScheme::Other(scheme)))
        }
        other if OTHERS.contains(&other) => {
            read_hash(from, "scheme.hash")?;
            Ok(Some(SigningScheme::Other(other)))
        }
        other => Err(from.error(format!("scheme is {other:#06x}, which is not known here"))),
    }
}

/// The rest of `TPMS_RSA_PARMS`, and the modulus.
fn read_rsa(from: &mut Reader<'_>) -> Result<Key, WireError> {
    let bits = from.u16("keyBits")?;
    if !matches!(bits, 1024 | 2048 | 3072 | 4096) {
        return Err(from.error(format!("keyBits is {bits}, not 1024, 2048, 3072 or 4096")));
    }
    let exponent = match from.u32("exponent")? {
        0 => 65_537,
        small if small < 65_537 || small % 2 == 0 => {
            return Err(from.error(format!("exponent is {small}, not odd or less than 65537")));
        }
        other => other,
    };
    let modulus = from.sized(512, "unique")?;
    if modulus.len() * 8 != usize::from(bits) || modulus.first().is_none_or(|byte| byte >> 7 == 0) {
        return Err(from.error(format!("unique is no modulus of {bits} bits")));
    }
    Ok(Key::Rsa { modulus: modulus.to_vec(), exponent })
}

/// The rest of `TPMS_ECC_PARMS`, and the point. Whether it is on its curve is checked by whoever
/// uses it.
fn read_ecc(from: &mut Reader<'_>) -> Result<Key, WireError> {
    let id = from.u16("curveID")?;
    let curve = [Curve::P256, Curve::P384]
        .into_iter()
        .find(|curve| curve.id() == id)
        .ok_or_else(|| from.error(format!("curveID is {id:#06x}, neither P-256 nor P-384")))?;
    if from.u16("kdf")? != ALG_NULL {
        read_hash(from, "kdf.hash")?;
    }
    let x = padded(from.sized(curve.length(), "unique.x")?, curve.length());
    let y = padded(from.sized(curve.length(), "unique.y")?, curve.length());
    Ok(Key::Ecc { curve, x, y })
}

/// A TPM may leave out zeros at the front of a number.
pub(super) fn padded(number: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length.saturating_sub(number.len())];
    bytes.extend_from_slice(number);
    bytes
}

/// The name of an object: its hash function and the digest of its public area.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// Takes a name as a TPM gives it, without a length before it.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut from = Reader::new("TPM2B_NAME", bytes);
        let algorithm = read_hash(&mut from, "nameAlg")?;
        from.take(algorithm.size(), "digest")?;
        from.finish()?;
        Ok(Self(bytes.to_vec()))
    }

    /// As a TPM gives it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

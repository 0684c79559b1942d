//! From an endorsement key's certificate to a maker whom the policy names (RFC 5280, 6; TCG EK
//! Credential Profile for TPM Family 2.0).
//!
//! Less is taken than X.509 allows: no SHA-1, no critical extension that isn't known here, no
//! certificate that is not valid at the moment. Revocation is not looked up, since a verifier need
//! not be online: a TPM that is not believed any more is taken out of the policy.

use crate::{
    evidence::MAX_CERTIFICATES,
    log::Bank,
    wire::{Curve, Key, Public},
};
use rsa::{
    BigUint, Pkcs1v15Sign, RsaPublicKey, pkcs1::DecodeRsaPublicKey as _,
    traits::PublicKeyParts as _,
};
use sandbox_image::Text;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_cert::{
    Certificate, Version,
    der::{Decode as _, DecodePem as _, Encode as _, asn1::ObjectIdentifier, oid::AssociatedOid},
    ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName},
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
};

/// PKCS #1.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// The same kind of key, in certificates of some older TPMs.
const RSAES_OAEP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.7");
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ECDSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
/// `certificatePolicies`, which say nothing that is checked here.
const CERTIFICATE_POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");
/// `tcg-kp-EKCertificate`.
const EK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");

/// A maker's certificate, believed because the policy names it.
#[derive(Clone, Debug)]
pub(crate) struct Root(Certificate);

/// Reads a root in PEM.
pub(crate) fn parse_root(pem: &str) -> Result<Root, String> {
    let root = Certificate::from_pem(pem.trim().as_bytes());
    let root = root.map_err(|error| format!("not a certificate in PEM: {error}"))?;
    check_authority(&root, 0)?;
    Ok(Root(root))
}

/// Checks that the first certificate is that of `endorsement`, and that it leads to a root.
pub(crate) fn check(
    endorsement: &Public,
    certificates: &[Vec<u8>],
    roots: &[Root],
    now: SystemTime,
) -> Result<(), String> {
    let parsed = certificates
        .iter()
        .map(|bytes| Certificate::from_der(bytes))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("a certificate is malformed: {error}"))?;
    let Some(leaf) = parsed.first() else {
        return Err("the TPM has no certificate for its endorsement key, and the policy names \
                    makers; pin the key's name instead if it is known otherwise"
            .to_owned());
    };
    check_leaf(leaf)?;
    let key = certified_key(&leaf.tbs_certificate.subject_public_key_info)?;
    if key != endorsement.key {
        return Err("the certificate is that of another endorsement key".to_owned());
    }
    let mut current = leaf;
    // Each step goes up by one, so that two certificates of each other come to an end.
    for depth in 0..=MAX_CERTIFICATES {
        check_validity(current, now)?;
        // Several may have the issuer's name; what is wrong with the first one is told.
        let mut wrong = None;
        let mut issued = |by: &Certificate| {
            by.tbs_certificate.subject == current.tbs_certificate.issuer
                && check_signature(current, by).map_err(|why| wrong.get_or_insert(why)).is_ok()
        };
        if let Some(Root(root)) = roots.iter().find(|Root(root)| issued(root)) {
            check_authority(root, depth)?;
            return check_validity(root, now);
        }
        let Some(issuer) = parsed[1..].iter().find(|issuer| issued(issuer)) else {
            let issuer = Text::new(current.tbs_certificate.issuer.to_string());
            return Err(wrong.unwrap_or_else(|| {
                format!(
                    "the endorsement key's certificate leads to '{issuer}', which is none of the \
                     {} makers that the policy names",
                    roots.len()
                )
            }));
        };
        check_authority(issuer, depth)?;
        current = issuer;
    }
    Err("the endorsement key's certificates lead in a circle".to_owned())
}

/// What holds for every certificate: X.509 version 3, nothing critical that isn't known here.
fn check_form(certificate: &Certificate) -> Result<(), String> {
    const KNOWN: [ObjectIdentifier; 5] = [
        BasicConstraints::OID,
        KeyUsage::OID,
        ExtendedKeyUsage::OID,
        SubjectAltName::OID,
        CERTIFICATE_POLICIES,
    ];
    let body = &certificate.tbs_certificate;
    if body.version != Version::V3 {
        return Err("a certificate is not of X.509 version 3".to_owned());
    }
    let extensions = body.extensions.as_deref().unwrap_or_default();
    for (place, extension) in extensions.iter().enumerate() {
        let id = extension.extn_id;
        if extension.critical && !KNOWN.contains(&id) {
            return Err(format!("a certificate has the critical extension {id}, not known here"));
        }
        if extensions[..place].iter().any(|other| other.extn_id == id) {
            return Err(format!("a certificate has the extension {id} twice"));
        }
    }
    Ok(())
}

/// An extension, if it is there.
fn extension<T>(certificate: &Certificate) -> Result<Option<T>, String>
where
    T: AssociatedOid + for<'a> x509_cert::der::Decode<'a>,
{
    let extensions = certificate.tbs_certificate.extensions.as_deref().unwrap_or_default();
    extensions
        .iter()
        .find(|extension| extension.extn_id == T::OID)
        .map(|extension| T::from_der(extension.extn_value.as_bytes()))
        .transpose()
        .map_err(|error| format!("an extension of a certificate is malformed: {error}"))
}

/// What an endorsement key's certificate has to be.
fn check_leaf(certificate: &Certificate) -> Result<(), String> {
    check_form(certificate)?;
    if extension::<BasicConstraints>(certificate)?.is_some_and(|constraints| constraints.ca) {
        return Err("the endorsement key's certificate is that of an authority".to_owned());
    }
    if extension::<ExtendedKeyUsage>(certificate)?
        .is_some_and(|usage| !usage.0.contains(&EK_CERTIFICATE))
    {
        return Err("the certificate is not for an endorsement key, by its key usage".to_owned());
    }
    let usage = extension::<KeyUsage>(certificate)?;
    if usage.is_some_and(|usage| !usage.key_encipherment() && !usage.key_agreement()) {
        return Err("the certificate's key is not for decrypting".to_owned());
    }
    Ok(())
}

/// What an issuer has to be, `below` authorities below it.
fn check_authority(certificate: &Certificate, below: usize) -> Result<(), String> {
    check_form(certificate)?;
    let subject = || Text::new(certificate.tbs_certificate.subject.to_string());
    let Some(constraints) = extension::<BasicConstraints>(certificate)?.filter(|it| it.ca) else {
        return Err(format!("'{}' is no authority, by its certificate", subject()));
    };
    if constraints.path_len_constraint.is_some_and(|most| usize::from(most) < below) {
        return Err(format!("'{}' may not have so many authorities below it", subject()));
    }
    if extension::<KeyUsage>(certificate)?.is_some_and(|usage| !usage.key_cert_sign()) {
        return Err(format!("'{}' may not sign certificates", subject()));
    }
    Ok(())
}

fn check_validity(certificate: &Certificate, now: SystemTime) -> Result<(), String> {
    let validity = &certificate.tbs_certificate.validity;
    let at = |time: Duration| UNIX_EPOCH.checked_add(time);
    let subject = || Text::new(certificate.tbs_certificate.subject.to_string());
    if at(validity.not_before.to_unix_duration()).is_none_or(|begin| now < begin) {
        return Err(format!("the certificate of '{}' is not valid yet", subject()));
    }
    if at(validity.not_after.to_unix_duration()).is_some_and(|end| now > end) {
        return Err(format!("the certificate of '{}' is not valid any more", subject()));
    }
    Ok(())
}

/// The key in a certificate.
fn certified_key(info: &SubjectPublicKeyInfoOwned) -> Result<Key, String> {
    let malformed = || "a certificate has a malformed key".to_owned();
    let bytes = info.subject_public_key.as_bytes().ok_or_else(malformed)?;
    match info.algorithm.oid {
        RSA_ENCRYPTION | RSAES_OAEP => {
            let key = RsaPublicKey::from_pkcs1_der(bytes).map_err(|_| malformed())?;
            if key.size() < 256 {
                return Err("a certificate has an RSA key of less than 2048 bits".to_owned());
            }
            let exponent = key.e().to_bytes_be();
            let exponent = exponent.iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
            let exponent = u32::try_from(exponent).map_err(|_| malformed())?;
            Ok(Key::Rsa { modulus: key.n().to_bytes_be(), exponent })
        }
        EC_PUBLIC_KEY => {
            let parameters = info.algorithm.parameters.as_ref().ok_or_else(malformed)?;
            let curve: ObjectIdentifier = parameters.decode_as().map_err(|_| malformed())?;
            let curve = match curve {
                P256 => Curve::P256,
                P384 => Curve::P384,
                other => return Err(format!("a certificate's key is on the curve {other}")),
            };
            match bytes.split_first() {
                Some((4, point)) if point.len() == 2 * curve.length() => {
                    let (x, y) = point.split_at(curve.length());
                    Ok(Key::Ecc { curve, x: x.to_vec(), y: y.to_vec() })
                }
                _ => Err(malformed()),
            }
        }
        other => Err(format!("a certificate's key is of the kind {other}, not known here")),
    }
}

/// Whether `by` has signed `certificate`.
fn check_signature(certificate: &Certificate, by: &Certificate) -> Result<(), String> {
    let body = &certificate.tbs_certificate;
    let algorithm: &AlgorithmIdentifierOwned = &certificate.signature_algorithm;
    if body.signature != *algorithm {
        return Err("a certificate names two algorithms for its signature".to_owned());
    }
    let bank = match algorithm.oid {
        RSA_SHA256 | ECDSA_SHA256 => Bank::Sha256,
        RSA_SHA384 | ECDSA_SHA384 => Bank::Sha384,
        RSA_SHA512 | ECDSA_SHA512 => Bank::Sha512,
        other => return Err(format!("a certificate is signed with {other}, not taken here")),
    };
    let rsa = matches!(algorithm.oid, RSA_SHA256 | RSA_SHA384 | RSA_SHA512);
    let bad = || "a certificate's signature is not its issuer's".to_owned();
    // What was parsed is what is verified: it is encoded again, and DER has one encoding.
    let digest = bank.digest(&body.to_der().map_err(|_| bad())?);
    let signature = certificate.signature.as_bytes().ok_or_else(bad)?;
    match certified_key(&by.tbs_certificate.subject_public_key_info)? {
        Key::Rsa { modulus, exponent } if rsa => {
            let scheme = match bank {
                Bank::Sha384 => Pkcs1v15Sign::new::<sha2::Sha384>(),
                Bank::Sha512 => Pkcs1v15Sign::new::<sha2::Sha512>(),
                Bank::Sha256 | Bank::Sha1 => Pkcs1v15Sign::new::<sha2::Sha256>(),
            };
            RsaPublicKey::new(BigUint::from_bytes_be(&modulus), BigUint::from(exponent))
                .and_then(|key| key.verify(scheme, &digest, signature))
                .map_err(|_| bad())
        }
        Key::Ecc { curve, x, y } if !rsa => {
            use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
            let point = [&[4][..], &x, &y].concat();
            match curve {
                Curve::P256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).and_then(|key| {
                    let signature = p256::ecdsa::Signature::from_der(signature)?;
                    key.verify_prehash(&digest, &signature)
                }),
                Curve::P384 => p384::ecdsa::VerifyingKey::from_sec1_bytes(&point).and_then(|key| {
                    let signature = p384::ecdsa::Signature::from_der(signature)?;
                    key.verify_prehash(&digest, &signature)
                }),
            }
            .map_err(|_| bad())
        }
        _ => Err(bad()),
    }
}

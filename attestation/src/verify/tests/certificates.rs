//! Certificates of a maker of TPMs that does not exist.

use p256::{
    ecdsa::{DerSignature, SigningKey, VerifyingKey},
    pkcs8::EncodePublicKey as _,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_cert::{
    Certificate,
    builder::{Builder as _, CertificateBuilder, Profile},
    der::{
        Decode as _, Encode as _, EncodePem as _,
        asn1::{ObjectIdentifier, OctetString},
        oid::AssociatedOid,
        pem::LineEnding,
    },
    ext::{
        AsExtension, Extension,
        pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages},
    },
    name::Name,
    serial_number::SerialNumber,
    spki::SubjectPublicKeyInfoOwned,
    time::{Time, Validity},
};

/// 2026-01-01.
pub(crate) const NOW: u64 = 1_767_225_600;

pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What a certificate says.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) issuer: &'static str,
    pub(crate) subject: &'static str,
    /// An authority, with so many others below it.
    pub(crate) authority: Option<Option<u8>>,
    pub(crate) usage: Option<KeyUsages>,
    pub(crate) purpose: Option<&'static str>,
    pub(crate) unknown: bool,
    pub(crate) begin: u64,
    pub(crate) end: u64,
}

const DAY: u64 = 86_400;

impl Spec {
    pub(crate) fn root() -> Self {
        Self {
            issuer: "CN=Root",
            subject: "CN=Root",
            authority: Some(None),
            usage: Some(KeyUsages::KeyCertSign),
            purpose: None,
            unknown: false,
            begin: NOW - 1000 * DAY,
            end: NOW + 1000 * DAY,
        }
    }

    pub(crate) fn middle() -> Self {
        Self { subject: "CN=Middle", authority: Some(Some(0)), ..Self::root() }
    }

    pub(crate) fn leaf() -> Self {
        Self {
            issuer: "CN=Middle",
            subject: "CN=TPM",
            authority: None,
            usage: Some(KeyUsages::KeyAgreement),
            purpose: Some("2.23.133.8.1"),
            ..Self::root()
        }
    }

    pub(crate) fn make(&self, key: &VerifyingKey, signer: &SigningKey) -> Certificate {
        let time = |seconds| Time::try_from(at(seconds)).unwrap();
        let name = |name: &str| name.parse::<Name>().unwrap();
        let info = key.to_public_key_der().unwrap();
        let mut builder = CertificateBuilder::new(
            Profile::Manual { issuer: Some(name(self.issuer)) },
            SerialNumber::from(7_u32),
            Validity { not_before: time(self.begin), not_after: time(self.end) },
            name(self.subject),
            SubjectPublicKeyInfoOwned::from_der(info.as_bytes()).unwrap(),
            signer,
        )
        .unwrap();
        if let Some(path_len_constraint) = self.authority {
            builder.add_extension(&BasicConstraints { ca: true, path_len_constraint }).unwrap();
        }
        if let Some(usage) = self.usage {
            builder.add_extension(&KeyUsage(usage.into())).unwrap();
        }
        if let Some(purpose) = self.purpose {
            let purpose = ObjectIdentifier::new_unwrap(purpose);
            builder.add_extension(&ExtendedKeyUsage(vec![purpose])).unwrap();
        }
        if self.unknown {
            builder.add_extension(&Unknown).unwrap();
        }
        builder.build::<DerSignature>().unwrap()
    }
}

/// A critical extension that nobody knows.
struct Unknown;

impl AssociatedOid for Unknown {
    const OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.3.4");
}

impl x509_cert::der::Encode for Unknown {
    fn encoded_len(&self) -> x509_cert::der::Result<x509_cert::der::Length> {
        OctetString::new([])?.encoded_len()
    }

    fn encode(&self, to: &mut impl x509_cert::der::Writer) -> x509_cert::der::Result<()> {
        OctetString::new([])?.encode(to)
    }
}

impl AsExtension for Unknown {
    fn critical(&self, _: &Name, _: &[Extension]) -> bool {
        true
    }
}

pub(crate) fn pem(certificate: &Certificate) -> String {
    certificate.to_pem(LineEnding::LF).unwrap()
}

pub(crate) fn der(certificate: &Certificate) -> Vec<u8> {
    certificate.to_der().unwrap()
}

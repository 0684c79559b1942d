//! Secrets whose key the TPM keeps.

use super::place::{Place, tcti};
use super::proxy::overhear;
use sandbox_attestation::{
    Bank,
    record::Uuid,
    sealed::SealedSecret,
    secret::PrivateKey,
    session::{FailureKind, Release, SessionError},
    settings::Settings,
};
use std::collections::{BTreeMap, BTreeSet};

const POD: &str = "6733c088-b287-4ac0-b6ed-6a8ea5b9ef4b";

type Registers = BTreeMap<Bank, BTreeSet<u32>>;

fn registers(registers: &[u32]) -> Registers {
    Registers::from([(Bank::Sha256, registers.iter().copied().collect())])
}

fn seal(place: &Place, registers: Registers) -> Result<SealedSecret, SessionError> {
    let sealed = SealedSecret::make::<Box<dyn std::error::Error>>(b"swordfish", None, |key| {
        Ok(place.attestor().seal(key.to_vec().into(), registers)?)
    });
    sealed.map_err(|error| *error.downcast::<SessionError>().unwrap())
}

fn open(place: &Place, sealed: &SealedSecret) -> Result<Vec<u8>, SessionError> {
    let guest = PrivateKey::generate();
    let released = place.attestor().release(Release {
        sealed: sealed.clone(),
        pod: POD.parse::<Uuid>().unwrap(),
        name: "db".into(),
        guest_key: guest.public().to_vec().into(),
    })?;
    Ok(guest.open(POD, "db", &released).unwrap().to_vec())
}

fn kind(result: Result<impl std::fmt::Debug, SessionError>) -> FailureKind {
    result.unwrap_err().kind().unwrap()
}

#[test]
fn what_was_sealed_opens_while_the_registers_are_the_same() {
    let Some(place) = Place::new() else { return };
    let sealed = seal(&place, registers(&[7, 16])).unwrap();
    assert_eq!(open(&place, &sealed).unwrap(), b"swordfish");
    // Launches change the log's register, and no other.
    place.launch(1).unwrap();
    assert_eq!(open(&place, &sealed).unwrap(), b"swordfish");
    place.tool("tpm2_pcrextend", &[&format!("16:sha256={}", "11".repeat(32))]);
    let refused = open(&place, &sealed).unwrap_err();
    assert_eq!(refused.kind(), Some(FailureKind::Denied));
    assert!(refused.to_string().contains("sha256:7,16"), "{refused}");
    place.tool("tpm2_pcrreset", &["16"]);
    assert_eq!(open(&place, &sealed).unwrap(), b"swordfish");
}

#[test]
fn it_opens_after_a_reset_and_not_after_the_tpm_was_cleared() {
    let Some(mut place) = Place::new() else { return };
    let sealed = seal(&place, registers(&[7])).unwrap();
    place.power_off();
    place.power_on();
    assert_eq!(open(&place, &sealed).unwrap(), b"swordfish");
    place.tool("tpm2_clear", &["-c", "p"]);
    assert_eq!(kind(open(&place, &sealed)), FailureKind::Key);
    let other = Place::new().unwrap();
    assert_eq!(kind(open(&other, &sealed)), FailureKind::Key);
}

#[test]
fn a_changed_blob_or_another_selection_opens_nothing() {
    let Some(place) = Place::new() else { return };
    let sealed = seal(&place, registers(&[7, 8])).unwrap();
    for at in [0, 20, 60] {
        let mut private = sealed.clone();
        private.key.private.0[at] ^= 1;
        assert_eq!(kind(open(&place, &private)), FailureKind::Key, "{at}");
    }
    let mut public = sealed.clone();
    *public.key.public.0.last_mut().unwrap() ^= 1;
    assert_eq!(kind(open(&place, &public)), FailureKind::Key);
    let mut fewer = sealed.clone();
    fewer.key.selection = registers(&[7]);
    assert_eq!(kind(open(&place, &fewer)), FailureKind::Denied);
}

#[test]
fn what_never_opens_again_is_not_sealed() {
    let Some(place) = Place::new() else { return };
    let log = u32::from(place.settings.pcr);
    for (what, registers) in [
        ("the log's", registers(&[7, log])),
        ("none", registers(&[])),
        ("no such", registers(&[24])),
        ("no bank", Registers::new()),
    ] {
        assert_eq!(kind(seal(&place, registers)), FailureKind::Request, "{what}");
    }
}

/// Somebody who listens between processor and chip, as tpm2-abrmd or a probe does: neither what is
/// sealed nor what is opened is there in the clear.
#[test]
fn the_key_is_not_on_the_wire() {
    let Some(place) = Place::new() else { return };
    let mut key = Vec::new();
    let (port, wire) = overhear(place.port);
    let settings = Settings { tcti: tcti(port), ..place.settings.clone() };
    let sealed = SealedSecret::make::<Box<dyn std::error::Error>>(b"swordfish", None, |kept| {
        key = kept.to_vec();
        let attestor = place.attestor_at(&settings);
        Ok(attestor.seal(kept.to_vec().into(), registers(&[7]))?)
    });
    let guest = PrivateKey::generate();
    let released = place.attestor_at(&settings).release(Release {
        sealed: sealed.unwrap(),
        pod: POD.parse::<Uuid>().unwrap(),
        name: "db".into(),
        guest_key: guest.public().to_vec().into(),
    });
    assert_eq!(*guest.open(POD, "db", &released.unwrap()).unwrap(), b"swordfish");
    let wire = wire.lock().unwrap();
    // TPM_CC_Create and TPM_CC_Unseal went by, and not what they carried.
    let has = |bytes: &[u8]| wire.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(&[0, 0, 1, 0x53]) && has(&[0, 0, 1, 0x5e]));
    assert!(!has(&key));
}

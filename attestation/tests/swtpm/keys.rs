//! The keys: made by templates, bound to this TPM.

use super::place::{Place, record};
use sandbox_attestation::{
    credential::Credential,
    session::{Algorithm, Ask, Endorsement, FailureKind, Identity, InitOptions, SessionError},
    wire::{Name, Public},
};
use std::collections::BTreeMap;

const ALL: [(Algorithm, Endorsement); 4] = [
    (Algorithm::EcdsaP256, Endorsement::EccP256),
    (Algorithm::EcdsaP256, Endorsement::Rsa2048),
    (Algorithm::Rsassa2048, Endorsement::EccP256),
    (Algorithm::Rsassa2048, Endorsement::Rsa2048),
];

fn options(algorithm: Algorithm, endorsement: Endorsement) -> InitOptions {
    InitOptions { algorithm, endorsement: Some(endorsement), replace: true }
}

fn ask() -> Ask {
    Ask { pod: None, qualifying_data: vec![5; 32].into(), selection: BTreeMap::new() }
}

/// A credential, as tpm2_makecredential(1) makes it without a TPM.
fn credential(place: &Place, identity: &Identity, secret: &[u8]) -> Credential {
    let public = &identity.ek_public.0;
    let size = u16::try_from(public.len()).unwrap().to_be_bytes();
    std::fs::write(place.path("ek.pub"), [&size, public.as_slice()].concat()).unwrap();
    std::fs::write(place.path("secret"), secret).unwrap();
    let name: String = identity.ak_name.0.iter().map(|byte| format!("{byte:02x}")).collect();
    place.tool(
        "tpm2_makecredential",
        &["-u", "ek.pub", "-s", "secret", "-n", &name, "-o", "credential"],
    );
    // The tool's magic number and version, then TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.
    Credential::parse(&std::fs::read(place.path("credential")).unwrap()[8..]).unwrap()
}

#[test]
fn every_combination_can_quote_and_open_a_credential() {
    let Some(place) = Place::new() else { return };
    for (algorithm, endorsement) in ALL {
        let what = format!("{algorithm:?} under {endorsement:?}");
        let identity = place.attestor().init(options(algorithm, endorsement)).unwrap();
        assert_eq!((identity.algorithm, identity.endorsement), (algorithm, endorsement));
        let quoted = place.attestor().quote(ask()).unwrap();
        assert_eq!(quoted.identity, identity, "{what}");
        let secret = b"only this TPM can know it".to_vec();
        let credential = credential(&place, &identity, &secret);
        assert_eq!(place.attestor().activate(credential.clone()).unwrap(), secret, "{what}");

        // The same, made by ourselves.
        let public = Public::parse(&identity.ek_public.0).unwrap();
        let name = Name::parse(&identity.ak_name.0).unwrap();
        let ours = Credential::make(&mut rand::thread_rng(), &public, &name, &[3; 32]).unwrap();
        assert_eq!(place.attestor().activate(ours).unwrap(), [3; 32], "{what}");

        let mut other = credential.clone();
        other.id_object[9] ^= 1;
        let error = place.attestor().activate(other).unwrap_err();
        assert_eq!(error.kind(), Some(FailureKind::Key), "{what}: {error}");
    }
}

#[test]
fn a_credential_for_another_key_is_not_opened() {
    let Some(place) = Place::new() else { return };
    let (algorithm, endorsement) = ALL[0];
    let old = place.attestor().init(options(algorithm, endorsement)).unwrap();
    let for_old = credential(&place, &old, b"secret");
    let new = place.attestor().init(options(algorithm, endorsement)).unwrap();
    assert_eq!(old.ek_public, new.ek_public, "the same template makes the same key");
    assert_ne!(old.ak_name, new.ak_name);
    let error = place.attestor().activate(for_old).unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Key), "{error}");
}

#[test]
fn a_key_is_not_replaced_unasked() {
    let Some(place) = Place::new() else { return };
    let identity = place.attestor().init(InitOptions::default()).unwrap();
    let error = place.attestor().init(InitOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::KeyExists), "{error}");
    assert_eq!(place.attestor().status().unwrap().identity.unwrap(), identity);

    // An enrolment is of the key that it names.
    let enrolment = place.settings.directory.join("enrolment.json");
    std::fs::write(&enrolment, "{}").unwrap();
    assert!(place.attestor().init(InitOptions::default()).is_err() && enrolment.exists());
    place.attestor().init(InitOptions { replace: true, ..InitOptions::default() }).unwrap();
    assert!(!enrolment.exists());
}

#[test]
fn the_endorsement_key_is_the_one_of_the_profile() {
    let Some(place) = Place::new() else { return };
    for (endorsement, name) in [(Endorsement::Rsa2048, "rsa"), (Endorsement::EccP256, "ecc")] {
        let options = options(Algorithm::EcdsaP256, endorsement);
        let identity = place.attestor().init(options).unwrap();
        place.tool("tpm2_createek", &["-c", "ek.ctx", "-G", name, "-u", "theirs.pub"]);
        let theirs = std::fs::read(place.path("theirs.pub")).unwrap();
        assert_eq!(identity.ek_public.0, theirs[2..], "{name}");
    }
}

#[test]
fn the_attestation_key_is_restricted_and_stays_in_this_tpm() {
    let Some(place) = Place::new() else { return };
    let identity = place.attestor().init(InitOptions::default()).unwrap();
    let public = &identity.ak_public.0;
    let size = u16::try_from(public.len()).unwrap().to_be_bytes();
    std::fs::write(place.path("ak.pub"), [&size, public.as_slice()].concat()).unwrap();
    let shown = place.tool("tpm2_print", &["-t", "TPM2B_PUBLIC", "ak.pub"]);
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign";
    assert!(shown.contains(&format!("value: {attributes}\n")), "{shown}");
}

#[test]
fn a_certificate_in_the_tpm_decides_and_is_kept() {
    let Some(place) = Place::new() else { return };
    // DER of so many bytes, and what a TPM fills its memory up with.
    let certificate = [&[0x30, 0x82, 0x02, 0x00][..], &[7; 512]].concat();
    std::fs::write(place.path("der"), [&certificate[..], &[0xff; 300]].concat()).unwrap();
    place.tool(
        "tpm2_nvdefine",
        &[
            "0x01c00002",
            "-C",
            "p",
            "-s",
            "816",
            "-a",
            "ppwrite|ppread|ownerread|authread|no_da|platformcreate",
        ],
    );
    place.tool("tpm2_nvwrite", &["0x01c00002", "-C", "p", "-i", "der"]);
    let identity = place.attestor().init(InitOptions::default()).unwrap();
    assert_eq!(identity.endorsement, Endorsement::Rsa2048);
    assert_eq!(identity.ek_certificate.unwrap().0, certificate);
}

#[test]
fn keys_of_another_tpm_are_refused() {
    let (Some(place), Some(other)) = (Place::new(), Place::new()) else { return };
    place.attestor().init(InitOptions::default()).unwrap();
    std::fs::create_dir_all(&other.settings.directory).unwrap();
    std::fs::set_permissions(
        &other.settings.directory,
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    let copy = |name| {
        std::fs::copy(place.settings.directory.join(name), other.settings.directory.join(name))
    };
    copy("ak.json").unwrap();
    place.attestor().status().unwrap();
    copy("ak.context").unwrap();
    let error = other.attestor().launch(record(1), Some(ask())).unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Key), "{error}");
    assert!(error.to_string().contains("of another TPM"), "{error}");
    assert!(other.register(15).values().flatten().all(|&byte| byte == 0));
}

#[test]
fn keys_outlive_a_reset_of_the_tpm() {
    let Some(mut place) = Place::new() else { return };
    let identity = place.attestor().init(InitOptions::default()).unwrap();
    let first = place.attestor().status().unwrap().clock.unwrap();
    assert!(place.settings.directory.join("ak.context").exists());
    place.power_off();
    place.power_on();
    assert_eq!(place.attestor().quote(ask()).unwrap().identity, identity);
    let second = place.attestor().status().unwrap().clock.unwrap();
    assert_eq!(second.reset_count, first.reset_count + 1);
}

#[test]
fn a_damaged_key_is_an_error_that_says_so() {
    let Some(place) = Place::new() else { return };
    place.attestor().init(InitOptions::default()).unwrap();
    let path = place.settings.directory.join("ak.json");
    let good = std::fs::read_to_string(&path).unwrap();
    for (bad, kind) in [
        (good.replace("\"version\":1", "\"version\":2"), FailureKind::Key),
        ("{".into(), FailureKind::Storage),
        (good.replacen("\"private\":\"A", "\"private\":\"B", 1), FailureKind::Key),
    ] {
        assert_ne!(bad, good);
        std::fs::write(&path, bad).unwrap();
        let error = place.attestor().quote(ask()).unwrap_err();
        assert_eq!(error.kind(), Some(kind), "{error}");
    }
}

#[test]
fn nothing_stays_in_the_tpm() {
    let Some(place) = Place::new() else { return };
    for (algorithm, endorsement) in ALL {
        place.attestor().init(options(algorithm, endorsement)).unwrap();
        place.attestor().quote(ask()).unwrap();
    }
    for kind in [
        "handles-transient",
        "handles-persistent",
        "handles-loaded-session",
        "handles-saved-session",
        "handles-nv-index",
    ] {
        assert_eq!(place.tool("tpm2_getcap", &[kind]), "", "{kind}");
    }
}

#[test]
fn what_killed_processes_left_in_a_tpm_without_a_manager_is_removed() {
    let Some(place) = Place::new() else { return };
    for _ in 0..3 {
        place.tool("tpm2_createprimary", &["-C", "o", "-G", "ecc"]);
    }
    assert_eq!(place.tool("tpm2_getcap", &["handles-transient"]).lines().count(), 3);
    place.attestor().init(InitOptions::default()).unwrap();
}

#[test]
fn a_password_of_the_endorsement_hierarchy_is_named() {
    let Some(place) = Place::new() else { return };
    place.tool("tpm2_changeauth", &["-c", "e", "secret"]);
    let error = place.attestor().init(InitOptions::default()).unwrap_err();
    let SessionError::Failed(failure) = error else { panic!("{error}") };
    assert_eq!(failure.kind, FailureKind::Denied, "{failure}");
    assert!(failure.message.contains("a password is set"), "{failure}");
}

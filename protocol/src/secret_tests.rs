use super::*;
use proptest::prelude::*;

const POD: &str = "6733c088-b287-4ac0-b6ed-6a8ea5b9ef4b";
const OTHER: &str = "6733c088-b287-4ac0-b6ed-6a8ea5b9ef4c";

fn pair() -> (PrivateKey, [u8; KEY]) {
    let private = PrivateKey::generate();
    let public = private.public();
    (private, public)
}

/// RFC 9180, appendix A.2.1 (X25519, HKDF-SHA256, ChaCha20-Poly1305), sequence number 0. Its `info`
/// and associated data are not of our form, so it goes to the library by itself.
#[test]
fn the_suite_is_the_one_of_rfc_9180_appendix_a_2_1() {
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    };
    let private = hex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
    let encapsulated = hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
    let info = hex("4f6465206f6e2061204772656369616e2055726e");
    let ciphertext = hex(
        "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
    );
    let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&private).unwrap();
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&encapsulated).unwrap();
    let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &private,
        &encapsulated,
        &info,
        &ciphertext,
        b"Count-0",
    )
    .unwrap();
    assert_eq!(opened, b"Beauty is truth, truth beauty");
}

#[test]
fn a_sealed_secret_is_for_one_key_one_pod_and_one_name() {
    let (private, public) = pair();
    let sealed = seal(&public, POD, "db", b"swordfish").unwrap();
    assert_eq!(sealed.len(), 9 + OVERHEAD);
    assert_eq!(*private.open(POD, "db", &sealed).unwrap(), b"swordfish");
    assert_eq!(private.open(OTHER, "db", &sealed), Err(SecretError::NotOurs));
    assert_eq!(private.open(POD, "dc", &sealed), Err(SecretError::NotOurs));
    assert_eq!(pair().0.open(POD, "db", &sealed), Err(SecretError::NotOurs));
}

#[test]
fn the_same_secret_is_never_sealed_the_same_way() {
    let (_, public) = pair();
    let [one, other] = [(); 2].map(|()| seal(&public, POD, "db", b"swordfish").unwrap());
    assert_ne!(one, other);
}

#[test]
fn what_is_no_key_pod_name_or_secret_is_refused() {
    let (private, public) = pair();
    for key in [&[][..], &[1; 31], &[1; 33], &[0; 32]] {
        assert_eq!(seal(key, POD, "db", b"x"), Err(SecretError::Key), "{key:?}");
    }
    for pod in ["", "6733c088", &format!("{POD}x"), &POD.replace('-', "/")] {
        assert_eq!(seal(&public, pod, "db", b"x"), Err(SecretError::Pod), "{pod}");
    }
    for name in ["", "-", "a-", "-a", "a/b", "..", "A", "a b", "a\0", &"a".repeat(65)] {
        assert_eq!(seal(&public, POD, name, b"x"), Err(SecretError::Name), "{name}");
    }
    assert_eq!(seal(&public, POD, "db", &vec![0; MAX + 1]), Err(SecretError::TooLong));
    let longest = seal(&public, POD, &"a".repeat(64), &vec![0; MAX]).unwrap();
    assert_eq!(private.open(POD, &"a".repeat(64), &longest).unwrap().len(), MAX);
    let longer = [longest, vec![0]].concat();
    assert_eq!(private.open(POD, &"a".repeat(64), &longer), Err(SecretError::TooLong));
}

#[test]
fn a_key_that_was_kept_is_the_same_one() {
    let (private, public) = pair();
    let again = PrivateKey::from_bytes(private.bytes()).unwrap();
    assert_eq!(again.public(), public);
    let sealed = seal_for(&public, b"elsewhere", b"swordfish").unwrap();
    assert_eq!(*again.open_for(b"elsewhere", &sealed).unwrap(), b"swordfish");
    assert_eq!(again.open_for(b"", &sealed), Err(SecretError::NotOurs));
    assert_eq!(PrivateKey::from_bytes(&[1; 31]).unwrap_err(), SecretError::Key);
}

#[test]
fn the_private_half_is_not_shown() {
    let (private, _) = pair();
    let shown = format!("{private:?}");
    assert!(!shown.contains(&format!("{:?}", private.private.as_slice())), "{shown}");
}

proptest! {
    // Curves are slow without optimisation.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_was_sealed_is_opened(secret in proptest::collection::vec(any::<u8>(), 0..300), name in "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?") {
        let (private, public) = pair();
        let sealed = seal(&public, POD, &name, &secret).unwrap();
        prop_assert_eq!(&*private.open(POD, &name, &sealed).unwrap(), &secret);
    }

    #[test]
    fn one_changed_bit_is_noticed(at in 0..(9 + OVERHEAD), bit in 0_u8..8) {
        let (private, public) = pair();
        let mut sealed = seal(&public, POD, "db", b"swordfish").unwrap();
        sealed[at] ^= 1_u8 << bit;
            // The topmost bit of an X25519 key says nothing (RFC 7748 §5), yet what was sent is hashed.
        prop_assert!(private.open(POD, "db", &sealed).is_err());
    }

    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(pair().0.open(POD, "db", &bytes).is_err());
    }
}

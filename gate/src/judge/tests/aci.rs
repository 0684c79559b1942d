//! App Container Images.

use super::*;
use std::io::Cursor;

const SHIPPED: &[u8] = b"an ACI as it was shipped";

fn aci(name: &'static str) -> Identity<'static> {
    Identity::Aci { name, labels: &[] }
}

/// A detached signature that was held against the file by these keys.
fn detached(key: &Pgp, known: &[&Pgp], time: &str) -> Signature {
    let signature = key.detached(SHIPPED, time);
    let keys: Vec<_> = known
        .iter()
        .flat_map(|key| crate::keystore::parse(key.armored().as_bytes()).unwrap())
        .collect();
    let facts = verify_detached(&signature, &mut Cursor::new(SHIPPED), &keys, now()).ok();
    Signature::Detached { signature, facts }
}

fn image(name: &'static str) -> Case {
    let mut case = case(name).of(aci("example.com/app"));
    case.manifests.clear();
    case
}

fn by_alice() -> Signature {
    let signature = detached(&KEYS.alice, &[&KEYS.alice], SIGNED);
    assert!(matches!(signature, Signature::Detached { facts: Some(_), .. }));
    signature
}

#[test]
fn trusted_keys_decide() {
    image("no key is trusted").signed(by_alice()).refused("no key is trusted");
    image("the way to trust one is told").refused("sandbox trust --prefix=example.com/app");
    image("the key of the name")
        .trust("example.com/app", "alice")
        .signed(by_alice())
        .allowed("trusted");
    image("the key of a prefix")
        .trust("example.com", "alice")
        .signed(by_alice())
        .allowed("trusted");
    image("a key for all").trust("", "alice").signed(by_alice()).allowed("trusted");
    image("a prefix that only begins so, which rkt takes")
        .trust("example.com/ap", "alice")
        .signed(by_alice())
        .refused("no key is trusted");
    image("the key of a name below")
        .trust("example.com/app/plugin", "alice")
        .signed(by_alice())
        .refused("no key is trusted");
    image("not signed").trust("", "alice").refused("no detached signature");
    image("signed by another key than what is trusted")
        .trust("example.com/app", "bob")
        .signed(by_alice())
        .refused("signature 1");
    image("a key that is trusted no more since it was fetched")
        .trust("example.com/other", "alice")
        .trust("example.com/app", "bob")
        .signed(by_alice())
        .refused("signature 1");
    image("a signature that fitted no trusted key when it was fetched")
        .trust("", "alice")
        .signed(detached(&KEYS.mallory, &[&KEYS.alice], SIGNED))
        .refused("fetch it again");
    image("the option overrides it").insecure().allowed("--insecure");
}

#[test]
fn what_a_key_is_worth_is_looked_at_at_every_launch() {
    for (name, key) in [("expired", &KEYS.expired), ("revoked", &KEYS.revoked)] {
        // The facts of when all was well.
        let mut signature = by_alice();
        if let Signature::Detached { facts: Some(facts), .. } = &mut signature {
            facts.primary = key.fingerprint();
            facts.signer = key.fingerprint();
        }
        image("a key that counted when the image was fetched, and does not now")
            .trust("", name)
            .signed(signature)
            .refused(name);
    }
    let with = |change: &dyn Fn(&mut sandbox_image::evidence::DetachedFacts)| {
        let mut signature = by_alice();
        if let Signature::Detached { facts: Some(facts), .. } = &mut signature {
            change(facts);
        }
        signature
    };
    image("a weak hash")
        .trust("", "alice")
        .signed(with(&|facts| facts.hash = "SHA1".into()))
        .refused("SHA1");
    image("a signature that has expired")
        .trust("", "alice")
        .signed(with(&|facts| facts.expires = instant::parse("2026-03-01T00:00:00Z")))
        .refused("expired");
    image("a signature of the future")
        .trust("", "alice")
        .signed(with(&|facts| facts.created = instant::parse("2027-01-01T00:00:00Z").unwrap()))
        .refused("signature 1");
}

#[test]
fn a_malformed_key_refuses_what_it_could_decide_about() {
    for scope in ["", "example.com", "example.com/app"] {
        let broken = |name| image(name).trust("example.com", "alice").trust(scope, "garbage");
        broken("a malformed key in the image's scope").signed(by_alice()).refused("repair");
        let path = format!("{scope}/{}: no OpenPGP key", "0".repeat(40));
        let path = path.strip_prefix('/').unwrap_or(&path).to_owned();
        broken("the file is named").signed(by_alice()).refused(&path);
        broken("the option overrides it").insecure().allowed("--insecure");
    }
    for scope in ["example.com/application", "example.com/app/plugin", "other.com"] {
        image("a malformed key of another scope")
            .trust("example.com", "alice")
            .trust(scope, "garbage")
            .signed(by_alice())
            .allowed("trusted");
    }
    image("the policy decides, and not the keys")
        .policy(policy("aci", &[("example.com", &signed_by(&["alice"], ""))]))
        .trust("", "garbage")
        .signed(by_alice())
        .allowed("aci");
    case("no key decides about an image of a registry")
        .docker("", ACCEPT)
        .trust("", "garbage")
        .allowed("docker");
}

#[test]
fn the_policy_decides_where_it_has_a_scope() {
    let with = |name, scopes: &[(&str, &str)]| image(name).policy(policy("aci", scopes));
    with("a scope that rejects, before a trusted key", &[("example.com", REJECT)])
        .trust("", "alice")
        .signed(by_alice())
        .refused("rejects");
    with("a scope that accepts", &[("example.com/app", ACCEPT)]).allowed("transport aci");
    with("a scope that only begins so", &[("example.com/ap", ACCEPT)]).refused("no key is trusted");
    with("no scope: trusted keys", &[("other.com", REJECT)])
        .trust("", "alice")
        .signed(by_alice())
        .allowed("trusted keys");
    let alice = signed_by(&["alice"], "");
    with("the policy's key", &[("example.com", &alice)]).signed(by_alice()).allowed("aci");
    with("the policy's key, and not the trusted one", &[("example.com", &signed_by(&["bob"], ""))])
        .trust("", "alice")
        .signed(by_alice())
        .refused("signature 1");
    image("the default of the policy is not for ACIs")
        .policy(format!(r#"{{"default": [{ACCEPT}]}}"#))
        .refused("no key is trusted");
}

#[test]
fn keys_to_hold_a_signature_against_when_it_is_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let list = signed_by(&["bob"], "");
    let host = image("keys")
        .policy(policy("aci", &[("example.com/policy", &list)]))
        .trust("example.com", "alice")
        .host(folder.path())
        .unwrap();
    let found = |name| {
        let keys = host.keys_for_aci(name);
        keys.iter().map(|key| key.fingerprint().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("example.com/app"), [KEYS.alice.fingerprint()]);
    assert_eq!(found("example.com/policy/app"), [KEYS.bob.fingerprint()]);
    assert!(found("example.company/app").is_empty());
}

//! Images of registries with simple signatures by a real gpg (containers-signature(5)).

use crate::cases::Expected::{Allowed, Refused, Runs};
use crate::cases::{Expected, Key, Table};
use crate::world::{World, docker};
use sandbox_tests::signatures::{Keyring, simple_signing};
use sandbox_tests::{Host, temporary};
use serde_json::{Value, json};
use std::fs;

/// A host on which the images of the repository need this, and these signatures are with the image.
fn host(world: &World, requirements: Value, signatures: &[&[u8]]) -> Host {
    let host = world.host_with(&docker(json!({world.repository("team/app"): requirements})));
    let place = format!("team/app@{}", world.digest.replace(':', "="));
    for (number, signature) in signatures.iter().enumerate() {
        host.put(&format!("/var/signatures/{place}/signature-{}", number + 1), signature);
    }
    host.looks_aside(&world.door.name(), &host.at("/var/signatures"));
    host
}

#[test]
fn a_signature_counts_if_a_valid_key_made_it_for_this_image() {
    let world = World::new(&["team/app"]);
    let (name, digest) = (world.name("team/app"), world.digest.clone());
    let name = name.as_str();
    let gpg = Keyring::new();
    let (alice, mallory, expired) = (gpg.key("alice"), gpg.key("mallory"), gpg.expired_key("old"));
    let (revoked, weak, usage) =
        (gpg.key("revoked"), gpg.rsa_key("weak"), gpg.key("changed usage"));
    let sign = |key| gpg.sign_image(key, name, &digest);
    let good = sign(&alice);
    let [by_mallory, by_expired, by_revoked, by_usage] =
        [&mallory, &expired, &revoked, &usage].map(sign);
    let by_sha1 =
        gpg.sign_message_with(&weak, &simple_signing(name, &digest), &["--digest-algo", "SHA1"]);
    gpg.revoke(&revoked);
    gpg.forbid_signing(&usage);
    let key = |name: &str, key| world.key(name, &gpg.export(key));
    let alices = key("alice.asc", &alice);
    let only_alice = json!([alices.signs()]);
    let (one, other) = good.split_at(good.len() / 2);
    let tampered = [one, &[other[0] ^ 1], &other[1..]].concat();
    let zeros = format!("sha256:{}", "0".repeat(64));
    let for_image = |name: &str, digest: &str| gpg.sign_image(&alice, name, digest);
    let repository = world.repository("team/app");

    let mut table = Table::default();
    let mut case = |rule: &str, requirements: &Value, signature: &[&[u8]], expected: &Expected| {
        table.case(rule, &host(&world, requirements.clone(), signature), name, expected);
    };
    case("signed by the key of the policy", &only_alice, &[&good], &Runs);
    case("unsigned", &only_alice, &[], &Refused(&["signature"]));
    case(
        "signed by a key that the policy does not name",
        &only_alice,
        &[&by_mallory],
        &Refused(&["key"]),
    );
    case(
        "one good signature among bad ones is enough",
        &only_alice,
        &[&by_mallory, &tampered, &good],
        &Allowed,
    );
    for (rule, name, key, signature, word) in [
        (
            "signed in time by a key that has expired since",
            "expired.asc",
            &expired,
            &by_expired,
            "expired",
        ),
        (
            "signed by a key that its owner has revoked",
            "revoked.asc",
            &revoked,
            &by_revoked,
            "revoked",
        ),
        ("signed by a key that is not for signing", "usage.asc", &usage, &by_usage, "sign"),
        ("signed with SHA-1", "weak.asc", &weak, &by_sha1, "SHA1"),
    ] {
        let key = world.key(name, &gpg.export(key));
        case(rule, &json!([key.signs()]), &[signature], &Refused(&[word]));
    }
    case("a signature with one bit changed", &only_alice, &[&tampered], &Refused(&["signature"]));
    case(
        "a signature that is no OpenPGP message",
        &only_alice,
        &[b"hello"],
        &Refused(&["signature"]),
    );
    case("a signature that is cut short", &only_alice, &[one], &Refused(&["signature"]));
    let payload = gpg.sign_message(&alice, "I like this image");
    case(
        "a signed message that is no image's signature",
        &only_alice,
        &[&payload],
        &Refused(&["statement"]),
    );
    let twice = simple_signing(name, &zeros).replacen('{', &format!("{{\"critical\":{},", "{}"), 1);
    let payload = gpg.sign_message(&alice, &twice);
    case("a payload with a member twice", &only_alice, &[&payload], &Refused(&["statement"]));
    let other_digest = for_image(name, &zeros);
    case("a signature for another image", &only_alice, &[&other_digest], &Refused(&["sha256:"]));
    let other_tag = for_image(&format!("{repository}:2"), &digest);
    case("a signature for another tag", &only_alice, &[&other_tag], &Refused(&[":2"]));
    let other_repository = for_image(&name.replace("team/app", "team/application"), &digest);
    case(
        "a signature for another repository",
        &only_alice,
        &[&other_repository],
        &Refused(&["team/application"]),
    );
    let other_registry = for_image("registry.example.com/team/app:1", &digest);
    case(
        "a signature for another registry",
        &only_alice,
        &[&other_registry],
        &Refused(&["registry.example.com"]),
    );

    let with = |key: &Key, identity: Value| {
        let mut requirement = key.signs();
        requirement["signedIdentity"] = identity;
        json!([requirement])
    };
    let repository_is_enough = with(&alices, json!({"type": "matchRepository"}));
    case("matchRepository takes another tag", &repository_is_enough, &[&other_tag], &Allowed);
    let exact = with(
        &alices,
        json!({"type": "exactReference", "dockerReference": "registry.example.com/team/app:1"}),
    );
    case("exactReference takes what it names", &exact, &[&other_registry], &Allowed);
    case("exactReference takes nothing else", &exact, &[&good], &Refused(&["team/app"]));
    let moved = with(
        &alices,
        json!({"type": "remapIdentity", "prefix": world.door.name(), "signedPrefix": "registry.example.com"}),
    );
    case(
        "remapIdentity takes what was signed where it comes from",
        &moved,
        &[&other_registry],
        &Allowed,
    );

    let bob = gpg.key("bob");
    let bobs = key("bob.asc", &bob);
    let both = json!([alices.signs(), bobs.signs()]);
    let by_bob = sign(&bob);
    case("of two requirements both count", &both, &[&good], &Refused(&["key"]));
    case("two requirements are met by two signatures", &both, &[&good, &by_bob], &Allowed);
    let either =
        json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": [alices.0, bobs.0]}]);
    case("of the keys of one requirement one is enough", &either, &[&by_bob], &Allowed);
    let data = sandbox_tests::base64(&fs::read(&alices.0).unwrap());
    let inline = json!([{"type": "signedBy", "keyType": "GPGKeys", "keyData": data}]);
    case("a key in the policy itself", &inline, &[&good], &Allowed);
    case(
        "accept anything and reject: reject wins",
        &json!([{"type": "insecureAcceptAnything"}, {"type": "reject"}]),
        &[&good],
        &Refused(&["reject"]),
    );
    let gone = Key(temporary().path().join("gone.asc"));
    case(
        "a key's file that is not there",
        &json!([gone.signs()]),
        &[&good],
        &Refused(&["gone.asc"]),
    );

    let by_digest = format!("{repository}@{digest}");
    let host = host(&world, only_alice, &[&good]);
    table.case("asked for by digest, a tag's signature holds", &host, &by_digest, &Allowed);
}

//! Images of registries with signatures by Debian's cosign: as the layer of an image with a tag of
//! its own, and as a bundle that refers to the image.

use crate::cases::Expected::{Allowed, Refused, Runs};
use crate::cases::{Expected, Table};
use crate::world::{World, docker};
use sandbox_tests::command::Tool;
use sandbox_tests::signatures::CosignKey;
use serde_json::{Value, json};
use std::fs;

const REPOSITORIES: [&str; 10] = [
    "unsigned",
    "signed",
    "stranger",
    "moved",
    "payload",
    "annotation",
    "bundle",
    "other-bundle",
    "attested",
    "bundle-moved",
];

#[test]
fn a_signature_by_cosign_counts_if_the_key_made_it_for_this_image() {
    let world = World::new(&REPOSITORIES);
    let (own, other) = (CosignKey::new(), CosignKey::new());
    let key = world.key("own.pub", &fs::read(own.public()).unwrap());
    let in_registry = |repository: &str| world.name(repository);
    for repository in ["signed", "payload", "annotation"] {
        own.sign(&in_registry(repository), &[]);
    }
    other.sign(&in_registry("stranger"), &[]);
    own.sign_with_bundle(&in_registry("bundle"));
    other.sign_with_bundle(&in_registry("other-bundle"));
    own.attest(&in_registry("attested"), "https://slsa.dev/provenance/v1");

    // What a registry, or who writes to it, can do with a signature.
    let tag = format!("{}.sig", world.digest.replace(':', "-"));
    copy(&world, &format!("signed:{tag}"), &format!("moved:{tag}"));
    change(&world, "payload", &tag, |layer| {
        let payload = blob(&world, layer["digest"].as_str().unwrap());
        let changed =
            String::from_utf8(payload).unwrap().replace("\"optional\":null", "\"optional\":{}");
        let kind = layer["mediaType"].as_str().unwrap().to_owned();
        let descriptor = world.registry.put_blob("payload", changed.as_bytes(), &kind);
        layer["digest"] = descriptor["digest"].clone();
        layer["size"] = descriptor["size"].clone();
    });
    change(&world, "annotation", &tag, |layer| {
        let annotation = &mut layer["annotations"]["dev.cosignproject.cosign/signature"];
        let turned: String = annotation.as_str().unwrap().chars().rev().collect();
        *annotation = turned.trim_start_matches('=').to_owned().into();
    });
    let moved = move_bundle(&world);

    let mut table = Table::default();
    // What cosign signs names the repository alone.
    let mut requirement = key.cosigns();
    requirement["signedIdentity"] = json!({"type": "matchRepository"});
    let requirements = json!([requirement]);
    let mut case = |rule: &str, repository: &str, expected: &Expected| {
        let host = world.host_with(&docker(json!({world.door.name(): requirements})));
        table.case(rule, &host, &world.name(repository), expected);
    };
    case("signed by the key of the policy", "signed", &Runs);
    case("unsigned", "unsigned", &Refused(&["signature"]));
    case("signed by another key", "stranger", &Refused(&["key"]));
    case("a signature moved to another repository", "moved", &Refused(&["/signed"]));
    case("a changed payload", "payload", &Refused(&["signature"]));
    case("a changed signature", "annotation", &Refused(&["signature"]));
    case("a bundle by the key of the policy", "bundle", &Allowed);
    case("a bundle by another key", "other-bundle", &Refused(&["key"]));
    case(
        "a bundle that says something else than that it is signed",
        "attested",
        &Refused(&["slsa.dev"]),
    );
    case("a bundle for another digest", &moved, &Refused(&["sha256:"]));
    let host = world.host_with(&docker(json!({world.door.name(): [key.signs()]})));
    table.case(
        "a key of cosign's is none of OpenPGP's",
        &host,
        &world.name("signed"),
        &Refused(&["sign"]),
    );
    let gpg = sandbox_tests::signatures::Keyring::new();
    let gpg_key = world.key("gpg.asc", &gpg.export(&gpg.key("alice")));
    let host = world.host_with(&docker(json!({world.door.name(): [requirement, gpg_key.signs()]})));
    table.case(
        "cosign's signature where gpg's is asked for, too",
        &host,
        &world.name("signed"),
        &Refused(&["signature"]),
    );
    let host = world.host_with(&docker(json!({world.door.name(): [{
        "type": "sigstoreSigned", "keyPath": key.0, "rekorPublicKeyData": sandbox_tests::base64(b"x"),
    }]})));
    table.case(
        "a log that has to know the signature",
        &host,
        &world.name("signed"),
        &Refused(&["rekor"]),
    );
    let host = world.host_with(&docker(json!({world.door.name(): [key.cosigns()]})));
    let rule = "cosign's signature names no tag, so it is none for a tag unless the policy says so";
    table.case(rule, &host, &world.name("signed"), &Refused(&["/signed"]));
    let exact = json!([{"type": "sigstoreSigned", "keyPath": key.0, "signedIdentity": {
        "type": "exactRepository", "dockerRepository": world.repository("signed"),
    }}]);
    let host = world.host_with(&docker(json!({world.door.name(): exact})));
    table.case("exactRepository takes the moved signature", &host, &world.name("moved"), &Allowed);
}

fn plain(world: &World, image: &str) -> String {
    format!("docker://{}", world.registry.image(image))
}

fn copy(world: &World, from: &str, to: &str) {
    Tool::new("skopeo")
        .with(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"])
        .with(["--dest-tls-verify=false", &plain(world, from), &plain(world, to)])
        .run();
}

fn blob(world: &World, digest: &str) -> Vec<u8> {
    fs::read(world.registry.blob_file(digest)).unwrap()
}

/// Changes the only layer of a manifest.
fn change(world: &World, repository: &str, tag: &str, change: impl FnOnce(&mut Value)) {
    let bytes = world.registry.manifest(&format!("{repository}:{tag}"));
    let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
    change(&mut manifest["layers"][0]);
    world.registry.put_manifest(repository, tag, manifest.to_string().as_bytes());
}

/// Lets the bundle of `bundle:1` refer to another image, and returns its repository.
fn move_bundle(world: &World) -> String {
    let tag = world.digest.replace(':', "-");
    let read =
        |image: &str| -> Value { serde_json::from_slice(&world.registry.manifest(image)).unwrap() };
    let index = read(&format!("bundle:{tag}"));
    let referrer = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let mut referrer = read(&format!("bundle@{referrer}"));

    let mut image = crate::world::image();
    image.config["Env"] = json!(["ANOTHER=image"]);
    let repository = "bundle-moved";
    let layout = world.directory.path().join("another");
    let digest = world.registry.push(image.layout(&layout), &format!("{repository}:1"));
    for descriptor in referrer["layers"].as_array().unwrap().iter().chain([&referrer["config"]]) {
        let content = blob(world, descriptor["digest"].as_str().unwrap());
        world.registry.put_blob(repository, &content, descriptor["mediaType"].as_str().unwrap());
    }
    let manifest = world.registry.manifest(&format!("{repository}:1"));
    referrer["subject"]["digest"] = digest.as_str().into();
    referrer["subject"]["size"] = manifest.len().into();
    let referrer = referrer.to_string();
    let own = format!("sha256:{}", sandbox_tests::image::sha256(referrer.as_bytes()));
    world.registry.put_manifest(repository, &own, referrer.as_bytes());
    let mut index = index;
    let descriptor = index["manifests"][0].clone();
    index["manifests"] = json!([descriptor]);
    index["manifests"][0]["digest"] = own.into();
    index["manifests"][0]["size"] = referrer.len().into();
    world.registry.put_manifest(
        repository,
        &digest.replace(':', "-"),
        index.to_string().as_bytes(),
    );
    repository.to_owned()
}

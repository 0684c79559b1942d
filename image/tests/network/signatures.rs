//! Signatures, in the ways in which tools leave them in registries.

use super::{
    registry::{Content, INDEX, MANIFEST, client, digest, plain, reference},
    server::{Server, answer},
};
use sandbox_image::{
    Digest,
    evidence::Signature,
    registry::{Error, Lookaside, Lookasides, signatures},
};
use serde_json::{Value, json};
use std::fs;

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes).to_string(), "size": bytes.len()})
}

/// The manifest of an artifact that holds `bundle` and is about `subject`.
fn artifact(subject: &[u8], bundle: &[u8]) -> Vec<u8> {
    bytes(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": BUNDLE,
        "config": descriptor(EMPTY, b"{}"),
        "layers": [descriptor(BUNDLE, bundle)],
        "subject": descriptor(MANIFEST, subject),
    }))
}

/// A list of referrers with one entry, which is of the type that a tool wrote there.
fn list(manifest: &[u8], artifact_type: Option<&str>) -> Vec<u8> {
    let mut entry = descriptor(MANIFEST, manifest);
    if let Some(artifact_type) = artifact_type {
        entry["artifactType"] = json!(artifact_type);
    }
    bytes(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}))
}

fn collect(server: &Server, lookaside: Option<&Lookaside>) -> Result<Vec<Signature>, Error> {
    signatures(&client(), &reference(server, "app:1"), &[digest(&plain())], lookaside)
}

fn bundle() -> Vec<Signature> {
    vec![Signature::Bundle { bundle: b"{\"bundle\":1}".to_vec() }]
}

/// A registry with an image and an artifact that refers to it.
fn content() -> (Content, Vec<u8>) {
    let artifact = artifact(&plain(), b"{\"bundle\":1}");
    let content = Content::default()
        .with("app:1", &plain())
        .with("app:artifact", &artifact)
        .with_blob("app", b"{\"bundle\":1}");
    (content, artifact)
}

#[test]
fn bundles_that_the_registry_lists() {
    let path = format!("/v2/app/referrers/{}", digest(&plain()));
    let (content, artifact) = content();
    for (artifact_type, expected) in
        [(Some(BUNDLE), bundle()), (None, bundle()), (Some("application/spdx+json"), Vec::new())]
    {
        let list = list(&artifact, artifact_type);
        let server = content.clone().with_path(&path, INDEX, &list).serve();
        assert_eq!(collect(&server, None).unwrap(), expected, "{artifact_type:?}");
    }
}

#[test]
fn bundles_by_the_tag_that_stands_in_for_the_list() {
    let tag = format!("app:{}", digest(&plain()).file_name());
    let (content, artifact) = content();
    // cosign writes the type of the configuration into the list.
    for artifact_type in [Some(BUNDLE), Some(EMPTY), Some(""), None] {
        let list = list(&artifact, artifact_type);
        let content = content.clone().with_document(&tag, INDEX, &list);
        assert_eq!(collect(&content.clone().serve(), None).unwrap(), bundle(), "{artifact_type:?}");
        // An empty list of the registry says nothing about the tag.
        let path = format!("/v2/app/referrers/{}", digest(&plain()));
        let server = content.with_path(&path, INDEX, b"{\"manifests\":[]}").serve();
        assert_eq!(collect(&server, None).unwrap(), bundle(), "{artifact_type:?}");
    }
}

#[test]
fn what_is_no_bundle_is_left_out_and_what_is_another_one_refused() {
    let tag = format!("app:{}", digest(&plain()).file_name());
    let two = bytes(&json!({"layers": [descriptor(BUNDLE, b"a"), descriptor(BUNDLE, b"b")]}));
    let other = bytes(&json!({"layers": [descriptor("text/plain", b"a")]}));
    let large = bytes(&json!({"layers": [{"mediaType": BUNDLE, "digest": digest(b"a").to_string(),
        "size": 100 << 20}]}));
    for manifest in [&two, &other, &large, &b"[]".to_vec()] {
        let content = Content::default().with("app:x", manifest);
        let server = content.with_document(&tag, INDEX, &list(manifest, Some(BUNDLE))).serve();
        assert_eq!(collect(&server, None).unwrap(), []);
    }
    // The list names what was deleted.
    let server =
        Content::default().with_document(&tag, INDEX, &list(b"gone", Some(BUNDLE))).serve();
    assert_eq!(collect(&server, None).unwrap(), []);
    // The registry has something else instead of the bundle.
    let (content, artifact) = content();
    let path = format!("/v2/app/blobs/{}", digest(b"{\"bundle\":1}"));
    let content = content.with_document(&tag, INDEX, &list(&artifact, Some(EMPTY)));
    let server = content.clone().with_path(&path, "x/y", b"{\"bundle\":2}").serve();
    assert!(matches!(collect(&server, None), Err(Error::Digest { .. })));
    // Or instead of the manifest that the list names.
    let path = format!("/v2/app/manifests/{}", digest(&artifact));
    let server = content.with_path(&path, MANIFEST, &plain()).serve();
    assert!(matches!(collect(&server, None), Err(Error::Digest { .. })));
}

#[test]
fn the_tag_of_cosign() {
    let payload = br#"{"critical":{},"optional":null}"#;
    let signed = |signature: &str| {
        let mut layer = descriptor("application/vnd.dev.cosign.simplesigning.v1+json", payload);
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature, "x": "y"});
        layer
    };
    let mut large = signed("c2lnbmF0dXJl");
    large["size"] = json!(1 << 30);
    let manifest = bytes(&json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [
        signed("c2lnbmF0dXJl"),
        signed("c2lnbmF0dXJl"),
        signed("not base64"),
        descriptor("application/vnd.dev.cosign.simplesigning.v1+json", payload),
        descriptor("text/plain", payload),
        large,
    ]}));
    let tag = format!("app:{}.sig", digest(&plain()).file_name());
    let server = Content::default().with(&tag, &manifest).with_blob("app", payload).serve();
    let expected =
        Signature::Cosign { payload: payload.to_vec(), signature: b"signature".to_vec() };
    assert_eq!(collect(&server, None).unwrap(), [expected]);
}

#[test]
fn simple_signatures_at_a_lookaside() {
    let image = Content::default().with("app:1", &plain()).serve();
    let directory = format!("/sigs/app@{}", digest(&plain()).to_string().replacen(':', "=", 1));
    let server = Content::default()
        .with_path(&format!("{directory}/signature-1"), "x/y", b"first")
        .with_path(&format!("{directory}/signature-2"), "x/y", b"second")
        .with_path(&format!("{directory}/signature-4"), "x/y", b"never")
        .serve();
    let simple = |message: &[u8]| Signature::SimpleSigning { message: message.to_vec() };
    let expected = [simple(b"first"), simple(b"second")];
    let of = |url: &str| {
        let files = tempfile::tempdir().unwrap();
        let scope = &image.authority;
        let text = format!("docker:\n  {scope}/app:\n    lookaside: {url}\n");
        fs::write(files.path().join("a.yaml"), text).unwrap();
        let lookasides = Lookasides::load(files.path()).unwrap();
        assert_eq!(lookasides.of(&reference(&image, "apps:1")), None);
        lookasides.of(&reference(&image, "app:1")).unwrap().clone()
    };
    let web = of(&server.url("https", "/sigs/"));
    assert_eq!(collect(&image, Some(&web)).unwrap(), expected);

    // Files of this host are read by the parent.
    let files = tempfile::tempdir().unwrap();
    let below = files.path().join(directory.trim_start_matches("/sigs/"));
    fs::create_dir_all(&below).unwrap();
    fs::write(below.join("signature-1"), "first").unwrap();
    fs::write(below.join("signature-2"), "second").unwrap();
    let local = of(&format!("file://{}", files.path().display()));
    let manifests: &[Digest] = &[digest(&plain())];
    assert_eq!(local.read(&reference(&image, "app:1"), manifests).unwrap(), expected);
    assert_eq!(collect(&image, Some(&local)).unwrap(), []);

    // One that fails is not one that has none.
    let server = Server::https(|_, to| answer(to, 403, &[], b""));
    let web = of(&server.url("https", "/sigs"));
    assert!(matches!(collect(&image, Some(&web)), Err(Error::Http(_))));
}

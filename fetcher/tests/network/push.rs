//! Images on their way into a registry.

use super::{
    Place,
    common::layout::{MANIFEST, image, index, new_layout, sha256},
    registry::Image,
    server::{Server, answer},
};
use sandbox_image::{Error, registry::RegistryReference};
use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
};

type Stored = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A registry that takes what it gets.
fn registry() -> (Server, Stored) {
    let stored = Stored::default();
    let all = stored.clone();
    let server = Server::https(move |asked, to| {
        let mut stored = all.lock().unwrap();
        match asked.method.as_str() {
            "HEAD" if stored.contains_key(&asked.path) => answer(to, 200, &[], b""),
            "POST" => answer(to, 202, &[("Location", "/upload?state=x")], b""),
            "PUT" if asked.path.starts_with("/upload") => {
                let digest = sha256(&asked.body);
                assert!(
                    asked.path.ends_with(&digest.to_string().replace(':', "%3A"))
                        || asked.path.ends_with(&digest.to_string()),
                    "{}",
                    asked.path
                );
                stored.insert(format!("/v2/copy/blobs/{digest}"), asked.body.clone());
                answer(to, 201, &[], b"")
            }
            "PUT" => {
                assert_eq!(asked.header("content-type"), Some(MANIFEST));
                stored.insert(asked.path.clone(), asked.body.clone());
                answer(to, 201, &[], b"")
            }
            _ => answer(to, 404, &[], b""),
        }
    });
    (server, stored)
}

#[test]
fn an_image_is_pushed_as_it_was_fetched() {
    let image = Image::new();
    let source = image.content().serve();
    let place = Place::new();
    let stored = place.fetch(&format!("{}/app:1", source.authority)).unwrap();
    let stored = stored.commit(&mut ()).unwrap();
    let (server, got) = registry();
    let to = RegistryReference::parse(&format!("{}/copy:2", server.authority)).unwrap();
    let digest = place.store.push(&stored, &to, &place.options, &mut ()).unwrap();
    assert_eq!(digest, sha256(image.manifest.as_bytes()));
    let mut expected = BTreeMap::new();
    for blob in image.layers.iter().map(Vec::as_slice).chain([image.config.as_bytes()]) {
        expected.insert(format!("/v2/copy/blobs/{}", sha256(blob)), blob.to_vec());
    }
    expected.insert("/v2/copy/manifests/2".to_owned(), image.manifest.clone().into_bytes());
    assert!(*got.lock().unwrap() == expected);
    // Nothing is sent twice.
    server.asked();
    place.store.push(&stored, &to, &place.options, &mut ()).unwrap();
    assert!(server.asked().iter().all(|asked| asked.method != "POST"));
}

#[test]
fn what_a_registry_refuses_and_what_it_cannot_have() {
    let place = Place::new();
    let layout = place.directory.path().join("layout");
    new_layout(&layout);
    index(&layout, &[image(&layout, &[super::common::Tar::new().file("x", b"y").finish()])]);
    let stored = place.fetch(&format!("oci:{}", layout.display())).unwrap();
    let stored = stored.commit(&mut ()).unwrap();
    let server = Server::https(|asked, to| match asked.method.as_str() {
        "HEAD" => answer(to, 404, &[], b""),
        _ => answer(to, 403, &[], br#"{"errors":[{"code":"DENIED"}]}"#),
    });
    let to = RegistryReference::parse(&format!("{}/copy:2", server.authority)).unwrap();
    let error = place.store.push(&stored, &to, &place.options, &mut ()).unwrap_err().to_string();
    assert!(error.contains("DENIED"), "{error}");

    let aci = place.directory.path().join("x.aci");
    let manifest = super::common::layout::aci_manifest("");
    let tar = super::common::Tar::new().file("manifest", manifest.as_bytes()).directory("rootfs");
    fs::write(&aci, tar.finish()).unwrap();
    let stored = place.fetch(aci.to_str().unwrap()).unwrap().commit(&mut ()).unwrap();
    let error = place.store.push(&stored, &to, &place.options, &mut ()).unwrap_err();
    assert!(matches!(error, Error::NotFromRegistry(_)), "{error}");
}

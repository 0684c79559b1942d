//! ACIs that depend on others, from the store.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

#[path = "../../image/tests/common/mod.rs"]
mod common;
mod place;

use common::{Tar, can_unpack, layout::aci_manifest};
use place::Place;
use sandbox_image::{
    Digest, Error, FetchOptions, Limit, Limits, NetworkOf, Reference, StoredImage,
};
use std::fs;

/// Writes an ACI of this name with these files.
fn write(place: &Place, name: &str, more: &str, files: &[&str]) {
    let manifest = aci_manifest(more).replace("example.com/test", &format!("example.com/{name}"));
    let tar = Tar::new().file("manifest", manifest.as_bytes()).directory("rootfs");
    let tar = files.iter().fold(tar, |tar, file| {
        tar.file(&format!("rootfs/{file}"), format!("{file} of {name}").as_bytes())
    });
    fs::write(place.path().join(format!("{name}.aci")), tar.finish()).unwrap();
}

fn content(image: &StoredImage, path: &str) -> String {
    fs::read_to_string(place::Files::of(image).rootfs().join(path)).unwrap()
}

#[test]
fn an_aci_comes_with_what_it_depends_on() {
    if !can_unpack() {
        return;
    }
    let place = Place::new();
    write(&place, "base", "", &["a", "b", "c"]);
    write(&place, "more", "", &["b", "m"]);
    let (base, _) = place.load("@/base.aci");
    let (more, _) = place.load("@/more.aci");
    let on = format!(
        r#","dependencies":[{{"imageName":"example.com/base","imageID":"{}"}},{{"imageName":"example.com/more"}}]"#,
        base.id().file_name()
    );
    write(&place, "top", &on, &["c"]);
    let (top, files) = place.load("@/top.aci");
    assert_eq!(files, ["a", "b", "c", "m"]);
    assert_eq!(content(&top, "a"), "a of base");
    assert_eq!(content(&top, "b"), "b of more");
    assert_eq!(content(&top, "c"), "c of top");
    let alone = tempfile::tempdir().unwrap();
    top.unpack(&place::program(), alone.path(), true, &mut ()).unwrap();
    let own = fs::read_dir(alone.path().join("rootfs")).unwrap();
    assert_eq!(own.map(|file| file.unwrap().file_name()).collect::<Vec<_>>(), ["c"]);
    // All of them are for the gate to judge, and none of them can go while it is there.
    let parts: Vec<&Digest> = top.parts().iter().map(|part| &part.id).collect();
    assert_eq!(parts, [top.id(), base.id(), more.id()]);
    let base_id = base.id().clone();
    let top_id = top.id().clone();
    drop((base, more, top));
    let store = place.store();
    assert!(matches!(store.remove(&base_id), Err(Error::Needed { .. })));
    store.remove(&top_id).unwrap();
    store.remove(&base_id).unwrap();
    let missing = "example.com/top depends on example.com/base: [\"example.com\"] is not here";
    check_refused(&place, missing);
}

#[track_caller]
fn check_refused(place: &Place, problem: &str) {
    let reference = format!("{}/top.aci", place.path().to_str().unwrap());
    let reference = Reference::parse(reference.as_ref()).unwrap();
    // This test asks no server.
    let network_of = NetworkOf::new(|hosts| Err(format!("{hosts:?} is not here")));
    let network_of = Some(network_of);
    let options = FetchOptions { network_of, ..FetchOptions::new(place::program()) };
    let error = place.store().fetch(&reference, &options, &mut ()).unwrap_err();
    assert!(error.to_string().contains(problem), "{error}");
}

#[test]
fn a_whitelist_leaves_what_it_names_of_all_of_them() {
    if !can_unpack() {
        return;
    }
    let place = Place::new();
    write(&place, "base", r#","pathWhitelist":["/a","/b"]"#, &["a", "b", "c"]);
    let (base, files) = place.load("@/base.aci");
    assert_eq!(files, ["a", "b"]);
    let on = r#","dependencies":[{"imageName":"example.com/base"}]"#;
    write(&place, "top", on, &["t", "u"]);
    assert_eq!(place.load("@/top.aci").1, ["a", "b", "t", "u"]);
    let whitelist = r#","pathWhitelist":["/b","/c","/u"]"#;
    write(&place, "top", &format!("{on}{whitelist}"), &["t", "u"]);
    let (top, files) = place.load("@/top.aci");
    assert_eq!(files, ["b", "u"]);
    // What a pod gets is another file system than that of what it depends on.
    let (top, base) = (top.rootfs(&mut ()).unwrap(), base.rootfs(&mut ()).unwrap());
    assert_ne!(top.verity.root_hash, base.verity.root_hash);
}

/// An image that needs the same images by very many ways has each of them once: open, and to be
/// judged.
#[test]
fn an_image_that_many_ways_lead_to_is_opened_once() {
    if !can_unpack() {
        return;
    }
    const LEVELS: usize = 12;
    let place = Place::new();
    let data = place.path().join("data/cas/image");
    let open_folders = || {
        let open = fs::read_dir("/proc/self/fd").unwrap();
        let open = open.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
        open.filter(|path| path.starts_with(&data) && *path != data).count()
    };
    let store = place.store();
    let load = |name: &str, limits: &Limits| {
        let path = place.path().join(format!("{name}.aci"));
        place::load(&store, path.to_str().unwrap(), limits, &mut ())
    };
    for side in ["a", "b"] {
        write(&place, &format!("{side}0"), "", &[side]);
        load(&format!("{side}0"), &Limits::default()).unwrap();
    }
    // Both of a level need both of the one below.
    for level in 1..LEVELS {
        let below = level - 1;
        let on = format!(
            r#","dependencies":[{{"imageName":"example.com/a{below}"}},{{"imageName":"example.com/b{below}"}}]"#
        );
        for side in ["a", "b"] {
            write(&place, &format!("{side}{level}"), &on, &[]);
            load(&format!("{side}{level}"), &Limits::default()).unwrap();
        }
    }
    assert_eq!(open_folders(), 0);
    let name = format!("a{}", LEVELS - 1);
    let image = load(&name, &Limits::default()).unwrap();
    let count = 2 * (LEVELS - 1) + 1;
    assert_eq!((image.parts().len(), open_folders()), (count, count));
    // Another one of the same store needs the same ones.
    let other = load(&format!("b{}", LEVELS - 1), &Limits::default()).unwrap();
    assert_eq!(open_folders(), count + 1);
    assert_eq!(content(&image, "a"), "a of a0");
    let id = image.id().clone();
    drop((image, other));
    assert_eq!(open_folders(), 0);

    // How many there can be is bounded when it comes in.
    store.remove(&id).unwrap();
    let mut limits = Limits::default();
    limits.set(Limit::Layers, count as u64 - 1).unwrap();
    let error = load(&name, &limits).unwrap_err();
    assert!(error.to_string().contains("layers"), "{error}");
    limits.set(Limit::Layers, count as u64).unwrap();
    load(&name, &limits).unwrap();
}

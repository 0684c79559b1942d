//! What other processes may do between one look at an image and its removal.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

use super::*;
use crate::{
    Algorithm,
    store::{BlobRef, DependencyRef, Record, RootfsRecord, Stamp, record::folder_name},
    verity::Verity,
};
use std::{cell::Cell, fs::File};
use tempfile::TempDir;

/// Puts an image into the store as far as its removal looks at it; its folder comes back.
fn put(directory: &TempDir, name: &str, on: Option<&str>) -> String {
    let id = Digest::of(Algorithm::Sha512, name.as_bytes());
    let on = on.map(|folder| DependencyRef {
        id: id_of_folder(folder).unwrap(),
        folder: folder.to_owned(),
    });
    let blob = BlobRef { digest: id.clone(), size: 1, media_type: None };
    let file = tempfile::tempfile().unwrap();
    let verity = Verity { data_blocks: 1, hash_start: 1, root_hash: [0; 32] };
    let record = Record {
        version: Record::VERSION,
        id,
        kind: Kind::Aci,
        name: name.to_owned(),
        reference: Reference::Aci { file: "/x.aci".into() },
        fetched: 0,
        imported: 0,
        indexes: Vec::new(),
        manifest: None,
        config: blob.clone(),
        layers: vec![blob],
        dependencies: on.into_iter().collect(),
        signatures: Vec::new(),
        elsewhere: Vec::new(),
        judged: None,
        rootfs: RootfsRecord { size: 1, verity, checked: Stamp::of(&file).unwrap() },
    };
    let folder = folder_name(&record.id, &record.dependencies);
    let path = directory.path().join("cas/image").join(&folder);
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("record.json"), serde_json::to_vec(&record).unwrap()).unwrap();
    folder
}

#[test]
fn an_image_stays_that_another_has_come_to_need() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let base = put(&directory, "base", None);
    let mut needs = Needs::default();
    needs.read(&store).unwrap();
    assert_eq!(needs.unneeded(), [base.as_str()]);
    let top = put(&directory, "top", Some(&base));
    let removal = store.remove_folder(&base, &mut needs, &|_| true).unwrap();
    assert!(matches!(removal, Removal::Needed(by) if Some(&by) == id_of_folder(&top).as_ref()));
    // Nobody has taken it for gone, and it can be used.
    assert!(store.places.lock_image(&base).unwrap().is_some());

    assert!(matches!(store.remove_folder(&top, &mut needs, &|_| true), Ok(Removal::Done)));
    assert!(matches!(store.remove_folder(&base, &mut needs, &|_| true), Ok(Removal::Done)));
    assert_eq!(store.folders().unwrap(), [""; 0]);
    assert_eq!(std::fs::read_dir(directory.path().join("cas/tmp")).unwrap().count(), 0);
}

#[test]
fn an_image_stays_that_was_used_before_it_was_locked() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let folder = put(&directory, "image", None);
    let looks = Cell::new(0);
    // As if a pod had come and gone after the first look.
    let is_unused = |_: &Stat| looks.replace(looks.get() + 1) == 0;
    let removal = store.remove_folder(&folder, &mut Needs::default(), &is_unused).unwrap();
    assert!(matches!(removal, Removal::InUse));
    assert_eq!(store.folders().unwrap(), [folder.as_str()]);
    // As long as it is held it is in use, also by way of another store.
    let other = Store::open(directory.path()).unwrap();
    let held = other.places.lock_image(&folder).unwrap().unwrap();
    let removal = store.remove_folder(&folder, &mut Needs::default(), &|_| true).unwrap();
    assert!(matches!(removal, Removal::InUse));
    drop(held);
    let removal = store.remove_folder(&folder, &mut Needs::default(), &|_| true).unwrap();
    assert!(matches!(removal, Removal::Done));
}

/// Whoever removes an image has it locked before it is known whether it goes.
#[test]
fn an_image_that_somebody_looks_at_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let folder = put(&directory, "image", None);
    let path = directory.path().join("cas/image").join(&folder);
    let place: OwnedFd = File::open(&path).unwrap().into();
    assert!(try_lock(&place).unwrap());
    std::thread::scope(|scope| {
        let found = scope.spawn(|| store.places.lock_image(&folder).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        drop(place);
        assert!(found.join().unwrap().is_some());
    });
    // One that goes is not, nor is the place of one that is being made.
    let place: OwnedFd = File::open(&path).unwrap().into();
    assert!(try_lock(&place).unwrap());
    std::thread::scope(|scope| {
        let found = scope.spawn(|| store.places.lock_image(&folder).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        std::fs::rename(&path, directory.path().join("cas/tmp/gone")).unwrap();
        assert!(found.join().unwrap().is_none());
    });
    std::fs::create_dir(&path).unwrap();
    let place: OwnedFd = File::open(&path).unwrap().into();
    assert!(try_lock(&place).unwrap());
    assert!(store.places.lock_image(&folder).unwrap().is_none());
}

//! Many processes and threads that fetch, use and remove the same images at the same time.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

#[path = "../../image/tests/common/mod.rs"]
mod common;
mod place;

use common::{
    Tar, can_unpack,
    layout::{aci_manifest, image, index, new_layout},
    walk,
};
use place::assert_nothing_left;
use sandbox_image::{Error, FetchOptions, Limits, NetworkOf, PullPolicy, Reference, Store};
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// The directory of the test, in the processes that it starts.
const CHILD: &str = "SANDBOX_IMAGE_STRESS_CHILD";
/// Besides the one of the test itself.
const PROCESSES: usize = 2;
const ROUNDS: usize = 60;
/// Why an image that another depends on is not fetched with it.
const NOT_HERE: &str = "it is not here";

/// Images that share layers, and ACIs of which one depends on the other.
fn write_images(directory: &Path) {
    let layer = |name: &str| Tar::new().file(name, name.as_bytes()).finish();
    for (number, layers) in [["a", "b"], ["a", "c"], ["b", "c"]].into_iter().enumerate() {
        let path = directory.join(format!("layout{number}"));
        new_layout(&path);
        index(&path, &[image(&path, &layers.map(layer))]);
    }
    let on_base = r#","dependencies":[{"imageName":"example.com/base"}]"#;
    for (name, more) in [("base", ""), ("top", on_base)] {
        let manifest =
            aci_manifest(more).replace("example.com/test", &format!("example.com/{name}"));
        let tar = Tar::new().file("manifest", manifest.as_bytes()).directory("rootfs");
        let tar = tar.file(&format!("rootfs/{name}"), name.as_bytes()).finish();
        fs::write(directory.join(format!("{name}.aci")), tar).unwrap();
    }
}

fn references(directory: &Path) -> Vec<Reference> {
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let layouts = (0..3).map(|number| format!("oci:{}", path(&format!("layout{number}"))));
    let all = layouts.chain([path("base.aci"), path("top.aci")]);
    all.map(|reference| Reference::parse(reference.as_ref()).unwrap()).collect()
}

/// What may happen to whoever wants an image that another one removes.
#[track_caller]
fn may<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::InUse(_) | Error::NotStored(_) | Error::Needed { .. }) => None,
        // No server is asked here.
        Err(Error::Dependency { source, .. }) if source.to_string().contains(NOT_HERE) => None,
        Err(error) => panic!("{error}"),
    }
}

/// All that one process does.
fn work(directory: &Path) {
    let data = directory.join("data");
    let all = references(directory);
    // Each begins with another one, and some share a store.
    let turns = |first: usize| all.iter().cycle().skip(first).take(ROUNDS);
    let shared = Store::open(&data).unwrap();
    let fetch = |store: &Store, first, pull_policy| {
        let network_of = Some(NetworkOf::new(|_| Err(NOT_HERE.to_owned())));
        let options =
            FetchOptions { pull_policy, network_of, ..FetchOptions::new(place::program()) };
        for reference in turns(first) {
            let Some(mut staged) = may(store.fetch(reference, &options, &mut ())) else { continue };
            staged.set_verdict(0, "accepted".to_owned());
            let Some(image) = may(staged.commit(&mut ())) else { continue };
            // It is there as long as it is held.
            store.verify(&image, &mut ()).unwrap();
            assert_eq!(store.find(reference).unwrap().unwrap().id(), image.id());
        }
    };
    let run = |store: &Store, first| {
        for reference in turns(first) {
            if let Some(image) = store.find(reference).unwrap() {
                image.rootfs(&mut ()).unwrap();
                store.verify(&image, &mut ()).unwrap();
            }
            thread::sleep(Duration::from_millis(5));
        }
    };
    let remove = |store: &Store, first| {
        for reference in turns(first) {
            let found = store.find(reference).unwrap().map(|image| image.id().clone());
            if let Some(id) = found {
                may(store.remove(&id));
            }
            thread::sleep(Duration::from_millis(20));
        }
    };
    let collect = |store: &Store| {
        for round in 0..ROUNDS {
            store.gc(Some(Duration::ZERO).filter(|_| round % 3 == 0)).unwrap();
            let images = store.images().unwrap();
            assert!(images.broken.is_empty(), "{:?}", images.broken);
            thread::sleep(Duration::from_millis(15));
        }
    };
    thread::scope(|scope| {
        for first in 0..3 {
            let policy = if first == 0 { PullPolicy::Update } else { PullPolicy::New };
            let own = Store::open(&data).unwrap();
            scope.spawn(move || fetch(&own, first, policy));
        }
        scope.spawn(|| fetch(&shared, 3, PullPolicy::New));
        scope.spawn(|| run(&shared, 0));
        scope.spawn(|| run(&shared, 4));
        scope.spawn(|| remove(&shared, 2));
        scope.spawn(|| collect(&shared));
    });
}

#[test]
fn whatever_happens_at_the_same_time_an_image_is_whole_or_not_there() {
    if !can_unpack() {
        return;
    }
    if let Some(directory) = std::env::var_os(CHILD) {
        // A child of this very test.
        work(Path::new(&directory));
        return;
    }
    // In memory: what takes long on a disk hides what takes no time.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    write_images(directory.path());
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "whatever_happens_at_the_same_time_an_image_is_whole_or_not_there",
                "--nocapture",
            ])
            .env(CHILD, directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..PROCESSES).map(|_| start()).collect();
    work(directory.path());
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }

    // All of them are as they should be.
    let data = directory.path().join("data");
    let store = Store::open(&data).unwrap();
    for reference in references(directory.path()) {
        let reference = reference.to_string();
        let image = place::load(&store, &reference, &Limits::default(), &mut ()).unwrap();
        store.verify(&image, &mut ()).unwrap();
        assert_eq!(image.rootfs(&mut ()).unwrap().verity, image.record().rootfs.verity);
    }
    // Nothing else is there.
    store.gc(None).unwrap();
    let images = store.images().unwrap();
    assert_eq!((images.images.len(), images.broken.len()), (5, 0));
    let files = |folder: &str| {
        let found = walk(&data.join("cas").join(folder)).into_iter();
        found.filter(|(_, file)| file.kind == "file").map(|(path, _)| path).collect::<BTreeSet<_>>()
    };
    assert_eq!(files("tmp").len() + files("part").len(), 0);
    // Three layers, three manifests and three configurations, and two archives.
    assert_eq!(files("blob").len(), 3 + 3 + 3 + 2);
    assert_eq!((files("imageManifest").len(), files("ref").len()), (2, 5));
    assert_eq!(files("image").len(), 5 * 2);
    store.gc(Some(Duration::ZERO)).unwrap();
    assert_nothing_left(&data);
}

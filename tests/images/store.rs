//! The store: one copy of everything, the same file systems everywhere, and many users at once.

use crate::small;
use sandbox_tests::command::Tool;
use sandbox_tests::image::{Image, debian, sha256};
use sandbox_tests::tar::Tar;
use sandbox_tests::{Host, temporary};
use serde_json::Value;
use std::fs;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

/// "The same image has the same hash on every machine"; "veritysetup(8) computes the same one".
#[test]
fn the_hash_of_an_image_is_the_same_in_every_store_and_by_veritysetup() {
    let directory = temporary();
    let layout = small("hashed").layout(directory.path());
    let hosts = [Host::trusting(), Host::trusting()];
    let hashes = hosts.each_ref().map(|host| host.verity(&layout));
    assert_eq!(hashes[0], hashes[1]);
    let words = ["image".into(), "verity".into(), "--format=json".into(), layout];
    let answer = hosts[0].sandbox(&words).exits(0).stdout;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let number = |name: &str| answer[name].as_u64().unwrap();
    let file = hosts[0].rootfs(answer["id"].as_str().unwrap());
    assert_eq!(
        fs::read(&file).unwrap(),
        fs::read(hosts[1].rootfs(answer["id"].as_str().unwrap())).unwrap()
    );
    let mut data = Vec::new();
    let size = number("data_blocks") * 4096;
    fs::File::open(&file).unwrap().take(size).read_to_end(&mut data).unwrap();
    let (data_file, tree) = (directory.path().join("data"), directory.path().join("tree"));
    fs::write(&data_file, data).unwrap();
    fs::write(&tree, "").unwrap();
    // Where it is installed SELinux lets it see disks alone.
    let program = directory.path().join("veritysetup");
    fs::copy("/usr/sbin/veritysetup", &program).unwrap();
    let said = Tool::new(program.to_str().unwrap())
        .with(["format", "--no-superblock", "--salt=-", "--data-block-size=4096"])
        .with(["--hash-block-size=4096", "--hash=sha256"])
        .with([&data_file, &tree])
        .text();
    assert!(said.contains(answer["root_hash"].as_str().unwrap()), "{said}\n{answer}");
    // And it is a file system that others check, too.
    Tool::new("fsck.erofs").with([&data_file]).run();
}

/// A real distribution, read back by the host's kernel: what tar unpacks is what the image has.
#[test]
fn debian_is_the_same_when_the_kernel_reads_it_back() {
    let host = Host::trusting();
    let image = debian("oci:", "debian");
    let id = host.fetch(&image);
    let layout = std::env::var("SANDBOX_TEST_IMAGES").unwrap();
    let work = temporary();
    let (expected, mounted) = (work.path().join("expected"), work.path().join("mounted"));
    fs::create_dir_all(&expected).unwrap();
    fs::create_dir_all(&mounted).unwrap();
    let blobs = fs::read_dir(format!("{layout}/debian/blobs/sha256")).unwrap();
    let layer = blobs.map(|it| it.unwrap().path()).max_by_key(|it| it.metadata().unwrap().len());
    Tool::new("tar")
        .with(["--extract", "--gzip", "--numeric-owner", "--xattrs", "--xattrs-include=*"])
        .option("--directory", &expected)
        .option("--file", layer.unwrap())
        .run();
    // What is below /dev is the runtime's.
    Tool::new("find").with([expected.join("dev")]).with(["-mindepth", "1", "-delete"]).run();
    Tool::new("mount")
        .with(["-t", "erofs", "-o", "ro,loop"])
        .with([&host.rootfs(&id), &mounted])
        .run();
    let listing = |root: &std::path::Path| {
        let script = "cd \"$1\" && { find . -mindepth 1 -printf '%P %y %m %U:%G %l\\n'; \
                      find . -type f -exec sha256sum {} +; } | LC_ALL=C sort | sha256sum";
        Tool::new("sh").with(["-c", script, "sh"]).with([root]).text()
    };
    let (one, other) = (listing(&mounted), listing(&expected));
    Tool::new("umount").with([&mounted]).run();
    assert_eq!(one, other);
}

/// "One copy of a layer": two images on the same one.
#[test]
fn images_share_their_layers() {
    let directory = temporary();
    let base = Tar::new().file("base", 0o644, vec![b'x'; 1 << 20]).finish();
    let digests = [1, 2].map(|number: u8| {
        let own = Tar::new().file("own", 0o644, [number]).finish();
        let layout = directory.path().join(number.to_string());
        (Image::of([base.clone(), own]).layout(&layout), layout)
    });
    let host = Host::trusting();
    let ids = digests.each_ref().map(|(reference, _)| host.fetch(reference));
    let blobs = || -> Vec<String> {
        let stored =
            host.stored().into_iter().filter(|it| it.to_str().unwrap().contains("cas/blob/"));
        stored.map(|it| it.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    // A manifest, a configuration and an own layer each, and the one that they share.
    let all = blobs();
    assert_eq!(all.iter().filter(|name| name.starts_with("sha256-")).count(), 7, "{all:?}");
    for file in &all {
        let path = host.stored().into_iter().find(|it| it.ends_with(file)).unwrap();
        assert_eq!(*file, format!("sha256-{}", sha256(&fs::read(path).unwrap())));
    }
    // It stays for as long as one of them needs it.
    host.sandbox(["image", "rm", &ids[0]]).exits(0);
    host.sandbox(["image", "gc", "--grace-period=24h"]).exits(0);
    assert_eq!(blobs().len(), 4, "{:?}", blobs());
    host.sandbox(["image", "verify", &ids[1]]).exits(0);
    host.sandbox(["image", "rm", &ids[1]]).exits(0);
    host.sandbox(["image", "gc", "--grace-period=0s"]).exits(0);
    let left = blobs();
    assert!(left.is_empty(), "{left:?}");
}

/// Fetching, removing and collecting garbage at the same time: each does what it says, and an image
/// that is there is whole.
#[test]
fn the_store_bears_many_users_at_once() {
    let directory = temporary();
    let layouts = [0, 1, 2].map(|number| {
        small(&format!("{number}")).layout(&directory.path().join(number.to_string()))
    });
    let host = Host::trusting();
    let ids = layouts.each_ref().map(|layout| host.fetch(layout));
    let stop = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(20);
    scope(|scope| {
        for (number, layout) in layouts.iter().enumerate() {
            let (host, stop, ids) = (&host, &stop, &ids);
            scope.spawn(move || {
                while Instant::now() < end {
                    // Another one may remove it again at once.
                    assert_eq!(host.fetch(layout), ids[number]);
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                host.sandbox(["image", "gc", "--grace-period=0s"]).exits(0);
                host.sandbox(["gc"]).exits(0);
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let removed = host.sandbox(["image", "rm", &ids[0]]);
                assert!(matches!(removed.status, 0 | 254), "{}", removed.shown());
                host.images();
            }
        });
    });
    for (layout, id) in layouts.iter().zip(&ids) {
        assert_eq!(host.fetch(layout), *id);
        host.sandbox(["image", "verify", id]).exits(0);
    }
}

/// "An image that a pod uses is not removed."
#[test]
fn an_image_in_use_stays() {
    let directory = temporary();
    let image = Image::tiny_and([]).layout(directory.path());
    let host = Host::trusting();
    let id = host.fetch(&image);
    let mut pod = host
        .run(&image)
        .with("--interactive")
        .script("echo up; read line; cat /etc/passwd >/dev/null; echo $line")
        .start_open();
    pod.wait_for("up");
    host.sandbox(["image", "rm", &id]).fails_saying(&["use"]);
    host.sandbox(["image", "gc", "--grace-period=0s"]).exits(0).prints("");
    assert_eq!(host.images(), [id.as_str()]);
    std::io::Write::write_all(pod.stdin.as_mut().unwrap(), b"alive\n").unwrap();
    pod.end().exits(0).prints("up\nalive\n");
    host.sandbox(["image", "rm", &id]).exits(0);
    assert!(host.images().is_empty());
}

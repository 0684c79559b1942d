//! Fetches that are killed, disks that are full: nothing is half there.

use crate::Secure;
use sandbox_tests::command::Tool;
use sandbox_tests::http::{End, Proxy};
use sandbox_tests::image::Image;
use sandbox_tests::registry::Access;
use sandbox_tests::tar::Tar;
use sandbox_tests::{Host, eventually, temporary};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// So many fetches are killed.
const KILLS: u32 = 50;

/// Numbers that look random, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() & 0xff) as u8).collect()
    }
}

/// An image of a few layers that can't be compressed.
fn image(layers: usize, bytes: usize) -> Image {
    let mut numbers = Numbers(1);
    Image::of((0..layers).map(|layer| {
        Tar::new().file(&format!("file{layer}"), 0o644, numbers.bytes(bytes)).finish()
    }))
}

/// The files of a store and their sizes, below its data directory. A record says when it was made,
/// so that its size varies.
fn files(host: &Host) -> BTreeMap<PathBuf, Option<u64>> {
    let data = host.data();
    let relative = |path: &Path| path.strip_prefix(&data).unwrap().to_owned();
    let size =
        |path: &Path| (!path.ends_with("record.json")).then(|| path.metadata().unwrap().len());
    host.stored().iter().map(|path| (relative(path), size(path))).collect()
}

/// kill -9 at any moment: the next fetch has the whole image, and after gc there is nothing else.
#[test]
fn a_fetch_that_is_killed_at_any_moment_leaves_the_store_whole() {
    let server = Secure::new(Access::Anybody);
    let directory = temporary();
    server.registry.push(image(4, 200_000).layout(directory.path()), "app:1");
    // The network takes its time, so that a fetch is hit in the middle of it, too.
    let identity = server.authority.certify(&["localhost"]);
    let pause = Duration::from_millis(20);
    let front = Proxy::tls(&identity, server.registry.port(), move |request, answer| match request
        .path()
        .contains("/blobs/")
    {
        true => answer.ending(End::Slow { bytes: 50_000, pause }),
        false => answer,
    });
    let name = format!("{}/app:1", front.server().name());
    let new = || {
        let host = Host::trusting();
        host.believes(&front.server().name(), &server.authority);
        host
    };
    let reference = new();
    let start = Instant::now();
    let id = reference.fetch(&name);
    let whole = start.elapsed();
    let expected = files(&reference);

    let mut numbers = Numbers(2);
    let mut killed = 0;
    let mut host = new();
    for number in 0..KILLS {
        // Now and then in a store that has seen many kills, now and then in a new one.
        if number % 5 == 0 {
            host = new();
        }
        let mut fetch = host.start(["fetch", "--full", &name]);
        let share = u32::try_from(numbers.next() % 1100).unwrap();
        sleep(whole * share / 1000);
        killed += u32::from(fetch.is_alive());
        fetch.signal(rustix::process::Signal::KILL);
        drop(fetch.end());
        // What it started ends with it.
        let data = host.data();
        let gone = eventually(Duration::from_secs(20), || {
            sandbox_tests::data::processes(&data).is_empty()
        });
        assert!(gone, "left running: {:?}", sandbox_tests::data::processes(&data));
        assert_eq!(host.fetch(&name), id, "after kill {number}");
        host.sandbox(["gc"]).exits(0);
        assert_eq!(files(&host), expected, "after kill {number}");
        if number % 10 == 9 {
            host.sandbox(["image", "verify", &id]).exits(0);
        }
        host.sandbox(["image", "rm", &id]).exits(0);
    }
    assert!(killed > KILLS / 2, "only {killed} fetches were still running");
}

/// Ctrl-C, or the end of a session: it ends at once, with the signal's status, and the next fetch
/// goes on with what is there.
#[test]
fn a_fetch_that_is_interrupted_ends_and_says_so_by_its_status() {
    use rustix::process::Signal;
    let server = Secure::new(Access::Anybody);
    let directory = temporary();
    server.registry.push(image(1, 400_000).layout(directory.path()), "app:1");
    let identity = server.authority.certify(&["localhost"]);
    let pause = Duration::from_millis(500);
    let front = Proxy::tls(&identity, server.registry.port(), move |request, answer| {
        match request.path().contains("/blobs/") && answer.body.len() > 100_000 {
            true => answer.ending(End::Slow { bytes: 20_000, pause }),
            false => answer,
        }
    });
    let name = format!("{}/app:1", front.server().name());
    let host = Host::trusting();
    host.believes(&front.server().name(), &server.authority);
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let before = front.server().requests().len();
        let fetch = host.start(["fetch", &name]);
        let asked =
            || front.server().requests()[before..].iter().any(|it| it.path().contains("/blobs/"));
        assert!(eventually(Duration::from_secs(60), asked), "it asks for blobs");
        sleep(Duration::from_secs(2));
        fetch.signal(signal);
        fetch
            .end()
            .exits(status)
            .prints("")
            .check("should end at once", |it| it.took < Duration::from_secs(60));
        let gone = || sandbox_tests::data::processes(&host.data()).is_empty();
        assert!(eventually(Duration::from_secs(20), gone), "its fetcher ends with it");
        assert!(host.images().is_empty());
    }
    // What was downloaded is kept for the next time, and not for ever.
    host.sandbox(["image", "gc", "--grace-period=0s"]).exits(0);
    host.has_nothing();
}

/// A data directory on a small file system.
struct SmallDisk<'a>(&'a Host);

impl<'a> SmallDisk<'a> {
    fn new(host: &'a Host, size: &str) -> Self {
        std::fs::create_dir_all(host.data()).unwrap();
        let options = format!("mode=755,size={size}");
        Tool::new("mount").with(["-t", "tmpfs", "-o", &options, "tmpfs"]).with([host.data()]).run();
        Self(host)
    }

    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        Tool::new("mount").with(["-o", &options]).with([self.0.data()]).run();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.data()).status();
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_half_imported() {
    let server = Secure::new(Access::Anybody);
    let directory = temporary();
    let large = image(3, 2 << 20);
    // Small as a layer, large as files: the disk gets full when the file system is written.
    let mut pattern = Vec::new();
    for number in 0..1_000_000 {
        pattern.extend_from_slice(format!("{number:015}\n").as_bytes());
    }
    let unpacked = Image::of([Tar::new().file("pattern", 0o644, pattern).finish()]);
    server.registry.push(large.layout(&directory.path().join("large")), "app:large");
    server.registry.push(unpacked.layout(&directory.path().join("unpacked")), "app:unpacked");
    for (tag, size) in [("large", "3m"), ("unpacked", "10m")] {
        let host = server.host();
        let disk = SmallDisk::new(&host, size);
        let name = server.door.image(&format!("app:{tag}"));
        host.refuses(&name, &["No space left on device"]);
        disk.grow("100m");
        host.fetch(&name);
        host.sandbox(["image", "verify", &name]).exits(0);
    }
}

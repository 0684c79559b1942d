//! Who can write to the store can't change what a pod reads: only that it reads nothing.

use sandbox_tests::image::Image;
use sandbox_tests::tar::Tar;
use sandbox_tests::{Host, temporary};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What is in the file that is tampered with: no other file has it.
const MARK: &[u8] = b"of all the files in the store this is the one that will be changed\n";

/// An image with a file `/data` of many blocks: a read brings some of its neighbours along.
fn image(directory: &Path) -> std::ffi::OsString {
    let data = MARK.repeat(16_000);
    Image::tiny_and([Tar::new().file("data", 0o644, data).finish()]).layout(directory)
}

/// Changes one bit of the file's content, in the middle of it.
fn flip(rootfs: &Path) {
    let content = fs::read(rootfs).unwrap();
    let start = content.windows(MARK.len()).position(|window| window == MARK).expect("the data");
    let place = start + 128 * 4096;
    let file = File::options().write(true).open(rootfs).unwrap();
    file.write_all_at(&[content[place] ^ 1], place as u64).unwrap();
    file.sync_all().unwrap();
    // Whoever reads it now reads the disk.
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// "A changed byte in the store makes the guest's read fail, and the supervisor reports it"; the
/// next launch is refused.
#[test]
fn a_byte_that_changes_under_a_running_pod_is_a_read_error_and_is_told() {
    let directory = temporary();
    let image = image(directory.path());
    let host = Host::trusting();
    let id = host.fetch(&image);
    let rootfs = host.rootfs(&id);
    let script = "echo up; read line; cat /data >/dev/null; echo $?; head -c 4096 /data | wc -c";
    let mut pod = host.run(&image).with("--interactive").script(script).start_open();
    pod.wait_for("up");
    flip(&rootfs);
    writeln!(pod.stdin.as_mut().unwrap(), "go").unwrap();
    let ended = pod.end().prints("up\n1\n4096\n");
    for word in ["Input/output error", "run: ", id.split_at(19).0] {
        assert!(ended.stderr.contains(word), "should say {word:?}\n{}", ended.shown());
    }
    // Whatever was changed before a launch is noticed before it.
    host.run(&image).sh("true").fails_saying(&["changed"]);
    host.sandbox(["image", "verify", &id]).exits(254).prints("");
    // It can be had again.
    host.sandbox(["image", "rm", &id]).exits(0);
    assert_eq!(host.fetch(&image), id);
    host.sandbox(["image", "verify", &id]).exits(0);
}

/// Neither the time of the last change nor the size gives it away.
#[test]
fn a_byte_that_changed_before_a_launch_refuses_it_whatever_time_the_file_shows() {
    let directory = temporary();
    let image = image(directory.path());
    let host = Host::trusting();
    let id = host.fetch(&image);
    let rootfs = host.rootfs(&id);
    let time = rootfs.metadata().unwrap().modified().unwrap();
    flip(&rootfs);
    File::options().write(true).open(&rootfs).unwrap().set_modified(time).unwrap();
    host.run(&image).sh("true").fails_saying(&["changed"]);
    host.run(&id).sh("true").fails_saying(&["changed"]);
}

/// The record says what is to be believed of the file: it can't be swapped for another image's.
#[test]
fn another_images_file_system_is_not_taken_for_this_ones() {
    let directory = temporary();
    let one = image(&directory.path().join("one"));
    let other = crate::small("other").layout(&directory.path().join("other"));
    let host = Host::trusting();
    let (one_id, other_id) = (host.fetch(&one), host.fetch(&other));
    let file = host.rootfs(&one_id);
    fs::copy(host.rootfs(&other_id), &file).unwrap();
    host.run(&one).sh("true").fails_saying(&["changed"]);
    // Nor cut short, nor removed.
    File::options().write(true).open(&file).unwrap().set_len(4096).unwrap();
    host.run(&one).sh("true").fails_saying(&[]);
    fs::remove_file(&file).unwrap();
    host.run(&one).sh("true").exits(254).prints("");
}

/// "Every file that was fetched is held against its digest."
#[test]
fn a_changed_layer_is_found_by_image_verify() {
    let directory = temporary();
    let host = Host::trusting();
    let id = host.fetch(image(directory.path()));
    host.sandbox(["image", "verify", &id]).exits(0).mentions("successfully verified");
    let blobs = host.stored().into_iter().filter(|it| it.to_str().unwrap().contains("cas/blob/"));
    let layer = blobs.max_by_key(|it| it.metadata().unwrap().len()).unwrap();
    let mut content = fs::read(&layer).unwrap();
    let place = content.len() / 2;
    content[place] ^= 1;
    fs::write(&layer, content).unwrap();
    host.sandbox(["image", "verify", &id]).exits(254).prints("");
}

//! Disks: the scratch disk, and what cannot be an image. That a good image is mounted takes
//! dm-verity, which is tested in virtual machines (`tests/monitor`).

use crate::harness::{Guest, LoopDevice, app, exited, shell, started, stderr, stdout};
use crate::{Test, tests};
use sandbox_protocol::{ImageDisk, Pod, Root, Verity};
use std::path::Path;

pub const TESTS: &[Test] = tests![
    what_apps_write_is_on_the_scratch_disk,
    a_full_scratch_disk_is_the_apps_error_and_nobody_elses,
    programs_that_an_app_writes_change_its_user_with_and_without_a_scratch_disk,
    device_nodes_on_a_scratch_disk_are_of_no_use,
    a_scratch_disk_that_is_not_there_or_empty_is_refused,
    images_that_are_not_there_are_refused,
    an_app_without_its_image_is_refused,
];

const MIB: u64 = 1 << 20;

/// Runs the pod with a scratch disk of so many MiB; returns what app 0 says.
fn run(mut pod: Pod, mib: u64) -> String {
    pod.scratch = Some("scratch".into());
    let disk = LoopDevice::ext4(mib * MIB);
    let root = [("root", Path::new("/"))];
    let mut guest = Guest::start_with_disks(pod, &root, &[("scratch", &disk)]);
    let (output, errors) = (guest.output(stdout(0)), guest.output(stderr(0)));
    assert_eq!(errors, "");
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    guest.finish();
    output
}

fn what_apps_write_is_on_the_scratch_disk() {
    // An overlay's size is that of its upper layer, and a disk of 48 MiB has less than that.
    let script = "echo x >/new && cat /new; rm /etc/hostname && mv /var/tmp /var/t2 && mkdir /d; \
                  size=$(df --output=size -B1M / | tail -n1); \
                  [ $size -gt 30 ] && [ $size -le 48 ] && echo on the disk; sync";
    assert_eq!(run(shell(script), 48), "x\non the disk\n");
    assert!(!Path::new("/new").exists() && !Path::new("/d").exists());
}

fn a_full_scratch_disk_is_the_apps_error_and_nobody_elses() {
    let fill = "(head -c 64M /dev/zero >/fill) 2>&1 | grep -o 'No space left on device'; \
                (echo x >/x) 2>/dev/null; echo y >/dev/shm/y && cat /dev/shm/y; rm /fill; \
                echo z >/z && cat /z";
    let mut pod = shell(fill);
    pod.apps.push(app("other", "cat /etc/hostname; echo more", 1));
    pod.scratch = Some("scratch".into());
    let disk = LoopDevice::ext4(16 * MIB);
    let root = [("root", Path::new("/"))];
    let mut guest = Guest::start_with_disks(pod, &root, &[("scratch", &disk)]);
    assert_eq!(guest.output(stdout(0)), "No space left on device\ny\nz\n");
    assert_eq!(guest.output(stdout(1)), "the-pod\nmore\n");
    let mut reports = [guest.hear(), guest.hear(), guest.hear(), guest.hear()];
    reports.sort_by_key(|report| format!("{report:?}"));
    assert_eq!(reports, [exited(0, 0), exited(1, 0), started(0), started(1)]);
    guest.finish();
}

/// The two writable layers allow the same.
fn programs_that_an_app_writes_change_its_user_with_and_without_a_scratch_disk() {
    // A copy of `id` that root has made set-user-ID, called by somebody else.
    let script = "cp /usr/bin/id /i && chmod 4755 /i && setpriv --reuid=1234 --clear-groups /i -u";
    assert_eq!(run(shell(script), 16), "0\n");
    let mut guest = Guest::start(shell(script), &[("root", Path::new("/"))]);
    assert_eq!(guest.output(stdout(0)), "0\n");
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    guest.finish();
}

fn device_nodes_on_a_scratch_disk_are_of_no_use() {
    let script = "mknod /n c 1 3 && cat /n 2>&1 | grep -o 'Permission denied'; \
                  mknod /m b 7 0 && cat /m 2>&1 | grep -o 'Permission denied'";
    assert_eq!(run(shell(script), 16), "Permission denied\nPermission denied\n");
}

#[track_caller]
fn is_refused(pod: Pod, disks: &[(&str, &LoopDevice)], reason: &str) {
    let mut guest = Guest::start_with_disks(pod, &[("root", Path::new("/"))], disks);
    let failure = guest.failure();
    assert!(failure.contains(reason), "{failure}");
    guest.finish();
}

fn a_scratch_disk_that_is_not_there_or_empty_is_refused() {
    let mut pod = shell("true");
    pod.scratch = Some("scratch".into());
    is_refused(pod.clone(), &[], "no disk with the serial \"scratch\"");
    let disk = LoopDevice::ext4(16 * MIB);
    is_refused(pod.clone(), &[("other", &disk)], "no disk with the serial \"scratch\"");
    pod.scratch = Some("../vda".into());
    is_refused(pod.clone(), &[("other", &disk)], "\"../vda\" cannot be the serial of a disk");
    std::fs::write(&disk.path, vec![0; 65_536]).unwrap();
    pod.scratch = Some("other".into());
    is_refused(pod, &[("other", &disk)], "making a file system of type ext4");
}

fn image(serial: &str, data_blocks: u64, hash_start: u64) -> ImageDisk {
    let verity = Verity { data_blocks, hash_start, root_hash: [7; 32] };
    ImageDisk { serial: serial.into(), verity }
}

fn images_that_are_not_there_are_refused() {
    let disk = LoopDevice::ext4(MIB);
    let refused = |image: ImageDisk, reason: &str| {
        let mut pod = shell("true");
        pod.apps[0].root = Root::Image(0);
        pod.images = vec![image];
        is_refused(pod, &[("image-0", &disk)], reason);
    };
    refused(image("image-1", 100, 100), "no disk with the serial \"image-1\"");
    refused(image("image-0", 100, 99), "cannot have its hash tree at block 99");
    refused(image("image-0", 256, 256), "holds 256 blocks");

    // One that is there, for two images.
    let mut pod = shell("true");
    pod.images = vec![image("image-0", 100, 100), image("image-0", 100, 100)];
    is_refused(pod, &[("image-0", &disk)], "or it is used already");
}

fn an_app_without_its_image_is_refused() {
    let mut pod = shell("true");
    pod.apps[0].root = Root::Image(3);
    is_refused(pod, &[], "opening image 3");
}

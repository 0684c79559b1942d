//! What a pod needs is missing or is not as it should be.

use sandbox_tests::image::{Image, tiny_layer};
use sandbox_tests::tar::Tar;
use sandbox_tests::{Data, Ended, run, sandbox, temporary, tiny};
use std::fs;

/// A failure of our own before the pod runs: "254 for a failure of sandbox itself, with a line on
/// standard error that says what was tried, what was found and what to do."
#[track_caller]
fn fails(data: &Data, ended: Ended, words: &[&str]) {
    ended.fails_saying(words);
    data.assert_nothing_is_left();
}

#[test]
fn no_usable_kvm_is_said() {
    let data = Data::new();
    let hide = "mount --bind \"$0\" /dev/kvm && exec \"$@\"";
    let file = temporary();
    fs::write(file.path().join("kvm"), "").unwrap();
    let file = file.path().join("kvm");
    // A device node that is none of KVM.
    for other in ["/dev/null", file.to_str().unwrap()] {
        let pod = run(tiny()).data(data.path());
        let pod = pod.through(["unshare", "--mount", "sh", "-c", hide, other]);
        pod.sh("true").exits(254).prints("").check("should name KVM in few lines", |it| {
            it.stderr.contains("KVM") && it.stderr.lines().count() < 4
        });
        data.assert_nothing_is_left();
    }
    let remove = "mount -t tmpfs none /dev && exec \"$@\"";
    let pod = run(tiny()).data(data.path());
    let pod = pod.through(["unshare", "--mount", "sh", "-c", remove, "0"]);
    fails(&data, pod.sh("true"), &["/dev/kvm", "No such file", "sandbox doctor"]);
}

#[test]
fn a_missing_kernel_is_said_with_the_flag() {
    let data = Data::new();
    let pod = run(tiny()).data(data.path()).with("--kernel=/nonexistent/vmlinux");
    fails(&data, pod.sh("true"), &["/nonexistent/vmlinux", "No such file", "--kernel"]);
}

#[test]
fn a_missing_program_is_said() {
    let data = Data::new();
    let pod = run(tiny()).data(data.path()).exec("/bin/nothing", [""; 0]);
    fails(&data, pod.end(), &["/bin/nothing"]);
    let pod = run(tiny()).data(data.path()).exec("/etc/passwd", [""; 0]);
    fails(&data, pod.end(), &["/etc/passwd", "may not be executed"]);
}

#[test]
fn an_unknown_user_or_group_is_said() {
    let data = Data::new();
    let pod = || run(tiny()).data(data.path());
    fails(&data, pod().with("--user=mallory").sh("true"), &["mallory"]);
    fails(&data, pod().with("--group=nobody-knows").sh("true"), &["nobody-knows"]);
}

#[test]
fn a_missing_image_is_said() {
    let data = Data::new();
    for reference in ["oci:/nonexistent", "oci-archive:/nonexistent", "/nonexistent/app.aci"] {
        fails(&data, run(reference).data(data.path()).end(), &["/nonexistent"]);
    }
}

#[test]
fn a_missing_volume_is_said() {
    let data = Data::new();
    let pod = || run(tiny()).data(data.path());
    let missing = std::path::Path::new("/nonexistent");
    fails(&data, pod().volume("v", missing, "", "/v").sh("true"), &["volume v", "/nonexistent"]);
    let pod = pod().with("--mount=volume=other,target=/v");
    fails(&data, pod.sh("true"), &["other", "--volume"]);
}

/// A pod that can't be made: more CPUs than there can be.
#[test]
fn an_impossible_size_is_said() {
    let data = Data::new();
    fails(&data, run(tiny()).data(data.path()).with("--cpu=33").sh("true"), &["CPU", "32"]);
}

/// The file system of the data directory fills up while an image is unpacked.
#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let data = Data::new();
    let image = temporary();
    let large = Tar::new().file("large", 0o644, vec![1; 24 << 20]).finish();
    let image = Image::of([fs::read(tiny_layer()).unwrap(), large]).layout(image.path());
    // Room for the layers, or for the files, and never for both.
    for room in ["1m", "16m", "40m"] {
        let fill = format!(
            "mount -t tmpfs -o size={room} none {0} && \"$@\"; status=$?; \
             find {0} -path '*/pods/*/*' -o -path '*/tmp/*' >&2; exit $status",
            data.path().display()
        );
        let pod = run(&image).data(data.path());
        let pod = pod.through(["unshare", "--mount", "sh", "-c", &fill, "0"]);
        pod.sh("true").exits(254).check("should say why, and nothing be left", |it| {
            let lines: Vec<&str> = it
                .stderr
                .lines()
                .filter(|line| !line.starts_with("run: ") || line.contains("No space"))
                .collect();
            lines.len() == 1 && lines[0].contains("No space left")
        });
    }
    data.assert_nothing_is_left();
}

/// Who may not do it is told at once.
#[test]
fn an_unprivileged_user_is_refused() {
    let data = Data::new();
    let pod = run(tiny()).data(data.path());
    let drop = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"];
    fails(&data, pod.through(drop).sh("true"), &["cannot run as unprivileged user"]);
}

/// What the user got wrong is said in a line, and where to look.
#[test]
fn a_wrong_command_line_is_said() {
    let data = Data::new();
    for words in [&["run"][..], &["run", "--nonsense", "x"], &["run", "--", "x"], &["nonsense"]] {
        sandbox(data.path(), words).exits(254).prints("").check("should say why", |it| {
            (1..4).contains(&it.stderr.lines().count()) && !it.stderr.contains("panicked")
        });
    }
    data.assert_nothing_is_left();
}

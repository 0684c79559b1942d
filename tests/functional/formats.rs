//! Images in every format, and what layers may say.

use sandbox_tests::image::{Image, aci, debian, tiny_layer};
use sandbox_tests::tar::Tar;
use sandbox_tests::{run, temporary};
use serde_json::json;
use std::fs;

/// "oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], or the path of an ACI."
#[test]
fn the_same_files_run_alike_from_every_format() {
    let directory = temporary();
    let at = |name: &str| directory.path().join(name);
    let mut image = Image::tiny_and([Tar::new().file("etc/motd", 0o644, "welcome\n").finish()]);
    image.config = json!({"Cmd": ["/bin/cat", "/etc/motd"], "Env": ["PATH=/bin"]});
    let app = json!({"exec": ["/bin/cat", "/etc/motd"], "user": "0", "group": "0"});
    let mut files = fs::read(tiny_layer()).unwrap();
    files.truncate(files.len() - 1024);
    files.extend_from_slice(&image.layers[1]);
    for reference in [
        image.layout(&at("layout")),
        image.oci_archive(&at("oci.tar")),
        image.docker_archive(&at("docker.tar")),
        aci(&at("test.aci"), &files, &app),
    ] {
        run(reference).end().exits(0).prints("welcome\n").says("");
    }
}

/// OCI image specification, layer.md: "Whiteouts", "Opaque Whiteout", "Hardlinks"; and what else
/// a file has: owner, mode with set-user-ID, extended attributes.
#[test]
fn layers_are_applied_as_the_specification_says() {
    let directory = temporary();
    let lower = Tar::new()
        .directory("d", 0o755)
        .file("d/removed", 0o644, "x")
        .file("d/kept", 0o644, "kept")
        .directory("opaque", 0o755)
        .file("opaque/hidden", 0o644, "x")
        .file("first", 0o640, "linked")
        .hard_link("second", "first")
        .finish();
    let upper = Tar::new()
        .file("d/.wh.removed", 0o644, "")
        .file("opaque/.wh..wh..opq", 0o644, "")
        .file("opaque/shown", 0o644, "x")
        .entry(b'0', "tool", 0o6755, (5, 6), b"x", "")
        .xattr("user.note", "kept")
        .file("noted", 0o644, "x")
        .symlink("link", "/d/kept")
        .directory("sticky", 0o1777)
        .finish();
    let image = Image::tiny_and([lower, upper]).layout(directory.path());
    let script = "ls /d /opaque; cat /link; echo; stat -c '%n %a %u %g %h' \
                  /first /second /tool /sticky; stat -c %i /first /second";
    run(image).sh(script).exits(0).check("should be as the layers say", |it| {
        let text = it.text();
        let (tree, inodes) = text.split_at(text.find("/sticky 1777 0 0 2\n").unwrap_or(0) + 19);
        let mut inodes = inodes.lines();
        tree == "/d:\nkept\n\n/opaque:\nshown\nkept\n/first 640 0 0 2\n/second 640 0 0 2\n\
                 /tool 6755 5 6 1\n/sticky 1777 0 0 2\n"
            && inodes.next() == inodes.next()
    });
}

/// A real distribution from each of its forms; the OCI layout is run by every test of the workload.
#[test]
fn debian_runs_from_its_docker_archive() {
    run(debian("docker-archive:", "debian.docker.tar"))
        .sh(". /etc/os-release; echo $ID $VERSION_ID")
        .exits(0)
        .prints("debian 13\n");
}

//! Hostile, damaged and enormous images: 254, one line that says what is wrong, nothing left.

use sandbox_tests::image::{Image, aci, sha256, tiny_layer};
use sandbox_tests::tar::Tar;
use sandbox_tests::{Data, run, temporary};
use serde_json::json;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

#[track_caller]
fn refused(reference: impl Into<OsString>, words: &[&str]) {
    let data = Data::new();
    run(reference).data(data.path()).exec("/bin/true", [""; 0]).end().fails_saying(words);
    data.assert_nothing_is_left();
}

#[track_caller]
fn layer_is_refused(layer: Tar, words: &[&str]) {
    let directory = temporary();
    refused(Image::of([layer.finish()]).layout(directory.path()), words);
}

#[test]
fn a_truncated_archive_is_refused() {
    let directory = temporary();
    let image = Image::of([Tar::new().file("f", 0o644, vec![7; 100_000]).finish()]);
    for (name, reference) in [
        ("oci.tar", image.oci_archive(&directory.path().join("oci.tar"))),
        ("docker.tar", image.docker_archive(&directory.path().join("docker.tar"))),
    ] {
        let file = directory.path().join(name);
        let length = fs::metadata(&file).unwrap().len();
        for part in [length / 2, 700] {
            fs::File::options().write(true).open(&file).unwrap().set_len(part).unwrap();
            refused(&reference, &[name]);
        }
    }
}

#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused() {
    let directory = temporary();
    let image = Image::of([Tar::new().file("f", 0o644, "content").finish()]);
    let reference = image.layout(directory.path());
    for blob in fs::read_dir(directory.path().join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let content = fs::read(&path).unwrap();
        let mut changed = content.clone();
        // Of a compressed layer the header's last byte, which changes nothing that comes out.
        let last = if content.starts_with(b"\x1f\x8b") { 9 } else { content.len() - 1 };
        changed[last] ^= 1;
        fs::write(&path, &changed).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        refused(&reference, &[name, "damaged or was tampered with"]);
        fs::write(&path, content).unwrap();
    }
}

#[test]
fn a_path_out_of_the_image_is_refused_or_stays_inside() {
    layer_is_refused(Tar::new().file("../escaped", 0o644, "x"), &["../escaped"]);
    layer_is_refused(Tar::new().directory("d", 0o755).file("d/../../escaped", 0o644, "x"), &[".."]);
    layer_is_refused(Tar::new().hard_link("shadow", "../../../etc/shadow"), &["shadow"]);
    layer_is_refused(Tar::new().hard_link("shadow", "/etc/shadow"), &["shadow"]);
    for path in ["/var/lib/sandbox-tests/escaped", "/etc/escaped", "/escaped"] {
        assert!(!Path::new(path).exists(), "{path}");
    }
}

/// A link of a layer to a directory of the host, and files that go through it.
#[test]
fn a_link_out_of_the_image_is_not_followed() {
    let (directory, outside, data) = (temporary(), temporary(), Data::new());
    let target = outside.path().to_str().unwrap();
    let layers = [
        Tar::new().symlink("out", target).finish(),
        Tar::new().file("out/file", 0o644, "x").finish(),
        Tar::new().symlink("up", "../../../../../..").file("up/tmp/through", 0o644, "x").finish(),
    ];
    let image = Image::tiny_and(layers).layout(directory.path());
    let ended = run(image).data(data.path()).sh("echo ran");
    ended.check("should run or be refused", |it| it.status == 0 || it.status == 254);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "nothing is made outside");
    assert!(!Path::new("/tmp/through").exists());
    data.assert_nothing_is_left();
}

/// Device nodes of an image are not made; the pod has devices of its own.
#[test]
fn a_device_node_of_an_image_is_of_no_use() {
    let directory = temporary();
    let layer = Tar::new().entry(b'4', "disk", 0o666, (0, 0), b"", "").finish();
    let image = Image::tiny_and([layer]).layout(directory.path());
    run(image)
        .sh("head -c 1 /disk; echo end")
        .check("should be refused or not there", |it| it.status == 254 || it.text() == "end\n");
}

/// "Raise a limit on what an image may cost": a bomb is stopped by a limit that names its flag.
#[test]
fn a_bomb_is_stopped_by_a_limit_that_names_its_flag() {
    let directory = temporary();
    let layer = Tar::new().file("zeros", 0o644, vec![0; 30 << 20]).file("more", 0o644, "").finish();
    let image = Image::of([layer]).layout(directory.path());
    for (limit, words) in [
        ("size=10M", ["bytes in its uncompressed layers", "--image-limit size=NUMBER"]),
        ("files=1", ["entries in its layers", "--image-limit files=NUMBER"]),
        ("document=100", ["bytes in a manifest", "--image-limit document=NUMBER"]),
    ] {
        let data = Data::new();
        let pod = run(&image).data(data.path()).with(format!("--image-limit={limit}"));
        pod.sh("true").fails_saying(&words);
        data.assert_nothing_is_left();
    }
}

/// More depth than any limit allows.
#[test]
fn a_path_of_a_thousand_directories_is_refused() {
    let name = format!("{}\0", "d/".repeat(1000));
    let layer = Tar::new().entry(b'L', "././@LongLink", 0, (0, 0), name.as_bytes(), "");
    layer_is_refused(layer.directory("d", 0o755), &["components in a path", "--image-limit"]);
}

/// What an image says about itself can't steer a terminal.
#[test]
fn names_of_an_image_are_shown_escaped() {
    let data = Data::new();
    let directory = temporary();
    let layer = Tar::new().file("../\x1b]0;owned\x07\n", 0o644, "x").finish();
    let image = Image::of([layer]).layout(directory.path());
    run(image)
        .data(data.path())
        .exec("/x", [""; 0])
        .end()
        .fails_saying(&["\\u{1b}"])
        .check("should have no control characters", |it| {
            !it.stderr.trim_end().chars().any(char::is_control)
        });
}

#[test]
fn documents_that_are_none_are_refused() {
    let directory = temporary();
    let image = Image::of([Tar::new().finish()]);
    let reference = image.layout(directory.path());
    for content in ["", "{", "[]", "null", r#"{"schemaVersion":2,"manifests":[]}"#] {
        fs::write(directory.path().join("index.json"), content).unwrap();
        refused(&reference, &[]);
    }
    // A digest that is a path.
    let manifest = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2,
        "digest": "sha256:../../../../../../../etc/shadow"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(directory.path().join("index.json"), index.to_string()).unwrap();
    refused(&reference, &["digest"]);
}

/// An image for another machine is told from one for this.
#[test]
fn an_image_for_another_architecture_is_refused() {
    let directory = temporary();
    let layer = fs::read(tiny_layer()).unwrap();
    let app = json!({"exec": ["/bin/true"], "user": "0", "group": "0"});
    let file = directory.path().join("test.aci");
    aci(&file, &layer, &app);
    let content = file.with_extension("content");
    let manifest = fs::read_to_string(content.join("manifest")).unwrap();
    fs::write(content.join("manifest"), manifest.replace("amd64", "aarch64")).unwrap();
    let tar = ["--create", "--file", file.to_str().unwrap(), "--directory"];
    let mut tar = std::process::Command::new("tar")
        .args(tar)
        .arg(&content)
        .args(["manifest", "rootfs"])
        .spawn()
        .unwrap();
    assert!(tar.wait().unwrap().success());
    refused(&file, &["aarch64"]);
    assert_eq!(sha256(b"").len(), 64);
}

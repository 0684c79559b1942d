//! Images in one file: OCI archives, Docker archives and ACIs, good ones and such that lie.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

#[path = "../../image/tests/common/mod.rs"]
mod common;
mod place;

use common::{
    Tar, can_unpack,
    layout::{aci_manifest, config, gzip, layout, sha256},
    walk,
};
use place::Place;
use sandbox_image::{Algorithm, Digest};
use std::{fs, path::Path};

/// Puts a directory's files into a tar archive.
fn archive(directory: &Path) -> Tar {
    let mut tar = Tar::new();
    for (path, found) in walk(directory) {
        let path = String::from_utf8(path).unwrap();
        tar = match found.kind.as_str() {
            "file" => tar.file(&path, &found.content),
            _ if path.is_empty() => tar,
            _ => tar.directory(&path),
        };
    }
    tar
}

#[test]
fn an_oci_archive_is_read_like_a_layout() {
    if !can_unpack() {
        return;
    }
    let place = Place::new();
    layout(&place.path().join("layout"), "file");
    let tar = archive(&place.path().join("layout"));
    fs::write(place.path().join("my-image.tar"), tar.clone().finish()).unwrap();
    let (image, files) = place.load("oci-archive:@/my-image.tar");
    assert_eq!((image.name(), files), ("my-image", vec!["file".to_owned()]));
    fs::write(place.path().join("c.tar.gz"), gzip(&tar.clone().finish())).unwrap();
    assert_eq!(place.load("oci-archive:@/c.tar.gz").1, ["file"]);

    fs::remove_dir_all(place.path().join("data")).unwrap();
    let refused = |archive: &[u8], problem: &str| {
        fs::write(place.path().join("bad.tar"), archive).unwrap();
        place.check_refused("oci-archive:@/bad.tar", problem);
    };
    let good = tar.clone().finish();
    for length in (0..good.len()).step_by(512) {
        refused(&good[..length], "truncated");
    }
    refused(&tar.clone().file("index.json", b"{}").finish(), "is there twice");
    refused(&tar.clone().file("../x", b"").finish(), "is outside");
    refused(&Tar::new().finish(), "oci-layout is missing");
    refused(
        b"not a tar archive at all, but long enough to be taken for one".repeat(20).as_slice(),
        "not a tar header",
    );
    place.check_refused("oci-archive:@/missing.tar", "No such file");
    place.check_refused("oci-archive:@/layout", "not a regular file");
}

#[test]
fn a_docker_archive_is_checked_against_its_configuration() {
    if !can_unpack() {
        return;
    }
    let place = Place::new();
    let (one, two) = (Tar::new().file("one", b"").finish(), Tar::new().file("two", b"").finish());
    let config = config(&[one.clone(), two.clone()]);
    let manifest = |tags: &str, layers: &str| {
        format!(r#"{{"Config":"c.json","RepoTags":{tags},"Layers":[{layers}]}}"#)
    };
    let both = r#""1/layer.tar","2/layer.tar""#;
    let tar = |manifests: &[String]| {
        Tar::new()
            .file("c.json", config.as_bytes())
            .file("1/layer.tar", &one)
            .symlink("2/layer.tar", "../3/layer.tar")
            .file("3/layer.tar", &two)
            .file("manifest.json", format!("[{}]", manifests.join(",")).as_bytes())
            .finish()
    };
    let write = |archive: &[u8]| fs::write(place.path().join("saved.tar"), archive).unwrap();
    write(&tar(&[manifest(r#"["localhost:5000/a/my_app:1.0"]"#, both)]));
    let (image, files) = place.load("docker-archive:@/saved.tar");
    assert_eq!(files, ["one", "two"]);
    assert_eq!(*image.id(), sha256(config.as_bytes()));
    assert_eq!((image.name(), &*image.app_name()), ("localhost:5000/a/my_app", "my-app"));
    write(&tar(&[manifest(r#"["a:1"]"#, both), manifest(r#"["b:latest"]"#, both)]));
    assert_eq!(place.load("docker-archive:@/saved.tar:docker.io/library/b").1, files);

    fs::remove_dir_all(place.path().join("data")).unwrap();
    let refused = |archive: &[u8], problem: &str| {
        write(archive);
        place.check_refused("docker-archive:@/saved.tar", problem);
    };
    refused(
        &tar(&[manifest(r#"["a:1"]"#, both), manifest("null", both)]),
        "several images in it; name one",
    );
    refused(&tar(&[]), "no image in it");
    refused(
        &tar(&[manifest("null", r#""2/layer.tar","1/layer.tar""#)]),
        "the image's configuration says",
    );
    refused(&tar(&[manifest("null", r#""1/layer.tar""#)]), "another number of layers");
    refused(
        &tar(&[manifest("null", r#""1/layer.tar","../../../etc/passwd""#)]),
        "missing in the archive",
    );
    refused(
        &tar(&[manifest("null", both).replace("c.json", "d.json")]),
        "the file d.json is missing",
    );
    refused(&Tar::new().finish(), "the file manifest.json is missing");
    write(&tar(&[manifest(r#"["a:1"]"#, both)]));
    place.check_refused("docker-archive:@/saved.tar:c", "no image named 'c'; it has: a:1");
}

fn aci(manifest: &str) -> Tar {
    Tar::new().file("manifest", manifest.as_bytes()).directory("rootfs").file("rootfs/f", b"x")
}

#[test]
fn an_aci_is_read() {
    let place = Place::new();
    let app = r#","app":{"exec":["/bin/f","-x"],"user":"0","group":"/etc/group","supplementaryGIDs":[1,2],
        "workingDirectory":"/w","environment":[{"name":"A","value":"1"}],
        "mountPoints":[{"name":"data","path":"/data","readOnly":true}],
        "ports":[{"name":"http","protocol":"tcp","port":80}],
        "isolators":[{"name":"resource/memory","value":{"limit":"1G"}}],
        "eventHandlers":[{"name":"pre-start","exec":["/init"]}],"userLabels":{"a":"b"}},
        "annotations":[{"name":"created","value":"2026-11-22T00:00:00Z"}],"dependencies":[],"pathWhitelist":null"#;
    let archive = aci(&aci_manifest(app)).finish();
    fs::write(place.path().join("image.aci"), &archive).unwrap();
    fs::write(place.path().join("image.gz.aci"), gzip(&archive)).unwrap();
    let (image, files) = place.load("@/image.aci");
    assert_eq!(files, ["f"]);
    assert_eq!(*image.id(), Digest::of(Algorithm::Sha512, &archive));
    assert_eq!((image.name(), &*image.app_name()), ("example.com/test", "test"));
    let app = image.config().app.as_ref().unwrap();
    assert_eq!(app.exec().collect::<Vec<_>>(), ["/bin/f", "-x"]);
    assert_eq!((&*app.user, &*app.group), ("0", "/etc/group"));
    assert_eq!(app.supplementary_gids, [1, 2]);
    assert!(app.mount_points[0].read_only);
    assert_eq!(app.ports[0].count, 1);
    assert_eq!(app.isolators[0].value["limit"], "1G");
    assert_eq!(app.event_handlers[0].exec, ["/init"]);
    // The same image however it is compressed.
    assert_eq!(place.load("@/image.gz.aci").0.id(), image.id());
    for (program, flag) in [("xz", "--check=crc32"), ("bzip2", "-9")] {
        let path = place.path().join(format!("image.{program}.aci"));
        fs::copy(place.path().join("image.aci"), &path).unwrap();
        let output =
            std::process::Command::new(program).arg(flag).arg("--stdout").arg(&path).output();
        let Ok(output) = output else {
            eprintln!("skip: {program} is not installed");
            continue;
        };
        fs::write(&path, output.stdout).unwrap();
        assert_eq!(place.load(path.to_str().unwrap()).0.id(), image.id());
    }
}

#[test]
fn an_aci_that_is_not_one_is_refused() {
    let place = Place::new();
    let refused = |archive: Tar, problem: &str| {
        fs::write(place.path().join("bad.aci"), archive.finish()).unwrap();
        place.check_refused("@/bad.aci", problem);
    };
    let good = aci_manifest("");
    refused(Tar::new().directory("rootfs"), "it has no manifest");
    refused(
        Tar::new().symlink("manifest", "rootfs/m").directory("rootfs"),
        "manifest is not a file",
    );
    refused(Tar::new().file("manifest", good.as_bytes()), "without the directory rootfs");
    refused(aci(&good).file("manifest", b"{}"), "one manifest");
    refused(aci(&good).file("etc/passwd", b""), "nothing else");
    refused(aci(&good).file("rootfs/f", b""), "twice");
    refused(aci(&good.replace("ImageManifest", "PodManifest")), "acKind");
    refused(aci(&good.replace("0.8.11", "1.0.0")), "acVersion");
    refused(aci(&good.replace("0.8.11", "0.8")), "acVersion");
    refused(aci(&good.replace("example.com/test", "Example")), "AC Identifier");
    refused(aci(&good.replace("amd64", "arm64")), "the image is for linux/arm64");
    refused(aci(&good.replace("\"os\"", "\"other\"")), "for which os and arch");
    for (more, problem) in [
        (r#","dependencies":[{"imageName":"example.com/base"}]"#, "depends on example.com/base"),
        (r#","pathWhitelist":["a"]"#, "pathWhitelist"),
        (r#","pathWhitelist":["/a","/../manifest"]"#, "pathWhitelist is '/../manifest'"),
        (r#","pathWhitelist":["/a/../../etc/passwd"]"#, "it is not an absolute path without '..'"),
        (r#","pathWhitelist":["/a/.."]"#, "it is not an absolute path without '..'"),
        (r#","annotations":[{"name":"a","value":"1"},{"name":"a","value":"2"}]"#, "twice"),
        (r#","app":{"exec":["/a"]}"#, "malformed"),
        (r#","app":{"user":"","group":"0"}"#, "app.user"),
        (r#","app":{"user":"0","group":"/../x"}"#, "app.group"),
        (r#","app":{"user":"0","group":"0","exec":[""]}"#, "app.exec"),
        (r#","app":{"user":"0","group":"0","exec":["a\u0000"]}"#, "holds a NUL"),
        (r#","app":{"user":"0","group":"0","workingDirectory":"w"}"#, "workingDirectory"),
        (
            r#","app":{"user":"0","group":"0","environment":[{"name":"1A","value":""}]}"#,
            "environment",
        ),
        (r#","app":{"user":"0","group":"0","mountPoints":[{"name":"A","path":"/a"}]}"#, "AC Name"),
        (
            r#","app":{"user":"0","group":"0","mountPoints":[{"name":"a","path":"a"}]}"#,
            "mountPoints.path",
        ),
        (
            r#","app":{"user":"0","group":"0","ports":[{"name":"a","protocol":"tcp","port":0}]}"#,
            "ports",
        ),
        (
            r#","app":{"user":"0","group":"0","ports":[{"name":"a","protocol":"tcp","port":65535,"count":2}]}"#,
            "ports",
        ),
        (
            r#","app":{"user":"0","group":"0","ports":[{"name":"a","protocol":"ip","port":1}]}"#,
            "protocol",
        ),
        (
            r#","app":{"user":"0","group":"0","eventHandlers":[{"name":"boot","exec":["/a"]}]}"#,
            "eventHandlers",
        ),
    ] {
        refused(aci(&aci_manifest(more)), problem);
    }
    fs::write(place.path().join("bad.aci"), b"-----BEGIN PGP MESSAGE-----").unwrap();
    place.check_refused("@/bad.aci", "is not an App Container Image");
}

//! Images made by umoci and skopeo, and umoci's own unpacking as the oracle for ours.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

#[path = "../../image/tests/common/mod.rs"]
mod common;
mod place;

use common::{assert_same, can_unpack, walk};
use place::Files;
use rustix::fs::{XattrFlags, lsetxattr};
use sandbox_image::{Limits, Store, StoredImage};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, chown, lchown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// Whether these tests can run here; says why if not.
fn can_run(tools: &[&str]) -> bool {
    for tool in tools {
        if Command::new(tool).arg("--version").output().is_err() {
            eprintln!("skip: {tool} is not installed");
            return false;
        }
    }
    can_unpack()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What our store makes of a reference.
fn unpacked(data: &Path, reference: &str) -> (StoredImage, Files) {
    let store = Store::open(data).unwrap();
    let image = place::load(&store, reference, &Limits::default(), &mut ()).unwrap();
    let files = Files::of(&image);
    (image, files)
}

/// An OCI layout with an image of three layers, made by umoci; its root as umoci unpacks it again.
fn layered_image(directory: &Path) -> (PathBuf, PathBuf) {
    let layout = directory.join("layout");
    let image = format!("{}:layered", text(&layout));
    let bundle = directory.join("bundle");
    run("umoci", &["init", "--layout", text(&layout)]);
    run("umoci", &["new", "--image", &image]);
    run("umoci", &["unpack", "--image", &image, text(&bundle)]);
    let root = bundle.join("rootfs");

    // First layer: all kinds of files.
    for name in ["etc", "usr/bin", "usr/lib/deep/er", "gone/below", "opaque", "var/empty"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::write(root.join("etc/os-release"), "ID=test\n").unwrap();
    fs::write(root.join("usr/bin/su"), vec![7; 100_000]).unwrap();
    chown(root.join("usr/bin/su"), Some(0), Some(42)).unwrap();
    fs::set_permissions(root.join("usr/bin/su"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("usr/bin/su"), root.join("usr/bin/su-too")).unwrap();
    fs::write(root.join("usr/bin/ping"), "ping").unwrap();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let ping = root.join("usr/bin/ping");
    lsetxattr(&ping, "security.capability", &capability, XattrFlags::empty()).unwrap();
    lsetxattr(root.join("etc"), "user.note", b"a\0b", XattrFlags::empty()).unwrap();
    symlink("usr/lib", root.join("lib")).unwrap();
    lchown(root.join("lib"), Some(1000), Some(1000)).unwrap();
    symlink("/../../outside", root.join("etc/escape")).unwrap();
    fs::write(root.join("gone/below/file"), "x").unwrap();
    fs::write(root.join("opaque/old"), "x").unwrap();
    fs::write(root.join("var/became-directory"), "x").unwrap();
    fs::set_permissions(root.join("var/empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    let long = format!("usr/{}", "long-name-".repeat(20));
    fs::write(root.join(long), "long").unwrap();
    fs::write(root.join("usr/na\u{ef}ve \n name"), "odd").unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("var/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o620),
        0,
    )
    .unwrap();
    run("umoci", &["repack", "--refresh-bundle", "--image", &image, text(&bundle)]);

    // Second layer: replaced, removed, and changed.
    fs::remove_dir_all(root.join("gone")).unwrap();
    fs::remove_dir_all(root.join("opaque")).unwrap();
    fs::create_dir(root.join("opaque")).unwrap();
    fs::write(root.join("opaque/new"), "y").unwrap();
    fs::remove_file(root.join("var/became-directory")).unwrap();
    fs::create_dir(root.join("var/became-directory")).unwrap();
    fs::write(root.join("var/became-directory/inside"), "z").unwrap();
    fs::remove_file(root.join("lib")).unwrap();
    fs::create_dir(root.join("lib")).unwrap();
    fs::write(root.join("lib/real"), "r").unwrap();
    fs::hard_link(root.join("etc/os-release"), root.join("usr/lib/os-release")).unwrap();
    run("umoci", &["repack", "--refresh-bundle", "--image", &image, text(&bundle)]);

    // Third layer: back again.
    fs::create_dir(root.join("gone")).unwrap();
    fs::write(root.join("gone/again"), "back").unwrap();
    fs::remove_file(root.join("usr/bin/su")).unwrap();
    fs::remove_dir_all(root.join("lib")).unwrap();
    symlink("usr/lib", root.join("lib")).unwrap();
    run("umoci", &["repack", "--image", &image, text(&bundle)]);

    run(
        "umoci",
        &[
            "config",
            "--image",
            &image,
            "--config.entrypoint=/usr/bin/env",
            "--config.cmd=ls",
            "--config.cmd=-l",
            "--config.user=1000:100",
            "--config.workingdir=/usr",
            "--config.env=LANG=C",
            "--config.volume=/var/lib/db",
            "--config.exposedports=80/tcp",
            "--config.label=key=value",
        ],
    );
    let again = directory.join("again");
    run("umoci", &["unpack", "--image", &image, text(&again)]);
    (layout, again.join("rootfs"))
}

#[test]
fn layers_merge_as_umoci_merges_them() {
    if !can_run(&["umoci"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (layout, theirs) = layered_image(directory.path());
    let data = directory.path().join("data");
    let (image, ours) = unpacked(&data, &format!("oci:{}:layered", text(&layout)));
    assert_same(&ours.walk(), &walk(&theirs));

    let app = image.config().app.as_ref().unwrap();
    assert_eq!(app.exec().collect::<Vec<_>>(), ["/usr/bin/env", "ls", "-l"]);
    assert_eq!((app.user.as_str(), app.group.as_str()), ("1000", "100"));
    assert_eq!(app.working_directory, "/usr");
    assert!(app.environment.contains(&("LANG".to_owned(), "C".to_owned())));
    assert_eq!(app.mount_points[0].name, "volume-var-lib-db");
    assert_eq!(app.ports[0].name, "80-tcp");
    assert_eq!(image.app_name(), "layout");
}

#[test]
fn every_format_that_skopeo_writes_gives_the_same_files() {
    if !can_run(&["umoci", "skopeo"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (layout, theirs) = layered_image(directory.path());
    let source = format!("oci:{}:layered", text(&layout));
    let theirs = walk(&theirs);
    let path = |name: &str| directory.path().join(name);

    let mut references = Vec::new();
    for compression in ["zstd", "gzip"] {
        let target = format!("oci:{}:x", text(&path(compression)));
        let flag = format!("--dest-compress-format={compression}");
        run("skopeo", &["copy", "--quiet", "--dest-compress", &flag, &source, &target]);
        references.push(target);
    }
    let archive = format!("oci-archive:{}", text(&path("a.tar")));
    run("skopeo", &["copy", "--quiet", &source, &archive]);
    references.push(archive);
    let archive = format!("docker-archive:{}:example.com/test:1", text(&path("d.tar")));
    run("skopeo", &["copy", "--quiet", &source, &archive]);
    references.push(archive);
    run("gzip", &["--keep", text(&path("d.tar"))]);
    references.push(format!("docker-archive:{}", text(&path("d.tar.gz"))));

    for (number, reference) in references.iter().enumerate() {
        let (image, ours) = unpacked(&path(&format!("data-{number}")), reference);
        assert_same(&ours.walk(), &theirs);
        assert_eq!(image.config().app.as_ref().unwrap().working_directory, "/usr", "{reference}");
    }
}

#[test]
fn an_image_that_is_there_is_not_rendered_again() {
    if !can_run(&["umoci"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (layout, _) = layered_image(directory.path());
    let data = directory.path().join("data");
    let reference = format!("oci:{}:layered", text(&layout));
    let (image, _) = unpacked(&data, &reference);
    let rootfs = data.join("cas/image").join(image.id().file_name()).join("rootfs.erofs");
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&rootfs).unwrap());
    let before = inode();
    unpacked(&data, &reference);
    assert_eq!(before, inode());
    let left: BTreeMap<_, _> = walk(&data.join("cas/tmp"));
    assert_eq!(left.len(), 1, "something is left in tmp: {:?}", left.keys());
}

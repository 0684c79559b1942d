//! Images in files and directories.

use crate::small;
use sandbox_tests::aci::Aci;
use sandbox_tests::command::Tool;
use sandbox_tests::tar::Tar;
use sandbox_tests::{Host, temporary};
use std::ffi::OsString;
use std::fs;

/// "oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME]": the same files, so the
/// same root hash.
#[test]
fn the_same_image_has_the_same_hash_in_every_form() {
    let directory = temporary();
    let at = |name: &str| directory.path().join(name);
    let image = small("same");
    let host = Host::trusting();
    let mut hashes = Vec::new();
    for reference in [
        image.layout(&at("layout")),
        image.oci_archive(&at("oci.tar")),
        image.docker_archive(&at("docker.tar")),
    ] {
        hashes.push(host.verity(&reference));
    }
    let layers = fs::read(at("layout/index.json")).unwrap();
    assert!(!layers.is_empty());
    hashes.dedup();
    assert_eq!(hashes.len(), 1);
    // The layout and its archive hold the same manifest, `docker save` doesn't have any.
    assert_eq!(host.images().len(), 2);
}

/// OCI image layout: `org.opencontainers.image.ref.name` tells several images apart.
#[test]
fn of_several_images_in_a_layout_one_has_to_be_named() {
    let directory = temporary();
    let layout = directory.path().join("layout");
    for tag in ["one", "two"] {
        let source = directory.path().join(tag);
        let from = small(tag).layout(&source);
        let to = format!("oci:{}:{tag}", layout.display());
        Tool::new("skopeo")
            .with(["copy", "--quiet", "--insecure-policy"])
            .with([from, to.into()])
            .run();
    }
    let name = |tag: &str| format!("oci:{}{tag}", layout.display());
    let host = Host::trusting();
    host.refuses(name(""), &["one", "two"]);
    host.refuses(name(":three"), &["three"]);
    assert_ne!(host.fetch(name(":one")), host.fetch(name(":two")));
}

/// appc: "ACI archives MAY be compressed with gzip, bzip2, or xz".
#[test]
fn an_aci_is_the_same_image_however_it_is_compressed() {
    let directory = temporary();
    let at = |name: &str| directory.path().join(name);
    let files = Tar::new().directory("bin", 0o755).file("bin/app", 0o755, "#!").finish();
    let aci = Aci::new("example.com/app", files).version("1.2").executes(&["/bin/app"]);
    aci.write_plain(&at("plain.aci"));
    for program in ["gzip", "bzip2", "xz"] {
        let compressed = Tool::new(program).with(["--stdout"]).with([at("plain.aci")]).run();
        fs::write(at(&format!("{program}.aci")), compressed).unwrap();
    }
    let host = Host::trusting();
    let mut ids = Vec::new();
    for name in ["plain.aci", "gzip.aci", "bzip2.aci", "xz.aci"] {
        ids.push(host.fetch(at(name)));
    }
    let mut by_url = OsString::from("file://");
    by_url.push(at("xz.aci"));
    ids.push(host.fetch(by_url));
    ids.dedup();
    assert_eq!(ids.len(), 1);
    // The ID is the digest of the uncompressed archive, as rkt's.
    let sum = Tool::new("sha512sum").with([at("plain.aci")]).text();
    assert!(sum.starts_with(ids[0].strip_prefix("sha512-").unwrap()), "{} {sum}", ids[0]);
    // Where rkt's tools look.
    let key = &sum[..64];
    let blob = host.data().join(format!("cas/blob/sha512/{}/sha512-{key}", &key[..2]));
    assert_eq!(fs::read(blob).unwrap(), fs::read(at("plain.aci")).unwrap());
    let manifest = host.data().join(format!("cas/imageManifest/sha512/{}/sha512-{key}", &key[..2]));
    assert!(fs::read_to_string(manifest).unwrap().contains("example.com/app"));
    host.sandbox(["image", "list", "--fields=name", "--no-legend"])
        .exits(0)
        .mentions("example.com/app:1.2");
    // What is exported is what came in, and actool takes it.
    let out = host.at("/root/out.aci");
    host.sandbox(["image", "export", &ids[0], out.to_str().unwrap()]).exits(0);
    assert_eq!(fs::read(&out).unwrap(), fs::read(at("plain.aci")).unwrap());
}

/// An image of OCI, exported for those who still use rkt.
#[test]
fn actool_takes_what_is_exported() {
    let directory = temporary();
    let layout = small("exported").layout(directory.path());
    let host = Host::trusting();
    host.fetch(&layout);
    let out = host.at("/root/out.aci");
    let words = ["image".into(), "export".into(), layout.clone(), out.clone().into()];
    host.sandbox(&words).exits(0);
    Tool::new("actool").with(["validate"]).with([&out]).run();
    let listed = Tool::new("tar").with(["--list", "--file"]).with([&out]).text();
    assert!(listed.contains("rootfs/etc/text"), "{listed}");
    // It isn't replaced unless that is asked for.
    host.sandbox(&words).fails_saying(&["--overwrite"]);
}

#[test]
fn what_is_not_there_or_no_image_is_told() {
    let directory = temporary();
    let host = Host::trusting();
    for (reference, words) in [
        ("oci:/nonexistent", &["/nonexistent"][..]),
        ("oci-archive:/nonexistent", &["/nonexistent"]),
        ("docker-archive:/nonexistent", &["/nonexistent"]),
        ("/nonexistent.aci", &["/nonexistent.aci"]),
        ("sha512-0123456789", &["store"]),
        ("x://y", &["x://y"]),
    ] {
        host.sandbox(["fetch", reference]).fails_saying(words);
    }
    let file = directory.path().join("no.aci");
    for content in [&b""[..], b"\x1f\x8b\x08", &[0; 1024], b"BZh9", b"\xfd7zXZ\0"] {
        fs::write(&file, content).unwrap();
        host.refuses(&file, &[]);
    }
}

//! OCI images, good ones and such that lie.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

#[path = "../../image/tests/common/mod.rs"]
mod common;
mod place;

use common::{
    Tar, can_unpack,
    layout::{
        CONFIG, INDEX, LAYER, MANIFEST, blob, config, gzip, image, index, index_document, layout,
        manifest, new_layout, sha256, with,
    },
};
use place::Place;
use sandbox_image::{Algorithm, Digest, Limit, Limits};
use std::{fs, slice::from_ref};

fn one_file() -> Vec<u8> {
    Tar::new().file("f", b"content").finish()
}

#[test]
fn an_oci_layout_is_read() {
    if !can_unpack() {
        return;
    }
    let place = Place::new();
    layout(&place.path().join("debian.oci"), "file");
    let (image, files) = place.load("oci:@/debian.oci");
    assert_eq!(files, ["file"]);
    assert_eq!(image.name(), "debian");
    let manifest = image.id();
    let path = place.path().join("debian.oci/blobs/sha256").join(manifest.hex());
    assert_eq!(Digest::of(Algorithm::Sha256, &fs::read(path).unwrap()), *manifest);
}

#[test]
fn an_image_is_chosen_by_name_and_platform() {
    if !can_unpack() {
        return;
    }
    let place = Place::new();
    let directory = place.path();
    new_layout(directory);
    let of = |file: &str| image(directory, &[Tar::new().file(file, b"").finish()]);
    let platform = |os: &str, architecture: &str, more: &str| {
        format!(r#""platform":{{"os":"{os}","architecture":"{architecture}"{more}}}"#)
    };
    let named =
        |name: &str| format!(r#""annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#);
    let nested = index_document(&[
        with(&of("arm"), &platform("linux", "arm64", "")),
        with(&of("v3"), &platform("linux", "amd64", r#","variant":"v3""#)),
        with(&of("windows"), &platform("windows", "amd64", "")),
        with(&of("ours"), &platform("linux", "amd64", r#","variant":null"#)),
        with(&of("second"), &platform("linux", "amd64", "")),
    ]);
    let nested = blob(directory, INDEX, nested.as_bytes());
    let other = of("other");
    let arm = index_document(&[with(&of("arm"), &platform("linux", "arm64", ""))]);
    let arm = blob(directory, INDEX, arm.as_bytes());
    index(
        directory,
        &[
            with(&nested, &named("multi")),
            with(&other, &named("name:with:colons")),
            with(&other, &named("again")),
            with(&arm, &named("arm")),
        ],
    );
    assert_eq!(place.load("oci:@:multi").1, ["ours"]);
    assert_eq!(place.load("oci:@:name:with:colons").1, ["other"]);
    let digest = place.load("oci:@:again").0.id().clone();
    assert_eq!(place.load(&format!("oci:@:{digest}")).1, ["other"]);
    fs::remove_dir_all(place.path().join("data")).unwrap();
    place.check_refused(
        "oci:@:missing",
        "no image named 'missing'; it has: multi, name:with:colons, again, arm",
    );
    place.check_refused("oci:@", "several images");
    place.check_refused("oci:@:arm", "no such image for linux/amd64");
    // Two names of one image are one image.
    index(directory, &[with(&other, &named("a")), with(&other, &named("b"))]);
    assert_eq!(place.load("oci:@").1, ["other"]);
}

#[test]
fn documents_of_docker_schema_2_are_read_too() {
    if !can_unpack() {
        return;
    }
    let place = Place::new();
    let directory = place.path();
    new_layout(directory);
    let layer = one_file();
    let config = blob(
        directory,
        "application/vnd.docker.container.image.v1+json",
        config(from_ref(&layer)).as_bytes(),
    );
    let layer = blob(directory, "application/vnd.docker.image.rootfs.diff.tar.gzip", &gzip(&layer));
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = with(&manifest(&config, &[layer]), &format!(r#""mediaType":"{media_type}""#));
    let manifest = blob(directory, media_type, manifest.as_bytes());
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    let platform = r#""platform":{"os":"linux","architecture":"amd64"}"#;
    let list = blob(directory, list, index_document(&[with(&manifest, platform)]).as_bytes());
    index(directory, &[list]);
    assert_eq!(place.load("oci:@").1, ["f"]);
}

#[test]
fn blobs_that_are_not_what_they_are_named_are_refused() {
    let place = Place::new();
    let directory = &place.path().join("layout");
    let reset = || {
        let _ = fs::remove_dir_all(directory);
        new_layout(directory);
        let layer = one_file();
        let config_blob = blob(directory, CONFIG, config(from_ref(&layer)).as_bytes());
        let layer_blob = blob(directory, LAYER, &gzip(&layer));
        let manifest_blob =
            blob(directory, MANIFEST, manifest(&config_blob, from_ref(&layer_blob)).as_bytes());
        index(directory, from_ref(&manifest_blob));
        [manifest_blob, config_blob, layer_blob]
    };
    let path = |descriptor: &str| {
        let hex = descriptor.split("sha256:").nth(1).unwrap().split('"').next().unwrap();
        directory.join("blobs/sha256").join(hex)
    };
    for which in 0..3 {
        let blobs = reset();
        fs::remove_file(path(&blobs[which])).unwrap();
        place.check_refused("oci:@/layout", "does not have it");

        let blobs = reset();
        let mut content = fs::read(path(&blobs[which])).unwrap();
        content.push(b' ');
        fs::write(path(&blobs[which]), &content).unwrap();
        place.check_refused("oci:@/layout", "bytes instead of");

        // A changed bit; in a layer the gzip header's, which decoding does not notice.
        let blobs = reset();
        let mut content = fs::read(path(&blobs[which])).unwrap();
        content[4] ^= 1;
        fs::write(path(&blobs[which]), &content).unwrap();
        place.check_refused("oci:@/layout", "damaged or was tampered with: its digest is");

        let blobs = reset();
        fs::remove_file(path(&blobs[which])).unwrap();
        fs::create_dir(path(&blobs[which])).unwrap();
        place.check_refused("oci:@/layout", "not a regular file");
    }
    // Right digest of the compressed layer, but not what the configuration says.
    reset();
    let config = blob(directory, CONFIG, config(&[b"other".to_vec()]).as_bytes());
    let layer = blob(directory, LAYER, &gzip(&one_file()));
    index(directory, &[blob(directory, MANIFEST, manifest(&config, &[layer]).as_bytes())]);
    place.check_refused("oci:@/layout", "but the image's configuration says");
}

#[test]
fn documents_that_do_not_fit_together_are_refused() {
    let place = Place::new();
    let directory = place.path();
    new_layout(directory);
    let layer = one_file();
    let config_text = config(from_ref(&layer));
    let good_config = blob(directory, CONFIG, config_text.as_bytes());
    let good_layer = blob(directory, LAYER, &gzip(&layer));
    let good = manifest(&good_config, from_ref(&good_layer));
    let check_index = |text: &str, problem: &str| {
        fs::write(directory.join("index.json"), text).unwrap();
        place.check_refused("oci:@", problem);
    };
    let check_manifest = |text: &str, problem: &str| {
        check_index(&index_document(&[blob(directory, MANIFEST, text.as_bytes())]), problem);
    };
    let check_config = |text: &str, problem: &str| {
        let config = blob(directory, CONFIG, text.as_bytes());
        check_manifest(&manifest(&config, from_ref(&good_layer)), problem);
    };

    check_index("", "malformed");
    check_index("{", "malformed");
    check_index(&"[".repeat(1 << 20), "malformed");
    check_index(&format!("{{\"schemaVersion\":2,\"x\":{}", "[".repeat(100_000)), "malformed");
    check_index("{\"\x1b[31m\":1}", "malformed");
    check_index(&index_document(&[]).replace('2', "1"), "schemaVersion");
    check_index(&index_document(&[]), "no such image");
    check_index(&with(&index_document(&[]), r#""layers":[]"#), "could be taken for either");
    check_index(&with(&index_document(&[]), r#""schemaVersion":2"#), "malformed");
    for digest in ["md5:0", "sha256:../../../etc/passwd", "sha256:AB", "sha512:00", ""] {
        let entry = format!(r#"{{"mediaType":"{MANIFEST}","digest":"{digest}","size":1}}"#);
        check_index(&index_document(&[entry]), "not a digest");
    }
    for size in ["-1", "1.5", "99999999999999999999", "\"1\""] {
        let entry = good_config
            .replace(&format!("\"size\":{}", config_text.len()), &format!("\"size\":{size}"));
        check_index(&index_document(&[entry]), "malformed");
    }
    // An index that holds itself can't be named by its digest; one that is nested too deep can.
    let mut nested = blob(directory, MANIFEST, good.as_bytes());
    for _ in 0..6 {
        nested = blob(directory, INDEX, index_document(&[nested]).as_bytes());
    }
    check_index(&index_document(&[nested]), "nested too deeply");
    let many: Vec<_> = (0..100)
        .map(|number| {
            blob(
                directory,
                INDEX,
                format!("{{\"schemaVersion\":2,\"manifests\":[],\"n\":{number}}}").as_bytes(),
            )
        })
        .collect();
    check_index(&index_document(&many), "nested too deeply, or too many");

    check_manifest(&with(&good, r#""manifests":[]"#), "could be taken for either");
    check_manifest(&with(&good, &format!(r#""mediaType":"{INDEX}""#)), "named as something else");
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    check_manifest(&with(&good, &format!(r#""mediaType":"{docker}""#)), "named as something else");
    check_manifest(&manifest(&good_layer, &[]), "not the configuration of an image");
    check_manifest(&manifest(&good_config, from_ref(&good_config)), "layers of this type");
    check_manifest(&manifest(&good_config, &[]), "another number of layers");
    check_manifest(
        &manifest(&good_config, &[good_layer.clone(), good_layer.clone()]),
        "another number of layers",
    );

    check_config(&config_text.replace("amd64", "arm64"), "the image is for linux/arm64");
    check_config(&config_text.replace("linux", "win\\u001b"), "the image is for win\\u{1b}/amd64");
    check_config(&config_text.replace("layers", "other"), "rootfs.type");
    let with_config =
        |what: &str| config_text.replace(r#""config":{}"#, &format!(r#""config":{{{what}}}"#));
    for (what, problem) in [
        (r#""User":"a:b:c""#, "config.User"),
        (r#""User":"/etc/passwd""#, "config.User"),
        (r#""User":":0""#, "config.User"),
        (r#""User":"a b""#, "config.User"),
        (r#""Env":["novalue"]"#, "NAME=VALUE"),
        (r#""Env":["=x"]"#, "NAME=VALUE"),
        (r#""Env":["a=\u0000"]"#, "holds a NUL"),
        (r#""Cmd":["a\u0000b"]"#, "holds a NUL"),
        (r#""Cmd":"text""#, "malformed"),
        (r#""WorkingDir":"/a/../b""#, "config.WorkingDir"),
        (r#""Volumes":{"relative":{}}"#, "config.Volumes"),
        (r#""Volumes":{"/":{}}"#, "config.Volumes"),
        (r#""ExposedPorts":{"http":{}}"#, "config.ExposedPorts"),
        (r#""ExposedPorts":{"0/tcp":{}}"#, "config.ExposedPorts"),
        (r#""ExposedPorts":{"80/ftp":{}}"#, "config.ExposedPorts"),
        (r#""ExposedPorts":{"90-80/tcp":{}}"#, "config.ExposedPorts"),
    ] {
        check_config(&with_config(what), problem);
    }
    fs::remove_file(directory.join("oci-layout")).unwrap();
    place.check_refused("oci:@", "is not an OCI image layout: the file oci-layout is missing");
}

#[test]
fn a_configuration_says_how_to_run() {
    if !can_unpack() {
        return;
    }
    let place = Place::new();
    let directory = place.path();
    new_layout(directory);
    let text = config(&[]).replace(
        r#""config":{}"#,
        r#""config":{"User":"www-data","Env":["A=1","B=x=y","A=2"],"Entrypoint":["/bin/sh","-c"],
            "Cmd":["echo"],"WorkingDir":"srv","Volumes":{"/var/lib/db":{},"/var.lib/db":{}},
            "ExposedPorts":{"53/udp":{},"8000-8002/tcp":{},"9":{}},"Labels":{"k":"v"},
            "StopSignal":"SIGINT","ArgsEscaped":true}"#,
    );
    let config = blob(directory, CONFIG, text.as_bytes());
    index(directory, &[blob(directory, MANIFEST, manifest(&config, &[]).as_bytes())]);
    let (image, files) = place.load("oci:@");
    assert!(files.is_empty());
    let app = image.config().app.as_ref().unwrap();
    assert_eq!(app.exec().collect::<Vec<_>>(), ["/bin/sh", "-c", "echo"]);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(app.environment, [pair("A", "2"), pair("B", "x=y")]);
    assert_eq!((&*app.user, &*app.group, &*app.working_directory), ("www-data", "", "/srv"));
    let mounts: Vec<_> = app.mount_points.iter().map(|mount| mount.name.as_str()).collect();
    assert_eq!(mounts, ["volume-var-lib-db", "volume-var-lib-db-2"]);
    let ports: Vec<_> = app.ports.iter().map(|port| (&*port.name, port.port, port.count)).collect();
    assert_eq!(ports, [("53-udp", 53, 1), ("8000-8002-tcp", 8000, 3), ("9-tcp", 9, 1)]);
    assert_eq!(app.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(app.user_labels, [pair("k", "v")]);
    assert_eq!(image.config().labels, [pair("os", "linux"), pair("arch", "amd64")]);
}

#[test]
fn bombs_stop_at_the_limit() {
    let place = Place::new();
    let directory = place.path();
    new_layout(directory);
    let mut limits = Limits::default();
    limits.set(Limit::Size, 1 << 20).unwrap();
    let bomb = gzip(&vec![0; 8 << 20]);
    let config_blob = blob(directory, CONFIG, config(&[vec![0; 8 << 20]]).as_bytes());
    let layer = blob(directory, LAYER, &bomb);
    index(directory, &[blob(directory, MANIFEST, manifest(&config_blob, &[layer]).as_bytes())]);
    place.check_refused_with("oci:@", &limits, "--image-limit size=");
    // The limit is for all layers together.
    let layers: Vec<_> = (0..3)
        .map(|number| Tar::new().file(&number.to_string(), &vec![b'x'; 400 << 10]).finish())
        .collect();
    index(directory, &[image(directory, &layers)]);
    place.check_refused_with("oci:@", &limits, "--image-limit size=");
    fs::write(place.path().join("bomb.aci"), bomb).unwrap();
    place.check_refused_with("@/bomb.aci", &limits, "--image-limit size=");
    let mut limits = Limits::default();
    limits.set(Limit::Layers, 2).unwrap();
    place.check_refused_with("oci:@", &limits, "--image-limit layers=");
}

#[test]
fn huge_documents_are_refused_unread() {
    let place = Place::new();
    let directory = place.path();
    new_layout(directory);
    let huge = fs::File::create(directory.join("index.json")).unwrap();
    huge.set_len(100 << 20).unwrap();
    place.check_refused("oci:@", "--image-limit document=");
    let entry =
        format!(r#"{{"mediaType":"{MANIFEST}","digest":"{}","size":{}}}"#, sha256(b"x"), 100 << 20);
    index(directory, &[entry]);
    place.check_refused("oci:@", "--image-limit document=");
}

#[test]
fn layers_are_compressed_as_their_format_allows() {
    if !can_unpack() {
        return;
    }
    let place = Place::new();
    let directory = place.path();
    let zstd = |bytes: &[u8]| {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    };
    let layer = one_file();
    let skippable = [b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(&layer)].concat();
    let (first, second) = layer.split_at(700);
    for compressed in [
        layer.clone(),
        gzip(&layer),
        [gzip(first), gzip(second)].concat(),
        zstd(&layer),
        [zstd(first), zstd(second)].concat(),
        skippable,
    ] {
        new_layout(directory);
        let config = blob(directory, CONFIG, config(from_ref(&layer)).as_bytes());
        let layer = blob(directory, LAYER, &compressed);
        index(directory, &[blob(directory, MANIFEST, manifest(&config, &[layer]).as_bytes())]);
        assert_eq!(place.load("oci:@").1, ["f"]);
    }
    fs::remove_dir_all(directory.join("data")).unwrap();
    let xz = b"\xfd7zXZ\0rest";
    let cut = gzip(&layer);
    for (compressed, problem) in [
        (&xz[..], "compressed with xz"),
        (b"BZh9rest", "compressed with bzip2"),
        (&cut[..cut.len() - 9], "cannot be read or decompressed"),
        (b"\x1f\x8bnot gzip", "cannot be read or decompressed"),
        (b"\x28\xb5\x2f\xfdnot zstd", "cannot be read or decompressed"),
    ] {
        let config = blob(directory, CONFIG, config(from_ref(&layer)).as_bytes());
        let layer = blob(directory, LAYER, compressed);
        index(directory, &[blob(directory, MANIFEST, manifest(&config, &[layer]).as_bytes())]);
        place.check_refused("oci:@", problem);
    }
}

//! `docker://` and plain references, from Debian's docker-registry behind TLS.

use crate::{Secure, small};
use sandbox_tests::command::Tool;
use sandbox_tests::image::sha256;
use sandbox_tests::registry::Access;
use sandbox_tests::{Host, temporary};
use serde_json::{Value, json};
use std::fs;

#[test]
fn an_image_is_found_by_tag_and_by_digest_and_under_every_spelling() {
    let server = Secure::new(Access::Anybody);
    let directory = temporary();
    let digest = server.registry.push(small("1").layout(directory.path()), "team/app:1");
    let host = server.host();
    let name = server.door.image("team/app");
    let id = digest.replace(':', "-");
    for image in [
        format!("docker://{name}:1"),
        format!("{name}:1"),
        format!("docker://{name}@{digest}"),
        format!("{name}@{digest}"),
        format!("docker:{name}:1"),
    ] {
        assert_eq!(host.fetch(&image), id, "{image}");
    }
    assert_eq!(host.images(), [id.as_str()]);
    host.sandbox(["fetch", &format!("{name}:2")]).fails_saying(&["team/app:2"]);
    host.sandbox(["fetch", &name]).fails_saying(&["latest"]);
    let none = format!("{name}@sha256:{}", "0".repeat(64));
    host.sandbox(["fetch", &none]).fails_saying(&["000"]);
    assert_eq!(host.images(), [id.as_str()]);
}

/// OCI image index: "platform"; only one for Linux on x86-64 runs here.
#[test]
fn of_an_index_the_image_for_this_machine_is_taken() {
    let server = Secure::new(Access::Anybody);
    let directory = temporary();
    let own = server.registry.push(small("own").layout(&directory.path().join("a")), "app:own");
    let other =
        server.registry.push(small("other").layout(&directory.path().join("b")), "app:other");
    let descriptor = |tag: &str, digest: &str, architecture: &str, os: &str| {
        let size = server.registry.manifest(&format!("app:{tag}")).len();
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
            "size": size, "platform": {"architecture": architecture, "os": os}})
    };
    for (kind, tag) in [
        ("application/vnd.oci.image.index.v1+json", "oci"),
        ("application/vnd.docker.distribution.manifest.list.v2+json", "docker"),
    ] {
        let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [
            descriptor("other", &other, "arm64", "linux"),
            descriptor("other", &other, "amd64", "windows"),
            descriptor("own", &own, "amd64", "linux"),
        ]});
        server.registry.put_manifest("app", tag, index.to_string().as_bytes());
        let host = server.host();
        assert_eq!(host.fetch(server.door.image(&format!("app:{tag}"))), own.replace(':', "-"));
        // By the index's own digest, too.
        let digest = sha256(index.to_string().as_bytes());
        let by_digest = format!("{}@sha256:{digest}", server.door.image("app"));
        assert_eq!(host.fetch(by_digest), own.replace(':', "-"));
    }
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor("other", &other, "arm64", "linux")]});
    server.registry.put_manifest("app", "none", index.to_string().as_bytes());
    server.host().refuses(server.door.image("app:none"), &["amd64"]);
}

/// What a tag stands for is asked as `--pull-policy` says.
#[test]
fn a_tag_that_moved_is_followed_as_the_pull_policy_says() {
    let server = Secure::new(Access::Anybody);
    let directory = temporary();
    let old = server.registry.push(small("old").layout(&directory.path().join("a")), "app:1");
    let host = server.host();
    let name = server.door.image("app:1");
    host.sandbox(["fetch", "--pull-policy=never", &name]).fails_saying(&["store"]);
    assert_eq!(host.fetch(&name), old.replace(':', "-"));
    let new = server.registry.push(small("new").layout(&directory.path().join("b")), "app:1");
    for (policy, expected) in [("never", &old), ("new", &old), ("update", &new), ("never", &new)] {
        let option = format!("--pull-policy={policy}");
        let id = host.sandbox(["fetch", "--full", &option, &name]).exits(0).text();
        assert_eq!(id.trim(), expected.replace(':', "-"), "{policy}");
    }
}

/// gzip, zstd, no compression, and OCI's as well as Docker's types.
#[test]
fn layers_are_read_however_they_are_compressed() {
    let server = Secure::new(Access::Anybody);
    let directory = temporary();
    let image = small("same");
    let layout = image.layout(directory.path());
    server.registry.push(&layout, "app:gzip");
    server.registry.push_with(&layout, "app:docker", &["--format=v2s2"]);
    let manifest: Value = serde_json::from_slice(&server.registry.manifest("app:gzip")).unwrap();
    for (tag, kind) in [("zstd", "+zstd"), ("plain", "")] {
        let mut manifest = manifest.clone();
        for (number, layer) in image.layers.iter().enumerate() {
            let content = match tag {
                "zstd" => Tool::new("zstd").with(["--stdout"]).stdin(layer.clone()).run(),
                _ => layer.clone(),
            };
            let kind = format!("application/vnd.oci.image.layer.v1.tar{kind}");
            manifest["layers"][number] = server.registry.put_blob("app", &content, &kind);
        }
        server.registry.put_manifest("app", tag, manifest.to_string().as_bytes());
    }
    let hash = |tag: &str| server.host().verity(server.door.image(&format!("app:{tag}")));
    let expected = hash("gzip");
    for tag in ["docker", "zstd", "plain"] {
        assert_eq!(hash(tag), expected, "{tag}");
    }
}

/// containers-certs.d(5); `--insecure-options=tls,http`.
#[test]
fn a_server_has_to_prove_who_it_is_and_may_ask_the_client_for_the_same() {
    let server = Secure::new(Access::Anybody);
    let directory = temporary();
    server.registry.push(small("x").layout(directory.path()), "app:1");
    let name = server.door.image("app:1");
    let stranger = Host::trusting();
    stranger.refuses(&name, &["certificate"]);
    stranger.sandbox(["fetch", "--insecure-options=tls", &name]).exits(0);
    // Of the same name, by an authority that nobody knows.
    let other = Host::trusting();
    other.believes(&server.door.name(), &sandbox_tests::certificates::Authority::new());
    other.refuses(&name, &["certificate"]);
    // A certificate for another name.
    let mistaken = server.authority.certify(&["registry.example.com"]);
    let door = server.registry.door(Some(&mistaken), Access::Anybody);
    let host = Host::trusting();
    host.believes(&door.name(), &server.authority);
    host.refuses(door.image("app:1"), &["certificate"]);
    // http where https is due.
    let host = Host::trusting();
    let plain = server.registry.image("app:1");
    host.refuses(&plain, &[]);
    host.sandbox(["fetch", "--insecure-options=http", &plain]).exits(0);

    // A server that asks who we are, in front of the registry.
    let clients = sandbox_tests::certificates::Authority::new();
    let identity = server.authority.certify(&["localhost"]).for_clients_of(&clients);
    let port = server.registry.port();
    let front = sandbox_tests::http::Proxy::tls(&identity, port, |_, answer| answer);
    let name = format!("{}/app:1", front.server().name());
    let host = Host::trusting();
    host.believes(&front.server().name(), &server.authority);
    host.refuses(&name, &[]);
    let own = clients.certify(&["me"]);
    let place = format!("/etc/containers/certs.d/{}", front.server().name());
    host.put(&format!("{place}/client.cert"), fs::read(&own.certificate).unwrap());
    host.put(&format!("{place}/client.key"), fs::read(&own.key).unwrap());
    host.fetch(&name);
}

/// containers-registries.conf(5): mirrors come first, the registry itself is what is left.
#[test]
fn a_mirror_is_asked_first_and_the_name_stays_the_same() {
    let mirror = Secure::new(Access::Anybody);
    let origin = Secure::new(Access::Anybody);
    let directory = temporary();
    let layout = small("mirrored").layout(directory.path());
    let digest = mirror.registry.push(&layout, "copies/team/app:1");
    let host = mirror.host();
    host.believes(&origin.door.name(), &origin.authority);
    host.put(
        "/etc/containers/registries.conf",
        format!(
            "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}/copies\"\n",
            origin.door.name(),
            mirror.door.name(),
        ),
    );
    let name = origin.door.image("team/app:1");
    assert_eq!(host.fetch(&name), digest.replace(':', "-"));
    host.sandbox(["image", "list", "--fields=name"])
        .exits(0)
        .mentions(&origin.door.image("team/app"));
    // What the mirror doesn't have comes from the registry.
    let other = small("origin's").layout(&directory.path().join("other"));
    let digest = origin.registry.push(other, "team/other:1");
    assert_eq!(host.fetch(origin.door.image("team/other:1")), digest.replace(':', "-"));
    // A registry that the host blocks.
    host.put(
        "/etc/containers/registries.conf.d/blocked.conf",
        format!(
            "[[registry]]\nprefix = \"{}/team\"\nlocation = \"{0}/team\"\nblocked = true\n",
            origin.door.name(),
        ),
    );
    host.sandbox(["fetch", "--pull-policy=update", &name]).fails_saying(&["blocked"]);
}

/// What is sent is what was fetched, so that it has the same digest everywhere.
#[test]
fn an_image_that_was_pushed_is_the_same_when_it_is_fetched_again() {
    let server = Secure::new(Access::Password("alice", "secret-4711"));
    let directory = temporary();
    let host = server.host();
    let auth = json!({"auths": {server.door.name(): {"auth": sandbox_tests::base64(b"alice:secret-4711")}}});
    host.put("/root/.docker/config.json", auth.to_string());
    let layout = small("pushed").layout(directory.path());
    let id = host.fetch(&layout);
    let verity = host.verity(&layout);
    let name = server.door.image("team/app:1");
    let push = |words: &[&str]| host.sandbox(["image", "push"].iter().chain(words));
    let pushed = push(&[layout.to_str().unwrap(), &name]).exits(0).never_shows("secret-4711");
    assert_eq!(pushed.text().trim().replace(':', "-"), id);
    // Once more, by its ID: everything is there already.
    push(&[&id, &server.door.image("team/copy:2")]).exits(0);

    let other = server.host();
    other.put("/root/.docker/config.json", auth.to_string());
    assert_eq!(other.fetch(&name), id);
    assert_eq!(other.verity(&name), verity);
    // Without credentials nobody may push.
    let nobody = server.host();
    nobody.fetch(&layout);
    nobody
        .sandbox(["image", "push", layout.to_str().unwrap(), &name])
        .fails_saying(&["credentials"]);
}

use super::convert::{Origin, convert};
use super::*;
use sandbox_image::{App, ImageConfig, MountPoint, Port, Reference};
use serde_json::{Value, json};

fn config() -> ImageConfig {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    ImageConfig {
        labels: vec![pair("os", "linux"), pair("arch", "amd64")],
        app: Some(App {
            entrypoint: vec!["/entry".into()],
            arguments: vec!["--serve".into()],
            environment: vec![pair("A", "b=c")],
            working_directory: "/srv".into(),
            user: "0".into(),
            group: "0".into(),
            mount_points: vec![MountPoint {
                name: "volume-var-lib".into(),
                path: "/var/lib".into(),
                read_only: false,
            }],
            ports: vec![Port {
                name: "80-tcp".into(),
                protocol: "tcp".into(),
                port: 80,
                count: 1,
                socket_activated: false,
            }],
            user_labels: vec![pair("team", "x")],
            ..App::default()
        }),
        ..ImageConfig::default()
    }
}

fn converted(reference: &str, name: &str, config: &ImageConfig) -> Value {
    let reference = Reference::parse(reference.as_ref()).unwrap();
    let origin = Origin {
        reference: &reference,
        name,
        image_id: "sha256:aa".into(),
        manifest_hash: "sha256:bb".into(),
        author: String::new(),
        created: "2026-01-02T03:04:05Z".into(),
    };
    serde_json::to_value(convert(&origin, config)).unwrap()
}

/// docker2aci `lib/internal/internal.go`: names, labels, annotations and how an app is made.
#[test]
fn an_image_of_docker_has_the_manifest_that_docker2aci_makes() {
    let manifest = converted("docker://debian:13", "docker.io/library/debian", &config());
    for (pointer, value) in [
        ("/acKind", json!("ImageManifest")),
        ("/name", json!("registry-1.docker.io/library/debian")),
        (
            "/labels",
            json!([{"name": "arch", "value": "amd64"}, {"name": "os", "value": "linux"},
                   {"name": "version", "value": "13"}]),
        ),
        ("/app/exec", json!(["/entry", "--serve"])),
        ("/app/user", json!("0")),
        ("/app/workingDirectory", json!("/srv")),
        ("/app/environment", json!([{"name": "A", "value": "b=c"}])),
        ("/app/mountPoints", json!([{"name": "volume-var-lib", "path": "/var/lib"}])),
        (
            "/app/ports",
            json!([{"name": "80-tcp", "protocol": "tcp", "port": 80, "count": 1,
                    "socketActivated": false}]),
        ),
        ("/app/userLabels", json!({"team": "x"})),
        (
            "/annotations",
            json!([
                {"name": "created", "value": "2026-01-02T03:04:05Z"},
                {"name": "appc.io/docker/originalname",
                 "value": "docker.io/library/debian:13"},
                {"name": "appc.io/docker/registryurl", "value": "registry-1.docker.io"},
                {"name": "appc.io/docker/repository", "value": "library/debian"},
                {"name": "appc.io/docker/imageid", "value": "sha256:aa"},
                {"name": "appc.io/docker/manifesthash", "value": "sha256:bb"},
                {"name": "appc.io/docker/entrypoint", "value": "[\"/entry\"]"},
                {"name": "appc.io/docker/cmd", "value": "[\"--serve\"]"},
            ]),
        ),
    ] {
        assert_eq!(manifest.pointer(pointer), Some(&value), "{pointer}");
    }
}

#[test]
fn an_image_on_disk_is_named_by_what_it_calls_itself() {
    let manifest = converted("oci:/srv/layout:app", "/srv/layout", &ImageConfig::default());
    assert_eq!(manifest["name"], "srv/layout");
    assert_eq!(manifest.get("labels"), None);
    assert_eq!(manifest.get("app"), None);
}

/// The manifest of `aci.md` in the appc specification, shortened.
#[test]
fn an_acis_manifest_keeps_what_is_in_it() {
    let document = json!({
        "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/reduce-worker",
        "labels": [{"name": "version", "value": "1.0.0"}],
        "app": {
            "exec": ["/usr/bin/reduce-worker", "--quiet"], "user": "100", "group": "300",
            "supplementaryGIDs": [400, 500],
            "eventHandlers": [{"exec": ["/usr/bin/data-downloader"], "name": "pre-start"}],
            "workingDirectory": "/opt/work",
            "environment": [{"name": "REDUCE_WORKER_DEBUG", "value": "true"}],
            "isolators": [{"name": "resource/cpu", "value": {"request": "250m", "limit": "500m"}}],
            "mountPoints": [{"name": "work", "path": "/var/lib/work"}],
            "ports": [{"name": "health", "protocol": "tcp", "port": 4000, "count": 1,
                       "socketActivated": true}],
            "userAnnotations": {"department": "x"}, "userLabels": {"tier": "backend"},
        },
        "dependencies": [{"imageName": "example.com/reduce-worker-base",
                          "imageID": "sha512-00", "size": 22017258}],
        "pathWhitelist": ["/etc/ca"],
        "annotations": [{"name": "homepage", "value": "https://example.com"}],
    });
    let manifest: ImageManifest = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(serde_json::to_value(manifest).unwrap(), document);
}

use super::guest::shares;
use super::manifest::PodManifest;
use super::size::Size;
use super::spec::{AppMount, PodSpec, Source};
use super::*;
use crate::options::{Environment, Layers, Mount, Variable};
use sandbox_image::verity::Verity;
use sandbox_image::{Algorithm, App, ImageConfig, Isolator, MountPoint};
use sandbox_protocol::{Root, Stdio, TerminalSize, VolumeSource};
use serde_json::{Value, json};

fn image() -> ImageConfig {
    ImageConfig {
        labels: vec![("os".into(), "linux".into())],
        app: Some(App {
            entrypoint: vec!["/bin/server".into()],
            arguments: vec!["--serve".into()],
            environment: vec![("MODE".into(), "image".into())],
            working_directory: "/srv".into(),
            user: "www".into(),
            group: "www".into(),
            mount_points: vec![MountPoint {
                name: "work".into(),
                path: "/var/lib/work".into(),
                read_only: false,
            }],
            ..App::default()
        }),
        ..ImageConfig::default()
    }
}

fn source<'a>(name: &'a str, config: &'a ImageConfig) -> Source<'a> {
    Source {
        id: "sha256-00".into(),
        name,
        app_name: name.rsplit('/').next().unwrap().into(),
        config,
        files_at_mount_points: false,
    }
}

/// The pod of one image, and the warnings.
fn pod(
    config: &ImageConfig,
    options: &PodOptions,
    app: &AppOptions,
) -> Result<(PodSpec, Vec<String>), String> {
    let mut assembly = Assembly::new(options).map_err(|error| error.to_string())?;
    assembly.add_source(&source("example.com/app1", config), app).map_err(|e| e.to_string())?;
    Ok(assembly.finish())
}

fn with_volumes(volumes: &[&str]) -> PodOptions {
    PodOptions {
        volumes: volumes.iter().map(|volume| volume.parse().unwrap()).collect(),
        ..PodOptions::default()
    }
}

fn mount(text: &str) -> Mount {
    text.parse().unwrap()
}

#[test]
fn an_app_is_its_image_where_the_command_line_says_nothing() {
    let (pod, _) = pod(&image(), &PodOptions::default(), &AppOptions::default()).unwrap();
    let app = &pod.apps[0];
    assert_eq!(app.name.as_str(), "app1");
    assert_eq!(app.exec, ["/bin/server", "--serve"]);
    assert_eq!((app.user.as_str(), app.group.as_str()), ("www", "www"));
    assert_eq!(app.working_directory, "/srv");
    assert_eq!(app.environment.get("MODE"), Some("image"));
}

/// rkt: arguments are appended to the image's `exec`, or to that of `--exec`.
#[test]
fn arguments_follow_the_images_program_or_the_given_one() {
    let arguments = vec!["-v".to_owned(), String::new()];
    let options = AppOptions { arguments: arguments.clone(), ..AppOptions::default() };
    let (spec, _) = pod(&image(), &PodOptions::default(), &options).unwrap();
    assert_eq!(spec.apps[0].exec, ["/bin/server", "--serve", "-v", ""]);
    let options = AppOptions { exec: Some("id".into()), arguments, ..AppOptions::default() };
    let (spec, _) = pod(&image(), &PodOptions::default(), &options).unwrap();
    assert_eq!(spec.apps[0].exec, ["id", "-v", ""]);
}

#[test]
fn an_image_without_a_program_needs_exec() {
    let config = ImageConfig::default();
    let error = pod(&config, &PodOptions::default(), &AppOptions::default()).unwrap_err();
    assert!(error.contains("--exec"), "{error}");
    let options = AppOptions { exec: Some("/bin/sh".into()), ..AppOptions::default() };
    let (spec, _) = pod(&config, &PodOptions::default(), &options).unwrap();
    let app = &spec.apps[0];
    assert_eq!((app.user.as_str(), app.group.as_str()), ("0", "0"));
    assert_eq!(app.working_directory, "/");
}

#[test]
fn two_apps_of_one_image_need_two_names() {
    let options = PodOptions::default();
    let config = image();
    let mut assembly = Assembly::new(&options).unwrap();
    assembly.add_source(&source("busybox", &config), &AppOptions::default()).unwrap();
    let error =
        assembly.add_source(&source("busybox", &config), &AppOptions::default()).unwrap_err();
    assert!(error.to_string().contains("multiple apps with name busybox"), "{error}");
    let named = AppOptions { name: Some("busybox2".parse().unwrap()), ..AppOptions::default() };
    assembly.add_source(&source("busybox", &config), &named).unwrap();
}

/// rkt `run.md`: "A volume is assigned to a mount point if they both have the same name."
#[test]
fn a_volume_goes_where_the_image_has_a_mount_point_of_its_name() {
    let options = with_volumes(&["work,kind=host,source=/opt/work", "other,kind=empty"]);
    let (pod, warnings) = pod(&image(), &options, &AppOptions::default()).unwrap();
    assert!(warnings.is_empty());
    // "Any volumes that are specified but do not have a matching mount point will be silently
    // ignored."
    assert_eq!(pod.volumes, options.volumes[..1]);
    assert_eq!(
        pod.apps[0].mounts,
        [AppMount { volume: 0, path: "/var/lib/work".into(), read_only: false }]
    );
}

/// rkt `run.md`: "If a mount point is specified in the image manifest but no matching volume is
/// found, an implicit `empty` volume will be created automatically."
#[test]
fn a_mount_point_without_a_volume_gets_an_empty_one() {
    let (pod, warnings) = pod(&image(), &PodOptions::default(), &AppOptions::default()).unwrap();
    assert_eq!(pod.volumes[0].name.as_str(), "app1-work");
    assert_eq!(warnings.len(), 1);
}

#[test]
fn an_image_with_files_at_its_mount_points_keeps_them_in_sight() {
    let config = image();
    for (read_only_root, mounts) in [(false, 0), (true, 1)] {
        let options = PodOptions::default();
        let mut assembly = Assembly::new(&options).unwrap();
        let oci = Source { files_at_mount_points: true, ..source("db", &config) };
        let app = AppOptions { read_only_root, ..AppOptions::default() };
        assembly.add_source(&oci, &app).unwrap();
        assert_eq!(assembly.finish().0.apps[0].mounts.len(), mounts, "{read_only_root}");
    }
}

/// rkt `run.md`: `--mount` "will supplement and override any mount points in the image manifest";
/// a mount of the app comes before one of all apps.
#[test]
fn the_apps_mount_comes_before_the_pods_and_that_before_the_images() {
    let mut options = with_volumes(&["a,kind=empty", "b,kind=empty", "work,kind=empty"]);
    options.mounts = vec![mount("volume=a,target=/x"), mount("volume=a,target=/var/lib/work")];
    let app = AppOptions { mounts: vec![mount("volume=b,target=/x")], ..AppOptions::default() };
    let (pod, _) = pod(&image(), &options, &app).unwrap();
    let mounted: Vec<(&str, &str)> = pod.apps[0]
        .mounts
        .iter()
        .map(|mount| (mount.path.as_str(), pod.volumes[mount.volume].name.as_str()))
        .collect();
    assert_eq!(mounted, [("/x", "b"), ("/var/lib/work", "a")]);
}

#[test]
fn inner_mounts_come_after_outer_ones() {
    let mut options = with_volumes(&["a,kind=empty", "work,kind=empty"]);
    options.mounts = vec![mount("volume=a,target=/x/y/z"), mount("volume=a,target=/x")];
    let (pod, _) = pod(&image(), &options, &AppOptions::default()).unwrap();
    let paths: Vec<&str> = pod.apps[0].mounts.iter().map(|mount| mount.path.as_str()).collect();
    assert_eq!(paths, ["/x", "/x/y/z", "/var/lib/work"]);
}

#[test]
fn a_mount_of_no_volume_is_refused() {
    let app = AppOptions { mounts: vec![mount("volume=b,target=/x")], ..AppOptions::default() };
    let error = pod(&image(), &PodOptions::default(), &app).unwrap_err();
    assert!(error.starts_with("dangling mount point \"/x\": volume \"b\" not found"), "{error}");
    let options = with_volumes(&["b,kind=empty", "b,kind=empty"]);
    let error = pod(&image(), &options, &app).unwrap_err();
    assert_eq!(error, "multiple volumes with name b");
}

#[test]
fn hostile_mount_points_are_refused() {
    for (name, path) in [("work", "/a/../../etc"), ("../x", "/a"), ("work", "/")] {
        let mut config = image();
        config.app.as_mut().unwrap().mount_points =
            vec![MountPoint { name: name.into(), path: path.into(), read_only: false }];
        let error = pod(&config, &PodOptions::default(), &AppOptions::default()).unwrap_err();
        assert!(error.starts_with("app app1: mount point of the image"), "{error}");
    }
}

#[test]
fn limits_of_the_image_hold_unless_the_command_line_has_others() {
    let mut config = image();
    let isolator = |name: &str, value| Isolator { name: name.into(), value };
    config.app.as_mut().unwrap().isolators = vec![
        isolator("resource/memory", json!({"limit": "1G"})),
        isolator("resource/cpu", json!({"request": "1", "limit": "1500m"})),
        isolator("os/linux/x", json!({})),
    ];
    let (spec, warnings) = pod(&config, &PodOptions::default(), &AppOptions::default()).unwrap();
    assert_eq!(spec.apps[0].memory.unwrap().bytes(), 1_000_000_000);
    assert_eq!(spec.apps[0].cpu.unwrap().millis(), 1500);
    assert!(warnings[0].contains("os/linux/x"), "{warnings:?}");
    let options = AppOptions { memory: Some("64Mi".parse().unwrap()), ..AppOptions::default() };
    let (spec, _) = pod(&config, &PodOptions::default(), &options).unwrap();
    assert_eq!(spec.apps[0].memory.unwrap().bytes(), 64 << 20);
    config.app.as_mut().unwrap().isolators =
        vec![isolator("resource/memory", json!({"limit": "lots"}))];
    let error = pod(&config, &PodOptions::default(), &AppOptions::default()).unwrap_err();
    assert!(error.contains("resource/memory"), "{error}");
}

fn size(limits: &[(Option<&str>, Option<&str>)]) -> Result<(u8, u32), String> {
    let options = PodOptions::default();
    let config = image();
    let mut assembly = Assembly::new(&options).unwrap();
    for (index, (memory, cpu)) in limits.iter().enumerate() {
        let app = AppOptions {
            name: Some(format!("app{index}").parse().unwrap()),
            memory: memory.map(|memory| memory.parse().unwrap()),
            cpu: cpu.map(|cpu| cpu.parse().unwrap()),
            ..AppOptions::default()
        };
        assembly.add_source(&source("x", &config), &app).unwrap();
    }
    let size = Size::of(&assembly.finish().0.apps).map_err(|error| error.to_string())?;
    Ok((size.vcpus.into(), size.memory.into()))
}

#[test]
fn a_microvm_has_room_for_the_limits_of_its_apps() {
    for (limits, expected) in [
        (vec![(None, None)], (1, 256)),
        (vec![(Some("64Mi"), Some("500m"))], (1, 128)),
        (vec![(Some("64M"), Some("1001m"))], (2, 126)),
        (vec![(Some("1Gi"), Some("2")), (None, Some("2"))], (4, 1024 + 192 + 64)),
        (vec![(None, Some("32"))], (32, 256)),
    ] {
        assert_eq!(size(&limits), Ok(expected), "{limits:?}");
    }
    assert!(size(&[(None, Some("33"))]).unwrap_err().contains("at most 32 CPUs"));
    assert!(size(&[(None, Some("1000"))]).unwrap_err().contains("at most 32 CPUs"));
    assert!(size(&[(Some("1Ti"), None)]).unwrap_err().contains("memory limits add up"));
    assert!(size(&[(Some("7E"), None), (Some("7E"), None)]).is_err());
}

#[test]
fn the_guest_is_told_what_the_pod_is() {
    let mut options = with_volumes(&[
        "work,kind=host,source=/tmp,readOnly=true",
        "scratch,kind=empty,mode=1777,uid=5,gid=6",
    ]);
    options.mounts = vec![mount("volume=scratch,target=/s")];
    options.environment = Layers::default();
    let app = AppOptions {
        environment: Environment::from_option(
            "--environment",
            &["A=b=c".parse::<Variable>().unwrap()],
        )
        .unwrap(),
        memory: Some("64Mi".parse().unwrap()),
        cpu: Some("1500m".parse().unwrap()),
        ..AppOptions::default()
    };
    let (spec, _) = pod(&image(), &options, &app).unwrap();
    let verity = Verity { data_blocks: 7, hash_start: 7, root_hash: [9; 32] };
    let disks = Disks { images: vec![verity], scratch: true };
    let pod = message(&spec, &disks, "host", Console::Streams { stdin: true });
    let app = &pod.apps[0];
    assert_eq!((pod.hostname.as_str(), pod.share_tag.as_deref()), ("host", Some("pod")));
    assert_eq!(app.root, Root::Image(0));
    assert_eq!(pod.images.len(), 1);
    let image = &pod.images[0];
    assert_eq!((image.serial.as_str(), image.verity.root_hash), ("image-0", [9; 32]));
    assert_eq!((image.verity.data_blocks, image.verity.hash_start), (7, 7));
    assert_eq!(pod.scratch.as_deref(), Some("scratch"));
    assert_eq!(app.argv, [b"/bin/server".to_vec(), b"--serve".to_vec()]);
    assert!(app.environment.contains(&b"A=b=c".to_vec()));
    assert_eq!((app.memory, app.cpu_millis), (Some(64 << 20), Some(1500)));
    let Stdio::Streams { stdin: Some(stdin), stdout, stderr } = app.stdio else { panic!() };
    assert_eq!((stdin, stdout, stderr), (1025, 1026, 1027));
    for (target, read_only) in [("/s", false), ("/var/lib/work", true)] {
        let mount = app.mounts.iter().find(|mount| mount.target == target.as_bytes()).unwrap();
        assert_eq!(mount.read_only, read_only, "{target}");
    }
    let source = |name| &pod.volumes.iter().find(|volume| volume.name == name).unwrap().source;
    assert_eq!(*source("work"), VolumeSource::Share("volume-work".into()));
    assert_eq!(*source("scratch"), VolumeSource::Empty { mode: 0o1777, uid: 5, gid: 6 });
    let size = TerminalSize { rows: 1, columns: 2 };
    let pod = message(&spec, &Disks::default(), "host", Console::Terminal(size));
    assert_eq!(pod.scratch, None);
    assert_eq!(pod.apps[0].stdio, Stdio::Terminal { port: 1025, size });
}

#[test]
fn only_mounted_volumes_are_shared_and_only_writable_where_an_app_may_write() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("link");
    let target = directory.path().join("target");
    std::fs::create_dir(&target).unwrap();
    std::os::unix::fs::symlink("target", &link).unwrap();
    let volume = |options: &str| format!("work,kind=host,source={}{options}", link.display());
    for (options, read_only, recursive) in
        [("", false, true), (",readOnly=true", true, true), (",recursive=false", false, false)]
    {
        let options = with_volumes(&[&volume(options), "unused,kind=host,source=/nowhere"]);
        let (spec, _) = pod(&image(), &options, &AppOptions::default()).unwrap();
        assert_eq!(
            shares(&spec).unwrap(),
            [Share {
                name: "volume-work".into(),
                path: target.canonicalize().unwrap(),
                read_only,
                recursive
            }]
        );
    }
    for missing in ["/nowhere", "/dev/null"] {
        let options = with_volumes(&[&format!("work,kind=host,source={missing}")]);
        let (spec, _) = pod(&image(), &options, &AppOptions::default()).unwrap();
        let error = shares(&spec).unwrap_err().to_string();
        assert!(error.contains("volume work") && error.contains(missing), "{error}");
    }
}

#[test]
fn the_manifest_is_one_of_appc() {
    let options = with_volumes(&["work,kind=host,source=/opt/work"]);
    let app = AppOptions {
        memory: Some("64Mi".parse().unwrap()),
        read_only_root: true,
        ..AppOptions::default()
    };
    let (spec, _) = pod(&image(), &options, &app).unwrap();
    let manifest: Value = serde_json::to_value(PodManifest::of(&spec)).unwrap();
    for (pointer, value) in [
        ("/acKind", json!("PodManifest")),
        ("/acVersion", json!("0.8.11")),
        ("/apps/0/name", json!("app1")),
        ("/apps/0/image/id", json!("sha256-00")),
        ("/apps/0/image/labels", json!([{"name": "os", "value": "linux"}])),
        ("/apps/0/app/exec", json!(["/bin/server", "--serve"])),
        ("/apps/0/app/workingDirectory", json!("/srv")),
        ("/apps/0/app/supplementaryGIDs", json!([])),
        (
            "/apps/0/app/isolators",
            json!([{"name": "resource/memory", "value": {"request": "64Mi", "limit": "64Mi"}}]),
        ),
        ("/apps/0/readOnlyRootFS", json!(true)),
        ("/apps/0/mounts", json!([{"volume": "work", "path": "/var/lib/work"}])),
        (
            "/volumes",
            json!([{"name": "work", "kind": "host", "source": "/opt/work", "readOnly": false,
                    "recursive": true}]),
        ),
    ] {
        assert_eq!(manifest.pointer(pointer), Some(&value), "{pointer}");
    }
}

#[test]
fn every_image_of_a_pod_is_one_that_was_decided_about() {
    let digests = ["a", "b", "c"].map(|name| Digest::of(Algorithm::Sha256, name.as_bytes()));
    let names = digests.clone().map(|digest| digest.file_name());
    let ids = [names[1].as_str(), names[0].as_str()];
    let [a, b, c] = digests;
    let images = || vec![a.clone(), b.clone()];
    let ordered = in_order(&ids, images(), |id| id, |_| true).unwrap();
    assert_eq!(ordered, [b.clone(), a.clone()]);
    for (images, decided) in [
        (images(), vec![&a]),
        (images(), vec![]),
        (vec![a.clone()], vec![&a, &b]),
        (vec![a.clone(), c.clone()], vec![&a, &b, &c]),
    ] {
        let error = in_order(&ids, images, |id| id, |id| decided.contains(&id)).unwrap_err();
        assert!(
            error.to_string().contains("is not one that the gate has decided about"),
            "{error}"
        );
    }
}

//! A pod of an image's configuration and of options, and its manifest. The input is options, one a
//! line, and behind a line `---` the configuration: an ACI's manifest or OCI's JSON.
#![no_main]
#![allow(dead_code, unused_imports, reason = "the command has more of it than is tried here")]

use libfuzzer_sys::fuzz_target;
use manifest::PodManifest;
use options::clean;
use sandbox_image::ImageConfig;
use sandbox_image::format::{aci, oci};
use spec::{AppOptions, Assembly, PodOptions, PodSpec, Source};

#[path = "../../../sandbox/src/pod/manifest.rs"]
mod manifest;
#[path = "../../../sandbox/src/options/mod.rs"]
mod options;
#[path = "../../../sandbox/src/pod/spec.rs"]
mod spec;

fn image(document: &[u8]) -> Option<ImageConfig> {
    let aci = aci::parse_manifest(document).map(|manifest| manifest.config);
    aci.ok().or_else(|| oci::parse_config(document).ok().map(|config| config.said))
}

/// `v` and what `--volume` would have, and so on; a line that is none is left out.
fn read(lines: &str) -> (PodOptions, AppOptions) {
    let (mut pod, mut app) = (PodOptions::default(), AppOptions::default());
    for line in lines.lines().take(100) {
        let (kind, value) = line.split_at_checked(1).unwrap_or(("", ""));
        match kind {
            "v" => pod.volumes.extend(value.parse().ok()),
            "m" => pod.mounts.extend(value.parse().ok()),
            "M" => app.mounts.extend(value.parse().ok()),
            "e" => app.exec = Some(value.into()),
            "a" => app.arguments.push(value.into()),
            "u" => app.user = Some(value.into()),
            "c" => app.cpu = value.parse().ok().or(app.cpu),
            "y" => app.memory = value.parse().ok().or(app.memory),
            "r" => app.read_only_root = true,
            _ => {}
        }
    }
    (pod, app)
}

fn check(spec: &PodSpec) {
    for (index, app) in spec.apps.iter().enumerate() {
        assert!(!app.exec.is_empty());
        assert!(spec.apps[..index].iter().all(|other| other.name != app.name));
        for (index, mount) in app.mounts.iter().enumerate() {
            assert!(mount.volume < spec.volumes.len());
            assert_eq!(clean(&mount.path).as_ref(), Ok(&mount.path));
            // What is mounted later does not hide what is there, nor take its place.
            let inside = format!("{}/", mount.path);
            for before in &app.mounts[..index] {
                assert!(before.path != mount.path && !before.path.starts_with(&inside));
            }
            let read_only = spec.volumes[mount.volume].read_only;
            assert!(mount.read_only || !read_only, "a volume that can only be read is written to");
        }
        assert_eq!(app.environment.get("AC_APP_NAME"), Some(app.name.as_str()));
        let variables = app.environment.variables();
        for (index, variable) in variables.iter().enumerate() {
            assert!(variables[..index].iter().all(|other| other.name != variable.name));
        }
    }
    for (index, volume) in spec.volumes.iter().enumerate() {
        assert!(spec.volumes[..index].iter().all(|other| other.name != volume.name));
    }
    serde_json::to_vec(&PodManifest::of(spec)).expect("it can be written");
}

fuzz_target!(|input: &[u8]| {
    let end = input.windows(5).position(|part| part == b"\n---\n");
    let (lines, document) = end.map_or((&[][..], input), |end| (&input[..end], &input[end + 5..]));
    let Some(config) = image(document) else { return };
    let (pod, app) = read(&String::from_utf8_lossy(lines));
    let Ok(mut assembly) = Assembly::new(&pod) else { return };
    for name in ["first", "second"] {
        let source = Source {
            id: "sha512-00".into(),
            name: "example.com/image",
            app_name: name.into(),
            config: &config,
            files_at_mount_points: name == "second",
        };
        if assembly.add_source(&source, &app).is_err() {
            return;
        }
    }
    check(&assembly.finish().0);
});

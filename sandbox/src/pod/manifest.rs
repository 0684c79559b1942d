//! A pod as appc's `PodManifest` (appc `pods.md`): what is written to the pod's directory.

use super::spec::{AppSpec, PodSpec};
use crate::options::{Volume, VolumeKind};
use sandbox_image::Isolator;
use serde::Serialize;
use serde_json::{Value, json};

/// The version of appc that manifests follow.
pub const AC_VERSION: &str = "0.8.11";

/// The manifest of a pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodManifest<'a> {
    ac_version: &'static str,
    ac_kind: &'static str,
    apps: Vec<RuntimeApp<'a>>,
    volumes: Vec<Value>,
    isolators: [Value; 0],
    annotations: Vec<NameValue<'a>>,
    ports: [Value; 0],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeApp<'a> {
    name: &'a str,
    image: RuntimeImage<'a>,
    app: App<'a>,
    #[serde(rename = "readOnlyRootFS")]
    read_only_root_fs: bool,
    mounts: Vec<RuntimeMount<'a>>,
}

#[derive(Debug, Serialize)]
struct RuntimeImage<'a> {
    name: &'a str,
    id: &'a str,
    labels: Vec<NameValue<'a>>,
}

#[derive(Debug, Serialize)]
struct RuntimeMount<'a> {
    volume: &'a str,
    path: &'a str,
}

#[derive(Debug, Serialize)]
struct NameValue<'a> {
    name: &'a str,
    value: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct App<'a> {
    exec: &'a [String],
    user: &'a str,
    group: &'a str,
    #[serde(rename = "supplementaryGIDs")]
    supplementary_gids: &'a [u32],
    working_directory: &'a str,
    environment: Vec<NameValue<'a>>,
    mount_points: Vec<Value>,
    ports: Vec<Value>,
    isolators: Vec<Value>,
}

impl<'a> PodManifest<'a> {
    /// The manifest of a pod.
    pub fn of(pod: &'a PodSpec) -> Self {
        Self {
            ac_version: AC_VERSION,
            ac_kind: "PodManifest",
            apps: pod.apps.iter().map(|app| RuntimeApp::of(app, &pod.volumes)).collect(),
            volumes: pod.volumes.iter().map(volume).collect(),
            isolators: [],
            annotations: vec![NameValue { name: "coreos.com/rkt/stage1/mutable", value: "false" }],
            ports: [],
        }
    }
}

impl<'a> RuntimeApp<'a> {
    fn of(app: &'a AppSpec, volumes: &'a [Volume]) -> Self {
        Self {
            name: app.name.as_str(),
            image: RuntimeImage {
                name: &app.image_name,
                id: &app.image_id,
                labels: pairs(&app.image.labels),
            },
            app: App::of(app),
            read_only_root_fs: app.read_only_root,
            mounts: app
                .mounts
                .iter()
                .filter_map(|mount| {
                    let volume = volumes.get(mount.volume)?;
                    Some(RuntimeMount { volume: volume.name.as_str(), path: &mount.path })
                })
                .collect(),
        }
    }
}

impl<'a> App<'a> {
    fn of(app: &'a AppSpec) -> Self {
        let image = app.image.app.as_ref();
        Self {
            exec: &app.exec,
            user: &app.user,
            group: &app.group,
            supplementary_gids: &app.supplementary_gids,
            working_directory: &app.working_directory,
            environment: app
                .environment
                .variables()
                .iter()
                .map(|variable| NameValue { name: &variable.name, value: &variable.value })
                .collect(),
            mount_points: image
                .iter()
                .flat_map(|image| &image.mount_points)
                .map(|point| {
                    json!({"name": point.name, "path": point.path, "readOnly": point.read_only})
                })
                .collect(),
            ports: image
                .iter()
                .flat_map(|image| &image.ports)
                .map(|port| {
                    json!({
                        "name": port.name,
                        "protocol": port.protocol,
                        "port": port.port,
                        "count": port.count,
                        "socketActivated": port.socket_activated,
                    })
                })
                .collect(),
            isolators: isolators(app, image.map_or(&[], |image| &image.isolators)),
        }
    }
}

/// The image's isolators, with the limits that are in force.
fn isolators(app: &AppSpec, of_image: &[Isolator]) -> Vec<Value> {
    let limit = |name: &str, value: String| json!({"name": name, "value": {"request": value, "limit": value}});
    of_image
        .iter()
        .filter(|isolator| !["resource/memory", "resource/cpu"].contains(&isolator.name.as_str()))
        .map(|isolator| json!({"name": isolator.name, "value": isolator.value}))
        .chain(app.memory.map(|memory| limit("resource/memory", memory.to_string())))
        .chain(app.cpu.map(|cpu| limit("resource/cpu", cpu.to_string())))
        .collect()
}

fn pairs(pairs: &[(String, String)]) -> Vec<NameValue<'_>> {
    pairs.iter().map(|(name, value)| NameValue { name, value }).collect()
}

fn volume(volume: &Volume) -> Value {
    let name = volume.name.as_str();
    let read_only = volume.read_only;
    match &volume.kind {
        VolumeKind::Host { source, recursive } => json!({
            "name": name,
            "kind": "host",
            "source": source,
            "readOnly": read_only,
            "recursive": recursive,
        }),
        VolumeKind::Empty { mode, uid, gid } => json!({
            "name": name,
            "kind": "empty",
            "readOnly": read_only,
            "mode": format!("{mode:04o}"),
            "uid": uid,
            "gid": gid,
        }),
    }
}

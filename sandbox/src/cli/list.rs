use super::{Global, Outcome};
use crate::output::{self, Format, elapsed, local_time};
use crate::pod::{DataDir, Listed};
use clap::Args;
use sandbox_image::Text;
use serde::Serialize;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// List pods.
///
/// A pod removes its own files when it ends: those shown as 'exited' were killed, and 'sandbox gc'
/// removes them. ATTESTED says how far the launch was written down and checked: none; measured (it
/// is in the TPM); local (this host has verified what the TPM signed about it); remote (a verifier's
/// service has).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sandbox list --full
  UUIDs of the pods that run:
    sandbox list --format=json | jq -r '.[]? | select(.state == \"running\").name'

In JSON, times of pods are seconds since 1970. Without a pod it is null.")]
pub struct List {
    /// Print no headings.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set,
          value_parser = crate::options::boolean)]
    no_legend: bool,
    /// Print whole UUIDs, IDs of images, and full dates.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set,
          value_parser = crate::options::boolean)]
    full: bool,
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse, default_value = "",
          hide_default_value = true, help = Format::HELP)]
    format: Format,
}

/// Headings, where they are shown.
const HEADINGS: [&str; 8] =
    ["UUID", "APP", "IMAGE NAME", "STATE", "CREATED", "STARTED", "NETWORKS", "ATTESTED"];

impl List {
    /// Prints the pods.
    pub fn execute(&self, global: &Global) -> Outcome {
        let pods = DataDir::at(&global.data_dir()?)?.pods()?;
        let text = match self.format {
            Format::Text => self.table(&pods, SystemTime::now()),
            format => {
                let pods: Vec<_> = pods.iter().map(Entry::of).collect();
                let pods = Some(pods).filter(|pods| !pods.is_empty());
                output::json(&pods, format == Format::JsonPretty)?
            }
        };
        write!(std::io::stdout(), "{text}")?;
        Ok(0)
    }

    fn table(&self, pods: &[Listed], now: SystemTime) -> String {
        let mut rows = Vec::new();
        if !self.no_legend {
            let mut headings: Vec<_> = HEADINGS.map(str::to_owned).into();
            if self.full {
                headings.insert(3, "IMAGE ID".to_owned());
            }
            rows.push(headings);
        }
        rows.extend(pods.iter().flat_map(|pod| self.rows(pod, now)));
        output::table(&rows)
    }

    /// A row for each app; what is about the pod is in the first one.
    fn rows(&self, pod: &Listed, now: SystemTime) -> Vec<Vec<String>> {
        let uuid = pod.uuid.to_string();
        let time = |time: Option<SystemTime>| match time {
            Some(time) if self.full => local_time(time),
            Some(time) => elapsed(time, now),
            None => String::new(),
        };
        let apps = pod.manifest.as_ref().map_or(&[][..], |manifest| &manifest.apps);
        let mut of_apps: Vec<[String; 3]> = apps
            .iter()
            .map(|app| {
                let version = app.image.labels.iter().find(|label| label.name == "version");
                let version = version.map(|label| format!(":{}", label.value)).unwrap_or_default();
                let image = Text::new(format!("{}{version}", app.image.name)).to_string();
                let id = app.image.id.get(..19).unwrap_or(&app.image.id);
                [Text::new(&app.name).to_string(), image, Text::new(id).to_string()]
            })
            .collect();
        if of_apps.is_empty() {
            of_apps.push(["-", "-", "-"].map(str::to_owned));
        }
        let of_pod = [
            pod.life.to_string(),
            time(pod.created),
            time(pod.started),
            String::new(),
            pod.attestation.to_string(),
        ];
        let row = |(index, [app, image, id]): (usize, [String; 3])| {
            let is_first = index == 0;
            let uuid = if self.full { uuid.as_str() } else { &uuid[..8] };
            let mut row = vec![if is_first { uuid.to_owned() } else { String::new() }, app, image];
            row.extend(self.full.then_some(id));
            row.extend(of_pod.iter().filter(|_| is_first).cloned());
            row
        };
        of_apps.into_iter().enumerate().map(row).collect()
    }
}

/// A pod as rkt's JSON has it, and `attestation`.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    name: String,
    state: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    app_names: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    apps: Vec<App<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    attestation: AttestationEntry,
}

#[derive(Debug, Serialize)]
struct AttestationEntry {
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    launch: Option<u64>,
}

#[derive(Debug, Serialize)]
struct App<'a> {
    name: &'a str,
    state: &'static str,
    image_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<Mount<'a>>,
}

#[derive(Debug, Serialize)]
struct Mount<'a> {
    name: &'a str,
    container_path: &'a str,
    host_path: &'a str,
    read_only: bool,
}

impl<'a> Entry<'a> {
    /// What JSON says about a pod.
    pub fn of(pod: &'a Listed) -> Self {
        let seconds = |time: Option<SystemTime>| {
            time.map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
        };
        let (apps, volumes) = match &pod.manifest {
            Some(manifest) => (&manifest.apps[..], &manifest.volumes[..]),
            None => (&[][..], &[][..]),
        };
        // Of an app alone nobody keeps anything yet that outlives the pod.
        let state = match pod.pid {
            Some(_) => "running",
            None if pod.life.is_over() => "exited",
            None => "unknown",
        };
        let app = |app: &'a crate::pod::ListedApp| App {
            name: &app.name,
            state,
            image_id: &app.image.id,
            mounts: app
                .mounts
                .iter()
                .filter_map(|mount| {
                    let volume = volumes.iter().find(|volume| volume.name == mount.volume)?;
                    Some(Mount {
                        name: &volume.name,
                        container_path: &mount.path,
                        host_path: &volume.source,
                        read_only: volume.read_only,
                    })
                })
                .collect(),
        };
        Self {
            name: pod.uuid.to_string(),
            state: pod.life.to_string(),
            app_names: apps.iter().map(|app| app.name.as_str()).collect(),
            apps: apps.iter().map(app).collect(),
            created_at: seconds(pod.created),
            started_at: seconds(pod.started),
            attestation: AttestationEntry {
                state: pod.attestation.to_string(),
                launch: pod.attestation.number(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Attestation;
    use crate::pod::Life;
    use std::time::Duration;

    fn pod(manifest: &str) -> Listed {
        Listed {
            uuid: "6f0e9b1c-7d52-4bb4-9c0e-2f4bd3a6f1f0".parse().unwrap(),
            life: Life::Running,
            manifest: serde_json::from_str(manifest).ok(),
            created: Some(UNIX_EPOCH + Duration::from_secs(1000)),
            started: Some(UNIX_EPOCH + Duration::from_secs(1001)),
            pid: Some(42),
            attestation: Attestation::Local { number: 7 },
        }
    }

    const TWO: &str = r#"{"apps":[
        {"name":"web","image":{"name":"example.com/web","id":"sha512-0123456789abcdef",
         "labels":[{"name":"version","value":"1.2"}]},
         "mounts":[{"volume":"data","path":"/data"}]},
        {"name":"log\u001b[2J","image":{"name":"example.com/log","id":"sha512-ff"}}],
        "volumes":[{"name":"data","kind":"host","source":"/srv","readOnly":true}]}"#;

    fn cells(list: &List, pods: &[Listed]) -> Vec<Vec<String>> {
        let table = list.table(pods, UNIX_EPOCH + Duration::from_secs(1121));
        let cells = |line: &str| {
            let cells = line.split('\t').filter(|cell| !cell.is_empty());
            cells.map(str::to_owned).collect()
        };
        table.lines().map(cells).collect()
    }

    /// rkt: further apps of a pod have rows of their own, without what is about the pod.
    #[test]
    fn pods_are_listed_as_rkt_lists_them_and_how_far_they_are_attested() {
        let list = List { no_legend: false, full: false, format: Format::Text };
        assert_eq!(
            cells(&list, &[pod(TWO)]),
            [
                &HEADINGS[..],
                &[
                    "6f0e9b1c",
                    "web",
                    "example.com/web:1.2",
                    "running",
                    "2 minutes ago",
                    "2 minutes ago",
                    "local"
                ],
                &["log\\u{1b}[2J", "example.com/log"],
            ]
        );
        let full = List { no_legend: true, full: true, format: Format::Text };
        let rows = cells(&full, &[pod(TWO)]);
        assert_eq!(rows[0][0], "6f0e9b1c-7d52-4bb4-9c0e-2f4bd3a6f1f0");
        assert_eq!(rows[0][3], "sha512-0123456789ab");
        assert_eq!(cells(&list, &[pod("")])[1][1..3], ["-", "-"]);
    }

    /// rkt `api/v1/json.go`: the UUID is the pod's `name`, times of pods are seconds.
    #[test]
    fn json_is_rkts_and_has_the_launch() {
        let pod = pod(TWO);
        let entry = serde_json::to_value(Entry::of(&pod)).unwrap();
        assert_eq!(entry["name"], pod.uuid.to_string());
        assert_eq!(entry["created_at"], 1000);
        assert_eq!(entry["apps"][0]["state"], "running");
        assert_eq!(
            entry["apps"][0]["mounts"],
            serde_json::json!([{"name": "data", "container_path": "/data", "host_path": "/srv",
                                "read_only": true}])
        );
        assert_eq!(entry["attestation"], serde_json::json!({"state": "local", "launch": 7}));
    }
}

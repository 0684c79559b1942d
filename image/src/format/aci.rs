//! The manifest of an App Container Image (appc, aci.md).

use super::{
    ARCHITECTURE, DocumentError, OS, check_absolute, check_platform, check_string,
    is_ac_identifier, is_ac_name, parse,
};
use crate::{App, EventHandler, ImageConfig, Isolator, MountPoint, Port, Text};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};

/// What the manifest of an ACI says.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The image's name, an AC Identifier.
    pub name: String,
    /// The rest.
    pub config: ImageConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    ac_kind: String,
    ac_version: String,
    name: String,
    #[serde(default)]
    labels: Option<Vec<NameValue>>,
    #[serde(default)]
    app: Option<AppDocument>,
    #[serde(default)]
    annotations: Option<Vec<NameValue>>,
    #[serde(default)]
    dependencies: Option<Vec<Dependency>>,
    #[serde(default)]
    path_whitelist: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct NameValue {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    image_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AppDocument {
    #[serde(default)]
    exec: Option<Vec<String>>,
    user: String,
    group: String,
    #[serde(default, rename = "supplementaryGIDs")]
    supplementary_gids: Option<Vec<u32>>,
    #[serde(default)]
    event_handlers: Option<Vec<EventHandlerDocument>>,
    #[serde(default)]
    working_directory: Option<String>,
    #[serde(default)]
    environment: Option<Vec<NameValue>>,
    #[serde(default)]
    isolators: Option<Vec<IsolatorDocument>>,
    #[serde(default)]
    mount_points: Option<Vec<MountPointDocument>>,
    #[serde(default)]
    ports: Option<Vec<PortDocument>>,
    #[serde(default)]
    user_annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    user_labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct EventHandlerDocument {
    name: String,
    exec: Vec<String>,
}

#[derive(Deserialize)]
struct IsolatorDocument {
    name: String,
    #[serde(default)]
    value: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MountPointDocument {
    name: String,
    path: String,
    #[serde(default)]
    read_only: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortDocument {
    name: String,
    protocol: String,
    port: u16,
    #[serde(default)]
    count: Option<u16>,
    #[serde(default)]
    socket_activated: bool,
}

/// Parses a manifest and checks all that the specification says about its values.
///
/// # Errors
/// If it is not such a manifest, is for another platform, or needs other images.
pub fn parse_manifest(document: &[u8]) -> Result<Manifest, DocumentError> {
    let document: Document = parse(document)?;
    if document.ac_kind != "ImageManifest" {
        let problem = "it is not ImageManifest";
        return Err(DocumentError::value("acKind", &document.ac_kind, problem));
    }
    check_version(&document.ac_version)?;
    if !is_ac_identifier(&document.name) {
        let problem = "it is not an AC Identifier";
        return Err(DocumentError::value("name", &document.name, problem));
    }
    if let Some([dependency, ..]) = document.dependencies.as_deref() {
        let what = format!("the image '{}' as a dependency", dependency.image_name);
        return Err(DocumentError::Unsupported(Text::new(what)));
    }
    if document.path_whitelist.is_some_and(|list| !list.is_empty()) {
        return Err(DocumentError::Unsupported(Text::new("a pathWhitelist")));
    }
    let labels = labels(document.labels.unwrap_or_default())?;
    let annotations =
        pairs("annotations.name", document.annotations.unwrap_or_default(), |name| {
            is_ac_identifier(name)
        })?;
    let app = document.app.map(app).transpose()?;
    let config = ImageConfig { labels, annotations, app };
    Ok(Manifest { name: document.name, config })
}

/// A semantic version. The specification never reached 1.0; images say which draft they follow.
fn check_version(version: &str) -> Result<(), DocumentError> {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let release = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = release.split('.').collect();
    match parts.as_slice() {
        ["0", minor, patch] if number(minor) && number(patch) => Ok(()),
        _ => Err(DocumentError::value("acVersion", version, "only 0.x.y is supported")),
    }
}

fn labels(list: Vec<NameValue>) -> Result<Vec<(String, String)>, DocumentError> {
    let labels = pairs("labels.name", list, |name| is_ac_identifier(name) && name != "name")?;
    let value = |wanted| {
        let label = labels.iter().find(|(name, _)| name == wanted);
        label.map(|(_, value)| value.as_str())
    };
    match (value("os"), value("arch")) {
        (Some(os), Some(architecture)) => check_platform(os, architecture)?,
        _ => {
            let problem = "the image must say for which os and arch it is";
            let wanted = format!("{OS}/{ARCHITECTURE}");
            return Err(DocumentError::value("labels", wanted, problem));
        }
    }
    Ok(labels)
}

/// Names and values, each name once.
fn pairs(
    field: &'static str,
    list: Vec<NameValue>,
    is_name: impl Fn(&str) -> bool,
) -> Result<Vec<(String, String)>, DocumentError> {
    let mut once = Once::new(field);
    let mut pairs = Vec::with_capacity(list.len());
    for NameValue { name, value } in list {
        if !is_name(&name) {
            return Err(DocumentError::value(field, &name, "it is not a valid name here"));
        }
        check_string(field, &value)?;
        once.check(&name)?;
        pairs.push((name, value));
    }
    Ok(pairs)
}

fn app(document: AppDocument) -> Result<App, DocumentError> {
    for (field, value) in [("app.user", &document.user), ("app.group", &document.group)] {
        check_string(field, value)?;
        if value.is_empty() {
            return Err(DocumentError::value(field, value, "it is empty"));
        }
        if value.starts_with('/') {
            check_absolute(field, value)?;
        }
    }
    let entrypoint = document.exec.unwrap_or_default();
    check_exec("app.exec", &entrypoint)?;
    let working_directory = match document.working_directory.unwrap_or_default() {
        directory if directory.is_empty() => "/".to_owned(),
        directory => directory,
    };
    check_absolute("app.workingDirectory", &working_directory)?;
    let supplementary_gids = document.supplementary_gids.unwrap_or_default();
    if supplementary_gids.contains(&u32::MAX) {
        let problem = "it is not a group ID";
        return Err(DocumentError::value("app.supplementaryGIDs", u32::MAX.to_string(), problem));
    }
    let environment = document.environment.unwrap_or_default();
    Ok(App {
        entrypoint,
        arguments: Vec::new(),
        environment: pairs("app.environment.name", environment, is_environment_name)?,
        working_directory,
        user: document.user,
        group: document.group,
        supplementary_gids,
        mount_points: mount_points(document.mount_points.unwrap_or_default())?,
        ports: ports(document.ports.unwrap_or_default())?,
        isolators: isolators(document.isolators.unwrap_or_default())?,
        event_handlers: event_handlers(document.event_handlers.unwrap_or_default())?,
        user_labels: document.user_labels.unwrap_or_default().into_iter().collect(),
        user_annotations: document.user_annotations.unwrap_or_default().into_iter().collect(),
        stop_signal: None,
    })
}

fn check_exec(field: &'static str, exec: &[String]) -> Result<(), DocumentError> {
    if exec.first().is_some_and(String::is_empty) {
        return Err(DocumentError::value(field, "", "the program has no name"));
    }
    exec.iter().try_for_each(|argument| check_string(field, argument))
}

fn is_environment_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn mount_points(list: Vec<MountPointDocument>) -> Result<Vec<MountPoint>, DocumentError> {
    let mut once = Once::new("app.mountPoints.name");
    let mut mount_points = Vec::with_capacity(list.len());
    for MountPointDocument { name, path, read_only } in list {
        check_ac_name("app.mountPoints.name", &name)?;
        check_absolute("app.mountPoints.path", &path)?;
        once.check(&name)?;
        mount_points.push(MountPoint { name, path, read_only });
    }
    Ok(mount_points)
}

fn ports(list: Vec<PortDocument>) -> Result<Vec<Port>, DocumentError> {
    let mut once = Once::new("app.ports.name");
    let mut ports = Vec::with_capacity(list.len());
    for PortDocument { name, protocol, port, count, socket_activated } in list {
        check_ac_name("app.ports.name", &name)?;
        once.check(&name)?;
        if !matches!(protocol.as_str(), "tcp" | "udp") {
            return Err(DocumentError::value(
                "app.ports.protocol",
                &protocol,
                "it is not tcp or udp",
            ));
        }
        // 0 is how some writers leave it out.
        let count = count.unwrap_or_default().max(1);
        if port == 0 || port.checked_add(count - 1).is_none() {
            let problem = "ports are from 1 to 65535";
            return Err(DocumentError::value("app.ports.port", port.to_string(), problem));
        }
        ports.push(Port { name, protocol, port, count, socket_activated });
    }
    Ok(ports)
}

fn isolators(list: Vec<IsolatorDocument>) -> Result<Vec<Isolator>, DocumentError> {
    let mut once = Once::new("app.isolators.name");
    let mut isolators = Vec::with_capacity(list.len());
    for IsolatorDocument { name, value } in list {
        if !is_ac_identifier(&name) {
            let problem = "it is not an AC Identifier";
            return Err(DocumentError::value("app.isolators.name", &name, problem));
        }
        once.check(&name)?;
        isolators.push(Isolator { name, value });
    }
    Ok(isolators)
}

fn event_handlers(list: Vec<EventHandlerDocument>) -> Result<Vec<EventHandler>, DocumentError> {
    let mut once = Once::new("app.eventHandlers.name");
    let mut handlers = Vec::with_capacity(list.len());
    for EventHandlerDocument { name, exec } in list {
        if !matches!(name.as_str(), "pre-start" | "post-stop") || exec.is_empty() {
            let problem = "it is not pre-start or post-stop with a program";
            return Err(DocumentError::value("app.eventHandlers.name", &name, problem));
        }
        check_exec("app.eventHandlers.exec", &exec)?;
        once.check(&name)?;
        handlers.push(EventHandler { name, exec });
    }
    Ok(handlers)
}

fn check_ac_name(field: &'static str, name: &str) -> Result<(), DocumentError> {
    if is_ac_name(name) {
        return Ok(());
    }
    Err(DocumentError::value(field, name, "it is not an AC Name"))
}

/// Refuses what is in a list twice.
struct Once {
    field: &'static str,
    seen: HashSet<String>,
}

impl Once {
    fn new(field: &'static str) -> Self {
        Self { field, seen: HashSet::new() }
    }

    fn check(&mut self, name: &str) -> Result<(), DocumentError> {
        if self.seen.insert(name.into()) {
            return Ok(());
        }
        Err(DocumentError::value(self.field, name, "it is in the list twice"))
    }
}

//! The manifest of an App Container Image (appc, aci.md).

use super::{
    ARCHITECTURE, DocumentError, OS, check_absolute, check_platform, check_string,
    is_ac_identifier, is_ac_name, parse, time::parse_rfc3339,
};
use crate::{
    App, EventHandler, ImageConfig, ImageIdPrefix, Isolator, MountPoint, Port, discovery::AppcName,
};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};

/// What the manifest of an ACI says.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The image's name, an AC Identifier.
    pub name: String,
    /// What it says about the image and its program.
    pub config: ImageConfig,
    /// The images whose files are below its own, in the order in which they are laid down.
    pub dependencies: Vec<Dependency>,
    /// The paths that are left of all files, absolute and without a slash at the end; all are if
    /// there are none.
    pub path_whitelist: Vec<String>,
    /// When the image was made, in seconds since 1970.
    pub created: Option<i64>,
}

/// An image that an ACI needs (aci.md, "Dependency Matching").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Its name, and the labels that it must have.
    pub name: AppcName,
    /// Its ID, or so much of it that no other can be meant.
    pub id: Option<ImageIdPrefix>,
    /// Its size in bytes.
    pub size: Option<u64>,
}

impl Manifest {
    /// Refuses an image that does not say for which machine it is. One that another depends on
    /// need not.
    ///
    /// # Errors
    /// [`DocumentError::Value`]
    pub fn check_machine_said(&self) -> Result<(), DocumentError> {
        let has = |wanted| self.config.labels.iter().any(|(name, _)| name == wanted);
        if has("os") && has("arch") {
            return Ok(());
        }
        let problem = "the image must say for which os and arch it is";
        Err(DocumentError::value("labels", format!("{OS}/{ARCHITECTURE}"), problem))
    }
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
    dependencies: Option<Vec<DependencyDocument>>,
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
struct DependencyDocument {
    image_name: String,
    #[serde(default, rename = "imageID")]
    image_id: Option<String>,
    #[serde(default)]
    labels: Option<Vec<NameValue>>,
    #[serde(default)]
    size: Option<u64>,
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
/// If it is not such a manifest, or is for another platform.
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
    let dependencies = document.dependencies.unwrap_or_default();
    let dependencies = dependencies.into_iter().map(dependency).collect::<Result<_, _>>()?;
    let path_whitelist = document.path_whitelist.unwrap_or_default();
    let path_whitelist = path_whitelist.iter().map(|path| whitelisted(path));
    let path_whitelist = path_whitelist.collect::<Result<_, _>>()?;
    let labels = labels(document.labels.unwrap_or_default())?;
    let annotations =
        pairs("annotations.name", document.annotations.unwrap_or_default(), |name| {
            is_ac_identifier(name)
        })?;
    let app = document.app.map(app).transpose()?;
    let created = annotations.iter().find(|(name, _)| name == "created");
    let created = created.and_then(|(_, time)| parse_rfc3339(time));
    let config = ImageConfig { labels, annotations, app };
    Ok(Manifest { name: document.name, config, dependencies, path_whitelist, created })
}

fn dependency(document: DependencyDocument) -> Result<Dependency, DocumentError> {
    // Half of the digits are what rkt tells images apart by.
    const LEAST_DIGITS: usize = 64;
    let labels = document.labels.unwrap_or_default();
    let labels = labels.into_iter().map(|NameValue { name, value }| (name, value));
    let name = AppcName::new(&document.image_name, labels).map_err(|_| {
        let problem = "it is not the name of an image with labels that can be looked for";
        DocumentError::value("dependencies.imageName", &document.image_name, problem)
    })?;
    let id = match document.image_id.as_deref() {
        // How some writers leave it out.
        None | Some("") => None,
        Some(text) => {
            let id = ImageIdPrefix::parse(text).filter(|id| {
                let digits = id.as_str().strip_prefix("sha512-");
                digits.is_some_and(|digits| digits.len() >= LEAST_DIGITS)
            });
            let problem = "it is not an image ID of sha512";
            Some(id.ok_or_else(|| DocumentError::value("dependencies.imageID", text, problem))?)
        }
    };
    Ok(Dependency { name, id, size: document.size.filter(|&size| size > 0) })
}

/// A path as the tree has it: absolute, with single slashes.
fn whitelisted(path: &str) -> Result<String, DocumentError> {
    check_absolute("pathWhitelist", path)?;
    let components = path.split('/').filter(|component| !matches!(*component, "" | "."));
    Ok(components.fold(String::new(), |path, component| path + "/" + component))
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
    check_platform(value("os").unwrap_or(OS), value("arch").unwrap_or(ARCHITECTURE))?;
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

//! Documents of OCI images (image-spec 1.1), and of Docker's schema 2, which differ in media types.
//!
//! The types are written out here, not taken from a crate: they are few, have only what is used,
//! and what they check is the point of them.

use super::{
    DocumentError, check_absolute, check_platform, check_string, parse, time::parse_rfc3339,
    to_ac_name,
};
use crate::{App, Digest, ImageConfig, MountPoint, Port};
use serde::{Deserialize, de::IgnoredAny};
use std::collections::{BTreeMap, HashSet};

/// The annotation that names an image in an index.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What a descriptor describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// A list of manifests.
    Index,
    /// An image.
    Manifest,
    /// An image's configuration.
    Config,
    /// A tar archive. How it is compressed its first bytes tell.
    Layer,
    /// Something that is not needed to run an image.
    Other,
}

impl Media {
    /// Tells by a media type (image-spec, media-types.md).
    pub fn of(media_type: &str) -> Self {
        match media_type {
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => Self::Index,
            "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json" => Self::Manifest,
            "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json" => Self::Config,
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Self::Layer,
            _ => Self::Other,
        }
    }
}

/// Names content (descriptor.md).
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What kind of content it is; see [`Media::of`].
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content in bytes.
    pub size: u64,
    /// What machine it is for, in an index.
    pub platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// Names content.
    pub(crate) fn new(media_type: String, digest: Digest, size: u64) -> Self {
        Self { media_type, digest, size, platform: None, annotations: None }
    }

    /// The name that an index gives it.
    pub fn ref_name(&self) -> Option<&str> {
        self.annotations.as_ref()?.get(REF_NAME).map(String::as_str)
    }
}

/// What machine an image is for (image-index.md).
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Platform {
    architecture: String,
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

impl Platform {
    /// Whether this machine can run it: 64-bit x86 of the first generation.
    pub fn is_ours(&self) -> bool {
        check_platform(&self.os, &self.architecture).is_ok()
            && matches!(self.variant.as_deref(), None | Some("" | "v1"))
    }
}

/// A list of manifests (image-index.md), or Docker's manifest list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    /// The manifests, in order of preference.
    pub manifests: Vec<Descriptor>,
    /// No index has layers or a configuration.
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

/// An image (manifest.md).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    /// The image's configuration.
    pub config: Descriptor,
    /// Its layers, from the lowest one.
    pub layers: Vec<Descriptor>,
    /// What its maker says about it.
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
    manifests: Option<IgnoredAny>,
}

/// What a configuration says.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// About the image and its program.
    pub said: ImageConfig,
    /// Digests of the decompressed layers, from the lowest one.
    pub diff_ids: Vec<Digest>,
    /// When the image was made, in seconds since 1970.
    pub created: Option<i64>,
}

/// The parts of a configuration that are used (config.md).
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    created: Option<String>,
    architecture: String,
    os: String,
    #[serde(default)]
    config: Option<Execution>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<Digest>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Execution {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, IgnoredAny>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
}

/// Parses an index. `media_type` is what its descriptor says, if it has one.
///
/// # Errors
/// If it is not an index, or could be read as something else.
pub fn parse_index(document: &[u8], media_type: Option<&str>) -> Result<Index, DocumentError> {
    let index: Index = parse(document)?;
    check_version(index.schema_version)?;
    check_media_type(index.media_type.as_deref(), media_type, Media::Index)?;
    if index.layers.is_some() || index.config.is_some() {
        return Err(DocumentError::Ambiguous);
    }
    Ok(index)
}

/// Parses a manifest. `media_type` is what its descriptor says.
///
/// # Errors
/// If it is not the manifest of an image, or could be read as something else.
pub fn parse_manifest(
    document: &[u8],
    media_type: Option<&str>,
) -> Result<Manifest, DocumentError> {
    let manifest: Manifest = parse(document)?;
    check_version(manifest.schema_version)?;
    check_media_type(manifest.media_type.as_deref(), media_type, Media::Manifest)?;
    if manifest.manifests.is_some() {
        return Err(DocumentError::Ambiguous);
    }
    if Media::of(&manifest.config.media_type) != Media::Config {
        let problem = "this is not the configuration of an image that can be run";
        let media_type = &manifest.config.media_type;
        return Err(DocumentError::value("config.mediaType", media_type, problem));
    }
    for layer in &manifest.layers {
        if Media::of(&layer.media_type) != Media::Layer {
            let problem = "layers of this type are not supported";
            return Err(DocumentError::value("layers.mediaType", &layer.media_type, problem));
        }
    }
    Ok(manifest)
}

/// Parses a configuration.
///
/// # Errors
/// If it is not a configuration, is for another platform, or holds a value that can't be used.
pub fn parse_config(document: &[u8]) -> Result<Configuration, DocumentError> {
    let config: Config = parse(document)?;
    check_platform(&config.os, &config.architecture)?;
    if config.rootfs.kind != "layers" {
        let problem = "the root file system consists of layers";
        return Err(DocumentError::value("rootfs.type", &config.rootfs.kind, problem));
    }
    let labels = vec![("os".to_owned(), config.os), ("arch".to_owned(), config.architecture)];
    let app = app(config.config.unwrap_or_default())?;
    let said = ImageConfig { labels, annotations: Vec::new(), app: Some(app) };
    // Not all writers give a time, or one that means anything.
    let created = config.created.as_deref().and_then(parse_rfc3339);
    Ok(Configuration { said, diff_ids: config.rootfs.diff_ids, created })
}

fn app(execution: Execution) -> Result<App, DocumentError> {
    let (user, group) = owner(execution.user.as_deref().unwrap_or_default())?;
    let working_directory = match execution.working_dir.unwrap_or_default() {
        directory if directory.is_empty() => "/".to_owned(),
        // Docker takes it from the root.
        directory if !directory.starts_with('/') => format!("/{directory}"),
        directory => directory,
    };
    check_absolute("config.WorkingDir", &working_directory)?;
    let entrypoint = execution.entrypoint.unwrap_or_default();
    let arguments = execution.cmd.unwrap_or_default();
    for argument in entrypoint.iter().chain(&arguments) {
        check_string("config.Entrypoint or config.Cmd", argument)?;
    }
    if let Some(signal) = &execution.stop_signal {
        check_string("config.StopSignal", signal)?;
    }
    Ok(App {
        entrypoint,
        arguments,
        environment: environment(execution.env.unwrap_or_default())?,
        working_directory,
        user,
        group,
        mount_points: mount_points(execution.volumes.unwrap_or_default().into_keys())?,
        ports: ports(execution.exposed_ports.unwrap_or_default().into_keys())?,
        user_labels: execution.labels.unwrap_or_default().into_iter().collect(),
        stop_signal: execution.stop_signal.filter(|signal| !signal.is_empty()),
        ..App::default()
    })
}

/// `USER[:GROUP]`, each a name or a number; nothing is root.
fn owner(text: &str) -> Result<(String, String), DocumentError> {
    if text.is_empty() {
        return Ok(("0".to_owned(), "0".to_owned()));
    }
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let is_name = |name: &str| {
        !name.bytes().any(|byte| matches!(byte, b'/' | b':') || byte.is_ascii_whitespace())
            && !name.chars().any(char::is_control)
    };
    if user.is_empty() || !is_name(user) || !is_name(group) {
        let problem = "it is not of the form USER or USER:GROUP";
        return Err(DocumentError::value("config.User", text, problem));
    }
    Ok((user.to_owned(), group.to_owned()))
}

/// `NAME=VALUE` each; of a name that comes twice the last one holds.
fn environment(list: Vec<String>) -> Result<Vec<(String, String)>, DocumentError> {
    let mut environment: Vec<(String, String)> = Vec::with_capacity(list.len());
    let mut places = BTreeMap::new();
    for text in list {
        check_string("config.Env", &text)?;
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(DocumentError::value("config.Env", &text, "it is not NAME=VALUE"));
        };
        match places.get(name) {
            Some(&place) => {
                let (_, old): &mut (String, String) = &mut environment[place];
                value.clone_into(old);
            }
            None => {
                places.insert(name.to_owned(), environment.len());
                environment.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    Ok(environment)
}

/// Volumes as rkt calls those of Docker images: `/var/lib/db` is `volume-var-lib-db`.
fn mount_points(paths: impl Iterator<Item = String>) -> Result<Vec<MountPoint>, DocumentError> {
    let mut names = HashSet::new();
    let mut mount_points = Vec::new();
    for path in paths {
        check_absolute("config.Volumes", &path)?;
        let Some(words) = to_ac_name(&path) else {
            let problem = "a volume can't be mounted there";
            return Err(DocumentError::value("config.Volumes", &path, problem));
        };
        // Two paths can have the same words in them.
        let first = format!("volume-{words}");
        let mut name = first.clone();
        let mut number = 1;
        while !names.insert(name.clone()) {
            number += 1;
            name = format!("{first}-{number}");
        }
        mount_points.push(MountPoint { name, path, read_only: false });
    }
    Ok(mount_points)
}

/// `PORT[-LAST][/PROTOCOL]` each, with TCP if nothing is said.
fn ports(list: impl Iterator<Item = String>) -> Result<Vec<Port>, DocumentError> {
    let mut names = HashSet::new();
    let mut ports = Vec::new();
    for text in list {
        let refused =
            || DocumentError::value("config.ExposedPorts", &text, "it is not PORT/PROTOCOL");
        let (range, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        if !matches!(protocol, "tcp" | "udp" | "sctp") {
            return Err(refused());
        }
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (port(first).ok_or_else(refused)?, port(last).ok_or_else(refused)?);
        let count = last.checked_sub(first).ok_or_else(refused)? + 1;
        let name = format!("{range}-{protocol}");
        if names.insert(name.clone()) {
            let protocol = protocol.to_owned();
            ports.push(Port { name, protocol, port: first, count, socket_activated: false });
        }
    }
    Ok(ports)
}

fn port(digits: &str) -> Option<u16> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| is_number)
}

fn check_version(version: u64) -> Result<(), DocumentError> {
    if version == 2 {
        return Ok(());
    }
    Err(DocumentError::value("schemaVersion", version.to_string(), "only 2 is supported"))
}

/// What a document calls itself must be what it is called and taken for.
fn check_media_type(
    own: Option<&str>,
    descriptor: Option<&str>,
    expected: Media,
) -> Result<(), DocumentError> {
    let Some(own) = own.filter(|own| !own.is_empty()) else {
        return Ok(());
    };
    if Media::of(own) != expected || descriptor.is_some_and(|descriptor| descriptor != own) {
        return Err(DocumentError::value("mediaType", own, "it is named as something else"));
    }
    Ok(())
}

//! appc's image manifest (`aci.md`), with its fields in the order in which rkt prints them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The manifest of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// `ImageManifest`
    pub ac_kind: String,
    /// The version of the specification.
    pub ac_version: String,
    /// The image's name.
    pub name: String,
    /// What tells it from others of its name.
    #[serde(default, skip_serializing_if = "nothing")]
    pub labels: Option<Vec<NameValue>>,
    /// How it is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<App>,
    /// What else there is to say.
    #[serde(default, skip_serializing_if = "nothing")]
    pub annotations: Option<Vec<NameValue>>,
    /// Images below it.
    #[serde(default, skip_serializing_if = "nothing")]
    pub dependencies: Option<Vec<Dependency>>,
    /// The only files that it has.
    #[serde(default, skip_serializing_if = "nothing")]
    pub path_whitelist: Option<Vec<String>>,
}

/// A name and what it stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NameValue {
    /// The name.
    pub name: String,
    /// What it stands for.
    pub value: String,
}

impl NameValue {
    /// A pair.
    pub fn new(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: value.into() }
    }
}

/// How an image is run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// The command line.
    #[serde(default)]
    pub exec: Option<Vec<String>>,
    /// Programs before and after it.
    #[serde(default, skip_serializing_if = "nothing")]
    pub event_handlers: Option<Vec<Value>>,
    /// The user.
    pub user: String,
    /// The group.
    pub group: String,
    /// Further groups.
    #[serde(default, rename = "supplementaryGIDs", skip_serializing_if = "nothing")]
    pub supplementary_gids: Option<Vec<u32>>,
    /// Where it starts.
    #[serde(default, skip_serializing_if = "no_text")]
    pub working_directory: Option<String>,
    /// Its environment.
    #[serde(default, skip_serializing_if = "nothing")]
    pub environment: Option<Vec<NameValue>>,
    /// Where volumes may be mounted.
    #[serde(default, skip_serializing_if = "nothing")]
    pub mount_points: Option<Vec<MountPoint>>,
    /// Where it listens.
    #[serde(default, skip_serializing_if = "nothing")]
    pub ports: Option<Vec<Port>>,
    /// How it is confined.
    #[serde(default, skip_serializing_if = "nothing")]
    pub isolators: Option<Vec<Value>>,
    /// What its makers have to say.
    #[serde(default, skip_serializing_if = "no_pairs")]
    pub user_annotations: Option<BTreeMap<String, String>>,
    /// The same, for programs.
    #[serde(default, skip_serializing_if = "no_pairs")]
    pub user_labels: Option<BTreeMap<String, String>>,
}

/// Where a volume may be mounted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountPoint {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Whether it is only read.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
}

/// Where a program listens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Its name.
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The first one.
    pub port: u16,
    /// How many.
    #[serde(default = "one")]
    pub count: u16,
    /// Whether the socket is handed over.
    #[serde(default)]
    pub socket_activated: bool,
}

/// An image below another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// Its name.
    pub image_name: String,
    /// Its ID.
    #[serde(default, rename = "imageID", skip_serializing_if = "no_text")]
    pub image_id: Option<String>,
    /// What tells it from others of its name.
    #[serde(default, skip_serializing_if = "nothing")]
    pub labels: Option<Vec<NameValue>>,
    /// Its size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

fn one() -> u16 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants a function of a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

fn nothing<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

fn no_text(text: &Option<String>) -> bool {
    text.as_ref().is_none_or(String::is_empty)
}

fn no_pairs(pairs: &Option<BTreeMap<String, String>>) -> bool {
    pairs.as_ref().is_none_or(BTreeMap::is_empty)
}

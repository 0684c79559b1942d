//! What is measured of a launch.

use super::{Hex, Uuid, VersionOne, text::required};
use sandbox_image::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Everything that decides what a pod is and what it may do, as it was when it was launched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// Of this schema.
    pub version: VersionOne,
    /// The pod.
    pub pod: Uuid,
    /// Whose it is. The tenant sees this record in full, others its digest.
    pub tenant: String,
    /// Its apps, in the order of its manifest.
    pub apps: Vec<App>,
    /// Digest of the pod's manifest, in canonical JSON and with all defaults filled in.
    pub pod_manifest: Digest,
    /// Digest of all rules that the launch was decided by.
    pub policy_digest: Digest,
    /// The guest's kernel.
    pub kernel: Kernel,
    /// Digest of the guest's first process.
    pub guest_init: Digest,
    /// Digest of the monitor, `sandbox-vmm`.
    pub monitor: Digest,
    /// Digest of the file server, `sandbox-fs`; `null` for a pod that shares no directory.
    #[serde(deserialize_with = "required")]
    pub file_server: Option<Digest>,
    /// Digest of the supervisor, `sandbox` itself.
    pub supervisor: Digest,
    /// The kernel's command line.
    pub command_line: String,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Size of the scratch disk; 0 without one.
    pub scratch_bytes: u64,
    /// What of the host the pod sees.
    pub volumes: Vec<Volume>,
    /// Always `null` in this version.
    #[serde(deserialize_with = "required")]
    pub network: Option<Network>,
    /// The SELinux label that the pod's processes and files have; `null` without SELinux.
    #[serde(deserialize_with = "required")]
    pub label: Option<Label>,
    /// Digest of the system call filters of monitor and file server in their canonical form, as
    /// they were built with the supervisor.
    #[serde(deserialize_with = "required")]
    pub seccomp: Option<Digest>,
    /// Secrets that it may ask for, by name.
    pub secrets: Vec<Secret>,
    /// The public key that the guest made for itself, as far as there is one before the launch.
    #[serde(deserialize_with = "required")]
    pub guest_key: Option<Hex<32>>,
}

/// One app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct App {
    /// Its name in the pod.
    pub name: String,
    /// What it is made of.
    pub image: Image,
    /// Why it may run.
    pub signature: Signature,
    /// The command line.
    pub exec: Vec<String>,
    /// The environment, sorted by name.
    pub environment: Vec<Variable>,
    /// Name, number, or path of a file whose owner is meant.
    pub user: String,
    /// The same for the group; empty if it is the user's own.
    pub group: String,
    /// The directory that it starts in.
    pub working_directory: String,
    /// Where its volumes are.
    pub mounts: Vec<Mount>,
    /// Its restrictions.
    pub isolators: Vec<Isolator>,
}

/// An app's image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// As it was asked for.
    pub reference: String,
    /// What policies call it.
    pub identity: String,
    /// Its ID.
    pub id: Digest,
    /// The manifest for this platform and the index that led to it; empty for an ACI.
    pub manifest_digests: Vec<Digest>,
    /// The root of its hash tree, which the guest checks every block that it reads against; `null`
    /// if its content is not verified.
    #[serde(deserialize_with = "required")]
    pub verity_root: Option<Hex<32>>,
    /// The version of what makes a file system of an image.
    #[serde(deserialize_with = "required")]
    pub erofs_version: Option<u32>,
    /// Where the hash tree is.
    #[serde(deserialize_with = "required")]
    pub verity: Option<Verity>,
    /// Whether the root of the hash tree stands for what the app reads.
    pub content: Content,
}

/// Where a hash tree is, in blocks of 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verity {
    /// Blocks of data.
    pub data_blocks: u64,
    /// The first block of the tree.
    pub hash_start: u64,
}

/// Whether what is read was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// Every block is checked against what the record says.
    Verified,
    /// The host can change it at any time.
    Unverified,
}

/// How the gate decided about an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signature {
    /// What decided.
    pub rule: String,
    /// What it said.
    pub answer: String,
    /// The fingerprints of the keys whose signatures were accepted.
    pub keys: Vec<String>,
    /// When, as RFC 3339 writes it.
    pub time: String,
}

/// A variable of an environment. Its value may be a secret, so that it is there as a digest only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// SHA-256 over the record's salt and the value. The salt is kept with the pod, for its owner.
    pub salted: Hex<32>,
}

impl Variable {
    /// Bytes in a salt. With all of them in front, two pairs of salt and value never hash the same
    /// bytes.
    pub const SALT: usize = 32;

    /// A variable whose value is hidden behind `salt`.
    pub fn new(name: impl Into<String>, value: &[u8], salt: &[u8; Self::SALT]) -> Self {
        let salted = Sha256::new().chain_update(salt).chain_update(value).finalize();
        Self { name: name.into(), salted: Hex(salted.into()) }
    }
}

/// Where an app sees a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// The volume.
    pub volume: String,
    /// Where it is in the app.
    pub path: String,
    /// Whether this app may only read it.
    pub read_only: bool,
}

/// A restriction of an app, by its registered name (appc, "Isolators").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Isolator {
    /// `resource/memory`, `os/linux/seccomp-retain-set`.
    pub name: String,
    /// As in the manifest.
    pub value: serde_json::Value,
}

/// The guest's kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kernel {
    /// Digest of its file.
    pub digest: Digest,
    /// What it is called: `6.12.43-sandbox1`.
    pub version: String,
}

/// Something of the host that the pod sees. What is in it is not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// `host`, `empty`.
    pub kind: String,
    /// The directory of the host; `null` for one that begins empty.
    #[serde(deserialize_with = "required")]
    pub path: Option<String>,
    /// Whether the pod may only read it.
    pub read_only: bool,
    /// Always [`Content::Unverified`] for a directory of the host.
    pub content: Content,
}

/// How the pod reaches a network. There is none in this version, so that no value of this exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {}

/// An SELinux label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Label {
    /// Of the pod's processes.
    pub process: String,
    /// Of its files.
    pub file: String,
}

/// A secret that the pod may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secret {
    /// Its name.
    pub name: String,
}

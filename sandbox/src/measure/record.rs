//! What is measured of a pod: see [`Record`].

use super::installed::Installed;
use crate::options::VolumeKind;
use crate::pod::manifest::PodManifest;
use crate::pod::{AppSpec, PodImage, PodSpec, Share, Size};
use sandbox_attestation::canonical::{self, CanonicalError};
use sandbox_attestation::record::{
    App, Content, FormError, Hex, Image, Isolator, Kernel, Mount, Record, Secret, Signature, Uuid,
    Variable, Verity, VersionOne, Volume,
};
use sandbox_gate::Decision;
use sandbox_image::{Algorithm, Digest, Text, erofs};
use serde_json::json;

/// Why a pod can't be described.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Something in its manifest has no canonical form.
    #[error("the pod cannot be written down for the TPM: {0}")]
    Canonical(#[from] CanonicalError),
    /// Its name is none.
    #[error("the pod cannot be written down for the TPM: {0}")]
    Form(#[from] FormError),
    /// The gate decided about other images.
    #[error("app {0} of the pod has no image that the gate has decided about")]
    NotDecided(String),
}

/// What a pod is, from all who know a part of it.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Its UUID.
    pub pod: String,
    /// Whose it is.
    pub tenant: &'a str,
    /// What is to run.
    pub spec: &'a PodSpec,
    /// What the guest sees of the host.
    pub shares: &'a [Share],
    /// The images, with the files that the guest will read.
    pub images: &'a [PodImage],
    /// What the gate decided about them.
    pub decisions: &'a [Decision],
    /// Digest of the rules that it decided by.
    pub policy_digest: &'a Digest,
    /// How large the microVM is.
    pub size: Size,
    /// Size of the scratch disk in bytes, 0 without one.
    pub scratch_bytes: u64,
    /// What it runs on.
    pub installed: &'a Installed,
    /// The release of the guest's kernel, as far as it is known.
    pub kernel_release: String,
    /// The kernel's command line.
    pub command_line: String,
    /// The names of its secrets.
    pub secrets: &'a [String],
    /// Hides the values of the environment.
    pub salt: &'a [u8; Variable::SALT],
}

impl Parts<'_> {
    /// The record.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn record(&self) -> Result<Record, RecordError> {
        let manifest = canonical::to_vec(&PodManifest::of(self.spec))?;
        let apps = self.spec.apps.iter().map(|app| self.app(app));
        Ok(Record {
            version: VersionOne,
            pod: self.pod.parse::<Uuid>()?,
            tenant: self.tenant.to_owned(),
            apps: apps.collect::<Result<_, _>>()?,
            pod_manifest: Digest::of(Algorithm::Sha256, &manifest),
            policy_digest: self.policy_digest.clone(),
            kernel: Kernel {
                digest: self.installed.kernel.digest().clone(),
                version: self.kernel_release.clone(),
            },
            guest_init: self.installed.initramfs.digest().clone(),
            monitor: self.installed.monitor.digest().clone(),
            file_server: self
                .spec
                .has_host_volumes()
                .then(|| self.installed.worker.digest().clone()),
            supervisor: self.installed.supervisor.digest().clone(),
            command_line: self.command_line.clone(),
            cpus: u8::from(self.size.vcpus).into(),
            memory_mib: u32::from(self.size.memory).into(),
            scratch_bytes: self.scratch_bytes,
            volumes: self.volumes(),
            network: None,
            label: None,
            seccomp: Some(filters()),
            secrets: self.secrets.iter().map(|name| Secret { name: name.clone() }).collect(),
            guest_key: None,
        })
    }

    fn app(&self, app: &AppSpec) -> Result<App, RecordError> {
        let not_decided = || RecordError::NotDecided(app.name.to_string());
        let is_its = |id: &Digest| id.file_name() == app.image_id;
        let stored = self.images.iter().find(|image| is_its(image.image.id()));
        let PodImage { image, rootfs } = stored.ok_or_else(not_decided)?;
        let decision = self
            .decisions
            .iter()
            .find(|decision| decision.app == app.name.as_str() && is_its(&decision.image))
            .ok_or_else(not_decided)?;
        let part = image.parts().first().ok_or_else(not_decided)?;
        let variables = app.environment.variables().iter();
        let mut environment: Vec<_> = variables
            .map(|it| Variable::new(it.name.as_str(), it.value.as_bytes(), self.salt))
            .collect();
        environment.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(App {
            name: app.name.to_string(),
            image: Image {
                reference: image.reference().to_string(),
                identity: decision.identity.clone(),
                id: image.id().clone(),
                manifest_digests: part.manifests.clone(),
                verity_root: Some(Hex(rootfs.verity.root_hash)),
                erofs_version: Some(erofs::VERSION),
                verity: Some(Verity {
                    data_blocks: rootfs.verity.data_blocks,
                    hash_start: rootfs.verity.hash_start,
                }),
                content: Content::Verified,
            },
            signature: Signature {
                rule: decision.rule.clone(),
                answer: decision.answer.to_owned(),
                keys: decision.keys.clone(),
                time: decision.time.clone(),
            },
            exec: app.exec.clone(),
            environment,
            user: app.user.clone(),
            group: app.group.clone(),
            working_directory: app.working_directory.clone(),
            mounts: self.mounts(app),
            isolators: isolators(app),
        })
    }

    fn mounts(&self, app: &AppSpec) -> Vec<Mount> {
        let volume = |index: usize| self.spec.volumes.get(index);
        app.mounts
            .iter()
            .filter_map(|mount| {
                let volume = volume(mount.volume)?;
                Some(Mount {
                    volume: volume.name.to_string(),
                    path: mount.path.clone(),
                    read_only: mount.read_only || volume.read_only,
                })
            })
            .collect()
    }

    fn volumes(&self) -> Vec<Volume> {
        let volumes = self.spec.volumes.iter();
        volumes
            .map(|volume| {
                let (kind, path) = match &volume.kind {
                    VolumeKind::Host { source, .. } => {
                        let share = self
                            .shares
                            .iter()
                            .find(|share| share.name == format!("volume-{}", volume.name));
                        let path = share.map_or(source.as_path(), |share| &share.path);
                        ("host", Some(Text::of_os(path).to_string()))
                    }
                    VolumeKind::Empty { .. } => ("empty", None),
                };
                Volume {
                    name: volume.name.to_string(),
                    kind: kind.to_owned(),
                    path,
                    read_only: volume.read_only,
                    content: Content::Unverified,
                }
            })
            .collect()
    }
}

/// The system call filters of monitor and file server, as they were built with this program: all
/// their rules in numbers (`sandbox_seccomp::canonical`).
fn filters() -> Digest {
    Digest::of(Algorithm::Sha256, include_bytes!(concat!(env!("OUT_DIR"), "/filters")))
}

/// What restricts an app, as isolators of appc; that its root file system is read-only is one here,
/// too.
fn isolators(app: &AppSpec) -> Vec<Isolator> {
    let isolator = |name: &str, value| Isolator { name: name.to_owned(), value };
    let memory = app
        .memory
        .map(|memory| isolator("resource/memory", json!({"limit": memory.bytes().to_string()})));
    let cpu =
        app.cpu.map(|cpu| isolator("resource/cpu", json!({"limit": format!("{}m", cpu.millis())})));
    let read_only = app.read_only_root.then(|| isolator("sandbox/read-only-rootfs", json!(true)));
    let groups = (!app.supplementary_gids.is_empty())
        .then(|| isolator("sandbox/supplementary-gids", json!(app.supplementary_gids)));
    [memory, cpu, read_only, groups].into_iter().flatten().collect()
}

//! A pod from its images to the directory that it runs in.
//!
//! ```text
//! images, options ─▶ Plan ──Gate::decide──▶ Approval ──PreparedPod::prepare──▶ PreparedPod
//!                                    PreparedPod::permitted ──▶ PermittedPod ──supervisor──▶ exit status
//! ```
//!
//! A [`PermittedPod`] is all that can be started. It takes a permit for this pod's UUID, which only
//! the [`Approval`] makes that the pod was prepared for; and that is for these images and this
//! [`Plan`] and no other. The gate alone gives approvals out.

mod directory;
mod guest;
mod listed;
pub mod manifest;
mod plan;
pub mod scratch;
mod size;
pub mod slot;
mod spec;

#[cfg(test)]
mod permit_tests;
#[cfg(test)]
mod tests;

pub use directory::{DataDir, DirectoryError, PodDir, State};
pub use guest::{
    Console, Disks, SCRATCH_SERIAL, SHARE_TAG, Share, ShareError, image_serial, message,
};
pub use listed::{App as ListedApp, Life, Listed};
pub use plan::Plan;
pub use size::{Size, SizeError};
pub use slot::{Slot, SlotError};
pub use spec::{AppOptions, AppSpec, Assembly, PodOptions, PodSpec};

use crate::jail::SettingsError;
use crate::measure::{self, Installed, MeasureError, Meter, Parts};
use crate::options::ScratchSize;
use manifest::PodManifest;
use sandbox_gate::{Approval, Measured, NotPermitted, Permitted, Refusal};
use sandbox_image::{Digest, Rootfs, StoredImage};
use sandbox_vmm::config::CommandLine;
use scratch::ScratchError;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use uuid::Uuid;

/// Why a pod can't be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// See [`DirectoryError`].
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// See [`ShareError`].
    #[error(transparent)]
    Share(#[from] ShareError),
    /// See [`SizeError`].
    #[error(transparent)]
    Size(#[from] SizeError),
    /// See [`ScratchError`].
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// The manifest could not be written as JSON.
    #[error("pod manifest: {0}")]
    Manifest(#[from] serde_json::Error),
    /// The approval is for other images.
    #[error("image {0} of the pod is not one that the gate has decided about")]
    NotDecided(String),
    /// The approval is for another pod.
    #[error("the pod is not launched as the gate was asked about; nothing is started")]
    Changed,
    /// See [`ProgramError`].
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// See [`SettingsError`].
    #[error(transparent)]
    Jail(#[from] SettingsError),
    /// The gate does not permit it to start.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// See [`NotPermitted`].
    #[error(transparent)]
    NotPermitted(#[from] NotPermitted),
}

/// A program that a rule is about can't be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot compute the digest of {}, which a rule of gate.d asks for: {error}", path.display()
)]
pub struct ProgramError {
    path: PathBuf,
    error: io::Error,
}

/// An image of a pod: it stays in the store, and its file open, as long as this is held.
#[derive(Debug)]
pub struct PodImage {
    /// The image.
    pub image: StoredImage,
    /// Its root file system.
    pub rootfs: Rootfs,
}

/// All that a pod consists of.
#[derive(Debug)]
pub struct PodParts {
    /// Its directory, in the state [`State::Preparing`].
    pub directory: PodDir,
    /// What is to run, and how.
    pub plan: Plan,
    /// The images of the apps, each once, in the order of `PodSpec::image_ids`.
    pub images: Vec<PodImage>,
    /// The disk for what the apps write, if it is not kept in memory.
    pub scratch: Option<File>,
}

/// A pod that is approved and has its directory, and waits for its permit.
#[derive(Debug)]
pub struct PreparedPod {
    parts: PodParts,
    approval: Approval,
}

/// A pod that may be started, once.
pub type PermittedPod = Permitted<PodParts>;

impl PreparedPod {
    /// Makes the directory of a pod. `images` are those of its apps, each once, in any order.
    ///
    /// # Errors
    /// See [`PrepareError`]; nothing is left behind.
    pub fn prepare(
        approval: Approval,
        data: &DataDir,
        plan: Plan,
        images: Vec<PodImage>,
        scratch: Option<ScratchSize>,
    ) -> Result<Self, PrepareError> {
        if !approval.is_for(plan.launch()) {
            return Err(PrepareError::Changed);
        }
        let spec = plan.spec();
        let images = in_order(
            &spec.image_ids(),
            images,
            |image| image.image.id(),
            |id| approval.covers(id),
        )?;
        let directory = PodDir::create(data)?;
        directory.write("pod", &serde_json::to_vec(&PodManifest::of(spec))?)?;
        directory.write("pod-created", b"")?;
        for app in &spec.apps {
            let file = format!("appsinfo/{}/treeStoreID", app.name);
            directory.write(&file, app.image_id.as_bytes())?;
        }
        let scratch = scratch.map(|size| scratch::create(&directory, size)).transpose()?;
        Ok(Self { parts: PodParts { directory, plan, images, scratch }, approval })
    }

    /// Its name.
    pub fn uuid(&self) -> Uuid {
        self.parts.directory.uuid()
    }

    /// Has the launch written into the TPM, as it is now: what the record says can't change any more
    /// but by what `measured` notices.
    ///
    /// # Errors
    /// See [`MeasureError`]; nothing is left of the pod then, unless its end is still to be written.
    pub fn measure(
        self,
        meter: Meter,
        policy_digest: &Digest,
        secrets: &[String],
    ) -> Result<(Self, (measure::Launch, Installed)), MeasureError> {
        match self.written(meter, policy_digest, secrets) {
            Ok(measured) => Ok((self, measured)),
            Err(error @ MeasureError::Unended { .. }) => {
                self.parts.directory.leave();
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    fn written(
        &self,
        meter: Meter,
        policy_digest: &Digest,
        secrets: &[String],
    ) -> Result<(measure::Launch, Installed), MeasureError> {
        let PodParts { directory, plan, images, scratch } = &self.parts;
        let salt = measure::random()?;
        directory.write("salt", &salt)?;
        let scratch = scratch.as_ref().map(|file| file.metadata().map(|it| it.len()));
        let scratch_bytes = scratch.transpose().map_err(MeasureError::Scratch)?.unwrap_or_default();
        let record = Parts {
            pod: self.uuid().to_string(),
            tenant: plan.launch().tenant.as_deref().unwrap_or_default(),
            spec: plan.spec(),
            shares: plan.shares(),
            images,
            decisions: self.approval.decisions(),
            policy_digest,
            size: plan.size(),
            scratch_bytes,
            installed: meter.installed(),
            kernel_release: plan.installation().kernel_release(meter.installed().kernel.digest()),
            command_line: String::from(CommandLine::default()),
            secrets,
            salt: &salt,
        }
        .record()?;
        meter.launch(record, directory)
    }

    /// Asks the gate for the permit to start it, and writes what was decided to its directory.
    /// `measured` says that its launch is in the TPM and its log, if it is.
    ///
    /// # Errors
    /// [`PrepareError::Refused`] if the gate wants more; nothing is left of the pod then, nor after
    /// any other error. That it never ran is written for its `launch` before its directory goes; if
    /// it can't be, the directory stays, and `gc` finds it.
    pub fn permitted(
        self,
        measured: Option<Measured>,
        launch: Option<&mut measure::Launch>,
    ) -> Result<PermittedPod, PrepareError> {
        let Self { parts, approval } = self;
        let permit = || -> Result<_, PrepareError> {
            let permit = approval.permit(&sandbox_gate::Pod::uuid(&parts), measured)?;
            let decisions = serde_json::to_vec_pretty(permit.decisions())?;
            parts.directory.write_durably(GATE, &decisions)?;
            Ok(permit)
        };
        match permit() {
            Ok(permit) => Ok(Permitted::new(parts, permit)?),
            Err(error) => {
                if launch.is_some_and(|launch| launch.abort().is_err()) {
                    parts.directory.leave();
                }
                Err(error)
            }
        }
    }
}

/// What was decided about a pod, in its directory.
pub const GATE: &str = "gate.json";

impl sandbox_gate::Pod for PodParts {
    fn uuid(&self) -> String {
        self.directory.uuid().to_string()
    }
}

impl PodParts {
    /// Its disks, as the guest is told of them.
    pub fn disks(&self) -> Disks {
        Disks {
            images: self.images.iter().map(|image| image.rootfs.verity.clone()).collect(),
            scratch: self.scratch.is_some(),
        }
    }
}

/// The images in the order in which apps name them by `ids`, all of them decided about.
fn in_order<T>(
    ids: &[&str],
    mut images: Vec<T>,
    id_of: impl Fn(&T) -> &Digest,
    is_decided: impl Fn(&Digest) -> bool,
) -> Result<Vec<T>, PrepareError> {
    let mut ordered = Vec::new();
    for id in ids {
        let place = images.iter().position(|image| id_of(image).file_name() == *id);
        match place {
            Some(place) if is_decided(id_of(&images[place])) => {
                ordered.push(images.swap_remove(place));
            }
            _ => return Err(PrepareError::NotDecided((*id).to_owned())),
        }
    }
    Ok(ordered)
}

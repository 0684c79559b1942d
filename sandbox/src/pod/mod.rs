//! A pod from its images to the directory that it runs in.
//!
//! ```text
//! images ──Gate::decide──▶ LaunchPermit ──PreparedPod::prepare──▶ PreparedPod ──supervisor──▶ exit status
//! ```
//!
//! A [`PreparedPod`] is all that can be started, and only a [`LaunchPermit`] makes one, which the
//! gate alone gives out.

mod directory;
mod guest;
pub mod manifest;
pub mod scratch;
mod size;
mod spec;

#[cfg(test)]
mod tests;

pub use directory::{DataDir, DirectoryError, PodDir, State};
pub use guest::{
    Console, Disks, SCRATCH_SERIAL, SHARE_TAG, Share, ShareError, image_serial, message, shares,
};
pub use size::{Size, SizeError};
pub use spec::{AppOptions, Assembly, PodOptions, PodSpec};

use crate::options::ScratchSize;
use manifest::PodManifest;
use sandbox_gate::LaunchPermit;
use sandbox_image::{Digest, Rootfs, StoredImage};
use scratch::ScratchError;
use std::fs::File;

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
    /// The permit is for other images.
    #[error("image {0} of the pod is not one that the gate has decided about")]
    NotDecided(String),
}

/// An image of a pod: it stays in the store, and its file open, as long as this is held.
#[derive(Debug)]
pub struct PodImage {
    /// The image.
    pub image: StoredImage,
    /// Its root file system.
    pub rootfs: Rootfs,
}

/// A pod that is permitted to run and has its directory.
#[derive(Debug)]
pub struct PreparedPod {
    /// Its directory, in the state [`State::Preparing`].
    pub directory: PodDir,
    /// What is to run.
    pub spec: PodSpec,
    /// The images of the apps, each once, in the order of [`PodSpec::image_ids`].
    pub images: Vec<PodImage>,
    /// The disk for what the apps write, if it is not kept in memory.
    pub scratch: Option<File>,
    /// What the guest sees of the host's files.
    pub shares: Vec<Share>,
    /// How large its microVM is.
    pub size: Size,
    _permit: LaunchPermit,
}

impl PreparedPod {
    /// Makes the directory of a pod. `images` are those of its apps, each once, in any order.
    ///
    /// # Errors
    /// See [`PrepareError`]; nothing is left behind.
    pub fn prepare(
        permit: LaunchPermit,
        data: &DataDir,
        spec: PodSpec,
        images: Vec<PodImage>,
        scratch: Option<ScratchSize>,
    ) -> Result<Self, PrepareError> {
        let size = Size::of(&spec.apps)?;
        let shares = shares(&spec)?;
        let images =
            in_order(&spec.image_ids(), images, |image| image.image.id(), |id| permit.covers(id))?;
        let directory = PodDir::create(data)?;
        directory.write("pod", &serde_json::to_vec(&PodManifest::of(&spec))?)?;
        directory.write("pod-created", b"")?;
        directory.write_durably("gate.json", &serde_json::to_vec_pretty(permit.decisions())?)?;
        for app in &spec.apps {
            let file = format!("appsinfo/{}/treeStoreID", app.name);
            directory.write(&file, app.image_id.as_bytes())?;
        }
        let scratch = scratch.map(|size| scratch::create(&directory, size)).transpose()?;
        Ok(Self { directory, spec, images, scratch, shares, size, _permit: permit })
    }

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

//! A pod from its images to the directory that it runs in.
//!
//! ```text
//! images ──decide──▶ LaunchPermit ──PreparedPod::prepare──▶ PreparedPod ──supervisor──▶ exit status
//! ```

mod directory;
mod guest;
pub mod manifest;
mod permit;
mod size;
mod spec;

#[cfg(test)]
mod tests;

pub use directory::{DataDir, DirectoryError, PodDir, State};
pub use guest::{Console, SHARE_TAG, Share, ShareError, message, shares};
pub use permit::{LaunchPermit, decide};
pub use size::{Size, SizeError};
pub use spec::{AppOptions, Assembly, PodOptions, PodSpec};

use manifest::PodManifest;
use sandbox_image::StoredTree;

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
    /// The manifest could not be written as JSON.
    #[error("pod manifest: {0}")]
    Manifest(#[from] serde_json::Error),
}

/// A pod that is permitted to run and has its directory.
#[derive(Debug)]
pub struct PreparedPod {
    /// Its directory, in the state [`State::Preparing`].
    pub directory: PodDir,
    /// What is to run.
    pub spec: PodSpec,
    /// What the guest sees of the host's files.
    pub shares: Vec<Share>,
    /// How large its microVM is.
    pub size: Size,
    /// Holds the images' files.
    _trees: Vec<StoredTree>,
    _permit: LaunchPermit,
}

impl PreparedPod {
    /// Makes the directory of a pod; `trees` are those of its apps' images, in their order.
    ///
    /// # Errors
    /// See [`PrepareError`]; nothing is left behind.
    pub fn prepare(
        permit: LaunchPermit,
        data: &DataDir,
        spec: PodSpec,
        trees: Vec<StoredTree>,
    ) -> Result<Self, PrepareError> {
        let size = Size::of(&spec.apps)?;
        let shares = shares(&spec, &trees)?;
        let directory = PodDir::create(data)?;
        directory.write("pod", &serde_json::to_vec(&PodManifest::of(&spec))?)?;
        directory.write("pod-created", b"")?;
        for app in &spec.apps {
            let file = format!("appsinfo/{}/treeStoreID", app.name);
            directory.write(&file, app.image_id.as_bytes())?;
        }
        Ok(Self { directory, spec, shares, size, _trees: trees, _permit: permit })
    }
}

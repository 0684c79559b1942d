//! What references led to: `cas/ref`.

use super::{
    places::{Places, sync_folder},
    staging::Staging,
    stored::read_file,
};
use crate::{Algorithm, Digest, Error, Reference, http::Caching};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// The longest of these files in bytes.
const MAX: u64 = 64 << 10;

/// What a reference led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Led {
    /// The version of this form.
    version: u32,
    pub(super) reference: Reference,
    /// The image's folder.
    pub(super) folder: String,
    /// When it was asked for last, in seconds since 1970.
    pub(super) fetched: i64,
    /// What the server said about keeping it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kept: Option<Kept>,
}

/// What a server said about keeping its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Kept {
    /// When it said so, in seconds since 1970.
    pub(super) at: i64,
    pub(super) caching: Caching,
}

impl Kept {
    /// Whether the server need not be asked again yet.
    pub(super) fn is_fresh(&self, now: i64) -> bool {
        let age = now.checked_sub(self.at).and_then(|age| u64::try_from(age).ok());
        age.zip(self.caching.max_age).is_some_and(|(age, most)| age < most)
    }
}

impl Places {
    /// What a reference led to when it was fetched last. A file that says nothing is none.
    pub(super) fn led(&self, reference: &Reference) -> Result<Option<Led>, Error> {
        let Some(bytes) = read_file(&self.led_path(reference)?, MAX)? else {
            return Ok(None);
        };
        let led: Option<Led> = serde_json::from_slice(&bytes).ok();
        Ok(led.filter(|led| led.version == 1 && led.reference == *reference))
    }

    /// Keeps what a reference led to. Whoever calls this has the lock of those who fetch.
    pub(super) fn keep_led(
        &self,
        reference: &Reference,
        folder: &str,
        fetched: i64,
        kept: Option<Kept>,
    ) -> Result<(), Error> {
        const NEW: &str = "ref.json";
        let path = self.led_path(reference)?;
        let failed = |error: io::Error| Error::io("write", &path, error);
        let (reference, folder) = (reference.clone(), folder.to_owned());
        let led = Led { version: 1, reference, folder, fetched, kept };
        let bytes = serde_json::to_vec(&led).map_err(|error| failed(error.into()))?;
        // In a folder that is locked: any other file in `tmp` somebody may take for garbage.
        let staging = Staging::new(&self.tmp, &self.in_store("tmp"))?;
        let mut new = staging.file(NEW)?;
        new.write_all(&bytes).and_then(|()| new.sync_all()).map_err(failed)?;
        std::fs::rename(staging.path().join(NEW), &path).map_err(failed)?;
        sync_folder(&self.in_store("ref"))
    }

    /// Whether a file in `cas/ref` leads to one of these folders.
    pub(super) fn leads_to(&self, file: &Path, folders: &HashSet<String>) -> bool {
        let led = read_file(file, MAX).ok().flatten();
        let led: Option<Led> = led.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        led.is_some_and(|led| folders.contains(&led.folder))
    }

    fn led_path(&self, reference: &Reference) -> Result<PathBuf, Error> {
        let bytes = serde_json::to_vec(reference)
            .map_err(|error| Error::io("name", "a reference", io::Error::from(error)))?;
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        Ok(self.in_store("ref").join(format!("{}.json", digest.hex())))
    }
}

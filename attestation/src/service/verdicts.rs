//! The verdicts that are kept, one file for each, and not more than there is room for.

use super::SecretName;
use super::directory::{DirectoryError, VERDICTS, write};
use crate::verify::instant;
use rsa::rand_core::{OsRng, RngCore as _};
use serde::Serialize;
use serde_json::value::RawValue;
use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// All kept verdicts together have no more bytes than this.
const MAX_BYTES: u64 = 1 << 30;

/// A verdict as it is kept.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kept<'a> {
    pub(super) version: u32,
    /// When, by this service's clock.
    pub(super) time: String,
    /// Name of the host's file.
    pub(super) host: &'a str,
    /// Who sent the evidence.
    pub(super) from: String,
    /// Name of the policy's file.
    pub(super) policy: &'a str,
    pub(super) token: &'a str,
    pub(super) verdict: &'a RawValue,
    /// Secrets that were given out.
    pub(super) secrets: Vec<&'a SecretName>,
}

/// The files, the oldest first.
#[derive(Debug)]
pub(super) struct Verdicts {
    place: PathBuf,
    files: VecDeque<(String, u64)>,
    bytes: u64,
}

impl Verdicts {
    pub(super) fn open(directory: &Path) -> Result<Self, DirectoryError> {
        let place = directory.join(VERDICTS);
        let failed = |source| DirectoryError::Io { action: "read", path: place.clone(), source };
        let mut files = Vec::new();
        for entry in fs::read_dir(&place).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // One that was not finished when the service was killed.
            if name.ends_with(".new") {
                fs::remove_file(entry.path()).map_err(failed)?;
            } else if name.ends_with(".json") {
                files.push((name, entry.metadata().map_err(failed)?.len()));
            }
        }
        files.sort();
        let bytes = files.iter().map(|(_, size)| size).sum();
        Ok(Self { place, files: files.into(), bytes })
    }

    /// Keeps one, and removes the oldest ones beyond `most`.
    pub(super) fn keep(
        &mut self,
        kept: &Kept<'_>,
        pod: &str,
        most: u32,
        now: SystemTime,
    ) -> Result<(), DirectoryError> {
        let malformed = |error: serde_json::Error| DirectoryError::Io {
            action: "write",
            path: self.place.clone(),
            source: error.into(),
        };
        let content = serde_json::to_vec(kept).map_err(malformed)?;
        // In the order of names as in that of time.
        let seconds = instant::seconds(now);
        let name = format!("{seconds:012}-{pod}-{:08x}.json", OsRng.next_u32());
        write(&self.place.join(&name), &content, 0o600)?;
        let size = content.len() as u64;
        self.files.push_back((name, size));
        self.bytes += size;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        // The newest one stays, whatever its size.
        while self.files.len() > 1 && (self.files.len() > most || self.bytes > MAX_BYTES) {
            let Some((oldest, size)) = self.files.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(size);
            let path = self.place.join(oldest);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(DirectoryError::Io { action: "remove", path, source }),
            }
        }
        Ok(())
    }
}

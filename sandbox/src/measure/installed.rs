//! What a pod runs on: the digests of the kernel, of guest-init and of our own programs.

use crate::installation::Installation;
use sandbox_image::{Algorithm, Digest, Stamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The file with digests that were computed before, in the directory of the attestation log.
const CACHE: &str = "digests.json";

/// The largest cache that is read.
const MAX_CACHE: u64 = 1 << 20;

/// Programs and kernel can't be measured, or are not what was measured.
#[derive(Debug, thiserror::Error)]
pub enum InstalledError {
    /// A file can't be read.
    #[error("cannot measure {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It was changed after it was measured.
    #[error(
        "{} was changed while the pod was being launched; launch it again when the installation \
         is complete",
        .0.display()
    )]
    Changed(PathBuf),
    /// Another program runs than was measured.
    #[error(
        "{} was replaced while the pod was being launched; launch it again when the installation \
         is complete",
        .0.display()
    )]
    Replaced(PathBuf),
}

/// A file, open, with the digest of what is in it.
#[derive(Debug)]
pub struct Measured {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    digest: Digest,
}

/// All files that a pod runs on, as they are now. Whoever launches it takes these, and asks at the
/// end whether they still are what they were.
#[derive(Debug)]
pub struct Installed {
    /// The guest's kernel.
    pub kernel: Measured,
    /// The initramfs, which is guest-init alone.
    pub initramfs: Measured,
    /// `sandbox-vmm`
    pub monitor: Measured,
    /// `sandbox-fs`
    pub worker: Measured,
    /// This program.
    pub supervisor: Measured,
}

impl Installed {
    /// Measures an installation. Digests of files that were not changed since are taken from a
    /// cache in `directory`.
    ///
    /// # Errors
    /// [`InstalledError::Read`]
    pub fn measure(installation: &Installation, directory: &Path) -> Result<Self, InstalledError> {
        let mut cache = Cache::load(&directory.join(CACHE));
        let own = Path::new("/proc/self/exe");
        let installed = Self {
            kernel: Measured::of(&installation.kernel, &mut cache)?,
            initramfs: Measured::of(&installation.initramfs, &mut cache)?,
            monitor: Measured::of(&installation.monitor, &mut cache)?,
            worker: Measured::of(&installation.worker, &mut cache)?,
            supervisor: Measured::of(own, &mut cache)?,
        };
        cache.save();
        Ok(installed)
    }

    /// Whether every file is what it was when it was measured.
    ///
    /// # Errors
    /// [`InstalledError::Changed`], or [`InstalledError::Read`].
    pub fn check(&self) -> Result<(), InstalledError> {
        [&self.kernel, &self.initramfs, &self.monitor, &self.worker, &self.supervisor]
            .into_iter()
            .try_for_each(Measured::check)
    }
}

impl Measured {
    fn of(path: &Path, cache: &mut Cache) -> Result<Self, InstalledError> {
        let failed = |error| InstalledError::Read { path: path.to_owned(), error };
        let mut file = File::open(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let key = path.to_string_lossy().into_owned();
        if let Some(known) = cache.files.get(&key)
            && known.stamp.is_still_of(&file).unwrap_or(false)
        {
            let (stamp, digest) = (known.stamp, known.digest.clone());
            return Ok(Self { path, file, stamp, digest });
        }
        let failed = |error| InstalledError::Read { path: path.clone(), error };
        // The stamp is older than what is read, so that a change in between is seen.
        let stamp = Stamp::settled(&file).map_err(failed)?;
        let digest = Digest::of_reader(Algorithm::Sha256, &mut file).map_err(failed)?;
        cache.files.insert(key, Known { stamp, digest: digest.clone() });
        cache.is_changed = true;
        let measured = Self { path, file, stamp, digest };
        measured.check()?;
        Ok(measured)
    }

    /// SHA-256 of its bytes.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The open file. What opens it by `/proc/self/fd` gets this very file, whatever has its name
    /// by then.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether a process runs this program, and not another one that had its name when it was
    /// started.
    ///
    /// # Errors
    /// [`InstalledError::Replaced`], or [`InstalledError::Read`].
    pub fn is_run_by(&self, pid: u32) -> Result<(), InstalledError> {
        let failed = |error| InstalledError::Read { path: self.path.clone(), error };
        let runs = fs::metadata(format!("/proc/{pid}/exe")).map_err(failed)?;
        let measured = self.file.metadata().map_err(failed)?;
        if (runs.dev(), runs.ino()) == (measured.dev(), measured.ino()) {
            Ok(())
        } else {
            Err(InstalledError::Replaced(self.path.clone()))
        }
    }

    fn check(&self) -> Result<(), InstalledError> {
        match self.stamp.is_still_of(&self.file) {
            Ok(true) => Ok(()),
            Ok(false) => Err(InstalledError::Changed(self.path.clone())),
            Err(error) => Err(InstalledError::Read { path: self.path.clone(), error }),
        }
    }
}

/// Digests that were computed before. A file that was changed since has another stamp; see [`Stamp`]
/// for why no program can make it the same.
#[derive(Debug, Default)]
struct Cache {
    path: PathBuf,
    files: BTreeMap<String, Known>,
    is_changed: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    stamp: Stamp,
    digest: Digest,
}

impl Cache {
    /// Whatever is wrong with it, everything is computed again.
    fn load(path: &Path) -> Self {
        let read = || -> io::Result<BTreeMap<String, Known>> {
            let file = File::open(path)?;
            if file.metadata()?.len() > MAX_CACHE {
                return Ok(BTreeMap::new());
            }
            Ok(serde_json::from_reader(io::BufReader::new(file))?)
        };
        Self { path: path.to_owned(), files: read().unwrap_or_default(), is_changed: false }
    }

    /// If it can't be kept, the next launch computes everything again.
    fn save(&self) {
        let write = || -> io::Result<()> {
            let unfinished = self.path.with_extension(format!("json.{}", std::process::id()));
            let mut file =
                File::options().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            let written =
                file.write_all(&serde_json::to_vec(&self.files)?).and_then(|()| file.sync_all());
            written
                .and_then(|()| fs::rename(&unfinished, &self.path))
                .inspect_err(|_| drop(fs::remove_file(&unfinished)))
        };
        if self.is_changed {
            let _ = write();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(path: &Path, cache: &Path) -> Measured {
        let mut cache = Cache::load(cache);
        let measured = Measured::of(path, &mut cache).unwrap();
        cache.save();
        measured
    }

    #[test]
    fn a_digest_is_that_of_the_content_of_now() {
        let directory = tempfile::tempdir().unwrap();
        let (file, cache) = (directory.path().join("file"), directory.path().join("cache"));
        fs::write(&file, "one").unwrap();
        let one = measure(&file, &cache);
        assert_eq!(*one.digest(), Digest::of(Algorithm::Sha256, b"one"));
        assert_eq!(measure(&file, &cache).digest(), one.digest());
        one.check().unwrap();
        // As long, and with the same times as far as a program can set them.
        let times = one.file().metadata().unwrap().modified().unwrap();
        fs::write(&file, "two").unwrap();
        File::options().write(true).open(&file).unwrap().set_modified(times).unwrap();
        assert!(matches!(one.check(), Err(InstalledError::Changed(_))));
        assert_eq!(*measure(&file, &cache).digest(), Digest::of(Algorithm::Sha256, b"two"));
    }

    #[test]
    fn what_is_in_the_cache_comes_from_there_and_what_is_malformed_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let (file, cache) = (directory.path().join("file"), directory.path().join("cache"));
        fs::write(&file, "one").unwrap();
        measure(&file, &cache);
        let wrong = Digest::of(Algorithm::Sha256, b"wrong");
        let right = Digest::of(Algorithm::Sha256, b"one");
        let text = fs::read_to_string(&cache).unwrap().replace(right.hex(), wrong.hex());
        fs::write(&cache, text).unwrap();
        assert_eq!(*measure(&file, &cache).digest(), wrong);
        fs::write(&cache, "{").unwrap();
        assert_eq!(*measure(&file, &cache).digest(), right);
    }

    #[test]
    fn a_process_runs_what_was_measured_or_something_else() {
        let mut cache = Cache::default();
        let own = Measured::of(Path::new("/proc/self/exe"), &mut cache).unwrap();
        own.is_run_by(std::process::id()).unwrap();
        let other = Measured::of(Path::new("/bin/sh"), &mut cache).unwrap();
        let error = other.is_run_by(std::process::id()).unwrap_err();
        assert!(matches!(error, InstalledError::Replaced(_)), "{error}");
    }
}

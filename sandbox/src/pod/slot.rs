//! Which number a pod has on its host: its user and its pair of SELinux categories follow from it.
//!
//! ```text
//! /var/lib/sandbox/slots/          0700; one for all data directories of the host
//!   lock                           whoever changes something holds its flock
//!   N             → UUID:DATA      the pod UUID of the data directory DATA has the number N
//!   UUID          → N              where to look for it
//! ```
//!
//! Both are symbolic links that lead nowhere: a link is made whole or not at all, and there is only
//! one of a name. A number is taken if, and only if, `N` is there. What a process that is killed
//! leaves half done is one of these, and neither is ever two pods with one number:
//!
//! - `UUID` without its `N`: it is as if it were not there, and [`Slots::collect`] removes it;
//! - `N` of a pod that is gone, or that `UUID` does not name: taken until [`Slots::collect`].
//!
//! A pod takes its number when its directory is there, and gives it back when that is removed. So the
//! number of a pod without a directory is free to be collected.

use rustix::fs::{FlockOperation, flock};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How many pods a host can have at the same time.
pub const SLOTS: u32 = 1 << 16;

/// Categories of the policies that distributions have: c0 to c1023.
const CATEGORIES: u32 = 1024;

// Every slot has a pair of its own.
const _: () = assert!(SLOTS <= CATEGORIES * (CATEGORIES - 1) / 2);

/// A pod has no number, or can't give it back.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// Something failed that the system does for us.
    #[error("cannot {action} {}: {error}", path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// All numbers are taken.
    #[error(
        "all {SLOTS} numbers for pods are taken, see {}; 'sandbox gc' frees those of dead pods",
        .0.display()
    )]
    NoneFree(PathBuf),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SlotError {
    move |error| SlotError::System { action, path: path.to_owned(), error }
}

/// The number of a pod that no other pod of this host has at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(u32);

impl Slot {
    /// The number, below [`SLOTS`].
    pub fn number(self) -> u32 {
        self.0
    }

    /// The two categories that it has alone: `a < b`, and no other number has the same two.
    ///
    /// All pairs in the order of their greater category, and then of the smaller one:
    /// (0,1), (0,2), (1,2), (0,3), … Before those with the greater category b there are b(b-1)/2.
    #[allow(dead_code, reason = "for the label")]
    pub fn categories(self) -> (u32, u32) {
        let greater = u32::midpoint(1, (1 + 8 * self.0).isqrt());
        let smaller = self.0 - greater * (greater - 1) / 2;
        (smaller, greater)
    }
}

/// Whose a number is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The pod.
    pub uuid: Uuid,
    /// The data directory that it is in.
    pub data: PathBuf,
}

impl Owner {
    fn to_link(&self) -> PathBuf {
        let mut link = format!("{}:", self.uuid).into_bytes();
        link.extend_from_slice(self.data.as_os_str().as_bytes());
        PathBuf::from(std::ffi::OsString::from_vec(link))
    }

    fn of_link(link: &Path) -> Option<Self> {
        let bytes = link.as_os_str().as_bytes();
        let colon = bytes.iter().position(|byte| *byte == b':')?;
        let uuid = canonical_uuid(OsStr::from_bytes(&bytes[..colon]))?;
        Some(Self { uuid, data: OsStr::from_bytes(&bytes[colon + 1..]).into() })
    }
}

/// A UUID as we write it; others that mean the same would be other names.
fn canonical_uuid(name: &OsStr) -> Option<Uuid> {
    let name = name.to_str()?;
    name.parse().ok().filter(|uuid: &Uuid| uuid.to_string() == name)
}

/// The number that a pod gets if it is free: any, so that one, and what a pod may have left with it, comes
/// back late. It is made of the first digits of the UUID; not all of the others are random.
fn first(uuid: Uuid) -> u32 {
    uuid.as_fields().0 % SLOTS
}

fn canonical_number(name: &OsStr) -> Option<Slot> {
    let name = name.to_str()?;
    let number = name.parse().ok().filter(|number: &u32| number.to_string() == name)?;
    (number < SLOTS).then_some(Slot(number))
}

/// The numbers of a host.
#[derive(Debug)]
pub struct Slots {
    path: PathBuf,
    /// After how many changes the process "is killed".
    #[cfg(test)]
    killed_after: std::cell::Cell<Option<u32>>,
}

impl Slots {
    /// Those of the host.
    pub const PLACE: &str = "/var/lib/sandbox/slots";

    /// Opens them; the directory is made if it is not there.
    ///
    /// # Errors
    /// See [`SlotError`].
    pub fn open(path: &Path) -> Result<Self, SlotError> {
        if let Some(parent) = path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(parent);
            made.map_err(failed("make the directory", parent))?;
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(failed("make the directory", path))?;
        Ok(Self {
            path: path.to_owned(),
            #[cfg(test)]
            killed_after: std::cell::Cell::new(None),
        })
    }

    /// Reserves a number for a pod whose directory is there; always the same one as long as it is not
    /// released. When this returns it is on disk.
    ///
    /// # Errors
    /// See [`SlotError`].
    pub fn reserve(&self, owner: &Owner) -> Result<Slot, SlotError> {
        let _lock = self.lock()?;
        if let Some(slot) = self.held(owner.uuid)? {
            return Ok(slot);
        }
        let first = first(owner.uuid);
        for step in 0..SLOTS {
            let slot = Slot((first + step) % SLOTS);
            if self.link(&slot.number().to_string())?.is_some() {
                continue;
            }
            // In this order: a number that is taken can always be found by its pod.
            let name = owner.uuid.to_string();
            self.remove(&name)?;
            self.make(&name, Path::new(&slot.number().to_string()))?;
            self.make(&slot.number().to_string(), &owner.to_link())?;
            let synced = File::open(&self.path).and_then(|directory| directory.sync_all());
            synced.map_err(failed("sync", &self.path))?;
            return Ok(slot);
        }
        Err(SlotError::NoneFree(self.path.clone()))
    }

    /// Gives back the number of a pod that is gone. One that has none has nothing to give back.
    ///
    /// It need not be on disk: what comes back after a power failure is collected.
    ///
    /// # Errors
    /// See [`SlotError`]; the number is collected later.
    pub fn release(&self, uuid: Uuid) -> Result<(), SlotError> {
        let _lock = self.lock()?;
        self.release_locked(uuid)
    }

    fn release_locked(&self, uuid: Uuid) -> Result<(), SlotError> {
        if let Some(slot) = self.held(uuid)? {
            self.remove(&slot.number().to_string())?;
        }
        self.remove(&uuid.to_string())
    }

    /// Frees the numbers of those pods that don't exist, and returns how many. What is no name of
    /// ours is left alone; a number of nobody that can be read stays taken.
    ///
    /// # Errors
    /// See [`SlotError`]. A pod of which `exists` can't tell keeps its number.
    pub fn collect(&self, exists: impl Fn(&Owner) -> io::Result<bool>) -> Result<usize, SlotError> {
        let _lock = self.lock()?;
        let mut first_error = Ok(());
        let mut count = 0;
        for entry in fs::read_dir(&self.path).map_err(failed("list", &self.path))? {
            let entry = entry.map_err(failed("list", &self.path))?;
            let name = entry.file_name();
            if let Some(slot) = canonical_number(&name) {
                let number = slot.number().to_string();
                let Some(owner) = self.link(&number)?.and_then(|link| Owner::of_link(&link)) else {
                    continue;
                };
                match exists(&owner) {
                    Ok(false) => self.release_locked(owner.uuid)?,
                    Ok(true) => {}
                    Err(error) => {
                        first_error = first_error.and(Err(failed("look for", &owner.data)(error)));
                        continue;
                    }
                }
                // One that its pod does not know of, which has another, or is gone.
                if self.held(owner.uuid)? != Some(slot) {
                    self.remove(&number)?;
                    count += 1;
                }
            } else if let Some(uuid) = canonical_uuid(&name)
                && self.held(uuid)?.is_none()
            {
                self.remove(&uuid.to_string())?;
            }
        }
        first_error.map(|()| count)
    }

    /// The number of a pod: both links have to say so.
    pub(super) fn held(&self, uuid: Uuid) -> Result<Option<Slot>, SlotError> {
        let Some(number) = self.link(&uuid.to_string())? else { return Ok(None) };
        let Some(slot) = canonical_number(number.as_os_str()) else { return Ok(None) };
        let owner = self.link(&slot.number().to_string())?;
        let owner = owner.and_then(|link| Owner::of_link(&link));
        Ok(owner.is_some_and(|owner| owner.uuid == uuid).then_some(slot))
    }

    /// Held until it is dropped; a process that ends drops it, too.
    fn lock(&self) -> Result<File, SlotError> {
        let path = self.path.join("lock");
        let opened = File::options().create(true).append(true).mode(0o600).open(&path);
        let file = opened.map_err(failed("open", &path))?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| failed("lock", &path)(error.into()))?;
        Ok(file)
    }

    /// What a link says, if it is there. What is there and is none says nothing, and is in the way.
    fn link(&self, name: &str) -> Result<Option<PathBuf>, SlotError> {
        let path = self.path.join(name);
        match fs::read_link(&path) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Some(PathBuf::new())),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    fn make(&self, name: &str, link: &Path) -> Result<(), SlotError> {
        let path = self.path.join(name);
        self.change().and_then(|()| symlink(link, &path)).map_err(failed("make", &path))
    }

    fn remove(&self, name: &str) -> Result<(), SlotError> {
        let path = self.path.join(name);
        match self.change().and_then(|()| fs::remove_file(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(failed("remove", &path)),
        }
    }

    /// Before every change on disk.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as it is in tests")]
    fn change(&self) -> io::Result<()> {
        Ok(())
    }

    /// Before every change on disk: where a test wants the process to be killed.
    #[cfg(test)]
    fn change(&self) -> io::Result<()> {
        match self.killed_after.get() {
            Some(0) => Err(io::Error::other("killed")),
            left => {
                self.killed_after.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;

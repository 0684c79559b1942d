use super::{
    places::Places,
    staging::{Staging, is_linked, try_lock},
    stored::hash,
};
use crate::{Digest, Error, Step, format::check_digest, progress::Reporter};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat},
    io::Errno,
};
use std::{fs::File, path::PathBuf, sync::Arc, thread, time::Duration};

/// How often to look whether another process has finished.
const PAUSE: Duration = Duration::from_millis(50);

/// A blob that is being fetched, in `cas/part`. It is removed with this value unless it was put in
/// its place, or is to be gone on with.
#[derive(Debug)]
pub(super) struct PartFile {
    places: Arc<Places>,
    digest: Digest,
    size: u64,
    file: File,
    /// Whether what is there of it took time that the next fetch could do without.
    is_dear: bool,
    stays: bool,
}

impl PartFile {
    /// Opens the file for a blob and waits until nobody else writes to it; `None` if the store has
    /// the blob then.
    pub(super) fn open(
        places: &Arc<Places>,
        digest: &Digest,
        size: u64,
        reporter: &mut Reporter<'_>,
    ) -> Result<Option<Self>, Error> {
        let name = digest.file_name();
        let failed = |error: Errno| Error::io("open", places.in_store("part").join(&name), error);
        loop {
            if places.open_blob(digest)?.is_some() {
                return Ok(None);
            }
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file: OwnedFd =
                openat(&places.part, &name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
            while !try_lock(&file).map_err(failed)? {
                reporter.report(Step::Wait)?;
                thread::sleep(PAUSE);
            }
            if is_linked(&places.part, &name, &file).map_err(failed)? {
                let (digest, file) = (digest.clone(), file.into());
                let places = places.clone();
                return Ok(Some(Self { places, digest, size, file, is_dear: false, stays: false }));
            }
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes that the blob must have.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are there. More than there should be are none.
    pub(super) fn already(&self) -> Result<u64, Error> {
        let failed = |error| Error::io("examine", self.path(), error);
        let length = self.file.metadata().map_err(failed)?.len();
        if length > self.size {
            self.empty()?;
            return Ok(0);
        }
        Ok(length)
    }

    /// Forgets what is there.
    pub(super) fn empty(&self) -> Result<(), Error> {
        self.file.set_len(0).map_err(|error| Error::io("empty", self.path(), error))
    }

    /// Holds what was written against size and digest.
    pub(super) fn check(&self, reporter: &mut Reporter<'_>) -> Result<(), Error> {
        let mut done = 0;
        let (found, size) = hash(&self.file, &self.digest, |read| {
            done += read;
            reporter.report(Step::Check { done, total: self.size }).map_err(Error::from)
        })?;
        if size != self.size {
            let problem = format!("it has {size} bytes instead of {}", self.size);
            return Err(Error::Blob { digest: self.digest.clone(), problem });
        }
        check_digest(&self.digest, &found)
    }

    /// Takes the place of this file with one that has the blob: the file of that name in `staging`,
    /// which the caller has checked.
    pub(super) fn filled_by(mut self, staging: &Staging, name: &str) -> Result<Self, Error> {
        let failed = |error: Errno| Error::io("move", self.path(), error);
        let own = self.digest.file_name();
        // The lock has to be there before the file has its name, or gc could take it for garbage.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file: OwnedFd = openat(staging.folder(), name, flags, Mode::empty()).map_err(failed)?;
        try_lock(&file).map_err(failed)?;
        renameat(staging.folder(), name, &self.places.part, own).map_err(failed)?;
        self.file = file.into();
        Ok(self)
    }

    /// Says that it comes from a server that can go on where it ended.
    pub(super) fn is_downloaded(&mut self) {
        self.is_dear = true;
    }

    /// Leaves what is there to the next fetch if that can go on with it. Nobody locks it then: it is
    /// garbage after a while.
    pub(super) fn keep_if_dear(&mut self) {
        let is_begun = self.file.metadata().is_ok_and(|metadata| metadata.len() > 0);
        self.stays = self.is_dear && is_begun;
    }

    /// Puts the blob in its place, which comes back.
    pub(super) fn put(&mut self) -> Result<PathBuf, Error> {
        let place = self.places.blob(&self.digest);
        self.places.put(&self.path(), &place)?;
        self.stays = true;
        Ok(place)
    }

    fn path(&self) -> PathBuf {
        self.places.in_store("part").join(self.digest.file_name())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.stays {
            // It is locked, so nobody else can have put another in its place.
            let _ = unlinkat(&self.places.part, self.digest.file_name(), AtFlags::empty());
        }
    }
}

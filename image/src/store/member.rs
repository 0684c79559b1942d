//! One image's folder, apart from those that it depends on.

use super::{
    Record,
    places::{Places, RECORD},
    record::{folder_name, id_of_folder},
    said::Said,
    staging::{Staging, is_linked},
};
use crate::Error;
use rustix::{
    fd::OwnedFd,
    fs::{FlockOperation, Mode, OFlags, flock, fsync, openat, renameat},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
};

/// An image's folder, which is not removed as long as this value is held.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) folder: String,
    pub(super) record: Record,
    pub(super) said: Said,
    /// The folder, with a shared lock on it.
    pub(super) lock: OwnedFd,
}

impl Member {
    /// Opens an image's folder; `None` if there is no image in it, or somebody is making or removing
    /// it.
    pub(super) fn open(places: &Places, folder: &str) -> Result<Option<Self>, Error> {
        let Some(lock) = places.lock_image(folder)? else {
            return Ok(None);
        };
        let Some(record) = record_of(&lock, folder)? else {
            return Ok(None);
        };
        let said = Said::read(places, &record)?;
        Ok(Some(Self { folder: folder.to_owned(), record, said, lock }))
    }

    /// Puts a changed record in the place of the one that is there, which may be another one by now
    /// than this value has; the new one comes back. Others may use the image meanwhile: they read the
    /// old one or the new one.
    pub(super) fn rewrite(
        &self,
        places: &Places,
        change: impl FnOnce(&mut Record),
    ) -> Result<Record, Error> {
        let path = places.image_path(&self.folder).join(RECORD);
        let failed = |error: Errno| Error::io("renew", &path, error);
        let _lock = self.lock_record().map_err(failed)?;
        let missing = || failed(Errno::NOENT);
        let old = record_of(&self.lock, &self.folder)?.ok_or_else(missing)?;
        let mut new = old.clone();
        change(&mut new);
        if new != old {
            let staging = Staging::new(&places.tmp, &places.in_store("tmp"))?;
            write_record(&staging, &mut new)?;
            renameat(staging.folder(), RECORD, &self.lock, RECORD).map_err(failed)?;
            fsync(&self.lock).map_err(failed)?;
        }
        Ok(new)
    }

    /// Waits until nobody else puts another record in the place of the one that is there.
    fn lock_record(&self) -> rustix::io::Result<OwnedFd> {
        loop {
            let record = openat(&self.lock, RECORD, READ, Mode::empty())?;
            rustix::io::retry_on_intr(|| flock(&record, FlockOperation::LockExclusive))?;
            if is_linked(&self.lock, RECORD, &record)? {
                return Ok(record);
            }
        }
    }
}

/// How files of an image's folder are opened.
pub(super) const READ: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// The record in an image's folder, which has this name; `None` if there is none, and nobody has
/// made an image of it.
pub(super) fn record_of(place: &OwnedFd, folder: &str) -> Result<Option<Record>, Error> {
    let read = read_record(place);
    let Some(bytes) = read.map_err(|error| Error::io("read the record of", folder, error))? else {
        return Ok(None);
    };
    let Some(id) = id_of_folder(folder) else {
        return Ok(None);
    };
    let tampered = |problem| Error::Tampered { image: id.clone(), problem };
    let record = Record::parse(&bytes)
        .map_err(|problem| tampered(format!("its record is malformed: {problem}")))?;
    if folder_name(&record.id, &record.dependencies) != folder {
        return Err(tampered("its record is that of another image".to_owned()));
    }
    Ok(Some(record))
}

fn read_record(folder: &OwnedFd) -> rustix::io::Result<Option<Vec<u8>>> {
    let file = match openat(folder, RECORD, READ, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let read = file.take(Record::MAX).read_to_end(&mut bytes);
    read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(Some(bytes))
}

/// Writes a record as a new file, which is synced.
pub(super) fn write_record(staging: &Staging, record: &mut Record) -> Result<(), Error> {
    let failed = |error: io::Error| Error::io("write", RECORD, error);
    let bytes = record.encode().map_err(failed)?;
    let mut file = staging.file(RECORD)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)
}

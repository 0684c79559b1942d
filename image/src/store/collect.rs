//! Listing and removing images.

use super::{
    Images, Kind, Store, StoredImage, Summary,
    images::Collected,
    member::record_of,
    places::{Places, has_record, sync_folder},
    record::id_of_folder,
    staging::{self, is_linked, try_lock},
};
use crate::{Digest, Error, Reference, Text};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Stat, fstat, renameat, unlinkat},
    io::Errno,
};
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long parts of blobs are kept for a fetch that goes on with them.
pub(super) const PART_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

impl Store {
    /// All images of the store.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn images(&self) -> Result<Images, Error> {
        let mut all = Images::default();
        for folder in self.folders()? {
            match StoredImage::open_folder(&self.places, &folder) {
                Ok(Some(image)) => all.images.push(summary(&image)?),
                Ok(None) => {}
                Err(error) => all.broken.push(error),
            }
        }
        Ok(all)
    }

    /// Removes an image, and what only it needs. One whose files were tampered with, too.
    ///
    /// # Errors
    /// [`Error::NotStored`], [`Error::InUse`] by a pod, [`Error::Needed`] by another image, or
    /// [`Error::Io`].
    pub fn remove(&self, id: &Digest) -> Result<(), Error> {
        let mut own = self.folders()?;
        own.retain(|folder| id_of_folder(folder).as_ref() == Some(id));
        own.retain(|folder| is_image(&self.places, folder));
        if own.is_empty() {
            return Err(Error::NotStored(Text::new(id.file_name())));
        }
        let needed = |by| Error::Needed { id: id.clone(), by };
        let mut needs = Needs::default();
        needs.read(self)?;
        // Before any of them goes.
        if let Some(by) = own.iter().find_map(|folder| needs.who_needs(folder)) {
            return Err(needed(by));
        }
        for folder in own {
            match self.remove_folder(&folder, &mut needs, &|_| true)? {
                Removal::Done => {}
                Removal::InUse => return Err(Error::InUse(id.clone())),
                Removal::Needed(by) => return Err(needed(by)),
            }
        }
        self.sweep(PART_GRACE, &mut Collected::default())
    }

    /// Removes what killed processes left behind, and with `grace` the images that were not used
    /// for that long. Parts of blobs that the next fetch could go on with stay for a day, or for
    /// `grace` if that is less.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn gc(&self, grace: Option<Duration>) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        collected.staging += staging::collect(&self.places.tmp, &self.places.in_store("tmp"))?;
        collected.staging += self.collect_places()?;
        if let Some(grace) = grace {
            self.collect_unused(grace, &mut collected)?;
        }
        self.sweep(grace.unwrap_or(PART_GRACE).min(PART_GRACE), &mut collected)?;
        Ok(collected)
    }

    /// Removes the images that were not used for that long; first those that others depend on no
    /// more.
    fn collect_unused(&self, grace: Duration, collected: &mut Collected) -> Result<(), Error> {
        let now = SystemTime::now();
        let is_unused = |stat: &Stat| {
            let last_used = time(stat.st_mtime);
            now.duration_since(last_used).unwrap_or_default() >= grace
        };
        let mut needs = Needs::default();
        loop {
            needs.read(self)?;
            let mut is_changed = false;
            for folder in needs.unneeded() {
                let removal = self.remove_folder(&folder, &mut needs, &is_unused)?;
                if let (Removal::Done, Some(id)) = (removal, id_of_folder(&folder)) {
                    collected.images.push(id);
                    is_changed = true;
                }
            }
            if !is_changed {
                return Ok(());
            }
        }
    }

    /// Removes the empty folders that hold the places of images that nobody makes any more.
    fn collect_places(&self) -> Result<usize, Error> {
        let mut removed = 0;
        for folder in self.folders()? {
            let failed = |error: Errno| Error::io("remove", self.places.image_path(&folder), error);
            let place = match self.places.open_image(&folder) {
                Ok(place) => place,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error)),
            };
            if has_record(&place).map_err(failed)?
                || !try_lock(&place).map_err(failed)?
                || !is_linked(&self.places.image, &folder, &place).map_err(failed)?
            {
                continue;
            }
            match unlinkat(&self.places.image, &folder, AtFlags::REMOVEDIR) {
                Ok(()) => removed += 1,
                // Not ours: something was put there by hand.
                Err(Errno::NOTEMPTY) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(removed)
    }

    /// Removes an image's folder unless somebody uses or needs it, or it is not meant as it looks: at
    /// once from its place, then what is in it.
    fn remove_folder(
        &self,
        folder: &str,
        needs: &mut Needs,
        is_meant: &dyn Fn(&Stat) -> bool,
    ) -> Result<Removal, Error> {
        let failed = |error: Errno| Error::io("remove", self.places.image_path(folder), error);
        let Some(place) = open(&self.places, folder)? else { return Ok(Removal::Done) };
        // An image that is not removed is not locked either: others would take it for gone.
        if !is_meant(&fstat(&place).map_err(failed)?) || !try_lock(&place).map_err(failed)? {
            return Ok(Removal::InUse);
        }
        if !is_linked(&self.places.image, folder, &place).map_err(failed)? {
            return Ok(Removal::Done);
        }
        // From here on nobody can begin to use it; but somebody may have, before it was locked.
        if !is_meant(&fstat(&place).map_err(failed)?) {
            return Ok(Removal::InUse);
        }
        needs.read(self)?;
        if let Some(by) = needs.who_needs(folder) {
            return Ok(Removal::Needed(by));
        }
        // No folder is made for it: there may be no space left, which is why it is removed.
        let name = staging::random_name().map_err(failed)?;
        renameat(&self.places.image, folder, &self.places.tmp, &name).map_err(failed)?;
        sync_folder(&self.places.in_store("image"))?;
        // As long as it is locked nobody takes it for garbage. What can't be removed, gc will try.
        let _ = std::fs::remove_dir_all(self.places.in_store("tmp").join(name));
        Ok(Removal::Done)
    }

    /// Removes blobs and references that no image has, and parts of blobs that nobody has written to
    /// for that long, unless somebody is fetching.
    pub(super) fn sweep(&self, grace: Duration, collected: &mut Collected) -> Result<(), Error> {
        let Some(_lock) = self.places.try_lock_to_sweep()? else {
            collected.busy = true;
            return Ok(());
        };
        // An image that somebody else has just removed must not come back without its blobs.
        sync_folder(&self.places.in_store("image"))?;
        let mut kept = HashSet::new();
        let mut folders = HashSet::new();
        for folder in self.folders()? {
            let Some(place) = open(&self.places, &folder)? else { continue };
            let path = self.places.image_path(&folder);
            match record_of(&place, &folder) {
                Ok(Some(record)) => {
                    kept.extend(record.blobs().map(|blob| self.places.blob(&blob.digest)));
                    if record.kind == Kind::Aci {
                        kept.insert(self.places.aci_manifest(&record.id));
                    }
                    folders.insert(folder);
                }
                Ok(None) => {}
                // Which blobs it has can't be known, so all stay until it is removed.
                Err(error) => {
                    let problem = std::io::Error::other(error.to_string());
                    return Err(Error::io("read the record in", path, problem));
                }
            }
        }
        for kind in ["blob", "imageManifest"] {
            let path = self.places.in_store(kind);
            collected.blobs += sweep_files(&path, &|file| kept.contains(file))?;
        }
        // Nobody fetches, so what is there of blobs is what was left behind.
        let now = SystemTime::now();
        let is_kept = |file: &Path| {
            let metadata = file.symlink_metadata().and_then(|metadata| metadata.modified());
            let age = metadata.map(|modified| now.duration_since(modified).unwrap_or_default());
            age.is_ok_and(|age| age < grace)
        };
        collected.blobs += sweep_files(&self.places.in_store("part"), &is_kept)?;
        let is_kept = |file: &Path| self.places.leads_to(file, &folders);
        sweep_files(&self.places.in_store("ref"), &is_kept)?;
        Ok(())
    }
}

/// What became of an image that was to be removed.
enum Removal {
    Done,
    InUse,
    Needed(Digest),
}

/// What the images of the store depend on. The name of an image's folder stands for that, so each
/// record is read once.
#[derive(Default)]
struct Needs(HashMap<String, Vec<String>>);

impl Needs {
    /// Takes notice of images that are new or gone.
    fn read(&mut self, store: &Store) -> Result<(), Error> {
        let folders: HashSet<_> = store.folders()?.into_iter().collect();
        self.0.retain(|folder, _| folders.contains(folder));
        for folder in folders {
            if self.0.contains_key(&folder) {
                continue;
            }
            let Some(place) = open(&store.places, &folder)? else { continue };
            match record_of(&place, &folder) {
                Ok(Some(record)) => {
                    let needed = record.dependencies.into_iter().map(|needed| needed.folder);
                    self.0.insert(folder, needed.collect());
                }
                // One that was damaged needs nothing any more.
                Ok(None) | Err(Error::Tampered { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// An image that depends on the one of this folder.
    fn who_needs(&self, folder: &str) -> Option<Digest> {
        let mut all = self.0.iter();
        let (by, _) = all.find(|(_, needed)| needed.iter().any(|needed| needed == folder))?;
        id_of_folder(by)
    }

    /// Folders of images that no other depends on.
    fn unneeded(&self) -> Vec<String> {
        let needed: HashSet<_> = self.0.values().flatten().collect();
        self.0.keys().filter(|folder| !needed.contains(folder)).cloned().collect()
    }
}

/// Removes the files in a folder, at any depth, that are not to be kept; and folders in it that are
/// empty then.
fn sweep_files(folder: &Path, is_kept: &dyn Fn(&Path) -> bool) -> Result<usize, Error> {
    let failed = |error| Error::io("remove what is not needed in", folder, error);
    let mut removed = 0;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path: PathBuf = entry.path();
        if entry.file_type().map_err(failed)?.is_dir() {
            removed += sweep_files(&path, is_kept)?;
            // Only if it is empty.
            let _ = std::fs::remove_dir(&path);
        } else if !is_kept(&path) {
            std::fs::remove_file(&path).map_err(failed)?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn summary(image: &StoredImage) -> Result<Summary, Error> {
    let record = image.record();
    let blobs: u64 = record.blobs().map(|blob| blob.size).sum();
    let (name, version) = match (&record.kind, &record.reference) {
        (Kind::Aci, _) => {
            let labels = &image.config().labels;
            let version = labels.iter().find(|(name, _)| name == "version");
            (record.name.clone(), version.map(|(_, version)| version.clone()))
        }
        (_, Reference::Registry { image }) => {
            let name = format!("{}/{}", image.registry(), image.repository());
            (name, image.tag().map(str::to_owned))
        }
        _ => (record.name.clone(), None),
    };
    Ok(Summary {
        id: record.id.clone(),
        name,
        version,
        kind: record.kind,
        imported: time(record.imported),
        last_used: last_used(image)?,
        size: blobs.saturating_add(record.rootfs.size),
    })
}

/// When an image's folder was changed last: when it was made, or its files were asked for.
fn last_used(image: &StoredImage) -> Result<SystemTime, Error> {
    let stat = fstat(image.lock());
    let stat = stat.map_err(|error| Error::io("examine", image.folder(), error))?;
    Ok(time(stat.st_mtime))
}

fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

fn open(places: &Places, folder: &str) -> Result<Option<OwnedFd>, Error> {
    match places.open_image(folder) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(Error::io("open", places.image_path(folder), error)),
    }
}

fn is_image(places: &Places, folder: &str) -> bool {
    places.open_image(folder).and_then(|folder| has_record(&folder)).unwrap_or(false)
}

#[cfg(test)]
mod tests;

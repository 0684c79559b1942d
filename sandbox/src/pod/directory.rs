//! A pod's directory and its way through the states, as rkt has them.
//!
//! ```text
//! <data dir>/pods/{embryo,prepare,prepared,run,exited-garbage,garbage}/<uuid>/
//! ```
//!
//! The state is the folder that the directory is in, together with the exclusive lock (`flock`) on
//! the directory itself: who holds it is at work on the pod, and when that process dies, however
//! it dies, the lock is free and the pod is dead. A change of state is a rename.

use super::slot::{Owner, Slot, SlotError, Slots};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// A folder of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The directory was made.
    Embryo,
    /// Its content is made; without a lock: that was given up.
    Preparing,
    /// Ready to run, by whoever wants to.
    Prepared,
    /// It runs; without a lock: it has exited.
    Running,
    /// It has exited, and its directory is to be removed.
    ExitedGarbage,
    /// It never ran, and its directory is to be removed.
    Garbage,
}

impl State {
    /// All of them, in the order in which a pod comes to them.
    pub(super) const ALL: [Self; 6] = [
        Self::Embryo,
        Self::Preparing,
        Self::Prepared,
        Self::Running,
        Self::ExitedGarbage,
        Self::Garbage,
    ];

    /// Those in which a directory without a lock is garbage.
    const NEED_A_LOCK: [Self; 5] =
        [Self::Embryo, Self::Preparing, Self::Running, Self::ExitedGarbage, Self::Garbage];

    fn name(self) -> &'static str {
        match self {
            Self::Embryo => "embryo",
            Self::Preparing => "prepare",
            Self::Prepared => "prepared",
            Self::Running => "run",
            Self::ExitedGarbage => "exited-garbage",
            Self::Garbage => "garbage",
        }
    }
}

/// A step of a pod's life that failed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
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
    /// See [`SlotError`].
    #[error(transparent)]
    Slot(#[from] SlotError),
}

pub(super) fn failed<'a, E: Into<io::Error>>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(E) -> DirectoryError + 'a {
    move |error| DirectoryError::System { action, path: path.to_owned(), error: error.into() }
}

/// The directory that holds images and pods.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    slots: PathBuf,
}

impl DataDir {
    /// Opens it; what is missing is made.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let make = |path: &Path| {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o750)
                .create(path)
                .map_err(failed("make the directory", path))
        };
        make(path)?;
        let path = path.canonicalize().map_err(failed("resolve", path))?;
        for state in State::ALL {
            make(&path.join("pods").join(state.name()))?;
        }
        Ok(Self { slots: path.join("slots"), path })
    }

    /// The same, with pods that take their numbers from those of the host: no two pods have the same
    /// number then, whatever data directories they are in.
    pub fn of_host(self) -> Self {
        Self { slots: Slots::PLACE.into(), ..self }
    }

    /// The one there is, or would be: nothing is made. It is for those who only look.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn at(path: &Path) -> Result<Self, DirectoryError> {
        match path.canonicalize() {
            Ok(path) => Ok(Self { slots: path.join("slots"), path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self { slots: path.join("slots"), path: path.to_owned() })
            }
            Err(error) => Err(failed("resolve", path)(error)),
        }
    }

    /// Its path, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file of a pod, whatever state it is in. `None` if there is no such pod.
    ///
    /// # Errors
    /// See [`DirectoryError`]; the pod may be there and the file not.
    pub fn read(&self, uuid: Uuid, name: &str) -> Result<Option<Vec<u8>>, DirectoryError> {
        // States only go forward, so a pod that moves meanwhile is met again further on.
        for state in State::ALL {
            let Some(directory) = self.open_pod(state, uuid)? else { continue };
            let path = self.place(state, uuid).join(name);
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&directory, name, flags, Mode::empty())
                .map_err(failed("open", &path))?;
            let mut content = Vec::new();
            let read = io::Read::read_to_end(&mut fs::File::from(file), &mut content);
            read.map_err(failed("read", &path))?;
            return Ok(Some(content));
        }
        Ok(None)
    }

    /// Frees the numbers of pods that are gone, those in other data directories included.
    ///
    /// # Errors
    /// See [`SlotError`].
    pub fn collect_slots(&self) -> Result<usize, SlotError> {
        Slots::open(&self.slots)?.collect(|owner| {
            let pods = owner.data.join("pods");
            // States only go forward, so a pod that moves meanwhile is met again further on.
            for state in State::ALL {
                let place = pods.join(state.name()).join(owner.uuid.to_string());
                match fs::symlink_metadata(place) {
                    Ok(_) => return Ok(true),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(false)
        })
    }

    pub(super) fn folder(&self, state: State) -> PathBuf {
        self.path.join("pods").join(state.name())
    }

    pub(super) fn place(&self, state: State, uuid: Uuid) -> PathBuf {
        self.folder(state).join(uuid.to_string())
    }

    /// The directory of a pod, if it has one in this state.
    pub(super) fn open_pod(
        &self,
        state: State,
        uuid: Uuid,
    ) -> Result<Option<OwnedFd>, DirectoryError> {
        let path = self.place(state, uuid);
        match open_directory(&path) {
            Err(Errno::NOENT) => Ok(None),
            other => other.map(Some).map_err(failed("open", &path)),
        }
    }

    /// Removes the directories of dead pods: those that need a lock and have none. `bury` does what
    /// is still to be done for each before it goes; if it can't, the directory stays. `removed`
    /// hears of each.
    ///
    /// # Errors
    /// The first one met, after everything else was removed.
    pub fn collect_garbage<E: From<DirectoryError>>(
        &self,
        mut bury: impl FnMut(&PodDir) -> Result<(), E>,
        mut removed: impl FnMut(Uuid),
    ) -> Result<(), E> {
        let mut first_error = Ok(());
        for state in State::NEED_A_LOCK {
            let folder = self.folder(state);
            for entry in fs::read_dir(&folder).map_err(failed("list", &folder))? {
                let entry = entry.map_err(failed("list", &folder))?;
                let Some(uuid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                else {
                    continue;
                };
                let remove = |pod: PodDir| match bury(&pod) {
                    Ok(()) => Ok(pod.remove()?),
                    Err(error) => {
                        pod.leave();
                        Err(error)
                    }
                };
                let dead = self.claim_dead(state, uuid).map_err(E::from);
                match dead.and_then(|pod| pod.map(remove).transpose()) {
                    Ok(None) => {}
                    Ok(Some(())) => removed(uuid),
                    Err(error) if first_error.is_ok() => first_error = Err(error),
                    Err(_) => {}
                }
            }
        }
        first_error
    }

    /// Takes the lock of a pod that nobody holds. `None` if the pod is alive, or gone.
    fn claim_dead(&self, state: State, uuid: Uuid) -> Result<Option<PodDir>, DirectoryError> {
        let path = self.place(state, uuid);
        let Some(lock) = self.open_pod(state, uuid)? else { return Ok(None) };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            other => other.map_err(failed("lock", &path))?,
        }
        // Its owner may have moved or removed it before the lock was free.
        if same_file(&lock, &path).map_err(failed("look at", &path))? {
            Ok(Some(PodDir { data: self.clone(), uuid, state, slot: None, lock: Some(lock) }))
        } else {
            Ok(None)
        }
    }
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::empty())
}

/// Whether `path` still names what `open` was opened as.
fn same_file(open: &OwnedFd, path: &Path) -> rustix::io::Result<bool> {
    let open = fstat(open)?;
    match rustix::fs::lstat(path) {
        Ok(named) => Ok((open.st_dev, open.st_ino) == (named.st_dev, named.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The directory of a pod that this process holds the lock of. It is removed with this value.
#[derive(Debug)]
pub struct PodDir {
    data: DataDir,
    uuid: Uuid,
    state: State,
    /// `None` if it was not made by us.
    slot: Option<Slot>,
    /// `None` once the directory is removed.
    lock: Option<OwnedFd>,
}

impl PodDir {
    /// Makes the directory of a new pod, in the state [`State::Preparing`], and reserves its number.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn create(data: &DataDir) -> Result<Self, DirectoryError> {
        loop {
            let uuid = Uuid::new_v4();
            let path = data.place(State::Embryo, uuid);
            fs::DirBuilder::new()
                .mode(0o750)
                .create(&path)
                .map_err(failed("make the directory", &path))?;
            let lock = match open_directory(&path) {
                Err(Errno::NOENT) => continue,
                other => other.map_err(failed("open", &path))?,
            };
            flock(&lock, FlockOperation::LockExclusive).map_err(failed("lock", &path))?;
            // Until it had a lock it was garbage to anybody who looked.
            if !same_file(&lock, &path).map_err(failed("look at", &path))? {
                continue;
            }
            let (data, state) = (data.clone(), State::Embryo);
            let mut pod = Self { data, uuid, state, slot: None, lock: Some(lock) };
            pod.move_to(State::Preparing)?;
            let owner = Owner { uuid, data: pod.data.path.clone() };
            pod.slot = Some(Slots::open(&pod.data.slots)?.reserve(&owner)?);
            return Ok(pod);
        }
    }

    /// The pod's name.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Its number on this host.
    ///
    /// # Errors
    /// See [`SlotError`]. It is made anew if it is lost, which may be another one then.
    #[allow(dead_code, reason = "for user and label")]
    pub fn slot(&self) -> Result<Slot, SlotError> {
        match self.slot {
            Some(slot) => Ok(slot),
            None => Slots::open(&self.data.slots)?
                .reserve(&Owner { uuid: self.uuid, data: self.data.path.clone() }),
        }
    }

    /// Its path, as long as the state stays the same.
    pub fn path(&self) -> PathBuf {
        self.data.place(self.state, self.uuid)
    }

    /// The open directory.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.lock.as_ref().map(AsFd::as_fd)
    }

    /// Moves it to another state, durably.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn move_to(&mut self, state: State) -> Result<(), DirectoryError> {
        let from = self.path();
        self.rename(state)?;
        for place in [from, self.path()] {
            let folder = place.parent().unwrap_or(&place);
            fs::File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(failed("sync", folder))?;
        }
        Ok(())
    }

    fn rename(&mut self, state: State) -> Result<(), DirectoryError> {
        let from = self.path();
        fs::rename(&from, self.data.place(state, self.uuid)).map_err(failed("rename", &from))?;
        self.state = state;
        Ok(())
    }

    /// Writes a file below it, making the folders on the way.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), DirectoryError> {
        let path = self.path().join(name);
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o750)
                .create(folder)
                .map_err(failed("make the directory", folder))?;
        }
        let mut file = self.create_file(&path)?;
        io::Write::write_all(&mut file, content).map_err(failed("write", &path))
    }

    /// Writes a file of it so that it is there whole, on disk, or not at all, whatever happens.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn write_durably(&self, name: &str, content: &[u8]) -> Result<(), DirectoryError> {
        self.put(name, content, fs::File::sync_all)?;
        let folder = self.path();
        fs::File::open(&folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed("sync", &folder))
    }

    /// Writes a file of it so that it is there whole or not at all, whoever is killed. If the machine
    /// loses its power, it may be empty.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn write_whole(&self, name: &str, content: &[u8]) -> Result<(), DirectoryError> {
        self.put(name, content, |_| Ok(()))
    }

    /// Writes a file under another name and gives it its own when `finish` is done with it.
    fn put(
        &self,
        name: &str,
        content: &[u8],
        finish: impl FnOnce(&fs::File) -> io::Result<()>,
    ) -> Result<(), DirectoryError> {
        let path = self.path().join(name);
        let unfinished = self.path().join(format!(".{name}"));
        let mut file = self.create_file(&unfinished)?;
        io::Write::write_all(&mut file, content)
            .and_then(|()| finish(&file))
            .map_err(failed("write", &unfinished))?;
        fs::rename(&unfinished, &path).map_err(failed("rename", &unfinished))
    }

    /// Makes the file that the guest's console is written to. It can be read, too.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn create_console(&self) -> Result<fs::File, DirectoryError> {
        self.create_file(&self.path().join("console"))
    }

    /// Makes the file of a disk, empty, for its owner alone.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn create_disk(&self, name: &str) -> Result<fs::File, DirectoryError> {
        let path = self.path().join(name);
        fs::OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("make the file", &path))
    }

    fn create_file(&self, path: &Path) -> Result<fs::File, DirectoryError> {
        fs::OpenOptions::new()
            .create_new(true)
            .read(true)
            .append(true)
            .mode(0o640)
            .open(path)
            .map_err(failed("make the file", path))
    }

    /// Gives it up as it is: whoever collects garbage finds it.
    pub fn leave(mut self) {
        self.lock = None;
    }

    /// Removes it.
    ///
    /// # Errors
    /// See [`DirectoryError`]; it is garbage then.
    pub fn remove(mut self) -> Result<(), DirectoryError> {
        self.remove_now()
    }

    fn remove_now(&mut self) -> Result<(), DirectoryError> {
        match self.state {
            State::Running => self.rename(State::ExitedGarbage)?,
            State::Garbage | State::ExitedGarbage => {}
            State::Embryo | State::Preparing | State::Prepared => self.rename(State::Garbage)?,
        }
        let path = self.path();
        fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        self.lock = None;
        // Only now: nothing of the pod is left that has anything to do with its number.
        Ok(Slots::open(&self.data.slots)?.release(self.uuid)?)
    }
}

impl Drop for PodDir {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // What can't be removed here is left to `gc`, which says why.
            let _ = self.remove_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(data: &DataDir) -> Vec<String> {
        let mut found = Vec::new();
        for state in State::ALL {
            let folder = data.folder(state);
            for entry in fs::read_dir(folder).unwrap() {
                found.push(format!(
                    "{}/{}",
                    state.name(),
                    entry.unwrap().file_name().to_str().unwrap()
                ));
            }
        }
        found
    }

    fn spare_nothing(_: &PodDir) -> Result<(), DirectoryError> {
        Ok(())
    }

    #[test]
    fn what_can_not_be_buried_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::open(temporary.path()).unwrap();
        let [one, other] = [Uuid::new_v4(), Uuid::new_v4()];
        for uuid in [one, other] {
            fs::create_dir(data.place(State::Running, uuid)).unwrap();
        }
        let bury = |pod: &PodDir| {
            let refused = failed("bury", &pod.path())(io::Error::other("not now"));
            if pod.uuid() == one { Err(refused) } else { Ok(()) }
        };
        let error = data.collect_garbage(bury, |uuid| assert_eq!(uuid, other)).unwrap_err();
        assert!(error.to_string().contains("not now"), "{error}");
        assert_eq!(folders(&data), [format!("run/{one}")]);
        // Nobody holds it, so that the next one can try.
        data.collect_garbage(spare_nothing, |uuid| assert_eq!(uuid, one)).unwrap();
        assert!(folders(&data).is_empty());
    }

    #[test]
    fn a_pod_goes_through_the_folders_of_rkt_and_leaves_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::open(temporary.path()).unwrap();
        let mut pod = PodDir::create(&data).unwrap();
        let uuid = pod.uuid();
        assert_eq!(folders(&data), [format!("prepare/{uuid}")]);
        pod.write("appsinfo/app/treeStoreID", b"x").unwrap();
        pod.write_durably("gate.json", b"{}").unwrap();
        assert_eq!(fs::read(pod.path().join("gate.json")).unwrap(), b"{}");
        assert!(!pod.path().join(".gate.json").exists());
        assert_eq!(data.read(uuid, "gate.json").unwrap().as_deref(), Some(&b"{}"[..]));
        assert!(data.read(uuid, "pod").is_err());
        assert_eq!(data.read(Uuid::new_v4(), "gate.json").unwrap(), None);
        pod.move_to(State::Running).unwrap();
        assert_eq!(folders(&data), [format!("run/{uuid}")]);
        assert_eq!(fs::read(pod.path().join("appsinfo/app/treeStoreID")).unwrap(), b"x");
        pod.remove().unwrap();
        assert!(folders(&data).is_empty());
    }

    #[test]
    fn a_pod_has_a_number_as_long_as_it_has_a_directory() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::open(temporary.path()).unwrap();
        let slots = Slots::open(&temporary.path().join("slots")).unwrap();
        let pod = PodDir::create(&data).unwrap();
        let uuid = pod.uuid();
        let slot = pod.slot().unwrap();
        assert_eq!(slots.held(uuid).unwrap(), Some(slot));
        pod.leave();
        assert_eq!(data.collect_slots().unwrap(), 0);
        assert_eq!(slots.held(uuid).unwrap(), Some(slot));
        data.collect_garbage(spare_nothing, |_| ()).unwrap();
        assert_eq!(slots.held(uuid).unwrap(), None);
        // Killed between the two.
        slots.reserve(&Owner { uuid, data: data.path.clone() }).unwrap();
        assert_eq!(data.collect_slots().unwrap(), 1);
        assert_eq!(slots.held(uuid).unwrap(), None);
    }

    #[test]
    fn a_pod_that_is_given_up_leaves_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::open(temporary.path()).unwrap();
        drop(PodDir::create(&data).unwrap());
        assert!(folders(&data).is_empty());
    }

    #[test]
    fn garbage_is_what_has_no_lock_and_nothing_else() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::open(temporary.path()).unwrap();
        let mut alive = PodDir::create(&data).unwrap();
        alive.move_to(State::Running).unwrap();
        // What kill -9 leaves at each moment: a directory whose lock is free.
        let mut dead = Vec::new();
        for state in State::NEED_A_LOCK {
            let uuid = Uuid::new_v4();
            fs::create_dir_all(data.place(state, uuid).join("appsinfo")).unwrap();
            fs::write(data.place(state, uuid).join("pod"), "{}").unwrap();
            dead.push(uuid);
        }
        let prepared = Uuid::new_v4();
        fs::create_dir(data.place(State::Prepared, prepared)).unwrap();
        fs::create_dir(data.path.join("pods/run/not-a-uuid")).unwrap();

        let mut removed = Vec::new();
        data.collect_garbage(spare_nothing, |uuid| removed.push(uuid)).unwrap();
        dead.sort();
        removed.sort();
        assert_eq!(removed, dead);
        assert_eq!(
            folders(&data).into_iter().collect::<std::collections::BTreeSet<_>>(),
            [
                format!("prepared/{prepared}"),
                format!("run/{}", alive.uuid()),
                "run/not-a-uuid".to_owned()
            ]
            .into()
        );
    }

    #[test]
    fn garbage_collection_does_not_follow_symbolic_links() {
        let temporary = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "").unwrap();
        let data = DataDir::open(temporary.path()).unwrap();
        let place = data.place(State::Running, Uuid::new_v4());
        fs::create_dir(&place).unwrap();
        std::os::unix::fs::symlink(outside.path(), place.join("link")).unwrap();
        data.collect_garbage(spare_nothing, |_| ()).unwrap();
        assert!(!place.exists());
        assert!(outside.path().join("precious").exists());
    }

    #[test]
    fn pods_can_be_made_while_garbage_is_collected() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::open(temporary.path()).unwrap();
        std::thread::scope(|scope| {
            let maker = scope.spawn(|| {
                for _ in 0..100 {
                    let pod = PodDir::create(&data).unwrap();
                    assert!(pod.path().is_dir());
                }
            });
            while !maker.is_finished() {
                data.collect_garbage(spare_nothing, |_| ()).unwrap();
            }
            maker.join().unwrap();
        });
        assert!(folders(&data).is_empty());
    }
}

use rustix::fs::{Stat, fstat};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io, thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How a file looked when its content was known. As long as it looks the same, its content is.
///
/// Every write to a file sets the time of its last change (`ctime`), which no program can set, to
/// the kernel's clock; but that clock moves in ticks. Two writes within one tick leave the same
/// time, so a stamp that was taken in the tick of the last write says nothing about a write after
/// it: it is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds since 1970, and nanoseconds.
    modified: (i64, u32),
    changed: (i64, u32),
    /// When the file was looked at.
    seen: (i64, u32),
}

/// The longest tick of a kernel, at 100 per second, and some more for clocks that are read on
/// different CPUs.
const TICK: Duration = Duration::from_millis(20);
/// The tick of file systems that count whole seconds, or two of them.
const COARSE_TICK: Duration = Duration::from_secs(2);

impl Stamp {
    /// How the file looks. Whoever calls this knows its content, from before.
    ///
    /// # Errors
    /// If it can't be looked at.
    pub fn of(file: &File) -> io::Result<Self> {
        let seen = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(seen.as_secs()).unwrap_or(i64::MAX);
        Ok(Self::new(&fstat(file)?, (seconds, seen.subsec_nanos())))
    }

    fn new(stat: &Stat, seen: (i64, u32)) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or_default()),
            changed: (stat.st_ctime, u32::try_from(stat.st_ctime_nsec).unwrap_or_default()),
            seen,
        }
    }

    /// The same, once nobody can have changed the file in the tick before: waits for that, but not
    /// for long. What comes back is perhaps not [`Self::is_certain`].
    pub fn settled(file: &File) -> io::Result<Self> {
        let stamp = Self::of(file)?;
        if stamp.is_certain() {
            return Ok(stamp);
        }
        thread::sleep(TICK * 2);
        Self::of(file)
    }

    /// Whether any change after the file was looked at would have left another time.
    fn is_certain(&self) -> bool {
        let has_fractions = self.changed.1 != 0 || self.modified.1 != 0;
        let tick = if has_fractions { TICK } else { COARSE_TICK };
        let nanoseconds =
            |(seconds, part): (i64, u32)| i128::from(seconds) * 1_000_000_000 + i128::from(part);
        let tick = i128::try_from(tick.as_nanos()).unwrap_or(i128::MAX);
        nanoseconds(self.changed) + tick < nanoseconds(self.seen)
    }

    /// Whether the file is the one that was looked at, and was not changed since.
    ///
    /// # Errors
    /// If it can't be looked at.
    pub fn is_still_of(&self, file: &File) -> io::Result<bool> {
        Ok(self.is_certain() && Self::new(&fstat(file)?, self.seen) == *self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on stops")]
mod tests {
    use super::*;
    use std::{io::Write as _, os::unix::fs::FileExt as _};

    #[test]
    fn a_stamp_of_the_same_tick_is_not_believed() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        let stamp = Stamp::of(&file).unwrap();
        // Of a write after this one nothing could be seen.
        assert!(!stamp.is_still_of(&file).unwrap());
        assert!(Stamp::settled(&file).unwrap().is_still_of(&file).unwrap());
    }

    #[test]
    fn every_change_is_seen_that_leaves_size_and_mtime_alone() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"content", 0).unwrap();
        let stamp = Stamp::settled(&file).unwrap();
        let times = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"C", 0).unwrap();
        file.set_modified(times).unwrap();
        assert_eq!(file.metadata().unwrap().modified().unwrap(), times);
        assert!(!stamp.is_still_of(&file).unwrap());
    }

    #[test]
    fn another_file_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "content").unwrap();
        let stamp = Stamp::settled(&File::open(&path).unwrap()).unwrap();
        assert!(stamp.is_still_of(&File::open(&path).unwrap()).unwrap());
        std::fs::copy(&path, directory.path().join("copy")).unwrap();
        std::fs::rename(directory.path().join("copy"), &path).unwrap();
        assert!(!stamp.is_still_of(&File::open(&path).unwrap()).unwrap());
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_certain() {
        let file = tempfile::tempfile().unwrap();
        let mut stamp = Stamp::settled(&file).unwrap();
        stamp.seen = (stamp.changed.0 - 1, 0);
        assert!(!stamp.is_still_of(&file).unwrap());
        // Whole seconds have to be further away.
        stamp.changed = (100, 0);
        stamp.modified = (100, 0);
        stamp.seen = (101, 0);
        assert!(!stamp.is_certain());
        stamp.seen = (103, 0);
        assert!(stamp.is_certain());
    }
}

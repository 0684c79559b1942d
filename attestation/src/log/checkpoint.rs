//! What is known of a log that was read to its end once, so that the next launch need not read it
//! again.
//!
//! A checkpoint is believed only where the TPM agrees: its PCR has to hold exactly what the
//! checkpoint says, and the log's file has to be the very one that was looked at, without any
//! change since. Anything else, and the log is read from its beginning, as if there were none. So a
//! checkpoint that is lost, old or torn costs time, and nothing else: a log that was edited
//! meanwhile has another stamp, and what is not in the PCR was not launched. Whoever can forge one
//! can write to the log as well, and make both useless; evidence that lies comes out of neither,
//! since verifiers replay the log themselves.

use super::{Entry, Pcrs, ReplayError, replay::extend, start};
use crate::record::{Event, Start, Uuid};
use rustix::{
    fs::{Stat, fstat},
    time::{ClockId, clock_gettime},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, os::fd::AsFd};

/// A log, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Summary {
    /// The PCR that it is extended into.
    pub pcr: u32,
    /// How many entries it has.
    pub records: u64,
    /// What the PCR holds after them.
    #[serde(with = "crate::record::hex_by_bank")]
    pub values: Pcrs,
    /// How it begins.
    pub start: Start,
    /// The launches that have no end in it, and their pods.
    pub open: BTreeMap<u64, Uuid>,
}

impl Summary {
    /// Of a whole log; nothing, if it does not begin as logs do.
    ///
    /// # Errors
    /// [`ReplayError`] if it can't be replayed.
    pub fn of(entries: &[Entry]) -> Result<Option<Self>, ReplayError> {
        let (Some(first), Some(start)) = (entries.first(), start(entries)) else { return Ok(None) };
        let mut summary = Self {
            pcr: first.pcr,
            records: 0,
            values: start.pcr_before.clone(),
            start: start.clone(),
            open: BTreeMap::new(),
        };
        entries.iter().try_for_each(|entry| summary.push(entry))?;
        Ok(Some(summary))
    }

    /// With one more entry, which was extended.
    ///
    /// # Errors
    /// [`ReplayError`] if it has not the digests that it needs.
    pub fn push(&mut self, entry: &Entry) -> Result<(), ReplayError> {
        extend(&mut self.values, entry)?;
        self.records += 1;
        match &entry.content {
            Some(Event::Launch(launch)) => {
                self.open.insert(entry.recnum, launch.record.pod.clone());
            }
            Some(Event::Exit(exit)) if self.open.get(&exit.launch) == Some(&exit.pod) => {
                self.open.remove(&exit.launch);
            }
            Some(Event::Start(_) | Event::Exit(_)) | None => {}
        }
        Ok(())
    }
}

/// What is known of a log, and how its file looked then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checkpoint {
    version: u32,
    summary: Summary,
    stamp: Stamp,
}

impl Checkpoint {
    /// What is written here.
    const VERSION: u32 = 1;

    /// Of a log whose file looks like this.
    pub fn new(summary: Summary, stamp: Stamp) -> Self {
        Self { version: Self::VERSION, summary, stamp }
    }

    /// Whether it is of this boot and of a file that looks like this.
    pub fn fits(&self, boot: &Uuid, stamp: &Stamp) -> bool {
        self.version == Self::VERSION && self.summary.start.boot_id == *boot && self.stamp == *stamp
    }

    /// What is known, if the PCR holds `now`.
    pub fn believed(self, pcr: u32, now: &Pcrs) -> Option<Summary> {
        (self.summary.pcr == pcr && self.summary.values == *now).then_some(self.summary)
    }
}

/// How a file looks that nobody has changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds since 1970, and nanoseconds.
    modified: (i64, u64),
    changed: (i64, u64),
}

impl Stamp {
    /// How it looks now.
    ///
    /// # Errors
    /// If it can't be looked at.
    pub fn of(file: impl AsFd) -> rustix::io::Result<Self> {
        Ok(Self::new(&fstat(file)?))
    }

    /// The same; nothing while a further change could leave the same times. File systems take them
    /// from a clock that ticks a hundred to a thousand times a second: only when it has ticked
    /// since the last change does every later one have another time. Of a file system that counts
    /// whole seconds nothing is believed.
    ///
    /// # Errors
    /// If it can't be looked at.
    pub fn settled(file: impl AsFd) -> rustix::io::Result<Option<Self>> {
        let stamp = Self::of(file)?;
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let now = (now.tv_sec, u64::try_from(now.tv_nsec).unwrap_or_default());
        let has_fractions = stamp.modified.1 != 0 || stamp.changed.1 != 0;
        Ok((has_fractions && stamp.changed < now).then_some(stamp))
    }

    /// How long the file is.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn new(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

//! Log and register together: brought to agree when they are opened, extended in step.
//!
//! What is done about a process that was killed in between is decided by
//! [`sandbox_attestation::log::recover`]; here it is done.

use super::{
    banks::{self, Active},
    host, keys, quote,
    store::Turn,
    tpm::Tpm,
    watch::Watch,
};
use sandbox_attestation::settings::Settings;
use sandbox_attestation::{
    Pcrs,
    log::{Checkpoint, Entry, File, Limits, Recovery, Summary, recover},
    record::{End, Event, Exit, Launch, Reason, Record, Start, Uuid, VersionOne},
    session::{Failure, FailureKind},
    verify::Seen,
};
use std::{path::Path, thread::sleep, time::Duration};

/// No recovery needs more steps: begin; or append an exit, extend a launch, extend its exit.
const STEPS: usize = 6;

/// The file of the directory with what is known of the log, see [`Checkpoint`].
const CHECKPOINT: &str = "checkpoint.json";

/// How often is looked whether the clock of the file system has ticked, and the pause in between: the
/// slowest one ticks a hundred times a second.
const TICKS: (usize, Duration) = (12, Duration::from_millis(1));

/// The log as it was before our turn. Reading it takes longer the more launches there were, and
/// nobody has to wait for that.
#[derive(Debug)]
pub(super) struct Early {
    file: File,
    entries: Vec<Entry>,
    boot: Uuid,
    length: u64,
}

impl Early {
    /// Reads the log, if there is one that has to be read. What goes wrong is found, and told, when
    /// it is our turn.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let boot = host::boot().ok()?;
        let length = length(directory, &boot)?;
        let mut file = File::open(directory, &boot).ok()?;
        let known = std::fs::read(directory.join(CHECKPOINT)).ok();
        let known = known.and_then(|text| serde_json::from_slice::<Checkpoint>(&text).ok());
        if known.is_some_and(|known| file.stamp().is_ok_and(|stamp| known.fits(&boot, &stamp))) {
            return None;
        }
        let parsed = file.read(&Limits::default()).ok()?;
        // Somebody writes to it.
        let settled = parsed.torn.is_none() && self::length(directory, &boot) == Some(length);
        settled.then_some(Self { file, entries: parsed.entries, boot, length })
    }

    /// Now that it is our turn: the same, if nothing was written meanwhile. A log without a torn
    /// end is only ever appended to.
    fn still(self, directory: &Path, boot: &Uuid) -> Option<(File, Vec<Entry>)> {
        let same = self.boot == *boot && length(directory, boot) == Some(self.length);
        same.then_some((self.file, self.entries))
    }
}

fn length(directory: &Path, boot: &Uuid) -> Option<u64> {
    let path = directory.join("log").join(format!("{boot}.cel"));
    Some(std::fs::symlink_metadata(path).ok()?.len())
}

/// The log of the running boot, which agrees with the TPM.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    boot: Uuid,
    pcr: u8,
    active: Active,
    /// What is known of the log; nothing before it begins.
    summary: Option<Summary>,
    /// All entries, where they had to be read.
    entries: Option<Vec<Entry>>,
    /// Those that were written now.
    fresh: Vec<Entry>,
    /// What was known of the log before the last launch.
    before: Option<Summary>,
}

impl Journal {
    /// Opens the log, and brings it and the register to agree.
    pub(super) fn open(
        settings: &Settings,
        turn: &Turn,
        tpm: &mut Tpm,
        watch: &Watch,
        early: Option<Early>,
    ) -> Result<Self, Failure> {
        let (pcr, boot) = (settings.pcr, host::boot()?);
        let active = banks::active(tpm, pcr)?;
        active.chief()?;
        let mut now = banks::register(tpm, &active.banks, pcr)?;
        watch.step("read the log");
        let mut file = File::open(turn.path(), &boot).map_err(unusable)?;
        let summary = known(turn, &file, &boot).and_then(|it| it.believed(pcr.into(), &now));
        let (entries, fresh, before) = (None, Vec::new(), None);
        if summary.is_some() {
            return Ok(Self { file, boot, pcr, active, summary, entries, fresh, before });
        }
        let (entries, torn) = match early.and_then(|it| it.still(turn.path(), &boot)) {
            Some((read, entries)) => {
                file = read;
                (entries, None)
            }
            None => {
                let parsed = file.read(&Limits::default()).map_err(unusable)?;
                (parsed.entries, parsed.torn)
            }
        };
        consistent(&entries, &boot, pcr)?;
        let entries = Some(entries);
        let mut journal = Self { file, boot, pcr, active, summary, entries, fresh, before };
        // Whether it is for us to change the log is known only when log and register have been held
        // against each other.
        let mut next = journal.recovery(&now)?;
        if let Some(torn) = torn {
            journal.file.cut(torn).map_err(unusable)?;
        }
        for _ in 0..STEPS {
            match next {
                Recovery::Agrees => {
                    journal.summary = Summary::of(journal.all()).map_err(unusable)?;
                    journal.fresh.clear();
                    return Ok(journal);
                }
                Recovery::Begin => {
                    let keep = usize::try_from(settings.keep).unwrap_or(usize::MAX);
                    journal.begin(tpm, turn, watch, &now, keep)?;
                }
                Recovery::Abort { launch, pod } => {
                    let event = journal.exit(pod, launch, End::Reason(Reason::Aborted));
                    journal.log(event, watch)?;
                }
                Recovery::Extend(index) => {
                    let entry = journal.all().get(index).cloned().ok_or_else(|| {
                        let message = format!("the log has no entry {index} to extend");
                        Failure::new(FailureKind::Log, message)
                    })?;
                    banks::extend(tpm, pcr, &entry.digests)?;
                }
            }
            now = journal.register(tpm)?;
            next = journal.recovery(&now)?;
        }
        Err(Failure::new(
            FailureKind::LogMismatch,
            format!("the log can't be brought to agree with register {pcr} of the TPM"),
        ))
    }

    /// Keeps what is known of the log for the next process. If it can't be kept, that one reads it.
    pub(super) fn keep(&self, turn: &Turn) {
        let Some(summary) = &self.summary else { return };
        if self.fresh.is_empty() && self.entries.is_none() {
            return;
        }
        for _ in 0..TICKS.0 {
            match self.file.settled() {
                Ok(Some(stamp)) => {
                    let _ = turn.keep(CHECKPOINT, &Checkpoint::new(summary.clone(), stamp));
                    return;
                }
                Ok(None) => sleep(TICKS.1),
                Err(_) => return,
            }
        }
    }

    /// All entries that are in memory.
    fn all(&self) -> &[Entry] {
        self.entries.as_deref().unwrap_or_default()
    }

    /// The log as lines: a pod's own records in full, others' as digests; or all in full.
    pub(super) fn text(&mut self, pod: Option<&Uuid>) -> Result<String, Failure> {
        if let Some(pod) = pod {
            return self.file.redacted_for(pod, &Limits::default()).map_err(unusable);
        }
        let parsed = self.file.read(&Limits::default()).map_err(unusable)?;
        lines(&parsed.entries)
    }

    /// What was known before the last launch, and the lines since.
    pub(super) fn news(&self) -> Result<Option<(Seen, String)>, Failure> {
        let Some(before) = &self.before else { return Ok(None) };
        let fresh = self.fresh.iter().filter(|entry| entry.recnum >= before.records);
        let fresh: Vec<_> = fresh.cloned().collect();
        let seen = Seen {
            records: before.records,
            values: before.values.clone(),
            start: before.start.clone(),
        };
        Ok(Some((seen, lines(&fresh)?)))
    }

    /// The running boot.
    pub(super) fn boot(&self) -> &Uuid {
        &self.boot
    }

    /// The active banks.
    pub(super) fn active(&self) -> &Active {
        &self.active
    }

    /// Writes a launch: log, disk, register, in this order. Returns the number of its record.
    pub(super) fn launch(
        &mut self,
        record: Record,
        tpm: &mut Tpm,
        watch: &Watch,
    ) -> Result<u64, Failure> {
        let number = self.next();
        self.before.clone_from(&self.summary);
        let launch = Launch {
            version: VersionOne,
            boot_id: self.boot.clone(),
            time: host::now(),
            number,
            record,
        };
        // Before it is: from here on, nobody can tell by an error how far this got.
        watch.recorded(number);
        self.append(Event::Launch(Box::new(launch)), tpm, watch)?;
        Ok(number)
    }

    /// Writes the end of a launch. One that has been written already stays as it is, so that this
    /// can be asked for again.
    pub(super) fn end(
        &mut self,
        pod: &Uuid,
        launch: u64,
        end: End,
        tpm: &mut Tpm,
        watch: &Watch,
    ) -> Result<u64, Failure> {
        let open = self.summary.as_ref().and_then(|summary| summary.open.get(&launch));
        if open != Some(pod)
            && let Some(recnum) = self.ended(pod, launch)?
        {
            return Ok(recnum);
        }
        let event = self.exit(pod.clone(), launch, end);
        self.append(event, tpm, watch)
    }

    /// Looks for the end of a launch in all of the log.
    fn ended(&mut self, pod: &Uuid, launch: u64) -> Result<Option<u64>, Failure> {
        let read;
        let entries = match &self.entries {
            Some(entries) => entries,
            None => {
                read = self.file.read(&Limits::default()).map_err(unusable)?.entries;
                &read
            }
        };
        let known = usize::try_from(launch).ok().and_then(|index| entries.get(index));
        match known.and_then(|entry| entry.content.as_ref()) {
            Some(Event::Launch(launch)) if launch.record.pod == *pod => {}
            _ => {
                return Err(Failure::new(
                    FailureKind::Request,
                    format!("the log of this boot has no launch of {pod} with the number {launch}"),
                ));
            }
        }
        let ended = entries.iter().find(
            |entry| matches!(&entry.content, Some(Event::Exit(exit)) if exit.launch == launch),
        );
        Ok(ended.map(|entry| entry.recnum))
    }

    fn exit(&self, pod: Uuid, launch: u64, end: End) -> Event {
        let boot_id = self.boot.clone();
        Event::Exit(Exit { version: VersionOne, boot_id, pod, launch, end })
    }

    /// The first event. It has the TPM's counters, which only a quote tells; so the key comes first.
    fn begin(
        &mut self,
        tpm: &mut Tpm,
        turn: &Turn,
        watch: &Watch,
        now: &Pcrs,
        keep: usize,
    ) -> Result<(), Failure> {
        banks::check(tpm, self.pcr)?;
        let key = keys::attestation_key(tpm, turn)?;
        let chief = self.active.chief()?;
        let selection = [(chief, [self.pcr].into())].into();
        let clock = quote::quote(tpm, &key, &[], &selection)?.clock;
        key.unload(tpm)?;
        watch.step("remove old logs");
        self.file.rotate(keep).map_err(unusable)?;
        let event = Event::Start(Start {
            version: VersionOne,
            boot_id: self.boot.clone(),
            time: host::now(),
            pcr_before: now.clone(),
            reset_count: clock.reset_count,
            restart_count: clock.restart_count,
            program: env!("CARGO_PKG_VERSION").to_owned(),
        });
        self.append(event, tpm, watch)?;
        Ok(())
    }

    fn append(&mut self, event: Event, tpm: &mut Tpm, watch: &Watch) -> Result<u64, Failure> {
        let entry = self.log(event, watch)?;
        banks::extend(tpm, self.pcr, &entry.digests)?;
        match &mut self.summary {
            Some(summary) => summary.push(&entry).map_err(unusable)?,
            None => {
                self.summary = Summary::of(std::slice::from_ref(&entry)).map_err(unusable)?;
            }
        }
        Ok(entry.recnum)
    }

    /// Writes an event into the log and onto the disk.
    fn log(&mut self, event: Event, watch: &Watch) -> Result<Entry, Failure> {
        watch.step("write the log");
        let banks = self.active.banks.iter().copied();
        let entry = Entry::new(self.next(), self.pcr.into(), event, banks)
            .map_err(|error| Failure::new(FailureKind::Request, error))?;
        self.file.append(&entry).map_err(unusable)?;
        if let Some(entries) = &mut self.entries {
            entries.push(entry.clone());
        }
        self.fresh.push(entry.clone());
        Ok(entry)
    }

    fn register(&self, tpm: &mut Tpm) -> Result<Pcrs, Failure> {
        banks::register(tpm, &self.active.banks, self.pcr)
    }

    fn recovery(&self, now: &Pcrs) -> Result<Recovery, Failure> {
        recover(self.all(), now).map_err(|error| Failure::new(FailureKind::LogMismatch, error))
    }

    fn next(&self) -> u64 {
        match (&self.entries, &self.summary) {
            (Some(entries), _) => entries.len() as u64,
            (None, summary) => summary.as_ref().map_or(0, |summary| summary.records),
        }
    }

    /// What the host's owner should know.
    pub(super) fn warnings(&self) -> Vec<String> {
        let start = self.summary.as_ref().map(|summary| &summary.start);
        warnings(start, &self.active, self.pcr)
    }
}

/// What is known of a log whose file looks like this one.
fn known(turn: &Turn, file: &File, boot: &Uuid) -> Option<Checkpoint> {
    // Whatever is wrong with it, the log itself says more.
    let known = turn.load::<Checkpoint>(CHECKPOINT).ok()??;
    known.fits(boot, &file.stamp().ok()?).then_some(known)
}

/// As they are in the log.
fn lines(entries: &[Entry]) -> Result<String, Failure> {
    let mut log = String::new();
    for entry in entries {
        let line = entry.to_json_seq().map_err(unusable)?;
        log.push_str(std::str::from_utf8(&line).map_err(unusable)?);
    }
    Ok(log)
}

/// Whether the log is of this boot and of the register that the settings name.
pub(super) fn consistent(entries: &[Entry], boot: &Uuid, pcr: u8) -> Result<(), Failure> {
    if let Some(entry) = entries.iter().find(|entry| entry.pcr != u32::from(pcr)) {
        return Err(Failure::new(
            FailureKind::LogMismatch,
            format!(
                "the log of this boot is of register {}, and \"pcr\" in /etc/sandbox/attest.json \
                 says {pcr}: change that back, or reboot",
                entry.pcr
            ),
        ));
    }
    let other = |entry: &&Entry| entry.content.as_ref().is_none_or(|it| it.boot_id() != boot);
    if let Some(entry) = entries.iter().find(other) {
        return Err(Failure::new(
            FailureKind::LogMismatch,
            format!(
                "record {} of the log is not one of this boot: the log was changed",
                entry.recnum
            ),
        ));
    }
    Ok(())
}

/// What the host's owner should know.
pub(super) fn warnings(start: Option<&Start>, active: &Active, pcr: u8) -> Vec<String> {
    let mut warnings = Vec::new();
    let used =
        start.is_some_and(|start| start.pcr_before.values().flatten().any(|&byte| byte != 0));
    if used {
        warnings.push(format!(
            "register {pcr} was not untouched when the log of this boot began, so that verifiers \
             refuse it unless they are told the value; choose another as \"pcr\" in \
             /etc/sandbox/attest.json, and reboot"
        ));
    }
    warnings.extend(host::systemd(pcr));
    if !active.unknown.is_empty() {
        warnings.push(format!(
            "launches are not written into the TPM's banks {}: sandbox can't make their digests",
            active.unknown.join(", ")
        ));
    }
    warnings
}

pub(super) fn unusable(error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Log, error)
}

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
    log::{Entry, File, Limits, Recovery, recover, start},
    record::{End, Event, Exit, Launch, Reason, Record, Start, Uuid, VersionOne},
    session::{Failure, FailureKind},
};
use std::path::Path;

/// No recovery needs more steps: begin; or append an exit, extend a launch, extend its exit.
const STEPS: usize = 6;

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
    /// Reads the log, if there is one. What goes wrong is found, and told, when it is our turn.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let boot = host::boot().ok()?;
        let length = length(directory, &boot)?;
        let mut file = File::open(directory, &boot).ok()?;
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
    entries: Vec<Entry>,
    boot: Uuid,
    pcr: u8,
    active: Active,
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
        watch.step("read the log");
        let (file, entries, torn) = match early.and_then(|it| it.still(turn.path(), &boot)) {
            Some((file, entries)) => (file, entries, None),
            None => {
                let mut file = File::open(turn.path(), &boot).map_err(unusable)?;
                let parsed = file.read(&Limits::default()).map_err(unusable)?;
                (file, parsed.entries, parsed.torn)
            }
        };
        let mut journal = Self { file, entries, boot, pcr, active };
        journal.consistent()?;
        let mut now = journal.register(tpm)?;
        // Whether it is for us to change the log is known only when log and register have been held
        // against each other.
        let mut next = journal.recovery(&now)?;
        if let Some(torn) = torn {
            journal.file.cut(torn).map_err(unusable)?;
        }
        for _ in 0..STEPS {
            match next {
                Recovery::Agrees => return Ok(journal),
                Recovery::Begin => {
                    let keep = usize::try_from(settings.keep).unwrap_or(usize::MAX);
                    journal.begin(tpm, turn, watch, &now, keep)?;
                }
                Recovery::Abort { launch, pod } => {
                    let event = journal.exit(pod, launch, End::Reason(Reason::Aborted));
                    journal.log(event, watch)?;
                }
                Recovery::Extend(index) => journal.extend(index, tpm)?,
            }
            now = journal.register(tpm)?;
            next = journal.recovery(&now)?;
        }
        Err(Failure::new(
            FailureKind::LogMismatch,
            format!("the log can't be brought to agree with register {pcr} of the TPM"),
        ))
    }

    /// The entries.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
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
        let known = usize::try_from(launch).ok().and_then(|index| self.entries.get(index));
        match known.and_then(|entry| entry.content.as_ref()) {
            Some(Event::Launch(launch)) if launch.record.pod == *pod => {}
            _ => {
                return Err(Failure::new(
                    FailureKind::Request,
                    format!("the log of this boot has no launch of {pod} with the number {launch}"),
                ));
            }
        }
        let ended = self.entries.iter().find(
            |entry| matches!(&entry.content, Some(Event::Exit(exit)) if exit.launch == launch),
        );
        if let Some(entry) = ended {
            return Ok(entry.recnum);
        }
        let event = self.exit(pod.clone(), launch, end);
        self.append(event, tpm, watch)
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
        let index = self.log(event, watch)?;
        self.extend(index, tpm)?;
        Ok(self.entries[index].recnum)
    }

    /// Writes an event into the log and onto the disk; returns its index.
    fn log(&mut self, event: Event, watch: &Watch) -> Result<usize, Failure> {
        watch.step("write the log");
        let banks = self.active.banks.iter().copied();
        let entry = Entry::new(self.next(), self.pcr.into(), event, banks)
            .map_err(|error| Failure::new(FailureKind::Request, error))?;
        self.file.append(&entry).map_err(unusable)?;
        self.entries.push(entry);
        Ok(self.entries.len() - 1)
    }

    fn extend(&self, index: usize, tpm: &mut Tpm) -> Result<(), Failure> {
        let entry = self.entries.get(index).ok_or_else(|| {
            Failure::new(FailureKind::Log, format!("the log has no entry {index} to extend"))
        })?;
        banks::extend(tpm, self.pcr, &entry.digests)
    }

    fn register(&self, tpm: &mut Tpm) -> Result<Pcrs, Failure> {
        banks::register(tpm, &self.active.banks, self.pcr)
    }

    fn recovery(&self, now: &Pcrs) -> Result<Recovery, Failure> {
        recover(&self.entries, now).map_err(|error| Failure::new(FailureKind::LogMismatch, error))
    }

    /// Whether the log is of this boot and of the register that the settings name.
    fn consistent(&self) -> Result<(), Failure> {
        consistent(&self.entries, &self.boot, self.pcr)
    }

    fn next(&self) -> u64 {
        self.entries.len() as u64
    }

    /// What the host's owner should know.
    pub(super) fn warnings(&self) -> Vec<String> {
        warnings(&self.entries, &self.active, self.pcr)
    }
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
pub(super) fn warnings(entries: &[Entry], active: &Active, pcr: u8) -> Vec<String> {
    let mut warnings = Vec::new();
    let used = start(entries)
        .is_some_and(|start| start.pcr_before.values().flatten().any(|&byte| byte != 0));
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

//! What has to be done with a log and a PCR that are found, before they are used again.
//!
//! A launch is: append the entry and sync it to the disk, extend the PCR, answer. The process can
//! be killed, and the power fail, between any two of these. So the PCR is behind the log by what
//! was appended last, or up to date, and never ahead.
//!
//! | entries that were not extended | they are | what happened | next |
//! |---|---|---|---|
//! | 0 | | nothing, or killed after extending | [`Recovery::Agrees`] |
//! | 1 | a launch | killed before extending it: that pod never ran | [`Recovery::Abort`] |
//! | 1 | another event | killed before extending it | [`Recovery::Extend`] |
//! | 2 | a launch, and that it was aborted | killed during recovery | [`Recovery::Extend`] |
//! | anything else | | somebody else extended the PCR, or the log was changed | [`RecoverError`] |
//!
//! That a launch was aborted is appended before the launch itself is extended. So there is no
//! moment at which the PCR stands for a launch, the log has no end of it, and it never happened.

use super::{Bank, Entry, Pcrs, ReplayError, replay::extend};
use crate::record::{End, Event, Exit, Reason, Start, Uuid, to_hex};

/// What to do next. After doing it, [`recover`] is asked again, until it says
/// [`Recovery::Agrees`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// There is no log yet: begin one, with what the PCR holds now.
    Begin,
    /// The log and the PCR agree.
    Agrees,
    /// Append, as the next entry, that this launch was aborted. Do not extend it yet.
    Abort {
        /// The number of the launch.
        launch: u64,
        /// Its pod.
        pod: Uuid,
    },
    /// Extend the PCR with the entry of this index.
    Extend(usize),
}

/// The log and the PCR contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// The log does not begin as logs do.
    #[error(
        "the log does not begin with what the PCR held before it, so that it was changed; nothing \
         is launched measured until the next boot"
    )]
    NoStart,
    /// The TPM has other active banks than it had when the log began.
    #[error(
        "the log is of the banks {log}, and the TPM has {tpm}; which are active can't change \
         without a reset of the TPM, so that the log is not of this boot or was changed"
    )]
    Banks {
        /// Those of the log.
        log: String,
        /// Those of the TPM.
        tpm: String,
    },
    /// An entry can't be extended.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The PCR holds something else than the log explains.
    #[error(
        "PCR {pcr} holds {found} in bank {bank}, and after the log it would hold {expected}: \
         somebody else extended it, or the log was changed. If it is somebody else's, let \
         sandbox have another one: \"pcr\" in /etc/sandbox/attest.json, {other} for one, and \
         reboot"
    )]
    Mismatch {
        /// The PCR.
        pcr: u32,
        /// The first bank that differs.
        bank: Bank,
        /// What it holds.
        found: String,
        /// What the log leads to.
        expected: String,
        /// A PCR to choose instead.
        other: u32,
    },
}

/// What to do next with `entries` and a PCR that holds `now`.
///
/// # Errors
/// [`RecoverError`] if nothing that this program does leads there. Nothing may be launched then.
pub fn recover(entries: &[Entry], now: &Pcrs) -> Result<Recovery, RecoverError> {
    let Some(first) = entries.first() else { return Ok(Recovery::Begin) };
    let before = start(entries).ok_or(RecoverError::NoStart)?.pcr_before.clone();
    if !before.keys().eq(now.keys()) {
        return Err(RecoverError::Banks { log: names(&before), tpm: names(now) });
    }
    // What the PCR held before the last entries: one entry ago, two entries ago.
    let settled = entries.len().saturating_sub(2);
    let mut behind = [before.clone(), before.clone()];
    let mut pcrs = before;
    for (index, entry) in entries.iter().enumerate() {
        if index >= settled {
            behind[entries.len() - index - 1].clone_from(&pcrs);
        }
        extend(&mut pcrs, entry)?;
    }
    let last = entries.len() - 1;
    if pcrs == *now {
        return Ok(Recovery::Agrees);
    }
    if behind[0] == *now {
        return Ok(match &entries[last].content {
            Some(Event::Launch(launch)) => {
                Recovery::Abort { launch: entries[last].recnum, pod: launch.record.pod.clone() }
            }
            _ => Recovery::Extend(last),
        });
    }
    if last > 0 && behind[1] == *now && aborts(&entries[last - 1], &entries[last]) {
        return Ok(Recovery::Extend(last - 1));
    }
    let bank = pcrs.iter().find(|(bank, value)| now.get(bank) != Some(value));
    let bank = bank.map_or(Bank::Sha256, |(&bank, _)| bank);
    let hex = |pcrs: &Pcrs| pcrs.get(&bank).map(|value| to_hex(value)).unwrap_or_default();
    Err(RecoverError::Mismatch {
        pcr: first.pcr,
        bank,
        found: hex(now),
        expected: hex(&pcrs),
        // Neither can be reset but with the host (TCG PC Client Platform TPM Profile, "PCR
        // Attributes"). Of those that are left by firmware, boot loaders, shim's list of keys (14)
        // and systemd (11, 15) these are used least: by systemd's boot stub alone, and only where
        // it finds extensions (13) or other command lines and credentials (12).
        other: if first.pcr == 13 { 12 } else { 13 },
    })
}

/// How the log begins, if it begins as logs do.
pub fn start(entries: &[Entry]) -> Option<&Start> {
    match entries.first()?.content.as_ref()? {
        Event::Start(start) => Some(start),
        _ => None,
    }
}

/// The launches that have no end in the log, oldest first. A pod of them that does not run any more
/// ended without anybody who could say so: whoever finds that out appends it.
pub fn unfinished(entries: &[Entry]) -> Vec<(u64, &Uuid)> {
    let mut open = std::collections::BTreeMap::new();
    for entry in entries {
        match &entry.content {
            Some(Event::Launch(launch)) => {
                open.insert(entry.recnum, &launch.record.pod);
            }
            Some(Event::Exit(exit)) if open.get(&exit.launch) == Some(&&exit.pod) => {
                open.remove(&exit.launch);
            }
            Some(Event::Start(_) | Event::Exit(_)) | None => {}
        }
    }
    open.into_iter().collect()
}

fn aborts(launch: &Entry, exit: &Entry) -> bool {
    let (Some(Event::Launch(launched)), Some(Event::Exit(exit))) = (&launch.content, &exit.content)
    else {
        return false;
    };
    let Exit { pod, launch: number, end, .. } = exit;
    *number == launch.recnum && *pod == launched.record.pod && *end == End::Reason(Reason::Aborted)
}

fn names(pcrs: &Pcrs) -> String {
    pcrs.keys().map(|bank| bank.name()).collect::<Vec<_>>().join(", ")
}

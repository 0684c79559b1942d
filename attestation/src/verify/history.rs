//! The log: replayed to the value that the TPM signed, and only then read.

use super::{CheckName, Run, Seen, quote::Values};
use crate::{
    canonical,
    evidence::{Evidence, LoggedRecord, PcrValue},
    log::{Bank, EXTENSION, Pcrs, REDACTED},
    record::{End, Event, Exit, Launch, Reason, Start, Uuid},
};
use sandbox_image::Text;
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

/// What stands on the log's contents.
const ON_CONTENTS: [CheckName; 6] = [
    CheckName::LogContents,
    CheckName::LogBeginning,
    CheckName::Boot,
    CheckName::EnrolmentCounts,
    CheckName::PodLaunch,
    CheckName::PodRunning,
];

/// A record whose digests are in order.
struct Replayed<'e> {
    record: &'e LoggedRecord,
    /// In the banks that are quoted.
    digests: BTreeMap<Bank, &'e [u8]>,
    /// The bytes that the digests are of; nothing if they are left out.
    content: Option<Cow<'e, [u8]>>,
}

/// The contents, read.
#[derive(Default)]
struct Contents {
    /// Every record that begins a log, and its number.
    starts: Vec<(u64, Start)>,
    /// Of the evidence's pod.
    launches: Vec<Launch>,
    /// Number of the exit of the evidence's pod.
    exit: Option<u64>,
    /// The first record that is of another boot than the first one.
    stray: Option<u64>,
}

impl<'a> Run<'a> {
    /// Checks the log; what was launched.
    pub(super) fn history(&mut self, values: Option<&Values>) -> Option<Launch> {
        let first = self.seen.map_or(0, |seen| seen.records);
        self.facts.records = first.saturating_add(self.evidence.log.records.len() as u64);
        let Some(targets) = values.map(|values| self.targets(values)) else {
            let by = self.first_failure_of_quote();
            let blocked = [CheckName::LogNumbers, CheckName::LogDigests, CheckName::LogReplay];
            self.findings.blocked(&blocked, by);
            self.findings.blocked(&ON_CONTENTS, by);
            return None;
        };
        let numbered = self.numbered(&targets);
        let Some(mut records) = self.findings.note(CheckName::LogNumbers, numbered) else {
            let blocked = [CheckName::LogDigests, CheckName::LogReplay];
            self.findings.blocked(&blocked, CheckName::LogNumbers);
            self.findings.blocked(&ON_CONTENTS, CheckName::LogNumbers);
            return None;
        };
        let digests = records.iter_mut().try_for_each(|record| record.check(&targets));
        let intact = self.findings.note(CheckName::LogDigests, digests).is_some();
        let replayed = match self.seen {
            Some(seen) => replay_since(seen, &records, &targets),
            None => self.replay(&records, &targets),
        };
        let before = self.findings.note(CheckName::LogReplay, replayed);
        let by = if intact { CheckName::LogReplay } else { CheckName::LogDigests };
        let (Some(before), true) = (before, intact) else {
            self.findings.blocked(&ON_CONTENTS, by);
            return None;
        };
        let contents = self.contents(&records);
        let Some(contents) = self.findings.note(CheckName::LogContents, contents) else {
            self.findings.blocked(&ON_CONTENTS[1..], CheckName::LogContents);
            return None;
        };
        let beginning = match self.seen {
            Some(seen) => self.beginning_of(seen, &targets, &contents.starts),
            None => beginning(&contents.starts, &before),
        };
        let Some(start) = self.findings.note(CheckName::LogBeginning, beginning) else {
            self.findings.blocked(&ON_CONTENTS[2..], CheckName::LogBeginning);
            return None;
        };
        self.facts.boot_id = Some(start.boot_id.to_string());
        self.boot(start, contents.stray);
        self.pod(contents, &records)
    }

    /// What the log has to lead to, in every bank that is quoted.
    fn targets(&self, values: &Values) -> Pcrs {
        let register = self.policy.document.pcrs.log;
        let value = |registers: &BTreeMap<u32, Vec<u8>>| registers.get(&register).cloned();
        values.iter().filter_map(|(bank, values)| Some((*bank, value(values)?))).collect()
    }

    /// The check that is to blame if there are no values of registers.
    pub(super) fn first_failure_of_quote(&self) -> CheckName {
        [
            CheckName::AttestationKey,
            CheckName::KeyBinding,
            CheckName::QuoteAlgorithm,
            CheckName::QuoteSignature,
            CheckName::QuoteForm,
            CheckName::PcrSelection,
        ]
        .into_iter()
        .find(|name| self.findings.failed(*name))
        .unwrap_or(CheckName::PcrValues)
    }

    /// The records in their order, without a gap, all of the same register and banks.
    fn numbered(&self, targets: &Pcrs) -> Result<Vec<Replayed<'a>>, String> {
        let evidence: &'a Evidence = self.evidence;
        let (log, register) = (&evidence.log, self.policy.document.pcrs.log);
        if log.pcr != register {
            return Err(format!(
                "the log is of PCR {}, and the policy asks for {register}",
                log.pcr
            ));
        }
        if log.records.is_empty() {
            return Err("the log is empty".to_owned());
        }
        log.records
            .iter()
            .zip(self.seen.map_or(0, |seen| seen.records)..)
            .map(|(record, number)| {
                if record.recnum != number {
                    return Err(format!(
                        "record {number} has the number {}: records are missing or were moved",
                        record.recnum
                    ));
                }
                if record.pcr != register {
                    return Err(format!("record {number} is of PCR {}", record.pcr));
                }
                Replayed::new(record, targets)
            })
            .collect()
    }

    /// Replays the log from every value that its register may have had; the one it had.
    fn replay(&self, records: &[Replayed<'_>], targets: &Pcrs) -> Result<Pcrs, String> {
        let named = &self.policy.document.pcrs.before_log;
        targets
            .iter()
            .map(|(&bank, target)| {
                let zeros = vec![vec![0; bank.size()]];
                let begins = named.get(&bank).map_or(zeros, |values| {
                    values.iter().map(|PcrValue(value)| value.clone()).collect()
                });
                let ends = |begin: &Vec<u8>| {
                    let digests = records.iter().filter_map(|record| record.digests.get(&bank));
                    digests.fold(begin.clone(), |value, digest| bank.extended(&value, digest))
                };
                begins
                    .into_iter()
                    .find(|begin| ends(begin) == *target)
                    .map(|begin| (bank, begin))
                    .ok_or_else(|| {
                        format!(
                            "the log does not lead to what the TPM has in bank {bank}: records \
                             are missing, or were added or changed, or the register was in use \
                             before the log"
                        )
                    })
            })
            .collect()
    }

    /// How a log begins that was seen before, if it may begin so and does not begin again.
    fn beginning_of<'s>(
        &self,
        seen: &'s Seen,
        targets: &Pcrs,
        starts: &[(u64, Start)],
    ) -> Result<&'s Start, String> {
        if let Some((number, _)) = starts.first() {
            return Err(format!("record {number} begins a log, and is not the first one"));
        }
        let named = &self.policy.document.pcrs.before_log;
        let before = seen.start.pcr_before.iter();
        // Of other banks than those that are quoted a policy says nothing.
        let mut before = before.filter(|(bank, _)| targets.contains_key(bank));
        let odd = before.find(|(bank, value)| match named.get(bank) {
            Some(named) => !named.iter().any(|PcrValue(named)| named == *value),
            None => value.iter().any(|&byte| byte != 0),
        });
        match odd {
            Some((bank, _)) => Err(format!(
                "the register held something else before the log, in bank {bank}, than the policy \
                 names"
            )),
            None => Ok(&seen.start),
        }
    }

    /// Parses what was replayed.
    fn contents(&self, records: &[Replayed<'_>]) -> Result<Contents, String> {
        let pod = &self.evidence.pod;
        let mut contents = Contents::default();
        let mut home = self.seen.map(|seen| seen.start.boot_id.clone());
        for Replayed { record, content, .. } in records {
            let number = record.recnum;
            let Some(content) = content else {
                if record.content_type != REDACTED {
                    let kind = Text::new(&record.content_type);
                    return Err(format!("record {number} is of the unknown type '{kind}'"));
                }
                if !self.policy.document.redacted_records {
                    return Err(format!("record {number} is left out, and the policy wants all"));
                }
                continue;
            };
            // A verifier that takes digests in their place need not look at what others launched.
            if self.policy.document.redacted_records
                && home.as_ref().is_some_and(|boot| is_of_others(content, boot, number, pod))
            {
                continue;
            }
            let event = Event::parse(content);
            let event = event.map_err(|error| format!("record {number}: {error}"))?;
            if home.get_or_insert_with(|| event.boot_id().clone()) != event.boot_id() {
                contents.stray = contents.stray.or(Some(number));
            }
            match event {
                Event::Start(start) => contents.starts.push((number, start)),
                Event::Launch(launch) => {
                    if launch.number != number {
                        let claim = launch.number;
                        return Err(format!("record {number} calls itself record {claim}"));
                    }
                    if launch.record.pod.as_str() == pod {
                        contents.launches.push(*launch);
                    }
                }
                Event::Exit(ended) if ended.pod.as_str() == pod => {
                    contents.exit = contents.exit.or(Some(number));
                }
                Event::Exit(_) => {}
            }
        }
        Ok(contents)
    }

    /// Everything is of the boot that the TPM is in.
    fn boot(&mut self, start: &Start, stray: Option<u64>) {
        let counts = self.facts.counts;
        let same = match stray {
            Some(number) => Err(format!("record {number} is of another boot than the log")),
            None if counts.is_none_or(|counts| {
                (counts.reset_count, counts.restart_count)
                    != (start.reset_count, start.restart_count)
            }) =>
            {
                Err(format!(
                    "the TPM has been reset or resumed since the log began: {} and {} times then, \
                     {} and {} times now",
                    start.reset_count,
                    start.restart_count,
                    counts.map_or(0, |counts| counts.reset_count),
                    counts.map_or(0, |counts| counts.restart_count),
                ))
            }
            None => Ok(()),
        };
        self.findings.note(CheckName::Boot, same);
        let enrolled = match (&self.facts.trust, &self.evidence.enrolment) {
            (Some(super::Trust::Enrolled), Some(enrolment)) => enrolment.counts,
            _ => None,
        };
        match (enrolled, counts) {
            (Some(then), Some(now)) => {
                let result = if now.reset_count < then.reset_count {
                    Err("the TPM has been reset less often than when it was enrolled".to_owned())
                } else if self.policy.document.enrolled_this_boot && now != then {
                    Err("the TPM has been reset or resumed since it was enrolled".to_owned())
                } else {
                    Ok(())
                };
                self.findings.note(CheckName::EnrolmentCounts, result);
            }
            _ if self.policy.document.enrolled_this_boot => {
                let why = "the policy wants an enrolment of this boot, and no counters came with \
                           one";
                self.findings.note::<()>(CheckName::EnrolmentCounts, Err(why.to_owned()));
            }
            _ => self.findings.skip(CheckName::EnrolmentCounts, "no counters were enrolled"),
        }
    }

    /// The pod was launched once and is still there.
    fn pod(&mut self, contents: Contents, records: &[Replayed<'_>]) -> Option<Launch> {
        let pod = &self.evidence.pod;
        let count = contents.launches.len();
        let mut launches = contents.launches.into_iter();
        let launched = match (launches.next(), launches.next()) {
            (Some(launch), None) => Ok(launch),
            (None, _) => Err(format!("the log has no launch of pod {pod}")),
            _ => Err(format!("the log has {count} launches of pod {pod}")),
        };
        let Some(launch) = self.findings.note(CheckName::PodLaunch, launched) else {
            self.findings.blocked(&[CheckName::PodRunning], CheckName::PodLaunch);
            return None;
        };
        let since = records.iter().filter(|record| record.record.recnum > launch.number);
        let hidden: Vec<_> = since.filter(|record| record.content.is_none()).collect();
        let running = match contents.exit.or_else(|| hidden_exit(&launch, &hidden)) {
            Some(number) => Err(format!("record {number} says that the pod has ended")),
            None => Ok(()),
        };
        self.findings.note(CheckName::PodRunning, running);
        self.facts.launch = Some(launch.number);
        self.facts.hidden_since_launch = hidden.len() as u64;
        Some(launch)
    }
}

/// Whether a content is a launch of this boot, with this number, that has nothing to do with a pod:
/// not even its name is in there. The members of canonical JSON are sorted, so that it begins with
/// these.
fn is_of_others(content: &[u8], boot: &Uuid, number: u64, pod: &str) -> bool {
    let begin =
        format!("{{\"bootId\":\"{boot}\",\"event\":\"launch\",\"number\":{number},\"record\":{{");
    // The end of the name is as telling, and so short that it is looked for quickly.
    let name = pod.get(12..).unwrap_or(pod);
    content.starts_with(begin.as_bytes())
        && std::str::from_utf8(content).is_ok_and(|content| !content.contains(name))
}

/// Replays what came after what was seen.
fn replay_since(seen: &Seen, records: &[Replayed<'_>], targets: &Pcrs) -> Result<Pcrs, String> {
    let replayed = targets.iter().map(|(&bank, target)| {
        let before = seen.values.get(&bank);
        let before = before.ok_or_else(|| format!("nothing was seen of bank {bank} before"))?;
        let digests = records.iter().filter_map(|record| record.digests.get(&bank));
        let value = digests.fold(before.clone(), |value, digest| bank.extended(&value, digest));
        match value == *target {
            true => Ok((bank, before.clone())),
            false => Err(format!(
                "what was written since does not lead to what the TPM has in bank {bank}: records \
                 are missing, or were added or changed"
            )),
        }
    });
    replayed.collect()
}

/// Number of a record that says that the launched pod has ended, and whose content is left out.
/// Whoever hands evidence on could have done that; but there are only so many ways to end, see
/// [`Exit`].
fn hidden_exit(launch: &Launch, hidden: &[&Replayed<'_>]) -> Option<u64> {
    let bank = hidden.first()?.digests.keys().next_back()?;
    let reasons = [Reason::Crash, Reason::Stopped, Reason::Aborted];
    let ends = (0..=255).map(End::Status).chain(reasons.map(End::Reason));
    let digests: BTreeSet<_> = ends
        .filter_map(|end| {
            let exit = Exit {
                version: launch.version,
                boot_id: launch.boot_id.clone(),
                pod: launch.record.pod.clone(),
                launch: launch.number,
                end,
            };
            Event::Exit(exit).to_canonical().ok()
        })
        .map(|content| bank.digest(&content))
        .collect();
    let ends = |record: &&&Replayed<'_>| {
        record.digests.get(bank).is_some_and(|digest| digests.contains(*digest))
    };
    hidden.iter().find(ends).map(|record| record.record.recnum)
}

impl<'e> Replayed<'e> {
    /// Takes the digests of the banks that are quoted.
    fn new(record: &'e LoggedRecord, targets: &Pcrs) -> Result<Self, String> {
        let mut digests = BTreeMap::new();
        for digest in &record.digests {
            let (bank, bytes) = (digest.hash_alg, digest.digest.as_slice());
            if bytes.len() != bank.size() {
                let number = record.recnum;
                return Err(format!("record {number} has a digest of {bank} of a wrong length"));
            }
            if digests.insert(bank, bytes).is_some() {
                return Err(format!("record {} has two digests of {bank}", record.recnum));
            }
        }
        if let Some(bank) = targets.keys().find(|bank| !digests.contains_key(bank)) {
            return Err(format!("record {} has no digest of {bank}", record.recnum));
        }
        // What is in banks that are not quoted is anybody's word.
        digests.retain(|bank, _| targets.contains_key(bank));
        Ok(Self { record, digests, content: None })
    }

    /// Checks that the digests are those of the content, and keeps the bytes that they are of.
    fn check(&mut self, targets: &Pcrs) -> Result<(), String> {
        let number = self.record.recnum;
        if self.record.content_type != EXTENSION {
            return match &self.record.content {
                Some(_) if self.record.content_type == REDACTED => {
                    Err(format!("record {number} has a content, and its type says it has none"))
                }
                _ => Ok(()),
            };
        }
        let Some(content) = &self.record.content else {
            return Err(format!("record {number} has no content"));
        };
        let raw = content.get().as_bytes();
        let fits = |bytes: &[u8]| {
            targets.keys().all(|bank| {
                self.digests.get(bank).is_some_and(|digest| bank.digest(bytes) == *digest)
            })
        };
        // Evidence that went through another program may have other white space.
        let bytes = if fits(raw) {
            Some(Cow::Borrowed(raw))
        } else {
            serde_json::from_slice::<serde_json::Value>(raw)
                .ok()
                .and_then(|value| canonical::to_vec(&value).ok())
                .filter(|canonical| fits(canonical))
                .map(Cow::Owned)
        };
        self.content = Some(bytes.ok_or_else(|| {
            format!("record {number} has a content that its digest is not of: it was changed")
        })?);
        Ok(())
    }
}

/// The log's first record, if it and no other one says that the log begins there, and where.
fn beginning<'s>(starts: &'s [(u64, Start)], before: &Pcrs) -> Result<&'s Start, String> {
    let start = match starts {
        [(0, start)] => start,
        [] => return Err("the log does not say how it begins".to_owned()),
        [(0, _), (number, _), ..] | [(number, _), ..] => {
            return Err(format!("record {number} begins a log, and is not the first one"));
        }
    };
    match before.iter().find(|(bank, value)| start.pcr_before.get(bank) != Some(value)) {
        Some((bank, _)) => Err(format!(
            "the log says that its register held something else before it, in bank {bank}, than \
             what its replay began with"
        )),
        None => Ok(start),
    }
}

//! A launch that is killed at every step, at every byte, and once more while it is recovered.

use super::{BANKS, after, entries, log, text};
use crate::{
    log::{Entry, Limits, Pcrs, RecoverError, Recovery, parse, recover, replay, unfinished},
    record::{End, Event, Reason, Uuid, sample},
};

/// What outlives a process: the log's file, and the TPM.
#[derive(Clone)]
struct Host {
    file: Vec<u8>,
    pcrs: Pcrs,
}

/// What a host does next, indivisibly: all of it, or, for what is written, any part of it.
enum Action {
    Append(Vec<u8>),
    Cut(usize),
    Extend(Entry),
}

impl Host {
    fn new(entries: &[Entry]) -> Self {
        Self { file: text(entries), pcrs: after(entries, entries.len()) }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Append(line) => self.file.extend_from_slice(line),
            Action::Cut(at) => self.file.truncate(*at),
            Action::Extend(entry) => {
                self.pcrs = replay(&self.pcrs, std::slice::from_ref(entry)).unwrap();
            }
        }
    }

    /// All that may be there if an action was interrupted.
    fn interrupted(&self, action: &Action) -> Vec<Self> {
        let Action::Append(line) = action else { return vec![self.clone()] };
        let mut hosts = Vec::new();
        for written in 0..=line.len() {
            let mut host = self.clone();
            host.file.extend_from_slice(&line[..written]);
            hosts.push(host.clone());
            // The file is longer already, and what was to be there is not: all of it, the end, or
            // the beginning.
            host.file.resize(self.file.len() + line.len(), 0);
            if written < line.len() {
                hosts.push(host.clone());
            }
            if 0 < written && written < line.len() {
                let fresh = &mut host.file[self.file.len()..];
                fresh[..written].fill(0);
                fresh[written..].copy_from_slice(&line[written..]);
                hosts.push(host);
            }
        }
        hosts
    }

    /// The next action of a recovery; nothing when it is done.
    fn next(&self) -> Result<Option<Action>, RecoverError> {
        let parsed = parse(&self.file, &Limits::default()).unwrap();
        let entries = parsed.entries;
        let next = recover(&entries, &self.pcrs)?;
        if let Some(torn) = parsed.torn {
            return Ok(Some(Action::Cut(torn)));
        }
        let line = |event| {
            let entry = Entry::new(entries.len() as u64, 15, event, BANKS).unwrap();
            Action::Append(entry.to_json_seq().unwrap())
        };
        Ok(match next {
            Recovery::Agrees => None,
            Recovery::Begin => Some(line(sample::start(self.pcrs.clone()))),
            Recovery::Abort { launch, pod } => {
                Some(line(sample::exit(launch, pod, End::Reason(Reason::Aborted))))
            }
            Recovery::Extend(index) => Some(Action::Extend(entries[index].clone())),
        })
    }

    /// Recovers to the end, and says which pods the log presents as launched and not ended.
    fn recovered(mut self) -> Vec<Uuid> {
        for _ in 0..8 {
            let Some(action) = self.next().unwrap() else {
                let parsed = parse(&self.file, &Limits::default()).unwrap();
                let before = sample::untouched(&BANKS);
                assert_eq!(parsed.torn, None);
                assert_eq!(replay(&before, &parsed.entries).unwrap(), self.pcrs);
                return unfinished(&parsed.entries)
                    .into_iter()
                    .map(|(_, pod)| pod.clone())
                    .collect();
            };
            self.act(&action);
        }
        panic!("a recovery that doesn't end");
    }

    /// Recovers, and does so again after having been killed at every moment of it.
    fn recovered_in_every_way(self, expected: &[Uuid]) {
        let mut host = self;
        while let Some(action) = host.next().unwrap() {
            // What is written in a recovery is an entry of a few hundred bytes: every byte again.
            for interrupted in host.interrupted(&action) {
                assert_eq!(interrupted.recovered(), expected);
            }
            host.act(&action);
        }
        assert_eq!(host.recovered(), expected);
    }
}

/// The pod of a launch never runs before its entry was extended. So when it was not, no log that
/// is used afterwards presents it as launched.
#[test]
fn a_launch_that_is_killed_while_it_is_written_is_aborted_or_forgotten() {
    let host = Host::new(&log(1));
    let launch = Entry::new(3, 15, sample::launch(3, sample::pod(7)), BANKS).unwrap();
    let line = launch.to_json_seq().unwrap();
    for interrupted in host.interrupted(&Action::Append(line)) {
        assert_eq!(interrupted.recovered(), []);
    }
}

#[test]
fn a_launch_that_is_killed_before_it_is_extended_is_aborted_however_often_that_is_interrupted() {
    let mut host = Host::new(&log(1));
    let launch = Entry::new(3, 15, sample::launch(3, sample::pod(7)), BANKS).unwrap();
    host.act(&Action::Append(launch.to_json_seq().unwrap()));
    host.clone().recovered_in_every_way(&[]);
    // One byte less: it was never written.
    host.file.pop();
    host.recovered_in_every_way(&[]);
}

/// Then nobody here knows whether the pod ran; whoever holds its directory does.
#[test]
fn a_launch_that_is_killed_after_it_was_extended_stays_until_somebody_ends_it() {
    let mut host = Host::new(&log(1));
    let launch = Entry::new(3, 15, sample::launch(3, sample::pod(7)), BANKS).unwrap();
    host.act(&Action::Append(launch.to_json_seq().unwrap()));
    host.act(&Action::Extend(launch));
    host.recovered_in_every_way(&[sample::pod(7)]);
}

#[test]
fn an_end_and_a_beginning_survive_it_too() {
    let pod = sample::pod(0);
    let mut host = Host::new(&log(1)[..2]);
    let exit = Entry::new(2, 15, sample::exit(1, pod.clone(), End::Status(0)), BANKS).unwrap();
    let line = exit.to_json_seq().unwrap();
    for interrupted in host.interrupted(&Action::Append(line.clone())) {
        // Written it counts; torn it does not, and the pod's owner ends it again.
        let written = interrupted.file == [&host.file[..], &line].concat();
        let expected = if written { vec![] } else { vec![pod.clone()] };
        assert_eq!(interrupted.recovered(), expected);
    }
    host.act(&Action::Append(line));
    host.recovered_in_every_way(&[]);
    let empty = Host { file: Vec::new(), pcrs: sample::untouched(&BANKS) };
    empty.recovered_in_every_way(&[]);
}

/// A log that was cut at any byte of its last two entries, and a PCR as it was after any entry: it
/// is brought to agree where a kill leads there, and refused otherwise.
#[test]
fn a_log_that_was_cut_anywhere_agrees_in_the_end_or_is_refused() {
    for end in [End::Status(0), End::Reason(Reason::Aborted)] {
        let mut launch = sample::launch(1, sample::pod(0));
        if let Event::Launch(launch) = &mut launch {
            launch.record.apps.clear();
        }
        let start = sample::start(sample::untouched(&BANKS));
        let whole = entries([start, launch, sample::exit(1, sample::pod(0), end)], &BANKS);
        let (file, settled) = (text(&whole), text(&whole[..1]).len());
        let pcrs: Vec<_> = (0..=whole.len()).map(|count| after(&whole, count)).collect();
        for cut in settled..=file.len() {
            let found = parse(&file[..cut], &Limits::default()).unwrap().entries;
            for (extended, pcrs) in pcrs.iter().enumerate() {
                let possible = match found.len().checked_sub(extended) {
                    Some(0 | 1) => true,
                    Some(2) => found.len() == 3 && end == End::Reason(Reason::Aborted),
                    _ => false,
                };
                let next = recover(&found, pcrs);
                assert_eq!(next.is_ok(), possible, "{cut}, {extended}: {next:?}");
                if possible {
                    let host = Host { file: file[..cut].to_vec(), pcrs: pcrs.clone() };
                    // What was not extended never ran.
                    let open = found.len() == 2 && extended == 2;
                    assert_eq!(!host.recovered().is_empty(), open, "{cut}, {extended}");
                }
            }
        }
    }
}

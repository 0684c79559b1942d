//! Tests of the log, and what they share.

mod checkpoint;
mod export;
mod file;
mod killed;
mod parse;
mod recover;

use super::{Bank, Entry, Pcrs, replay};
use crate::record::{End, Event, sample};

pub(super) const BANKS: [Bank; 2] = [Bank::Sha1, Bank::Sha256];

/// Entries for events, with their numbers.
pub(super) fn entries(events: impl IntoIterator<Item = Event>, banks: &[Bank]) -> Vec<Entry> {
    let entry = |(number, event)| Entry::new(number, 15, event, banks.iter().copied()).unwrap();
    (0..).zip(events).map(entry).collect()
}

/// The beginning, and pods that were launched and ended: entries 1 and 2, 3 and 4, and so on.
pub(super) fn log(pods: u64) -> Vec<Entry> {
    let pods = (0..pods).flat_map(|number| {
        let (launch, pod) = (1 + 2 * number, sample::pod(number));
        [sample::launch(launch, pod.clone()), sample::exit(launch, pod, End::Status(0))]
    });
    let start = sample::start(sample::untouched(&BANKS));
    entries([start].into_iter().chain(pods), &BANKS)
}

pub(super) fn text(entries: &[Entry]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_json_seq().unwrap()).collect()
}

/// What the PCR holds after the first `count` entries.
pub(super) fn after(entries: &[Entry], count: usize) -> Pcrs {
    replay(&sample::untouched(&BANKS), &entries[..count]).unwrap()
}

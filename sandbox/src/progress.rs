//! Shows how far an image is: a bar on a terminal, a line for each step that takes long elsewhere.

use crate::message::Messages;
use crate::supervisor::signals::Signals;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sandbox_image::{Progress, Step};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Work that takes less time than this is not worth a bar.
const QUIET: Duration = Duration::from_millis(300);
/// Nor, where nobody looks at it now, is this a line.
const QUIET_LINES: Duration = Duration::from_secs(10);

/// The progress of one image. A signal cancels the work.
#[derive(Debug)]
pub struct Bar<'a> {
    messages: Messages,
    signals: &'a Signals,
    bar: ProgressBar,
    start: Instant,
    /// The step that is shown.
    announced: String,
    downloads: Downloads,
}

impl<'a> Bar<'a> {
    /// A bar on standard error.
    pub fn new(messages: Messages, signals: &'a Signals) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let start = Instant::now();
        let downloads = Downloads::default();
        Self { messages, signals, bar, start, announced: String::new(), downloads }
    }

    fn show(&mut self, view: View) {
        let quiet = if self.bar.is_hidden() { QUIET_LINES } else { QUIET };
        if self.start.elapsed() < quiet {
            return;
        }
        if self.announced != view.message {
            self.announce(&view);
        }
        self.bar.set_length(view.total);
        self.bar.set_position(view.done);
    }

    /// Begins to show another step.
    fn announce(&mut self, view: &View) {
        if self.bar.is_hidden() {
            self.messages.say(&view.message);
        }
        let amounts = match (view.total, view.unit) {
            (0, Unit::Bytes) if view.done > 0 => "{msg} {bytes}",
            (0, _) => "{msg}",
            (_, Unit::Bytes) => "{msg} {bar:30} {bytes}/{total_bytes} {eta}",
            (_, Unit::Entries) => "{msg} {bar:30} {pos}/{len} {eta}",
        };
        if let Ok(style) = ProgressStyle::with_template(amounts) {
            self.bar.set_style(style);
        }
        self.bar.set_message(view.message.clone());
        self.announced.clone_from(&view.message);
    }
}

impl Progress for Bar<'_> {
    fn report(&mut self, step: Step) -> ControlFlow<()> {
        if self.signals.interrupted().is_some() {
            return ControlFlow::Break(());
        }
        let view = View::of(step, &mut self.downloads);
        self.show(view);
        ControlFlow::Continue(())
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Bytes,
    Entries,
}

/// What a bar shows.
#[derive(Debug, PartialEq, Eq)]
struct View {
    message: String,
    done: u64,
    /// 0 if it is not known.
    total: u64,
    unit: Unit,
}

impl View {
    fn of(step: Step, downloads: &mut Downloads) -> Self {
        let view = |message: String, done, total, unit| Self { message, done, total, unit };
        let bytes = |message: &str, done, total| view(message.to_owned(), done, total, Unit::Bytes);
        match step {
            Step::Ask => bytes("asking what there is", 0, 0),
            Step::Download { index, count, done, total }
            | Step::Upload { index, count, done, total } => {
                let (done, total) = downloads.add(index, done, total);
                let verb = match step {
                    Step::Upload { .. } => "sending",
                    _ => "fetching",
                };
                let files = if count == 1 { "file" } else { "files" };
                bytes(&format!("{verb} {count} {files}"), done, total)
            }
            Step::Check { done, total } => bytes("checking what is in the store", done, total),
            Step::Layer { index, count, done, total } => {
                bytes(&format!("reading layer {} of {count}", index + 1), done, total)
            }
            Step::Unpack { done, total } => {
                view("unpacking".to_owned(), done, total, Unit::Entries)
            }
            Step::Write { done, total } => bytes("writing the file system", done, total),
            Step::Verity { done, total } => bytes("hashing the file system", done, total),
            Step::Sync => bytes("writing to disk", 0, 0),
            Step::Wait => bytes("waiting for another process that has this image in work", 0, 0),
        }
    }
}

/// The downloads of one image, several of them at the same time: how far each is, and its size.
#[derive(Debug, Default)]
struct Downloads(BTreeMap<usize, (u64, u64)>);

impl Downloads {
    /// How far all of them are now, and how large those are that were heard of; 0 if the size of
    /// one is not known.
    fn add(&mut self, index: usize, done: u64, total: u64) -> (u64, u64) {
        self.0.insert(index, (done, total));
        let sum = |amount: fn(&(u64, u64)) -> u64| self.0.values().map(amount).sum();
        let known = self.0.values().all(|(_, total)| *total > 0);
        (sum(|(done, _)| *done), if known { sum(|(_, total)| *total) } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_at_the_same_time_are_one_bar() {
        let mut downloads = Downloads::default();
        let mut see = |index, done, total| {
            let step = Step::Download { index, count: 3, done, total };
            let view = View::of(step, &mut downloads);
            assert_eq!(view.message, "fetching 3 files");
            (view.done, view.total)
        };
        assert_eq!(see(0, 10, 100), (10, 100));
        assert_eq!(see(1, 5, 50), (15, 150));
        assert_eq!(see(0, 90, 100), (95, 150));
        assert_eq!(see(2, 1, 0), (96, 0));
    }

    #[test]
    fn a_signal_ends_the_work() {
        let signals = Signals::interrupted_by(15);
        let mut bar = Bar::new(Messages::new("fetch", false), &signals);
        assert_eq!(bar.report(Step::Sync), ControlFlow::Break(()));
        let signals = Signals::interrupted_by(0);
        let mut bar = Bar::new(Messages::new("fetch", false), &signals);
        assert_eq!(bar.report(Step::Sync), ControlFlow::Continue(()));
    }
}

//! Shows how far an image is: a bar on a terminal, nothing elsewhere but what takes long.

use crate::message::Messages;
use crate::supervisor::signals::Signals;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sandbox_image::{Progress, Step};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// An image that costs less time than this is not worth a word.
const QUIET: Duration = Duration::from_secs(2);

/// The progress of one image. A signal cancels the work.
#[derive(Debug)]
pub struct Bar<'a> {
    messages: Messages,
    signals: &'a Signals,
    bar: ProgressBar,
    start: Instant,
    /// The step that is shown.
    announced: String,
}

impl<'a> Bar<'a> {
    /// A bar on standard error.
    pub fn new(messages: Messages, signals: &'a Signals) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let start = Instant::now();
        Self { messages, signals, bar, start, announced: String::new() }
    }

    fn show(&mut self, message: String, done: u64, total: u64, bytes: bool) {
        if self.start.elapsed() < QUIET {
            return;
        }
        if self.announced != message {
            self.announce(message, total, bytes);
        }
        self.bar.set_position(done);
    }

    /// Begins to show another step.
    fn announce(&mut self, message: String, total: u64, bytes: bool) {
        if self.bar.is_hidden() {
            self.messages.say(&message);
        }
        let amounts = match (total, bytes) {
            (0, _) => "{msg}",
            (_, true) => "{msg} {bar:30} {bytes}/{total_bytes} {eta}",
            (_, false) => "{msg} {bar:30} {pos}/{len} {eta}",
        };
        if let Ok(style) = ProgressStyle::with_template(amounts) {
            self.bar.set_style(style);
        }
        self.bar.set_length(total);
        self.bar.set_message(message.clone());
        self.announced = message;
    }
}

impl Progress for Bar<'_> {
    fn report(&mut self, step: Step) -> ControlFlow<()> {
        if self.signals.interrupted().is_some() {
            return ControlFlow::Break(());
        }
        match step {
            Step::Layer { index, count, done, total } => {
                let message = format!("reading layer {} of {count}", index + 1);
                self.show(message, done, total, true);
            }
            Step::Unpack { done, total } => {
                self.show("unpacking".to_owned(), done, total, false);
            }
            Step::Write { done, total } => {
                self.show("writing the file system".to_owned(), done, total, true);
            }
            Step::Verity { done, total } => {
                self.show("hashing the file system".to_owned(), done, total, true);
            }
            Step::Sync => self.show("writing to disk".to_owned(), 0, 0, false),
            Step::Wait => {
                let message = "waiting for another process that unpacks this image".to_owned();
                self.show(message, 0, 0, false);
            }
        }
        ControlFlow::Continue(())
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

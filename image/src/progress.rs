use serde::{Deserialize, Serialize};
use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

/// What is being done, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// A registry or web server is asked what it has.
    Ask,
    /// A blob is fetched. Several can be at the same time.
    Download {
        /// Which one, from 0.
        index: usize,
        /// How many there are.
        count: usize,
        /// Bytes that are here.
        done: u64,
        /// Its size in bytes; 0 if it is not known.
        total: u64,
    },
    /// A blob is sent to a registry.
    Upload {
        /// Which one, from 0.
        index: usize,
        /// How many there are.
        count: usize,
        /// Bytes that were sent.
        done: u64,
        /// Its size in bytes.
        total: u64,
    },
    /// A layer (or a whole archive that has to be read to know its digest) is read.
    Layer {
        /// Which one, from 0.
        index: usize,
        /// How many there are.
        count: usize,
        /// Bytes of its file read so far.
        done: u64,
        /// Size of its file in bytes.
        total: u64,
    },
    /// The merged tree is written.
    Unpack {
        /// Entries written so far.
        done: u64,
        /// Entries of the tree.
        total: u64,
    },
    /// Bytes of the store are held against their digests.
    Check {
        /// Bytes read so far.
        done: u64,
        /// How many there are.
        total: u64,
    },
    /// The merged tree is written as one EROFS file.
    Write {
        /// Bytes written so far.
        done: u64,
        /// Bytes of the file.
        total: u64,
    },
    /// A file is hashed for dm-verity, to make its hash tree or to check it.
    Verity {
        /// Bytes hashed so far.
        done: u64,
        /// Bytes of the file's data.
        total: u64,
    },
    /// What was written is made durable.
    Sync,
    /// Another process is importing the same image; its result will be used.
    Wait,
}

/// Hears of the progress of [`crate::Store::fetch`] and of all else that takes its time.
pub trait Progress {
    /// Something was done: called some times a second at most per step, and at each step's start
    /// and end. `Break` gives the work up: it cleans up and ends with [`crate::Error::Cancelled`].
    fn report(&mut self, step: Step) -> ControlFlow<()>;
}

/// Tells nobody, and is never cancelled.
impl Progress for () {
    fn report(&mut self, _: Step) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// The work was given up.
#[derive(Debug)]
pub(crate) struct Cancelled;

/// Reports steps, but not too often.
pub(crate) struct Reporter<'a> {
    progress: &'a mut dyn Progress,
    last: Option<(Step, Instant)>,
}

impl<'a> Reporter<'a> {
    const PAUSE: Duration = Duration::from_millis(100);

    pub(crate) fn new(progress: &'a mut dyn Progress) -> Self {
        Self { progress, last: None }
    }

    pub(crate) fn report(&mut self, step: Step) -> Result<(), Cancelled> {
        let now = Instant::now();
        let passed_over = self.last.is_some_and(|(last, at)| {
            !step.is_end() && last.is_same_bar(step) && now.duration_since(at) < Self::PAUSE
        });
        if passed_over {
            return Ok(());
        }
        self.last = Some((step, now));
        self.pass_on(step)
    }

    /// Asks whether the work is still wanted, where nothing new is to be said.
    pub(crate) fn ask(&mut self) -> Result<(), Cancelled> {
        self.pass_on(self.last.map_or(Step::Wait, |(step, _)| step))
    }

    fn pass_on(&mut self, step: Step) -> Result<(), Cancelled> {
        match self.progress.report(step) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Cancelled),
        }
    }
}

/// So that what reports steps can be called by what reports steps.
impl Progress for Reporter<'_> {
    fn report(&mut self, step: Step) -> ControlFlow<()> {
        match Reporter::report(self, step) {
            Ok(()) => ControlFlow::Continue(()),
            Err(Cancelled) => ControlFlow::Break(()),
        }
    }
}

impl Step {
    fn is_end(self) -> bool {
        match self {
            Self::Download { done, total, .. }
            | Self::Upload { done, total, .. }
            | Self::Layer { done, total, .. }
            | Self::Unpack { done, total }
            | Self::Write { done, total }
            | Self::Verity { done, total }
            | Self::Check { done, total } => done == total,
            Self::Ask | Self::Sync | Self::Wait => false,
        }
    }

    /// Whether both are the same step at different times.
    fn is_same_bar(self, other: Self) -> bool {
        match (self, other) {
            (Self::Layer { index: one, .. }, Self::Layer { index: two, .. })
            | (Self::Download { index: one, .. }, Self::Download { index: two, .. })
            | (Self::Upload { index: one, .. }, Self::Upload { index: two, .. }) => one == two,
            _ => std::mem::discriminant(&self) == std::mem::discriminant(&other),
        }
    }
}

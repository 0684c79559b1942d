use std::ops::ControlFlow;

/// What is being done, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
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
    /// The merged tree is written to the store.
    Unpack {
        /// Entries written so far.
        done: u64,
        /// Entries of the tree.
        total: u64,
    },
    /// What was written is made durable.
    Sync,
    /// Another process is unpacking the same image; its result will be used.
    Wait,
}

/// Hears of the progress of [`crate::Store::image`] and [`crate::Store::tree`].
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

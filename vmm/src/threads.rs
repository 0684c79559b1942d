//! The threads of a microVM. Each works behind the filter of its kind ([`crate::filter`]), and none
//! begins before all have theirs, the main thread included: from the guest's first instruction on,
//! no thread can be started.

use crate::VmmError;
use crate::filter::{self, FilterError, Thread};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Room for a thread's stack. Less than a huge page, so that it is not made of one.
const STACK: usize = 256 << 10;

/// Threads that have been started and wait.
#[derive(Debug, Default)]
pub struct Threads {
    started: usize,
    gate: Arc<Gate>,
}

/// What they wait at.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    failed: Option<FilterError>,
    open: bool,
}

impl Threads {
    /// Starts a thread. When its work is done it sleeps: only the process ends. What `work` owns and
    /// drops at its end must not need more than its filter allows.
    ///
    /// # Errors
    /// [`VmmError::Thread`] if the host gives no thread.
    pub fn spawn(
        &mut self,
        name: String,
        kind: Thread,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), VmmError> {
        let gate = self.gate.clone();
        let body = move || {
            if gate.pass(filter::install(kind)) {
                work();
            }
            // To end would take system calls that nothing else needs.
            loop {
                std::thread::park();
            }
        };
        let builder = std::thread::Builder::new().name(name).stack_size(STACK);
        builder.spawn(body).map_err(VmmError::Thread)?;
        self.started += 1;
        Ok(())
    }

    /// Waits until each thread has its filter, calls `ready`, which no filter holds yet, installs
    /// that of this thread and lets all begin.
    ///
    /// # Errors
    /// [`VmmError::Filter`] if one has none: then none begins.
    pub fn release<T>(self, ready: impl FnOnce() -> T) -> Result<T, VmmError> {
        let mut state = self.gate.lock();
        while state.waiting < self.started && state.failed.is_none() {
            state = self.gate.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(error) = state.failed.take() {
            return Err(error.into());
        }
        let value = ready();
        filter::install(Thread::Main)?;
        state.open = true;
        drop(state);
        self.gate.changed.notify_all();
        Ok(value)
    }
}

impl Gate {
    /// Waits until the gate is open; it never is for who has no filter.
    fn pass(&self, filter: Result<(), FilterError>) -> bool {
        let mut state = self.lock();
        match filter {
            Ok(()) => state.waiting += 1,
            Err(error) => state.failed = Some(error),
        }
        let passes = state.failed.is_none();
        self.changed.notify_all();
        while passes && !state.open {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        passes
    }

    /// A panic aborts the process, so no lock is ever poisoned.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

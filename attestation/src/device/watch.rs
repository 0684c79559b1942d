//! Somebody watches the time: a thread that answers in the place of one that hangs, and ends the
//! process with it. So a TPM that does not answer can't hold up a launch, nor the host's lock.

use sandbox_attestation::session::{Answer, Failure, FailureKind, MAX_ANSWER, Patience, write};
use std::{
    io,
    os::unix::net::UnixStream,
    process,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How long the other side may take to take the answer.
const DELIVERY: Duration = Duration::from_secs(10);

/// The watch over one request.
#[derive(Debug, Clone)]
pub(super) struct Watch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    socket: UnixStream,
    /// What is being done, as `cannot …` is followed by it.
    step: &'static str,
    patience: Patience,
    waits: bool,
    until: Instant,
    recorded: Option<u64>,
    answered: bool,
}

impl Watch {
    /// Begins with waiting for the turn.
    pub(super) fn start(socket: UnixStream, patience: Patience) -> io::Result<Self> {
        socket.set_write_timeout(Some(DELIVERY))?;
        let state = State {
            socket,
            step: "begin",
            patience,
            waits: true,
            until: after(patience.turn),
            recorded: None,
            answered: false,
        };
        let watch = Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }));
        let watcher = watch.clone();
        thread::Builder::new().name("watch".into()).spawn(move || watcher.watch())?;
        Ok(watch)
    }

    /// What is done next, for the case that it hangs.
    pub(super) fn step(&self, step: &'static str) {
        self.state().step = step;
    }

    /// The turn has come: from now on it is others who wait.
    pub(super) fn turn_came(&self) {
        let mut state = self.state();
        state.waits = false;
        state.until = after(state.patience.work);
        self.0.changed.notify_all();
    }

    /// From now on the log may have a record of the launch.
    pub(super) fn recorded(&self, recnum: u64) {
        self.state().recorded = Some(recnum);
    }

    /// Answers; whether the other side took it.
    pub(super) fn answer(&self, mut answer: Answer) -> bool {
        let mut state = self.state();
        if state.answered {
            return false;
        }
        state.answered = true;
        self.0.changed.notify_all();
        if let Answer::Failed(failure) = &mut answer {
            failure.recorded = failure.recorded.or(state.recorded);
        }
        write(&mut &state.socket, &answer, MAX_ANSWER).is_ok()
    }

    fn watch(&self) {
        let mut state = self.state();
        loop {
            if state.answered {
                return;
            }
            let left = state.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let failure = state.late();
                state.answered = true;
                let _ = write(&mut &state.socket, &Answer::Failed(failure), MAX_ANSWER);
                process::exit(1);
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics with it; and if it did, an answer is still due.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn late(&self) -> Failure {
        let mut failure = if self.waits {
            Failure::new(
                FailureKind::Busy,
                format!(
                    "other launches use the TPM and the log, and it did not become our turn in {} \
                     ms; try again",
                    self.patience.turn
                ),
            )
        } else {
            Failure::new(
                FailureKind::TimedOut,
                format!(
                    "cannot {}: the TPM did not answer within {} ms; if that happens again, see \
                     the kernel's messages about tpm",
                    self.step, self.patience.work
                ),
            )
        };
        failure.recorded = self.recorded;
        failure
    }
}

fn after(milliseconds: u64) -> Instant {
    // Far from now, and not beyond what an instant can be.
    Instant::now() + Duration::from_millis(milliseconds.min(86_400_000))
}

//! What becomes of a machine when we get a signal: it ends, and we clean up and end after it.

use anyhow::Result;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::{Handle, Signals};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// These end us.
const ENDING: [i32; 3] = [SIGHUP, SIGINT, SIGTERM];

/// As long as it exists, a signal that would end us ends the child instead.
#[derive(Debug)]
pub struct Guard {
    received: Arc<AtomicU8>,
    handle: Handle,
}

/// How many guards there are.
static GUARDS: Mutex<usize> = Mutex::new(0);

impl Guard {
    /// Watches for `child`. `resized` is called now and whenever the terminal has another size.
    pub fn new(child: &Child, resized: impl Fn() + Send + 'static) -> Result<Self> {
        let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        let mut signals = Signals::new(ENDING.iter().chain(&[SIGWINCH]))?;
        let handle = signals.handle();
        let received = Arc::new(AtomicU8::new(0));
        let shared = received.clone();
        count(|guards| guards + 1)?;
        std::thread::spawn(move || {
            resized();
            for signal in signals.forever() {
                if signal == SIGWINCH {
                    resized();
                } else {
                    shared.store(u8::try_from(signal).unwrap_or(0), Ordering::SeqCst);
                    let _ = pidfd_send_signal(&process, Signal::KILL);
                }
            }
        });
        Ok(Guard { received, handle })
    }

    /// The signal that came, if one did.
    pub fn received(&self) -> Option<u8> {
        Some(self.received.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Without the handlers there was no guard.
        let _ = count(|guards| guards.saturating_sub(1));
        self.handle.close();
    }
}

/// Changes the number of guards. Without any, a signal ends us at once.
fn count(change: impl FnOnce(usize) -> usize) -> Result<()> {
    let mut guards = GUARDS.lock().unwrap_or_else(PoisonError::into_inner);
    let default = default_action()?;
    *guards = change(*guards);
    default.store(*guards == 0, Ordering::SeqCst);
    Ok(())
}

/// Whether these signals end us at once. Handlers can't be taken away again, so they stay, and do
/// this.
fn default_action() -> Result<&'static AtomicBool> {
    static DEFAULT: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if DEFAULT.get().is_none() {
        let flag = Arc::new(AtomicBool::new(true));
        for signal in ENDING {
            signal_hook::flag::register_conditional_default(signal, flag.clone())?;
        }
        let _ = DEFAULT.set(flag);
    }
    Ok(DEFAULT.get_or_init(Arc::default))
}

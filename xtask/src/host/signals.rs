//! What becomes of a machine when we get a signal: it ends, and we clean up and end after it.

use anyhow::Result;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::{Handle, Signals};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

/// These end us.
const ENDING: [i32; 3] = [SIGHUP, SIGINT, SIGTERM];

/// As long as it exists, a signal that would end us ends the child instead.
#[derive(Debug)]
pub struct Guard {
    received: Arc<AtomicU8>,
    handle: Handle,
    otherwise_default: &'static AtomicBool,
}

impl Guard {
    /// Watches for `child`. `resized` is called now and whenever the terminal has another size.
    pub fn new(child: &Child, resized: impl Fn() + Send + 'static) -> Result<Self> {
        let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        let otherwise_default = default_action()?;
        let mut signals = Signals::new(ENDING.iter().chain(&[SIGWINCH]))?;
        let handle = signals.handle();
        let received = Arc::new(AtomicU8::new(0));
        let shared = received.clone();
        otherwise_default.store(false, Ordering::SeqCst);
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
        Ok(Guard { received, handle, otherwise_default })
    }

    /// The signal that came, if one did.
    pub fn received(&self) -> Option<u8> {
        Some(self.received.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.otherwise_default.store(true, Ordering::SeqCst);
        self.handle.close();
    }
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

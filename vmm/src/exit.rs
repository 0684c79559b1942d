//! How a microVM ended, as the exit status of `sandbox-vmm`.

/// Why the monitor left its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest asked for a reset: what guest-init does when the pod has ended.
    Reset,
    /// The guest kernel panicked; the console has its last words.
    Panic,
    /// A virtual CPU shut down, which x86 does on a triple fault.
    TripleFault,
    /// The supervisor closed the control socket.
    HangUp,
    /// A virtio-fs worker closed its connection while the guest was running.
    WorkerGone,
}

/// Exit status of `sandbox-vmm` for an error of its own; standard error has one line on it.
pub const FAILURE: u8 = 1;

impl Exit {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Reset, Self::Panic, Self::TripleFault, Self::HangUp, Self::WorkerGone];

    /// The exit status that stands for it.
    pub fn code(self) -> u8 {
        match self {
            Self::Reset => 0,
            Self::Panic => 3,
            Self::TripleFault => 4,
            Self::HangUp => 5,
            Self::WorkerGone => 6,
        }
    }

    /// What an exit status stands for; `None` for [`FAILURE`] and codes that are never used.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| exit.code() == code)
    }
}

/// Ends the process at once. Nothing is taken apart before: the kernel does it, and the filters don't
/// have to allow it.
pub fn leave(code: u8) -> ! {
    // SAFETY: nothing that is skipped matters: no handler is registered and nothing is buffered.
    unsafe { libc::_exit(code.into()) }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Reset => "the guest reset the machine",
            Self::Panic => "the guest kernel panicked",
            Self::TripleFault => "the guest caused a triple fault",
            Self::HangUp => "the supervisor hung up",
            Self::WorkerGone => "the virtio-fs worker ended",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_has_a_status_of_its_own_apart_from_failure() {
        for exit in Exit::ALL {
            assert_eq!(Exit::from_code(exit.code()), Some(exit));
            assert_ne!(exit.code(), FAILURE);
        }
    }
}

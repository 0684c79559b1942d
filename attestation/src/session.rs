//! The client of `sandbox-attest`, the one program that opens the TPM and writes the log.
//!
//! One process of it answers one request:
//!
//! ```text
//! sandbox                                     sandbox-attest
//!   start ── Opening (settings, patience) ───▶  confines itself, reads the log
//!   launch ─ Request ────────────────────────▶  waits for its turn; recovers; log, fsync, extend
//!         ◀──────────────────────────── Answer ─  and ends
//! ```
//!
//! It is started early in a launch, so that its own start is over when the record is ready. All is
//! bounded in time: the program gives up by itself and says at what; if it can't even do that, it
//! is killed. A record that it had written by then is found and put in order at the next request.

mod evidence;
mod frame;
mod message;

pub use evidence::{About, AssembleError};
pub use frame::{MAX_ANSWER, MAX_REQUEST, read, write};
pub use message::{
    Algorithm, Answer, Ask, Bytes, Clock, Endorsement, Failure, FailureKind, Identity, InitOptions,
    Launched, LogState, Opening, Patience, Quoted, Release, Request, SealedKey, Status, Times,
    VERSION,
};

use crate::{
    credential::Credential,
    log::Bank,
    record::{End, Record, Uuid},
    settings::Settings,
};
use sandbox_image::Text;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use thiserror::Error;

/// What the program gets on top of its own patience before it is killed.
const GRACE: Duration = Duration::from_secs(3);

/// How long is waited for the end of a process that has answered, or was killed. One that hangs in
/// the TPM's driver does not even end when it is killed.
const END: Duration = Duration::from_millis(500);

/// The most of what the program says on standard error that is shown.
const MAX_COMPLAINT: u64 = 2048;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The settings can't be meant.
    #[error("the settings for attestation cannot be used: {0}")]
    Settings(String),
    /// The program can't be started.
    #[error("cannot start {}", message::named(program))]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The program ended before it answered.
    #[error("{} ended without an answer{status}{complaint}", message::named(program))]
    Ended {
        /// The program.
        program: PathBuf,
        /// How it ended, in words.
        status: String,
        /// What it said on standard error.
        complaint: String,
    },
    /// The program had to be killed.
    #[error(
        "{} did not answer within {} s and was killed: the TPM or its driver hangs",
        message::named(program), patience.as_secs()
    )]
    Hung {
        /// The program.
        program: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// What it said is not an answer to what was asked.
    #[error("{} said what is no answer: {problem}", message::named(program))]
    Nonsense {
        /// The program.
        program: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It could not be done.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl SessionError {
    /// The kind of a failure that the program named.
    pub fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::Failed(failure) => Some(failure.kind),
            _ => None,
        }
    }
}

/// A process of `sandbox-attest` that waits for its request.
#[derive(Debug)]
pub struct Attestor {
    program: PathBuf,
    /// Nothing once it has answered well: what it still does is its own business.
    child: Option<Child>,
    socket: UnixStream,
    patience: Duration,
}

impl Attestor {
    /// Starts `program`.
    pub fn start(program: &Path, settings: &Settings) -> Result<Self, SessionError> {
        Self::start_with(program, settings, Patience::default())
    }

    /// Starts `program`, which may take as long as `patience` says.
    pub fn start_with(
        program: &Path,
        settings: &Settings,
        patience: Patience,
    ) -> Result<Self, SessionError> {
        settings.check().map_err(SessionError::Settings)?;
        let start = |source| SessionError::Start { program: program.into(), source };
        let (mut socket, theirs) = UnixStream::pair().map_err(start)?;
        let patience_in_all = patience.total() + GRACE;
        // A program that does not even listen must not hold us up either.
        socket.set_write_timeout(Some(patience_in_all)).map_err(start)?;
        let theirs = OwnedFd::from(theirs);
        let child = Command::new(program)
            .env_clear()
            // The libraries would print what is in our own answers already.
            .env("TSS2_LOG", "all+NONE")
            .stdin(theirs.try_clone().map_err(start)?)
            .stdout(theirs)
            .stderr(Stdio::piped())
            .current_dir("/")
            .spawn()
            .map_err(start)?;
        let opening = Opening { version: VERSION, settings: settings.clone(), patience };
        let written = write(&mut socket, &opening, MAX_REQUEST);
        let mut attestor =
            Self { program: program.into(), child: Some(child), socket, patience: patience_in_all };
        written.map_err(|error| attestor.broken(&error))?;
        Ok(attestor)
    }

    /// Writes a launch into log and TPM, and quotes in the same turn if `quote` asks for it.
    pub fn launch(self, record: Record, quote: Option<Ask>) -> Result<Launched, SessionError> {
        self.write_launch(record, quote, false)
    }

    /// The same, and with the quote comes only what was written since: its cost does not grow with
    /// the log. Enough for whoever believes what the program says of the log before.
    pub fn launch_briefly(self, record: Record, quote: Ask) -> Result<Launched, SessionError> {
        self.write_launch(record, Some(quote), true)
    }

    fn write_launch(
        self,
        record: Record,
        quote: Option<Ask>,
        briefly: bool,
    ) -> Result<Launched, SessionError> {
        let request = Request::Launch { record: Box::new(record), quote, briefly };
        self.ask(&request, |answer| match answer {
            Answer::Launched(launched) => Ok(launched),
            other => Err(other),
        })
    }

    /// Writes the end of a launch into log and TPM; returns the number of the record.
    pub fn exit(self, pod: Uuid, launch: u64, end: End) -> Result<u64, SessionError> {
        self.ask(&Request::Exit { pod, launch, end }, |answer| match answer {
            Answer::Recorded { recnum } => Ok(recnum),
            other => Err(other),
        })
    }

    /// Lets the TPM sign what its registers hold.
    pub fn quote(self, ask: Ask) -> Result<Quoted, SessionError> {
        self.ask(&Request::Quote(ask), |answer| match answer {
            Answer::Quoted(quoted) => Ok(*quoted),
            other => Err(other),
        })
    }

    /// Makes the keys.
    pub fn init(self, options: InitOptions) -> Result<Identity, SessionError> {
        self.ask(&Request::Init(options), |answer| match answer {
            Answer::Ready(identity) => Ok(*identity),
            other => Err(other),
        })
    }

    /// Says what is there. Log and register stay as they are.
    pub fn status(self) -> Result<Status, SessionError> {
        self.ask(&Request::Status, |answer| match answer {
            Answer::Status(status) => Ok(*status),
            other => Err(other),
        })
    }

    /// Finds out a credential's secret, which proves that both keys are in this TPM.
    pub fn activate(self, credential: Credential) -> Result<Vec<u8>, SessionError> {
        self.ask(&Request::Activate(credential), |answer| match answer {
            Answer::Activated { secret } => Ok(secret.0),
            other => Err(other),
        })
    }

    /// Has the TPM keep a key, given out while these registers hold what they hold now.
    pub fn seal(
        self,
        key: Bytes,
        selection: BTreeMap<Bank, BTreeSet<u32>>,
    ) -> Result<SealedKey, SessionError> {
        self.ask(&Request::Seal { key, selection }, |answer| match answer {
            Answer::Sealed(sealed) => Ok(sealed),
            other => Err(other),
        })
    }

    /// Has a secret whose key the TPM keeps sealed for a guest.
    pub fn release(self, release: Release) -> Result<Vec<u8>, SessionError> {
        self.ask(&Request::Release(Box::new(release)), |answer| match answer {
            Answer::Released { sealed } => Ok(sealed.0),
            other => Err(other),
        })
    }

    /// The identifier of the process.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map(Child::id).unwrap_or_default()
    }

    fn ask<T>(
        mut self,
        request: &Request,
        expected: impl FnOnce(Answer) -> Result<T, Answer>,
    ) -> Result<T, SessionError> {
        write(&mut self.socket, request, MAX_REQUEST).map_err(|error| self.broken(&error))?;
        let mut timed = Timed { socket: &self.socket, until: Instant::now() + self.patience };
        let answer = read::<Answer>(&mut timed, MAX_ANSWER)
            .and_then(|answer| answer.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof)));
        match answer.map(expected) {
            Ok(Ok(expected)) => {
                self.let_go();
                Ok(expected)
            }
            Ok(Err(Answer::Failed(failure))) => {
                self.end();
                Err(failure.into())
            }
            Ok(Err(_)) => Err(SessionError::Nonsense {
                program: self.program.clone(),
                problem: "an answer to another request".into(),
            }),
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// What it means that the socket fails.
    fn broken(&mut self, error: &io::Error) -> SessionError {
        let program = self.program.clone();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                SessionError::Hung { program, patience: self.patience }
            }
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => {
                let status = self.end().map(|status| format!(" ({status})")).unwrap_or_default();
                SessionError::Ended { program, status, complaint: self.complaint() }
            }
            _ => SessionError::Nonsense {
                program,
                problem: Text::new(error.to_string()).to_string(),
            },
        }
    }

    /// Lets it end by itself; somebody has to be there who takes note of that.
    fn let_go(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let reaper = std::thread::Builder::new().name("attestor's end".into());
        // Without one, it is reaped with this process.
        let _ = reaper.spawn(move || child.wait());
    }

    /// Waits for the end.
    fn end(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let until = Instant::now() + END;
        while Instant::now() < until {
            match child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => sleep(Duration::from_millis(1)),
                Err(_) => return None,
            }
        }
        None
    }

    fn complaint(&mut self) -> String {
        // Ended, so nothing more comes; a process that isn't could hold us up.
        let Some(child) = &mut self.child else { return String::new() };
        let (Ok(Some(_)), Some(stream)) = (child.try_wait(), child.stderr.take()) else {
            return String::new();
        };
        let mut said = Vec::new();
        let _ = stream.take(MAX_COMPLAINT).read_to_end(&mut said);
        match said.trim_ascii() {
            [] => String::new(),
            said => format!(": {}", Text::message(said)),
        }
    }
}

impl Drop for Attestor {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = child.kill();
        self.end();
    }
}

/// A socket that is read until a moment.
struct Timed<'a> {
    socket: &'a UnixStream,
    until: Instant,
}

impl io::Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.socket.set_read_timeout(Some(left))?;
        io::Read::read(&mut self.socket, buffer)
    }
}

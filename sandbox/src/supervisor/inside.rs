//! What a pod that was measured gets while it runs: its secrets, once, and evidence over its own
//! nonces.
//!
//! The guest is hostile. It can ask for evidence as often as it wants: one question at a time is
//! answered, and one in a second, so that it can't keep the TPM from other pods; a guest that does
//! not read its answer holds up nobody else.

use super::event::Event;
use crate::measure::{MeasureError, Witness};
use crate::message::Messages;
use sandbox_protocol::evidence::{Header, Kind, MAX_EVIDENCE, read_question};
use sandbox_protocol::secret::KEY;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Least time from the beginning of one question to that of the next.
const PACE: Duration = Duration::from_secs(1);

/// How long a guest may take for its question, or for taking some of the answer in.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who can prove a pod.
pub trait Prover: Send + Sync {
    /// Its secrets, in their order, sealed for this key.
    ///
    /// # Errors
    /// See [`MeasureError`].
    fn secrets(&self, guest_key: &[u8; KEY]) -> Result<Vec<Vec<u8>>, MeasureError>;

    /// Evidence over a nonce, with this key.
    ///
    /// # Errors
    /// See [`MeasureError`].
    fn evidence(&self, guest_key: &[u8; KEY], nonce: &[u8]) -> Result<Vec<u8>, MeasureError>;
}

impl Prover for Witness {
    fn secrets(&self, guest_key: &[u8; KEY]) -> Result<Vec<Vec<u8>>, MeasureError> {
        self.secrets(guest_key)
    }

    fn evidence(&self, guest_key: &[u8; KEY], nonce: &[u8]) -> Result<Vec<u8>, MeasureError> {
        self.evidence(guest_key, nonce)
    }
}

/// A pod that was measured.
pub struct Inside {
    prover: Arc<dyn Prover>,
    messages: Messages,
    /// What the guest has made, once it has said so.
    key: Option<[u8; KEY]>,
    /// A question that came by another way than the key, and before it.
    early: Option<UnixStream>,
    /// Whether a question is being answered.
    busy: Arc<AtomicBool>,
    /// When the last question came.
    last: Arc<Mutex<Option<Instant>>>,
}

impl Inside {
    /// A pod that this prover can prove.
    pub fn new(prover: Arc<dyn Prover>, messages: Messages) -> Self {
        let busy = Arc::new(AtomicBool::new(false));
        Self { prover, messages, key: None, early: None, busy, last: Arc::default() }
    }

    /// Takes the guest's key, and asks for the secrets if there are some; they come as an event.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn take_key(
        &mut self,
        key: [u8; KEY],
        has_secrets: bool,
        events: SyncSender<Event>,
    ) -> io::Result<()> {
        self.key = Some(key);
        if let Some(early) = self.early.take() {
            self.answer(early);
        }
        if !has_secrets {
            return Ok(());
        }
        let prover = self.prover.clone();
        let ask = move || {
            let secrets = prover.secrets(&key).map_err(|error| error.to_string());
            // Without a receiver nobody waits any more.
            let _ = events.send(Event::Secrets(secrets));
        };
        thread::Builder::new().spawn(ask).map(drop)
    }

    /// Answers a question of the guest.
    pub fn answer(&mut self, mut stream: UnixStream) {
        // Five bytes into a socket that nothing was sent over yet don't block.
        let busy = Header { kind: Kind::Busy, length: 0 }.to_bytes();
        let Some(key) = self.key else {
            // The key comes another way, and may be on it. One question waits for it.
            if self.early.is_some() {
                let _ = stream.write_all(&busy);
            } else {
                self.early = Some(stream);
            }
            return;
        };
        if self.busy.swap(true, Ordering::AcqRel) {
            let _ = stream.write_all(&busy);
            return;
        }
        let over = Over(self.busy.clone());
        let (prover, last, messages) = (self.prover.clone(), self.last.clone(), self.messages);
        let work = move || {
            let _over = over;
            // A guest that breaks off has its reasons.
            let _ = converse(stream, &key, prover.as_ref(), &last, messages);
        };
        // Without a thread the connection is closed, and the next question may have one.
        let _ = thread::Builder::new().spawn(work);
    }
}

/// The end of an answer, however it comes about.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn converse(
    mut stream: UnixStream,
    key: &[u8; KEY],
    prover: &dyn Prover,
    last: &Mutex<Option<Instant>>,
    messages: Messages,
) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let nonce = read_question(&mut stream)?;
    let earliest = {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let earliest = last.map_or(now, |last| now.max(last + PACE));
        *last = Some(earliest);
        earliest
    };
    thread::sleep(earliest.saturating_duration_since(Instant::now()));
    let evidence = prover.evidence(key, &nonce);
    let length = evidence.as_ref().ok().and_then(|evidence| u32::try_from(evidence.len()).ok());
    match (evidence, length) {
        (Ok(evidence), Some(length)) if length <= MAX_EVIDENCE => {
            stream.write_all(&Header { kind: Kind::Evidence, length }.to_bytes())?;
            stream.write_all(&evidence)
        }
        (outcome, _) => {
            let why = match outcome {
                Ok(_) => "it would be too long".to_owned(),
                Err(error) => error.to_string(),
            };
            messages.debug(format_args!("no evidence for the pod: {why}"));
            // The reason names files of the host, which are none of the guest's business.
            let reason = "the host cannot make evidence; its owner finds out why with --debug";
            let length = u32::try_from(reason.len()).unwrap_or_default();
            stream.write_all(&Header { kind: Kind::Refused, length }.to_bytes())?;
            stream.write_all(reason.as_bytes())
        }
    }
}

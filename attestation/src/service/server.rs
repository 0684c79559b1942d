//! The network: TLS, one thread for each connection, and limits for everything that strangers do.
//!
//! | what | limit |
//! |---|---|
//! | connections | `limits.connections`, half of them from one address; more are closed at once |
//! | TLS and headers | [`Timing::head`], 8 KiB |
//! | body | 16 MiB, at [`Timing::rate`] at least; 128 MiB for all, half of that for one address |
//! | parsing and verifying | as many at once as there are processors |
//! | requests | `limits.address` |
//! | lines in the log about strangers | [`NOISE`] |

use super::{
    Document as _, ErrorAnswer, Rate, Refusal, Service,
    http::{self, Endpoint, Head, MAX_HEAD},
    limit::{Budget, Limiter},
};
use crate::record::VersionOne;
use rustix::event::{PollFd, PollFlags, poll};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use sandbox_image::Text;
use std::{
    fmt,
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, TcpListener, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Condvar, Mutex, PoisonError, RwLock, mpsc},
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Bytes of all bodies together.
const MAX_BODIES: usize = 128 << 20;

/// Bytes of all bodies from one address.
const MAX_BODIES_EACH: usize = MAX_BODIES / 2;

/// Lines about those whom nobody knows.
const NOISE: Rate = Rate { burst: 100, per_second: 5 };

/// What is read after an answer that came before the request's end, so that the answer arrives.
const MAX_LINGER: usize = 1 << 20;

/// The server can't be what it should.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Certificate or key can't be used.
    #[error("the certificate and its key can't be used: {0}")]
    Certificate(String),
    /// Connections can't be taken.
    #[error("cannot wait for connections: {0}")]
    Listen(#[from] io::Error),
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// TLS and the headers.
    pub(super) head: Duration,
    /// On top of what the body's length allows.
    pub(super) body: Duration,
    /// Bytes of the body in a second.
    pub(super) rate: usize,
    /// Until it is a request's turn to be verified.
    pub(super) turn: Duration,
    /// The answer.
    pub(super) answer: Duration,
    /// For the client to read it.
    pub(super) linger: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            rate: 256 << 10,
            turn: Duration::from_secs(10),
            answer: Duration::from_secs(15),
            linger: Duration::from_secs(2),
        }
    }
}

/// Where lines of the log go.
pub type Log = Box<dyn Fn(&str) + Send + Sync>;

/// A service on a network.
pub struct Server {
    service: Service,
    tls: RwLock<Arc<ServerConfig>>,
    timing: Timing,
    connections: Budget,
    bodies: Budget,
    judges: Turns,
    log: Log,
    noise: Limiter<()>,
    unsaid: Mutex<u64>,
}

impl fmt::Debug for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Server").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Server {
    /// A server that shows a certificate, with those between it and its authority's, and has its
    /// key; both in PEM.
    ///
    /// # Errors
    /// [`ServerError::Certificate`]
    pub fn new(
        service: Service,
        certificate: &[u8],
        key: &[u8],
        log: Log,
    ) -> Result<Self, ServerError> {
        let connections = service.known().settings.limits.connections as usize;
        let judges = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            service,
            tls: RwLock::new(tls(certificate, key)?),
            timing: Timing::default(),
            connections: Budget::new(connections, connections / 2),
            bodies: Budget::new(MAX_BODIES, MAX_BODIES_EACH),
            judges: Turns::new(judges),
            log,
            noise: Limiter::new(),
            unsaid: Mutex::new(0),
        })
    }

    /// The same with other limits of time.
    #[cfg(test)]
    pub(super) fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// What decides.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Shows another certificate from now on.
    ///
    /// # Errors
    /// [`ServerError::Certificate`]; the one that was there stays then.
    pub fn set_certificate(&self, certificate: &[u8], key: &[u8]) -> Result<(), ServerError> {
        let tls = tls(certificate, key)?;
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
        Ok(())
    }

    /// Takes connections until something can be read from `wake`.
    ///
    /// # Errors
    /// [`ServerError::Listen`]
    pub fn run(
        self: &Arc<Self>,
        listener: &TcpListener,
        wake: BorrowedFd<'_>,
    ) -> Result<(), ServerError> {
        listener.set_nonblocking(true)?;
        loop {
            let mut ready = [
                PollFd::new(&wake, PollFlags::IN),
                PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            ];
            match poll(&mut ready, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            if !ready[0].revents().is_empty() {
                return Ok(());
            }
            match listener.accept() {
                Ok((stream, from)) => self.take(stream, from.ip()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    // One that was gone before it was taken, or there are no descriptors left.
                    self.strange(&format!("cannot take a connection: {error}"));
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    /// Waits for the connections that are left; whether all have come to their end.
    pub fn finish(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.connections.taken() > 0 {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Answers a connection in a thread of its own, if there is room for it.
    fn take(self: &Arc<Self>, stream: TcpStream, from: IpAddr) {
        let server = Arc::clone(self);
        let (say, said) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("connection".to_owned()).spawn(move || {
            let share = server.connections.take(from, 1);
            // Whether the place is taken is known before the next connection is.
            let _ = say.send(());
            match share {
                Some(_) => server.serve(stream, from),
                None => server.strange(&format!("{from}: too many connections")),
            }
        });
        match thread {
            Ok(_) => drop(said.recv()),
            Err(error) => self.strange(&format!("{from}: cannot start a thread: {error}")),
        }
    }

    fn serve(&self, stream: TcpStream, from: IpAddr) {
        let tls = Arc::clone(&self.tls.read().unwrap_or_else(PoisonError::into_inner));
        let Ok(connection) = ServerConnection::new(tls) else { return };
        let until = Instant::now() + self.timing.head;
        let mut stream = StreamOwned::new(connection, Timed { stream, until });
        if let Err(error) = stream.sock.stream.set_nonblocking(false) {
            return self.strange(&format!("{from}: {error}"));
        }
        let _ = stream.sock.stream.set_nodelay(true);
        let answered = match self.request(&mut stream, from) {
            Ok(answered) => answered,
            Err(Broken(error)) => {
                self.strange(&format!("{from}: {}", Text::message(error.to_string())));
                return;
            }
        };
        let (status, body) = match answered {
            Ok(body) => (200, body),
            Err(Refusal { status, why }) => {
                let why = Text::message(why).to_string();
                self.strange(&format!("{from}: refused ({status}): {why}"));
                let error = ErrorAnswer { version: VersionOne, error: cut(why) };
                (status, error.to_json().unwrap_or_default())
            }
        };
        stream.sock.until = Instant::now() + self.timing.answer;
        let sent = stream.write_all(&http::answer(status, &body)).and_then(|()| {
            stream.conn.send_close_notify();
            stream.flush()
        });
        if let Err(error) = sent {
            return self.strange(&format!("{from}: cannot answer: {error}"));
        }
        self.linger(&mut stream.sock);
    }

    /// Reads a request and answers it.
    fn request(&self, stream: &mut Stream, from: IpAddr) -> Result<Answered, Broken> {
        let mut bytes = Vec::new();
        let (head, size) = loop {
            let mut chunk = [0; 2048];
            let count = stream.read(&mut chunk)?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            bytes.extend_from_slice(&chunk[..count]);
            match Head::parse(&bytes) {
                Ok(Some(found)) => break found,
                Ok(None) if bytes.len() < MAX_HEAD => {}
                Ok(None) => return Ok(Err(refused(http::HeadError::TooLong))),
                Err(error) => return Ok(Err(refused(error))),
            }
        };
        if let Err(refusal) = self.service.admit(from, Instant::now()) {
            return Ok(Err(refusal));
        }
        let mut body = bytes.split_off(size);
        if body.len() > head.length {
            return Ok(Err(Refusal::new(400, "the body is longer than was said")));
        }
        let Some(_share) = self.bodies.take(from, head.length) else {
            return Ok(Err(Refusal::new(503, "too many long requests at once")));
        };
        let seconds = u64::try_from(head.length / self.timing.rate).unwrap_or(u64::MAX);
        stream.sock.until = Instant::now() + self.timing.body + Duration::from_secs(seconds);
        if head.expects_continue && body.is_empty() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            stream.flush()?;
        }
        while body.len() < head.length {
            let mut chunk = [0; 16 << 10];
            let most = chunk.len().min(head.length - body.len());
            let count = stream.read(&mut chunk[..most])?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            body.extend_from_slice(&chunk[..count]);
        }
        let now = Instant::now();
        Ok(match head.endpoint {
            Endpoint::Challenge => self.service.challenge(&body, now),
            Endpoint::Evidence => match self.judges.wait(self.timing.turn) {
                None => Err(Refusal::new(503, "too many are to be verified at once")),
                Some(_turn) => {
                    let now = (Instant::now(), SystemTime::now());
                    self.service.evidence(&body, from, now).map(|(answer, notice)| {
                        (self.log)(&format!("{from}: {notice}"));
                        answer
                    })
                }
            },
        })
    }

    /// Lets the client read an answer that came before it had sent everything: what is thrown away
    /// unread would make the system throw away the answer, too.
    fn linger(&self, timed: &mut Timed) {
        let _ = timed.stream.shutdown(Shutdown::Write);
        timed.until = Instant::now() + self.timing.linger;
        let (mut chunk, mut left) = ([0; 4096], MAX_LINGER);
        while let Ok(count @ 1..) = timed.read(&mut chunk) {
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
    }

    /// A line about somebody whom nobody knows; of very many, only their number.
    fn strange(&self, line: &str) {
        let mut unsaid = self.unsaid.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.noise.take(&(), NOISE, Instant::now()) {
            *unsaid += 1;
            return;
        }
        if *unsaid > 0 {
            (self.log)(&format!("{unsaid} lines like the following one were left out"));
            *unsaid = 0;
        }
        (self.log)(line);
    }
}

type Stream = StreamOwned<ServerConnection, Timed>;

/// An answer's body.
type Answered = Result<Vec<u8>, Refusal>;

/// The connection can't be used for an answer either.
struct Broken(io::Error);

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

fn refused(error: http::HeadError) -> Refusal {
    Refusal::new(error.status(), error.to_string())
}

/// What an [`ErrorAnswer`] may have.
fn cut(mut text: String) -> String {
    let most = (0..=1000).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    text.truncate(most);
    text
}

fn tls(certificate: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, ServerError> {
    let failed = |error: String| ServerError::Certificate(Text::new(error).to_string());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| failed("the certificate's PEM is malformed".to_owned()))?;
    if chain.is_empty() {
        return Err(failed("the file has no certificate in PEM".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| failed("the key is not one in PEM".to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| failed(error.to_string()))?;
    Ok(Arc::new(config))
}

/// A socket that is used until a moment.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")),
            left => Ok(Some(left)),
        }
    }
}

/// The system's word for a limit that has passed is that something would block.
fn named(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "it took too long"),
        _ => error,
    }
}

impl Read for Timed {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(to).map_err(named)
    }
}

impl Write for Timed {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(from).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// So many at once.
#[derive(Debug)]
struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One of them, until it is dropped.
#[derive(Debug)]
struct Turn<'a>(&'a Turns);

impl Turns {
    fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), freed: Condvar::new() }
    }

    fn wait(&self, patience: Duration) -> Option<Turn<'_>> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.freed.wait_timeout_while(free, patience, |free| *free == 0);
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(1)?;
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

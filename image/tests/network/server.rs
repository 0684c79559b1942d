//! A server that answers as a test tells it to, also as no server should.

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use sandbox_image::http::{Certificates, Options, Retry, Timeouts};
use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, LazyLock, Mutex},
    thread,
    time::Duration,
};

/// What a client asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// With the query.
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(known, _)| known == name);
        let first = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "{name} comes twice");
        first
    }
}

/// Writes an answer. After an error the connection is cut off.
pub type Answers = dyn Fn(&Asked, &mut dyn Write) -> io::Result<()> + Send + Sync;

/// Runs until the test ends.
pub struct Server {
    /// `HOST:PORT`
    pub authority: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

struct Identity {
    certificate: String,
    config: Arc<ServerConfig>,
}

/// One certificate for all servers.
static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    // Every address is a machine of its own to a test that needs port 443.
    let addresses = (1..64).map(|number| format!("127.0.0.{number}"));
    let names: Vec<_> = addresses.chain(["localhost".to_owned()]).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
    Identity { certificate: made.cert.pem(), config: Arc::new(config) }
});

impl Server {
    pub fn https(
        answers: impl Fn(&Asked, &mut dyn Write) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start(any_port(), true, Arc::new(answers))
    }

    pub fn http(
        answers: impl Fn(&Asked, &mut dyn Write) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start(any_port(), false, Arc::new(answers))
    }

    pub fn start(listener: TcpListener, tls: bool, answers: Arc<Answers>) -> Self {
        let authority = format!("localhost:{}", listener.local_addr().unwrap().port());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let all = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, asked) = (answers.clone(), all.clone());
                thread::spawn(move || {
                    // A client that goes away is none of the server's business.
                    let _ = if tls {
                        serve_tls(stream, &*answers, &asked)
                    } else {
                        serve(&stream, &stream, &*answers, &asked)
                    };
                });
            }
        });
        Self { authority, asked }
    }

    pub fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://{}{path}", self.authority)
    }

    /// What it was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn any_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn serve_tls(stream: TcpStream, answers: &Answers, asked: &Mutex<Vec<Asked>>) -> io::Result<()> {
    let connection = ServerConnection::new(IDENTITY.config.clone()).unwrap();
    let stream = Mutex::new(StreamOwned::new(connection, stream));
    let result = serve(Locked(&stream), Locked(&stream), answers, asked);
    if result.is_ok() {
        let mut stream = stream.lock().unwrap();
        stream.conn.send_close_notify();
        stream.flush()?;
    }
    result
}

/// Both halves of a TLS stream.
struct Locked<'a>(&'a Mutex<StreamOwned<ServerConnection, TcpStream>>);

impl Read for Locked<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.0.lock().unwrap().read(to)
    }
}

impl Write for Locked<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap().flush()
    }
}

/// Answers one request.
fn serve(
    from: impl Read,
    mut to: impl Write,
    answers: &Answers,
    asked: &Mutex<Vec<Asked>>,
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut line = String::new();
    from.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut this = Asked { method, path, headers, body: Vec::new() };
    if let Some(length) = this.header("content-length") {
        this.body = vec![0; length.parse().unwrap()];
        from.read_exact(&mut this.body)?;
    }
    asked.lock().unwrap().push(this.clone());
    answers(&this, &mut to)?;
    to.flush()
}

/// An answer as it should be.
pub fn answer(
    to: &mut dyn Write,
    status: u16,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    head(to, status, headers, Some(body.len()))?;
    to.write_all(body)
}

/// An answer without its body.
pub fn head(
    to: &mut dyn Write,
    status: u16,
    headers: &[(&str, &str)],
    length: Option<usize>,
) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if let Some(length) = length {
        text += &format!("Content-Length: {length}\r\n");
    }
    to.write_all((text + "\r\n").as_bytes())
}

/// Writes so much that a client has to give up.
pub fn endless(to: &mut dyn Write) -> io::Result<()> {
    loop {
        to.write_all(&[b'x'; 64 << 10])?;
    }
}

/// Cuts off the connection.
pub fn cut() -> io::Result<()> {
    Err(io::Error::other("cut"))
}

/// Options that trust the servers, and wait for nothing.
pub fn options() -> Options {
    let roots = vec![IDENTITY.certificate.clone()];
    Options {
        certificates: Certificates { roots, ..Certificates::default() },
        timeouts: Timeouts {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            stall: Duration::from_secs(10),
            document: Duration::from_secs(10),
        },
        retry: Retry {
            attempts: 3,
            first_delay: Duration::from_millis(1),
            longest_delay: Duration::from_millis(5),
        },
        ..Options::default()
    }
}

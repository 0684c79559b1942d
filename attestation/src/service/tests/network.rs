//! The service on a network, and what strangers do to it.

use super::World;
use crate::{
    evidence::Evidence,
    service::{Challenge, Client, ClientError, EVIDENCE, MAX_REQUEST, Server, server::Timing},
    verify::{
        Status,
        tests::machine::{Machine, POD},
    },
    wire::Public,
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::ServerName};
use sandbox_image::http::Certificates;
use serde_json::json;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant, SystemTime},
};

/// A service that listens, until it is dropped.
pub(super) struct Net {
    pub(super) world: World,
    pub(super) certificate: String,
    pub(super) address: SocketAddr,
    server: Arc<Server>,
    lines: Arc<Mutex<Vec<String>>>,
    waker: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Net {
    pub(super) fn new() -> Self {
        Self::with(json!({}))
    }

    fn with(settings: serde_json::Value) -> Self {
        let world = World::new();
        world.settings(settings);
        world.policy("team", timeless());
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&lines);
        let log = Box::new(move |line: &str| to.lock().unwrap().push(line.to_owned()));
        let service = world.service();
        let server = Server::new(service, certificate.as_bytes(), key.as_bytes(), log).unwrap();
        let timing = Timing {
            head: Duration::from_millis(700),
            body: Duration::from_millis(700),
            linger: Duration::from_millis(500),
            ..Timing::default()
        };
        let server = Arc::new(server.with_timing(timing));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (wake, waker) = UnixStream::pair().unwrap();
        let runs = Arc::clone(&server);
        let thread = thread::spawn(move || runs.run(&listener, wake.as_fd()).unwrap());
        Self { world, certificate, address, server, lines, waker, thread: Some(thread) }
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(super) fn certificates(&self) -> Certificates {
        Certificates { roots: vec![self.certificate.clone()], ..Certificates::default() }
    }

    pub(super) fn client(&self) -> Client {
        let key = self.world.open().public_key().unwrap();
        Client::new(&self.url(), self.certificates(), &key).unwrap()
    }

    /// Evidence for a challenge that was asked for over the network.
    pub(super) fn evidence(&mut self, client: &Client) -> Result<Evidence, ClientError> {
        let host = Public::parse(&self.world.machine.ak_public()).unwrap().name();
        let Challenge { nonce, select, .. } = client.challenge(&host, &POD.parse().unwrap())?;
        assert_eq!(select, self.world.machine.selection);
        self.world.machine.nonce = nonce;
        Ok(self.world.machine.evidence())
    }

    /// That a host is answered, however busy strangers keep the service.
    fn serves(&mut self) {
        let client = self.client();
        let evidence = self.evidence(&client).unwrap();
        let answer = client.evidence(&evidence, &[], SystemTime::now()).unwrap();
        assert_eq!(answer.claims.submods[POD].ear_status, Status::Affirming);
    }

    fn plain(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn tls(&self) -> StreamOwned<ClientConnection, TcpStream> {
        use rustls::pki_types::{CertificateDer, pem::PemObject as _};
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::from(self.address.ip());
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        StreamOwned::new(connection, self.plain())
    }

    /// What is answered to a request.
    fn asked(&self, request: &[u8]) -> String {
        let mut stream = self.tls();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.waker.write_all(b"x");
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || thread::panicking());
    }
}

/// The policy without what depends on the time of the year.
fn timeless() -> crate::verify::Document {
    let mut policy = Machine::policy();
    policy.max_evidence_age = None;
    policy.max_pod_age = None;
    policy.endorsement_keys.roots.clear();
    policy.endorsement_keys.by_enroller = true;
    policy
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into()
}

#[test]
fn a_host_is_answered_over_tls() {
    let mut net = Net::new();
    net.serves();
    assert_eq!(net.world.kept().len(), 1);
    assert!(net.lines().iter().any(|line| line.contains("policy team: affirming")));
    assert!(net.server.finish(Duration::from_secs(5)));
}

#[test]
fn what_is_no_request_is_refused_in_words() {
    let net = Net::new();
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404 Not Found"),
        (b"GET /v1/challenge HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        (b"\0\0\0\0\r\n\r\n", "400 Bad Request"),
        (b"POST /v1/challenge HTTP/1.1\r\n\r\n", "411 Length Required"),
        (b"POST /v1/evidence HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "411 Length"),
        (b"POST /v1/challenge HTTP/1.1\r\nContent-Length: 5000\r\n\r\n", "413 Content Too Large"),
        (&post("/v1/challenge", "{"), "400 Bad Request"),
        (&post("/v1/challenge", "[]"), "400 Bad Request"),
        (&post("/v1/evidence", "{}"), "400 Bad Request"),
        (&post("/v1/evidence", &"[".repeat(100_000)), "400 Bad Request"),
        (&[&post("/v1/challenge", "{}")[..], b"more"].concat(), "400 Bad Request"),
    ] {
        let answer = net.asked(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(body["version"] == 1 && body["error"].is_string(), "{answer}");
        assert!(answer.contains("Connection: close"), "{answer}");
    }
}

#[test]
fn a_client_that_waits_before_its_body_is_told_to_go_on() {
    let net = Net::new();
    let mut stream = net.tls();
    let head = "POST /v1/challenge HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").unwrap();
    let mut rest = String::new();
    let _ = stream.read_to_string(&mut rest);
    assert!(rest.starts_with("HTTP/1.1 400"), "{rest}");
}

/// Bytes that come slowly, before TLS, in its handshake, in the headers and in the body: each
/// connection ends when its time is over, and hosts are answered meanwhile.
#[test]
fn who_is_slow_is_cut_off_and_keeps_nobody_waiting() {
    let mut net = Net::new();
    let begin = Instant::now();
    let silent: Vec<_> = (0..40).map(|_| net.plain()).collect();
    let mut dripping: Vec<_> = (0..20).map(|_| net.plain()).collect();
    let mut heads: Vec<_> = (0..20).map(|_| net.tls()).collect();
    let mut bodies: Vec<_> = (0..20).map(|_| net.tls()).collect();
    for head in &mut heads {
        head.write_all(b"POST /v1/chal").unwrap();
    }
    for body in &mut bodies {
        let head = format!("POST {EVIDENCE} HTTP/1.1\r\nContent-Length: 1000\r\n\r\n");
        body.write_all(head.as_bytes()).unwrap();
    }
    net.serves();
    // A byte now and then does not prolong it. Errors are what is waited for here.
    let mut last = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        for stream in &mut dripping {
            let _ = stream.write(&[0x16]);
        }
        for stream in heads.iter_mut().chain(&mut bodies) {
            let _ = stream.write(b"x");
            let _ = stream.flush();
        }
        if last.elapsed() > Duration::from_millis(500) {
            net.serves();
            last = Instant::now();
        }
        sleep(Duration::from_millis(50));
    }
    for mut stream in silent {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(net.server.finish(Duration::from_secs(5)), "connections are left");
    assert!(net.lines().iter().any(|line| line.contains("took too long")), "{:?}", net.lines());
}

#[test]
fn what_is_not_tls_is_cut_off() {
    let mut net = Net::new();
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 4096],
        &[0xff; 70_000],
        b"\x16\x03\x01\xff\xff\x01\x00\x00\x00",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    ];
    for bytes in garbage {
        let mut stream = net.plain();
        let _ = stream.write_all(bytes);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 100, "{rest:?}");
    }
    net.serves();
}

#[test]
fn one_address_gets_half_of_the_connections() {
    let net = Net::with(json!({"limits": {"connections": 8}}));
    let mut streams: Vec<_> = (0..8).map(|_| net.plain()).collect();
    let closed = streams.split_off(4);
    for mut stream in closed {
        // At once, and not when its time is over.
        let begin = Instant::now();
        let _ = stream.read_to_end(&mut Vec::new());
        assert!(begin.elapsed() < Duration::from_millis(600));
    }
    // It is the client that waits until there is room.
    let mut net = net;
    net.serves();
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_is_read() {
    let mut net = Net::new();
    let mut stream = net.tls();
    let length = MAX_REQUEST + 1;
    let head = format!("POST {EVIDENCE} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // It sends all the same, and is answered nevertheless.
    let _ = stream.write_all(&vec![b'x'; 500_000]);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    net.serves();
}

/// As long as can be, and nonsense: refused, one after the other, and nothing is left of it.
#[test]
fn long_nonsense_is_refused() {
    let mut net = Net::new();
    let lists = "[".repeat(MAX_REQUEST);
    let text = format!("\"{}\"", "x".repeat(MAX_REQUEST - 2));
    let many = format!("{{\"version\":1,\"secrets\":[{}]}}", "\"a\",".repeat(1_000_000));
    for body in [lists, text, many] {
        let answer = net.asked(&post(EVIDENCE, &body));
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    net.serves();
}

#[test]
fn one_address_may_not_hold_all_memory() {
    let mut net = Net::new();
    // 16 MiB each: five are more than half of what there is.
    let head = format!("POST {EVIDENCE} HTTP/1.1\r\nContent-Length: {MAX_REQUEST}\r\n\r\n");
    let mut streams: Vec<_> = (0..5).map(|_| net.tls()).collect();
    for stream in &mut streams {
        stream.write_all(head.as_bytes()).unwrap();
        stream.flush().unwrap();
        sleep(Duration::from_millis(50));
    }
    let mut answer = String::new();
    let _ = streams.pop().unwrap().read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    drop(streams);
    net.serves();
}

#[test]
fn what_many_strangers_do_fills_no_log() {
    let net = Net::new();
    for _ in 0..300 {
        let mut stream = net.plain();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let lines = net.lines().len();
    assert!((50..250).contains(&lines), "{lines}");
}

#[test]
fn another_certificate_is_shown_from_now_on() {
    let mut net = Net::new();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let old = net.client();
    net.server.set_certificate(b"", key.as_bytes()).unwrap_err();
    net.server.set_certificate(pem.as_bytes(), b"x").unwrap_err();
    net.server.set_certificate(net.certificate.as_bytes(), key.as_bytes()).unwrap_err();
    net.serves();
    net.server.set_certificate(pem.as_bytes(), key.as_bytes()).unwrap();
    assert!(matches!(net.evidence(&old), Err(ClientError::Http(_))));
    net.certificate = pem;
    net.serves();
}

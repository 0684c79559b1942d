//! Services that lie, are slow, or are not there: the client believes none of it.

use super::network::Net;
use crate::{
    evidence::Evidence,
    record::VersionOne,
    service::{Client, ClientError, Document as _, ErrorAnswer, EvidenceAnswer, SecretName, http},
    verify::{
        Policy, Verdict,
        tests::machine::{Machine, OTHER, POD, digest, key},
        token::{self, Issuer},
        verify,
    },
    wire::Public,
};
use p256::{
    ecdsa::SigningKey,
    pkcs8::{EncodePublicKey as _, LineEnding},
};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use sandbox_image::http::Certificates;
use serde_json::value::to_raw_value;
use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

/// How long the client waits in these tests.
const PATIENCE: Duration = Duration::from_secs(3);

/// A service that says the same to everybody.
struct Liar {
    url: String,
    certificate: String,
}

impl Liar {
    fn saying(answer: Vec<u8>) -> Self {
        Self::after(Duration::ZERO, answer)
    }

    fn after(pause: Duration, answer: Vec<u8>) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(connection, stream.unwrap());
                let answer = answer.clone();
                thread::spawn(move || {
                    // All of the request, so that the answer is not lost.
                    let mut request = Vec::new();
                    let mut chunk = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut chunk) {
                        request.extend_from_slice(&chunk[..count]);
                        if let Ok(Some((head, size))) = http::Head::parse(&request)
                            && request.len() >= size + head.length
                        {
                            break;
                        }
                    }
                    thread::sleep(pause);
                    let _ = stream.write_all(&answer);
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                });
            }
        });
        Self { url, certificate: made.cert.pem() }
    }

    fn client(&self) -> Client {
        let roots = vec![self.certificate.clone()];
        let certificates = Certificates { roots, ..Certificates::default() };
        let key = key(50).verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
        Client::with_patience(&self.url, certificates, &key, PATIENCE).unwrap()
    }

    fn asked(&self, evidence: &Evidence) -> Result<(), ClientError> {
        self.client().evidence(evidence, &[], SystemTime::now()).map(drop)
    }
}

/// A verdict, and a token that is made of it.
fn signed(verdict: &Verdict, by: &SigningKey, now: SystemTime, secrets: &str) -> Vec<u8> {
    let digest = Policy::new(Machine::policy()).unwrap().digest().unwrap();
    let issuer = Issuer { key: by, developer: "liar", build: "1" };
    let token = token::issue(verdict, &digest, &issuer, now, Duration::from_secs(60)).unwrap();
    let answer = EvidenceAnswer {
        version: VersionOne,
        token,
        verdict: to_raw_value(verdict).unwrap(),
        secrets: serde_json::from_str(secrets).unwrap(),
        withheld: Vec::new(),
    };
    http::answer(200, &answer.to_json().unwrap())
}

fn verdict_of(evidence: &Evidence) -> Verdict {
    let policy = Policy::new(Machine::policy()).unwrap();
    verify(evidence, &evidence.nonce, &policy, crate::verify::tests::machine::now())
}

fn good() -> (Evidence, Verdict) {
    let evidence = Machine::new().evidence();
    let verdict = verdict_of(&evidence);
    assert!(verdict.passed(), "{verdict}");
    (evidence, verdict)
}

/// That what all tests here change is believed if it is not changed.
#[test]
fn what_the_service_has_signed_is_believed() {
    let (evidence, verdict) = good();
    let answer = signed(&verdict, &key(50), SystemTime::now(), "[]");
    Liar::saying(answer).asked(&evidence).unwrap();
}

#[test]
fn another_key_is_not_believed() {
    let (evidence, verdict) = good();
    let answer = signed(&verdict, &key(51), SystemTime::now(), "[]");
    let error = Liar::saying(answer).asked(&evidence).unwrap_err();
    assert!(matches!(error, ClientError::Token { .. }), "{error}");
    assert!(error.to_string().contains("not signed by the verifier"), "{error}");
}

#[test]
fn an_old_token_is_not_believed() {
    let (evidence, verdict) = good();
    let then = SystemTime::now() - Duration::from_secs(3600);
    let error = Liar::saying(signed(&verdict, &key(50), then, "[]")).asked(&evidence).unwrap_err();
    assert!(error.to_string().contains("not valid any more"), "{error}");
    // Nor one that was made for another question.
    let mut machine = Machine::new();
    machine.nonce = crate::evidence::Nonce::new([0x77; 32]).unwrap();
    let answer = signed(&verdict_of(&machine.evidence()), &key(50), SystemTime::now(), "[]");
    let error = Liar::saying(answer).asked(&evidence).unwrap_err();
    assert!(error.to_string().contains("another nonce"), "{error}");
}

#[test]
fn what_is_said_of_something_else_is_not_believed() {
    let (evidence, verdict) = good();
    type Change = fn(&mut Verdict);
    let changes: [(&str, Change); 4] = [
        ("pod", |verdict| verdict.facts.pod = OTHER.to_owned()),
        ("attestation key", |verdict| verdict.facts.attestation_key = Some("000b11".to_owned())),
        ("attestation key", |verdict| verdict.facts.attestation_key = None),
        ("guest's key", |verdict| verdict.facts.guest_key = Some("11".to_owned())),
    ];
    for (what, change) in changes {
        let mut verdict = verdict.clone();
        change(&mut verdict);
        let answer = signed(&verdict, &key(50), SystemTime::now(), "[]");
        match Liar::saying(answer).asked(&evidence).unwrap_err() {
            ClientError::Another { what: found, .. } => assert_eq!(found, what),
            other => panic!("{what}: {other}"),
        }
    }
}

#[test]
fn a_pod_that_fails_is_refused_with_the_reasons() {
    let mut machine = Machine::new();
    machine.events[2]["record"]["kernel"]["digest"] = digest("another").into();
    let evidence = machine.evidence();
    let answer = signed(&verdict_of(&evidence), &key(50), SystemTime::now(), "[]");
    let error = Liar::saying(answer).asked(&evidence).unwrap_err().to_string();
    assert!(error.contains("does not accept the pod: kernel: "), "{error}");
    // A verdict beside it that says something else changes nothing: it is not signed.
    let (_, fine) = good();
    let text = String::from_utf8(signed(&verdict_of(&evidence), &key(50), SystemTime::now(), "[]"));
    let body = text.unwrap().split_once("\r\n\r\n").unwrap().1.to_owned();
    let mut lie = EvidenceAnswer::parse(body.as_bytes()).unwrap();
    lie.verdict = to_raw_value(&fine).unwrap();
    let lie = http::answer(200, &lie.to_json().unwrap());
    let error = Liar::saying(lie).asked(&evidence).unwrap_err();
    assert!(matches!(error, ClientError::Failed { .. }), "{error}");
}

#[test]
fn a_secret_that_nobody_asked_for_is_refused() {
    let (evidence, verdict) = good();
    let secrets = r#"[{"name":"db","sealed":"AAAA"}]"#;
    let liar = Liar::saying(signed(&verdict, &key(50), SystemTime::now(), secrets));
    let error = liar.asked(&evidence).unwrap_err();
    assert!(error.to_string().contains("not asked for"), "{error}");
    let wanted: [SecretName; 1] = ["db".parse().unwrap()];
    let answer = liar.client().evidence(&evidence, &wanted, SystemTime::now()).unwrap();
    assert_eq!(answer.secrets.len(), 1);
}

#[test]
fn what_is_no_answer_is_refused() {
    let (evidence, verdict) = good();
    let fine = signed(&verdict, &key(50), SystemTime::now(), "[]");
    let half = fine[..fine.len() / 2].to_vec();
    let huge = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40);
    let endless = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &vec![b' '; (16 << 20) + 2]].concat();
    let moved =
        b"HTTP/1.1 307 Moved\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    for (answer, expected) in [
        (half, "the connection ended early"),
        (Vec::new(), "cannot be asked"),
        (b"HTTP/9 lies\r\n\r\n".to_vec(), "malformed"),
        (http::answer(200, b"{}"), "missing field"),
        (http::answer(200, b"<html>"), "verdict: "),
        (http::answer(500, b"<html>"), "refuses (status 500): it does not say why"),
        (huge.into_bytes(), "longer than"),
        (endless, "longer than"),
        (moved.to_vec(), "redirects"),
    ] {
        let begin = String::from_utf8_lossy(&answer[..answer.len().min(40)]).into_owned();
        let error = Liar::saying(answer).asked(&evidence).unwrap_err().to_string();
        assert!(error.contains(expected), "{begin}: {error}");
    }
}

/// What a service says goes to a terminal.
#[test]
fn a_refusal_is_told_without_its_control_characters() {
    let (evidence, _) = good();
    let error = ErrorAnswer { version: VersionOne, error: "no\u{1b}[2J\nyes".to_owned() };
    let liar = Liar::saying(http::answer(403, &error.to_json().unwrap()));
    let text = liar.asked(&evidence).unwrap_err().to_string();
    assert!(text.contains("refuses (status 403): no"), "{text}");
    assert!(!text.contains(['\u{1b}', '\n']), "{text}");
}

#[test]
fn a_service_that_is_slow_is_given_up() {
    let (evidence, verdict) = good();
    let answer = signed(&verdict, &key(50), SystemTime::now(), "[]");
    let slow = Liar::after(Duration::from_secs(60), answer);
    let begin = Instant::now();
    let error = slow.asked(&evidence).unwrap_err();
    assert!(begin.elapsed() < 2 * PATIENCE, "{:?}", begin.elapsed());
    assert!(error.to_string().contains("no answer in time"), "{error}");
    // A bit of patience there is.
    let (evidence, verdict) = good();
    let answer = signed(&verdict, &key(50), SystemTime::now(), "[]");
    Liar::after(Duration::from_millis(700), answer).asked(&evidence).unwrap();
}

#[test]
fn a_service_that_is_not_there_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let key = key(50).verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    let url = format!("https://{address}");
    let client = Client::with_patience(&url, Certificates::default(), &key, PATIENCE).unwrap();
    let host = Public::parse(&Machine::new().ak_public()).unwrap().name();
    let begin = Instant::now();
    let error = client.challenge(&host, &POD.parse().unwrap()).unwrap_err();
    assert!(begin.elapsed() < 2 * PATIENCE, "{:?}", begin.elapsed());
    assert!(error.to_string().contains("cannot be asked"), "{error}");
}

#[test]
fn tls_of_somebody_else_is_not_believed() {
    let mut net = Net::new();
    let key = net.world.open().public_key().unwrap();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let roots = vec![other.cert.pem()];
    let certificates = Certificates { roots, ..Certificates::default() };
    let client = Client::new(&net.url(), certificates, &key).unwrap();
    let error = net.evidence(&client).unwrap_err().to_string();
    assert!(error.contains("certificate is refused"), "{error}");
    // The right authority, and another name.
    let url = net.url().replace("127.0.0.1", "localhost");
    let client = Client::new(&url, net.certificates(), &key).unwrap();
    let error = net.evidence(&client).unwrap_err().to_string();
    assert!(error.contains("certificate is refused"), "{error}");
}

#[test]
fn a_url_is_one_of_https_and_a_key_is_a_key() {
    let pem = key(50).verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    let new = |url: &str, key: &str| Client::new(url, Certificates::default(), key);
    for url in ["https://a.example", "https://a.example:8443/below/", "https://[::1]:8443"] {
        new(url, &pem).unwrap();
    }
    for url in [
        "http://a.example",
        "ftp://a.example",
        "a.example",
        "https://user:password@a.example",
        "https://a.example/?x",
        "https://a.example/#x",
        "https://",
        "https://a b",
    ] {
        assert!(new(url, &pem).is_err(), "{url}");
    }
    for key in ["", "x", &pem.replace("PUBLIC", "PRIVATE")] {
        assert!(matches!(new("https://a.example", key), Err(ClientError::Key)), "{key}");
    }
}

//! A token server, as registries have one (distribution's `docs/spec/auth/`): it knows one user, and
//! hands out tokens that a real registry checks.

use crate::certificates::{Authority, Identity};
use crate::command::Tool;
use crate::http::{Answer, Request, Server};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

const SERVICE: &str = "registry of the tests";
const ISSUER: &str = "token server of the tests";

/// Whom it knows.
pub const USER: &str = "alice";
/// Her password.
pub const PASSWORD: &str = "correct-horse-battery";
/// What she can show instead of her password (`identitytoken`).
pub const REFRESH_TOKEN: &str = "refresh-7f3d1c";

/// A running token server.
#[derive(Debug)]
pub struct TokenServer {
    server: Server,
    authority: Authority,
    scheme: &'static str,
}

impl TokenServer {
    /// One with TLS, as this server.
    pub fn tls(identity: &Identity) -> Self {
        let authority = Authority::new();
        let signer = Signer::of(&authority);
        let server = Server::tls("127.0.0.1:0", identity, move |it| answer(&signer, it));
        Self { server, authority, scheme: "https" }
    }

    /// One without TLS.
    pub fn plain() -> Self {
        let authority = Authority::new();
        let signer = Signer::of(&authority);
        let server = Server::plain(move |it| answer(&signer, it));
        Self { server, authority, scheme: "http" }
    }

    /// `localhost:PORT`
    pub fn name(&self) -> String {
        self.server.name()
    }

    /// What it was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// The registry's settings.
    pub(crate) fn settings(&self) -> Value {
        json!({
            "realm": format!("{}://{}/token", self.scheme, self.server.name()),
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": self.authority.certificate(),
        })
    }
}

/// What signs tokens.
struct Signer {
    key: PathBuf,
    /// The certificate of the key, in base64.
    certificate: String,
}

impl Signer {
    fn of(authority: &Authority) -> Self {
        let Identity { certificate, key, .. } = authority.certify(&["tokens"]);
        let der = Tool::new("openssl")
            .with(["x509", "-outform", "DER"])
            .option("-in", &certificate)
            .run();
        Self { key, certificate: STANDARD.encode(der) }
    }

    /// A JSON Web Token (RFC 7519), signed by ES256.
    fn token(&self, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [self.certificate]});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let der = Tool::new("openssl")
            .with(["dgst", "-sha256"])
            .option("-sign", &self.key)
            .stdin(signed.clone())
            .run();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(raw_signature(&der)))
    }
}

/// Two numbers of 32 bytes, from the DER of a sequence of two integers.
fn raw_signature(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut raw = Vec::new();
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let number = &rest[2..2 + length];
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        raw.resize(raw.len() + 32 - number.len(), 0);
        raw.extend_from_slice(number);
        rest = &rest[2 + length..];
    }
    raw
}

/// What a client is given: a token with what it asked for if it is the known user or wants only to
/// read below `public/`, and 401 for a wrong password.
fn answer(signer: &Signer, request: &Request) -> Answer {
    let form = String::from_utf8_lossy(&request.body).into_owned();
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let fields = if request.method == "POST" { &form } else { query };
    let values = |wanted: &str| -> Vec<String> {
        let pairs = fields.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(name, _)| *name == wanted).map(|(_, value)| decoded(value)).collect()
    };
    let basic = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let known = match (request.header("authorization"), values("refresh_token").first()) {
        (Some(shown), _) if shown == format!("Basic {basic}") => true,
        (None, Some(shown)) if shown == REFRESH_TOKEN => true,
        (None, None) => false,
        _ => return Answer::status(401),
    };
    if values("service") != [SERVICE] {
        return Answer::status(400);
    }
    let mut access = Vec::new();
    for scope in values("scope").iter().flat_map(|scopes| scopes.split(' ')) {
        let mut parts = scope.split(':');
        let (Some("repository"), Some(name), Some(actions)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Answer::status(400);
        };
        let actions: Vec<&str> = actions
            .split(',')
            .filter(|action| known || (*action == "pull" && name.starts_with("public/")))
            .collect();
        access.push(json!({"type": "repository", "name": name, "actions": actions}));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": ISSUER, "sub": if known { USER } else { "" }, "aud": SERVICE, "jti": "1",
        "exp": now + 300, "nbf": now - 10, "iat": now, "access": access,
    });
    let token = signer.token(&claims);
    let answer = json!({"token": token, "access_token": token, "expires_in": 300});
    Answer::found(answer.to_string()).with("Content-Type", "application/json")
}

/// Without percent signs (RFC 3986) and with spaces for plus signs, as forms have them.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let digits = others.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        (rest, _) = match (first, code) {
            (b'%', Some(code)) => (&others[2..], bytes.push(code)),
            (b'+', _) => (others, bytes.push(b' ')),
            _ => (others, bytes.push(*first)),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

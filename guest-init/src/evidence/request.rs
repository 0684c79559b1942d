//! Requests of apps, and how responses are written (RFC 9112).

use sandbox_protocol::evidence::MAX_NONCE;
use serde_json::json;

/// Longest request that is read, in bytes, with all its fields.
const MAX_REQUEST: usize = 8 << 10;

/// Most fields of a request.
const MAX_FIELDS: usize = 64;

/// Shortest nonce: what nobody asks for twice.
const MIN_NONCE: usize = 16;

/// What an app wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// `GET /v1/pod`
    Pod,
    /// `GET /v1/evidence?nonce=HEX`
    Evidence(Vec<u8>),
}

/// What bytes of an app are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The beginning of a request.
    Incomplete,
    /// A request; what follows it is not looked at.
    Request(Request),
    /// Nothing that can be answered but with this response.
    Refused(Vec<u8>),
}

/// Reads a request.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let bounded = &bytes[..bytes.len().min(MAX_REQUEST)];
    let refused = |status, why| Parsed::Refused(error(status, why));
    match request.parse(bounded) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < MAX_REQUEST => return Parsed::Incomplete,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return refused(
                "431 Request Header Fields Too Large",
                "the request is longer than any that is answered here",
            );
        }
        Err(_) => return refused("400 Bad Request", "this is no request of HTTP/1.1"),
    }
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if !["/v1/pod", "/v1/evidence"].contains(&path) {
        return refused("404 Not Found", "there are /v1/pod and /v1/evidence?nonce=HEX");
    }
    if request.method != Some("GET") {
        return refused("405 Method Not Allowed", "the one method is GET");
    }
    let asked = match path {
        "/v1/pod" if query.is_empty() => Some(Request::Pod),
        "/v1/pod" => return refused("400 Bad Request", "no query is known here"),
        _ => query.strip_prefix("nonce=").and_then(nonce).map(Request::Evidence),
    };
    match asked {
        Some(request) => Parsed::Request(request),
        None => refused(
            "400 Bad Request",
            "evidence is over a nonce: ?nonce= and 16 to 64 bytes in hexadecimal digits",
        ),
    }
}

fn nonce(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() || !(MIN_NONCE..=MAX_NONCE).contains(&pairs.len()) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// A response up to its content.
pub(super) fn head(status: &str, length: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// A response that has what was asked for.
pub(super) fn json(content: &str) -> Vec<u8> {
    [head("200 OK", content.len()).as_slice(), content.as_bytes()].concat()
}

/// A response that says what is wrong.
pub(super) fn error(status: &str, why: &str) -> Vec<u8> {
    let content = json!({"version": 1, "error": why}).to_string();
    [head(status, content.len()).as_slice(), content.as_bytes()].concat()
}

/// The response while the host answers somebody else.
pub(super) fn busy() -> Vec<u8> {
    error("429 Too Many Requests", "the host is making evidence already; ask again")
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;

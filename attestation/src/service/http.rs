//! The little of HTTP/1.1 (RFC 9112) that the service speaks: one request with a body of a known
//! length, one answer, and the end of the connection.

use super::{CHALLENGE, EVIDENCE, MAX_REQUEST};

/// The longest request line with all headers.
pub const MAX_HEAD: usize = 8 << 10;

/// The most headers.
const MAX_HEADERS: usize = 64;

/// The longest request for a challenge.
const MAX_CHALLENGE: usize = 4 << 10;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A challenge.
    Challenge,
    /// A verdict.
    Evidence,
}

/// A request without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What is asked for.
    pub endpoint: Endpoint,
    /// Bytes of the body.
    pub length: usize,
    /// The client waits for a word before it sends the body (RFC 9110, 10.1.1).
    pub expects_continue: bool,
}

/// A request is not one that is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It is not HTTP.
    #[error("the request is malformed")]
    Malformed,
    /// Its headers are too long, or too many.
    #[error("the headers have more than {MAX_HEAD} bytes, or are more than {MAX_HEADERS}")]
    TooLong,
    /// Nothing is there.
    #[error("there is only {CHALLENGE} and {EVIDENCE}")]
    NotFound,
    /// It should be `POST`.
    #[error("only POST is answered")]
    Method,
    /// The body is of no known length.
    #[error("the body's length should be said, once, with Content-Length")]
    Length,
    /// The body is too long.
    #[error("the body is longer than {0} bytes")]
    Body(usize),
    /// It is something else than JSON.
    #[error("the body should be application/json")]
    Type,
    /// Something is expected that is not done here.
    #[error("nothing can be expected but 100-continue")]
    Expectation,
}

impl HeadError {
    /// The status of HTTP that says so.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooLong => 431,
            Self::NotFound => 404,
            Self::Method => 405,
            Self::Length => 411,
            Self::Body(_) => 413,
            Self::Type => 415,
            Self::Expectation => 417,
        }
    }
}

impl Head {
    /// Reads what has come in so far: the head and how many bytes it has, or nothing if it has not
    /// come to its end.
    ///
    /// # Errors
    /// See [`HeadError`].
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let size = match request.parse(bytes) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Err(HeadError::TooLong);
            }
            Err(_) => return Err(HeadError::Malformed),
        };
        if size > MAX_HEAD {
            return Err(HeadError::TooLong);
        }
        let (endpoint, most) = match request.path {
            Some(CHALLENGE) => (Endpoint::Challenge, MAX_CHALLENGE),
            Some(EVIDENCE) => (Endpoint::Evidence, MAX_REQUEST),
            _ => return Err(HeadError::NotFound),
        };
        if request.method != Some("POST") {
            return Err(HeadError::Method);
        }
        let (mut length, mut expects_continue) = (None, false);
        for header in request.headers.iter() {
            let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                // Two lengths, or one that is no number, are how requests are smuggled.
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                match value.parse::<u64>() {
                    Ok(found) if digits && length.is_none() => length = Some(found),
                    Err(_) if digits && length.is_none() => return Err(HeadError::Body(most)),
                    _ => return Err(HeadError::Length),
                }
            } else if is("transfer-encoding") {
                return Err(HeadError::Length);
            } else if is("expect") {
                match value.eq_ignore_ascii_case("100-continue") {
                    true => expects_continue = true,
                    false => return Err(HeadError::Expectation),
                }
            } else if is("content-type") {
                let kind = value.split(';').next().unwrap_or_default().trim();
                if !kind.eq_ignore_ascii_case("application/json") {
                    return Err(HeadError::Type);
                }
            }
        }
        let length = length.ok_or(HeadError::Length)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= most);
        let length = length.ok_or(HeadError::Body(most))?;
        Ok(Some((Self { endpoint, length, expects_continue }, size)))
    }
}

/// An answer with a JSON document, after which the connection ends.
pub(super) fn answer(status: u16, body: &[u8]) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    };
    let more = match status {
        405 => "Allow: POST\r\n",
        429 | 503 => "Retry-After: 1\r\n",
        _ => "",
    };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n{more}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

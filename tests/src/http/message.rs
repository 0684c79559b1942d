//! Requests and answers (RFC 9112).

use std::io::{self, Read, Write};
use std::thread::sleep;
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`
    pub method: String,
    /// The path with the query.
    pub target: String,
    /// Names in lower-case letters.
    pub headers: Vec<(String, String)>,
    /// What was sent along.
    pub body: Vec<u8>,
}

impl Request {
    /// A header by its name in lower-case letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Reads the next one; `None` at the connection's end.
    pub(super) fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let Some((first, headers)) = read_head(stream)? else { return Ok(None) };
        let mut words = first.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut request = Self { method, target, headers, body: Vec::new() };
        let length = request.header("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
        request.body.resize(length, 0);
        stream.read_exact(&mut request.body)?;
        Ok(Some(request))
    }
}

/// How an answer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// With its last byte.
    #[default]
    Whole,
    /// After so many bytes of the body, with the connection.
    CutAfter(usize),
    /// It goes on to its last byte, with a pause after every so many bytes.
    Slow {
        /// Bytes at once.
        bytes: usize,
        /// The pause between them.
        pause: Duration,
    },
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Headers; `Content-Length` is the body's length if it is not among them.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
    /// How it ends.
    pub end: End,
}

impl Answer {
    /// 200 with this content.
    pub fn found(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), end: End::Whole }
    }

    /// Another status, with an empty body.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::found("") }
    }

    /// To another place.
    pub fn redirect(to: impl Into<String>) -> Self {
        Self::status(307).with("Location", to)
    }

    /// With a header; one of the same name is replaced.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With another end.
    pub fn ending(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// Writes it, and says whether the connection ends with it.
    pub(super) fn write(&self, request: &Request, stream: &mut impl Write) -> io::Result<bool> {
        let mut head = format!("HTTP/1.1 {} Status\r\n", self.status);
        let has = |name: &str| self.headers.iter().any(|it| it.0.eq_ignore_ascii_case(name));
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !has("content-length") && !has("transfer-encoding") {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        stream.write_all((head + "\r\n").as_bytes())?;
        if request.method == "HEAD" {
            stream.flush()?;
            return Ok(false);
        }
        match self.end {
            End::Whole => stream.write_all(&self.body)?,
            End::CutAfter(bytes) => stream.write_all(&self.body[..bytes.min(self.body.len())])?,
            End::Slow { bytes, pause } => {
                for piece in self.body.chunks(bytes) {
                    stream.write_all(piece)?;
                    stream.flush()?;
                    sleep(pause);
                }
            }
        }
        stream.flush()?;
        // What lies about its length can't be followed by another answer.
        Ok(matches!(self.end, End::CutAfter(_)) || has("content-length"))
    }

    /// Reads the one to a request, to the connection's end.
    pub(super) fn read(request: &Request, stream: &mut impl Read) -> io::Result<Self> {
        let (first, headers) = read_head(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let mut body = Vec::new();
        stream.read_to_end(&mut body)?;
        // The length is that of what is sent on, except where nothing is.
        let is_kept = |name: &str| match name {
            "connection" => false,
            "content-length" => request.method == "HEAD",
            _ => true,
        };
        let headers = headers.into_iter().filter(|(name, _)| is_kept(name)).collect();
        Ok(Self { status, headers, body, end: End::Whole })
    }
}

/// The first line and the headers, with their names in lower-case letters.
type Head = (String, Vec<(String, String)>);

fn read_head(stream: &mut impl Read) -> io::Result<Option<Head>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    Ok(Some((first, headers.collect())))
}

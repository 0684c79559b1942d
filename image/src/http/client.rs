use super::{
    Authorization, Error, Options, Scheme, Url, UrlError, agents::Agents, certificates::host_key,
    error,
};
use std::{
    fs::File,
    io::{self, Read},
    ops::ControlFlow,
    os::unix::fs::FileExt as _,
    sync::Arc,
    thread,
    time::Instant,
};
use ureq::{
    SendBody,
    http::{HeaderMap, HeaderValue, Method, Request as HttpRequest, header},
};

/// The most redirects that are followed for one request.
pub(super) const MAX_REDIRECTS: usize = 8;
/// What is read of a body at once.
pub(super) const CHUNK: usize = 128 << 10;

/// A client for HTTP that trusts no server.
///
/// - http is refused unless it is allowed, and credentials never go over it.
/// - Redirects are few, never lead from https to http, and credentials don't follow them to
///   another scheme, host or port.
/// - Everything that comes is bounded in size, and what stalls is given up.
/// - What fails for a reason that may pass is tried again, some times.
///
/// Clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    options: Arc<Options>,
    agents: Agents,
}

/// What is asked of a server.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a [(&'static str, &'a str)],
    pub(crate) authorization: Option<&'a Authorization>,
    pub(crate) body: Body<'a>,
}

impl<'a> Request<'a> {
    pub(crate) fn get(url: &'a Url, headers: &'a [(&'static str, &'a str)]) -> Self {
        Self { method: Method::GET, url, headers, authorization: None, body: Body::None }
    }
}

/// What is sent with a request.
#[derive(Clone, Copy)]
pub(crate) enum Body<'a> {
    None,
    Bytes(&'a [u8]),
    /// So many bytes of a file from its beginning.
    File {
        file: &'a File,
        size: u64,
        on_bytes: &'a dyn Fn(u64) -> ControlFlow<()>,
    },
}

/// A server's answer; its body has not been read.
#[derive(Debug)]
pub(crate) struct Response {
    /// What answered, after redirects.
    pub(crate) url: Url,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(super) body: ureq::Body,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) url: Url,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Client {
    /// Makes a client.
    ///
    /// # Errors
    /// If a certificate can't be used.
    pub fn new(options: Options) -> Result<Self, Error> {
        let agents = Agents::new(&options)?;
        Ok(Self { options: Arc::new(options), agents })
    }

    /// What it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether http is allowed for this `HOST[:PORT]`.
    pub(crate) fn allows_http(&self, authority: &str) -> bool {
        self.options.insecure_http
            || host_key(authority).is_some_and(|key| self.options.insecure_hosts.contains(&key))
    }

    /// The authorization that was configured for the URL's host.
    pub(super) fn authorization(&self, url: &Url) -> Option<&Authorization> {
        let configured = &self.options.authorizations;
        configured.get(&url.authority()).filter(|_| url.scheme() == Scheme::Https)
    }

    /// Asks, tries again where that may help, and reads the whole answer, of at most `limit`
    /// bytes. Any status is an answer.
    pub(crate) fn document(&self, request: &Request<'_>, limit: u64) -> Result<Reply, Error> {
        let mut failures = 0;
        loop {
            let result = self.document_once(request, limit);
            failures += 1;
            let asked = match &result {
                Ok(reply) if error::is_transient(reply.status) => retry_after(&reply.headers),
                Err(error) if error.is_transient() => None,
                _ => return result,
            };
            if failures >= self.options.retry.attempts {
                return result;
            }
            thread::sleep(self.options.retry.delay(failures, asked));
        }
    }

    /// The same, once.
    pub(crate) fn document_once(&self, request: &Request<'_>, limit: u64) -> Result<Reply, Error> {
        let deadline = Instant::now() + self.options.timeouts.document;
        let response = self.ask(request)?;
        let is_head = request.method == Method::HEAD;
        let Response { url, status, headers, body } = response;
        let announced = if is_head { None } else { content_length(&url, &headers)? };
        let too_large = || Error::TooLarge { url: url.shown(), limit };
        if announced.is_some_and(|announced| announced > limit) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        let mut reader = body.into_reader();
        let mut chunk = vec![0; 16 << 10];
        if is_head {
            return Ok(Reply { url, status, headers, bytes });
        }
        loop {
            let count = reader.read(&mut chunk).map_err(|error| Error::of_io(&url, &error))?;
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&chunk[..count]);
            if bytes.len() as u64 > limit {
                return Err(too_large());
            }
            if Instant::now() >= deadline {
                return Err(Error::Timeout {
                    url: url.shown(),
                    problem: "receiving all of the answer",
                });
            }
        }
        let found = bytes.len() as u64;
        match announced {
            Some(expected) if found < expected => {
                Err(Error::Truncated { url: url.shown(), found, expected })
            }
            _ => Ok(Reply { url, status, headers, bytes }),
        }
    }

    /// Asks once, and follows redirects if the request sends nothing.
    pub(crate) fn ask(&self, request: &Request<'_>) -> Result<Response, Error> {
        let mut url = request.url.clone();
        let mut authorization = request.authorization;
        for _ in 0..=MAX_REDIRECTS {
            self.check_allowed(&url)?;
            let response = self.exchange(request, &url, authorization)?;
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            if !matches!(request.body, Body::None) || request.method == Method::POST {
                return Err(Error::RedirectedBody(url.shown()));
            }
            let to = location_of(&url, &response.headers)?;
            if !to.is_same_origin(&url) {
                // Never again, also if the next redirect leads back.
                authorization = None;
            }
            url = to;
        }
        Err(Error::Redirects(request.url.shown()))
    }

    fn check_allowed(&self, url: &Url) -> Result<(), Error> {
        if url.scheme() == Scheme::Http && !self.allows_http(&url.authority()) {
            return Err(Error::Insecure(url.shown()));
        }
        Ok(())
    }

    fn exchange(
        &self,
        request: &Request<'_>,
        url: &Url,
        authorization: Option<&Authorization>,
    ) -> Result<Response, Error> {
        let header = |value: &str, what| {
            let refused = |_| Error::Header { url: url.shown(), what };
            HeaderValue::from_str(value).map_err(refused)
        };
        let mut builder = HttpRequest::builder().method(request.method.clone()).uri(url.expose());
        for (name, value) in request.headers {
            builder = builder.header(*name, header(value, "headers")?);
        }
        // Whatever is allowed otherwise, credentials are not sent in the clear.
        if let Some(authorization) = authorization.filter(|_| url.scheme() == Scheme::Https) {
            let mut value = header(authorization.expose(), "credentials")?;
            value.set_sensitive(true);
            builder = builder.header(header::AUTHORIZATION, value);
        }
        let length = match request.body {
            Body::None if matches!(request.method, Method::POST | Method::PUT) => Some(0),
            Body::None => None,
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::File { size, .. } => Some(size),
        };
        if let Some(length) = length {
            builder = builder.header(header::CONTENT_LENGTH, length);
        }
        let refused = |_| Error::Header { url: url.shown(), what: "URL" };
        let agent = self.agents.of(url);
        let answer = match request.body {
            Body::None if length.is_none() => {
                agent.run(builder.body(SendBody::none()).map_err(refused)?)
            }
            Body::None => agent.run(builder.body(&[][..]).map_err(refused)?),
            Body::Bytes(bytes) => agent.run(builder.body(bytes).map_err(refused)?),
            Body::File { file, size, on_bytes } => {
                let mut reader = FileBody { file, position: 0, size, on_bytes, problem: None };
                let body = SendBody::from_reader(&mut reader);
                let answer = agent.run(builder.body(body).map_err(refused)?);
                if let Some(problem) = reader.problem {
                    return Err(problem);
                }
                answer
            }
        };
        let (parts, body) = answer.map_err(|error| Error::of_ureq(url, error))?.into_parts();
        let status = parts.status.as_u16();
        Ok(Response { url: url.clone(), status, headers: parts.headers, body })
    }

    /// Waits before the next try; `Break` of the caller ends it.
    pub(crate) fn pause(
        &self,
        failures: u32,
        asked: Option<u64>,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<(), Error> {
        thread::sleep(self.options.retry.delay(failures, asked));
        match go_on() {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }
}

/// Where an answer from `url` leads.
pub(crate) fn location_of(url: &Url, headers: &HeaderMap) -> Result<Url, Error> {
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.filter(|location| !location.is_empty()).ok_or(UrlError::Character);
    let joined = location.and_then(|location| url.join(location));
    let to = joined.map_err(|problem| Error::Location { from: url.shown(), problem })?;
    if url.scheme() == Scheme::Https && to.scheme() == Scheme::Http {
        return Err(Error::Downgrade { from: url.shown(), to: to.shown() });
    }
    Ok(to)
}

/// How many bytes are announced. Two values, or one that is no number, are refused.
pub(super) fn content_length(url: &Url, headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(None) };
    let digits = first.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(length) if values.all(|other| other == first) => Ok(Some(length)),
        _ => Err(Error::Protocol {
            url: url.shown(),
            problem: crate::Text::new("its Content-Length is not one number"),
        }),
    }
}

/// The seconds that a server wishes to be left alone; dates are not understood.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// A file's content, without moving its position, which may be shared.
struct FileBody<'a> {
    file: &'a File,
    position: u64,
    size: u64,
    on_bytes: &'a dyn Fn(u64) -> ControlFlow<()>,
    /// What went wrong here: the library would make it an error of the connection.
    problem: Option<Error>,
}

impl Read for FileBody<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let stop = || Err(io::Error::other("the file can't be sent"));
        let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
        let most = to.len().min(left);
        let count = match self.file.read_at(&mut to[..most], self.position) {
            Ok(0) if most > 0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            result => result,
        };
        let count = match count {
            Ok(count) => count,
            Err(source) => {
                self.problem = Some(Error::File { action: "read what is sent", source });
                return stop();
            }
        };
        self.position += count as u64;
        if (self.on_bytes)(self.position).is_break() {
            self.problem = Some(Error::Cancelled);
            return stop();
        }
        Ok(count)
    }
}

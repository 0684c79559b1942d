use super::{Url, UrlError};
use crate::Text;
use std::io;

/// Something could not be got from a server. No message holds credentials or the query of a URL.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is http, which is not allowed.
    #[error(
        "{0}: refused, since http is neither private nor safe from changes on the way (allow it with --insecure-options=http)"
    )]
    Insecure(Text),
    /// A redirect leads from https to http.
    #[error("{from} redirects to {to}: refused, since it leads from https to http")]
    Downgrade {
        /// Where it comes from.
        from: Text,
        /// Where it leads to.
        to: Text,
    },
    /// The server redirects too often.
    #[error("{0}: more than {max} redirects", max = super::MAX_REDIRECTS)]
    Redirects(Text),
    /// An answer's `Location` is missing or no URL.
    #[error("{from}: the answer leads to a place that is not a URL: {problem}")]
    Location {
        /// What answered.
        from: Text,
        /// What is wrong with it.
        problem: UrlError,
    },
    /// A request that sends something is redirected.
    #[error("{0}: the server redirects a request that sends data, which is not supported")]
    RedirectedBody(Text),
    /// No connection, or one that broke.
    #[error("{url}: {problem}")]
    Connection {
        /// What was asked for.
        url: Text,
        /// What happened.
        problem: Text,
    },
    /// Nothing came for too long.
    #[error("{url}: no answer in time ({problem})")]
    Timeout {
        /// What was asked for.
        url: Text,
        /// What took so long.
        problem: &'static str,
    },
    /// The server's certificate is not to be believed.
    #[error("{url}: the server's certificate is refused: {problem}")]
    Certificate {
        /// What was asked for.
        url: Text,
        /// What is wrong with it.
        problem: Text,
    },
    /// There is no TLS, or none that is good enough.
    #[error("{url}: TLS failed: {problem}")]
    Tls {
        /// What was asked for.
        url: Text,
        /// What is wrong with it.
        problem: Text,
    },
    /// What the server sends is not HTTP as it should be.
    #[error("{url}: the server's answer is malformed: {problem}")]
    Protocol {
        /// What was asked for.
        url: Text,
        /// What is wrong with it.
        problem: Text,
    },
    /// The body is shorter than what was said.
    #[error("{url}: the answer ends after {found} bytes; {expected} were announced")]
    Truncated {
        /// What was asked for.
        url: Text,
        /// Bytes that came.
        found: u64,
        /// Bytes that should have come.
        expected: u64,
    },
    /// The server announces or sends another number of bytes than there should be.
    #[error("{url}: the server sends {found} bytes, but the content has {expected}")]
    Length {
        /// What was asked for.
        url: Text,
        /// Bytes that were announced, or that came until it was enough.
        found: u64,
        /// Size of the content.
        expected: u64,
    },
    /// The body is longer than what is allowed.
    #[error("{url}: the answer is longer than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: Text,
        /// The limit.
        limit: u64,
    },
    /// A part of the content was asked for, and another one came, twice.
    #[error("{0}: the server answers with another part of the content than was asked for")]
    Range(Text),
    /// The server refuses, or has a problem.
    #[error("{url}: the server answers with status {status}{detail}")]
    Status {
        /// What was asked for.
        url: Text,
        /// The status code.
        status: u16,
        /// What it says about it; empty, or beginning with a colon.
        detail: Text,
    },
    /// A header can't be sent.
    #[error("{url}: the {what} for it hold characters that can't be sent")]
    Header {
        /// What was asked for.
        url: Text,
        /// Which part.
        what: &'static str,
    },
    /// Certificates can't be used.
    #[error("certificates for {host}: {problem}")]
    Certificates {
        /// The host that they are for.
        host: Text,
        /// What is wrong with them.
        problem: Text,
    },
    /// What came can't be stored, or what is sent can't be read.
    #[error("{action}: {source}")]
    File {
        /// What was done.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The caller gave up.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Whether trying again may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Timeout { .. } | Self::Truncated { .. } => true,
            Self::Status { status, .. } => is_transient(*status),
            _ => false,
        }
    }

    pub(super) fn of_ureq(whole: &Url, error: ureq::Error) -> Self {
        let url = whole.shown();
        let connection = |problem: &str| (url.clone(), Text::new(problem));
        let (url, problem) = match error {
            ureq::Error::Timeout(what) => {
                use ureq::Timeout as T;
                let problem = match what {
                    T::Resolve => "looking up the host's address",
                    T::Connect => "connecting",
                    T::SendRequest | T::SendBody | T::PerWrite => "sending the request",
                    T::RecvResponse => "waiting for the answer",
                    _ => "receiving the answer",
                };
                return Self::Timeout { url, problem };
            }
            ureq::Error::HostNotFound => connection("the host is not known"),
            ureq::Error::ConnectionFailed => connection("no connection"),
            ureq::Error::Rustls(error) => return Self::of_tls(url, &error),
            ureq::Error::Tls(problem) => return Self::Tls { url, problem: Text::new(problem) },
            ureq::Error::Io(error) => return Self::of_io(whole, &error),
            ureq::Error::LargeResponseHeader(..) => {
                let problem = Text::new("its headers are too long");
                return Self::Protocol { url, problem };
            }
            ureq::Error::Protocol(error) => {
                return Self::Protocol { url, problem: Text::new(error.to_string()) };
            }
            // The others are about what this program did; they may hold the whole URL.
            _ => return Self::Protocol { url, problem: Text::new("the request failed") },
        };
        Self::Connection { url, problem }
    }

    /// Errors of sockets, in which errors of TLS and time limits may be wrapped.
    pub(super) fn of_io(url: &Url, error: &io::Error) -> Self {
        let url = url.shown();
        if let Some(inner) = error.get_ref() {
            if let Some(error) = inner.downcast_ref::<rustls::Error>() {
                return Self::of_tls(url, error);
            }
            match inner.downcast_ref::<ureq::Error>() {
                Some(ureq::Error::Timeout(_)) => {
                    return Self::Timeout { url, problem: "receiving the answer" };
                }
                Some(ureq::Error::Rustls(error)) => return Self::of_tls(url, error),
                Some(ureq::Error::Protocol(error)) => {
                    return Self::Protocol { url, problem: Text::new(error.to_string()) };
                }
                _ => {}
            }
        }
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                Self::Timeout { url, problem: "receiving the answer" }
            }
            io::ErrorKind::UnexpectedEof => {
                Self::Connection { url, problem: Text::new("the connection ended early") }
            }
            _ => Self::Connection { url, problem: Text::new(error.to_string()) },
        }
    }

    fn of_tls(url: Text, error: &rustls::Error) -> Self {
        use rustls::{CertificateError as C, Error as E};
        let hint = match error {
            E::InvalidCertificate(C::UnknownIssuer) => {
                " (if it is your own server, put its CA into \
                 /etc/containers/certs.d/HOST[:PORT]/ca.crt)"
            }
            E::InvalidMessage(_) => " (does the server speak http on this port?)",
            _ => "",
        };
        // It can hold names from the server's certificate.
        let problem = Text::new(format!("{}{hint}", Text::new(error.to_string())));
        match error {
            E::InvalidCertificate(_) => Self::Certificate { url, problem },
            _ => Self::Tls { url, problem },
        }
    }
}

/// Whether a server that answers with this status may answer otherwise soon.
pub(crate) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

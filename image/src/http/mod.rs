//! HTTP for everything that is fetched: registries, App Container Images, their signatures and
//! keys. A hardened layer over `ureq`, with TLS by `rustls`.
//!
//! It runs in the fetcher, which can neither read files of the host nor its environment. What is
//! needed of those the parent reads ([`Certificates::load`], [`crate::credentials`]) and hands
//! over as [`Options`].

mod agents;
mod caching;
mod certificates;
mod client;
mod download;
mod error;
mod options;
mod secret;
mod url;

pub use caching::Caching;
pub(crate) use certificates::host_key;
pub use certificates::{
    CertificatePaths, Certificates, CertificatesError, ClientCertificate, HostCertificates,
};
pub use client::Client;
use client::MAX_REDIRECTS;
pub(crate) use client::{Body, Reply, Request, Response, location_of};
pub use download::{Download, Downloaded, OnBytes};
pub(crate) use download::{End, Transfer};
pub use error::Error;
pub use options::{Options, Retry, Timeouts};
pub use secret::{Authorization, Secret};
pub use url::{Scheme, Url, UrlError};
pub(crate) use url::{parse_authority, percent_encoded};

use crate::Text;

/// An answer to [`Client::get`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The document.
    Found {
        /// All of it.
        bytes: Vec<u8>,
        /// What the server says about keeping it.
        caching: Caching,
    },
    /// What is known is still right.
    NotModified(Caching),
    /// The server will have it later (202), as rkt's deferred signatures.
    Deferred,
    /// The server does not have it, or does not give it: status 4xx.
    Missing(u16),
}

impl Client {
    /// Gets a small document of at most `limit` bytes, with what was configured for its host in
    /// `Options::authorizations`. If `if_none_match` is still its ETag, it is not sent again.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get(&self, url: &Url, if_none_match: Option<&str>, limit: u64) -> Result<Answer, Error> {
        let headers: Vec<_> =
            if_none_match.map(|etag| ("if-none-match", etag)).into_iter().collect();
        let mut request = Request::get(url, &headers);
        request.authorization = self.authorization(url);
        let reply = self.document(&request, limit)?;
        let caching = Caching::of(&reply.headers);
        match reply.status {
            200 => Ok(Answer::Found { bytes: reply.bytes, caching }),
            304 if if_none_match.is_some() => Ok(Answer::NotModified(caching)),
            202 => Ok(Answer::Deferred),
            status @ 400..500 if !error::is_transient(status) => Ok(Answer::Missing(status)),
            status => Err(Error::Status { url: reply.url.shown(), status, detail: Text::new("") }),
        }
    }

    /// Sends a JSON document, once, and reads what comes back, of at most `limit` bytes and with any
    /// status. There are no credentials, and no redirect is followed.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn post_json(&self, url: &Url, body: &[u8], limit: u64) -> Result<(u16, Vec<u8>), Error> {
        let headers = &[("content-type", "application/json")];
        let request = Request {
            method: ureq::http::Method::POST,
            url,
            headers,
            authorization: None,
            body: Body::Bytes(body),
        };
        let reply = self.document_once(&request, limit)?;
        Ok((reply.status, reply.bytes))
    }
}

//! Content that is too large for memory: into a file, from where it ended before.

use super::{
    Caching, Error, Timeouts, Url,
    client::{CHUNK, Client, Response, content_length, retry_after},
};
use crate::{Digest, digest::Hasher};
use std::{
    fs::File,
    io::Read as _,
    ops::ControlFlow,
    os::unix::fs::FileExt as _,
    time::{Duration, Instant},
};
use ureq::http::{HeaderMap, header};

/// The most requests for one content. A server that sends a little each time is given up too.
const MAX_REQUESTS: u32 = 100;

/// Hears how many bytes of the content are there, and can give it up.
pub type OnBytes<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// Content on its way into a file.
pub(crate) struct Transfer<'a> {
    pub(crate) into: &'a File,
    /// What it is expected to be. Its size must be exact then.
    pub(crate) expected: Option<(&'a Digest, u64)>,
    /// The most bytes that are taken.
    pub(crate) limit: u64,
    pub(crate) on_bytes: &'a mut OnBytes<'a>,
    position: u64,
    /// Whether it is held against the digest that it is expected to have.
    is_checked: bool,
    hasher: Option<Hasher>,
    /// Whether all that is in the file came since the beginning of this transfer.
    is_fresh: bool,
    /// What the content was when the first part came.
    etag: Option<String>,
    can_resume: bool,
}

/// What to ask for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// A value for the header `Range`.
    pub(crate) range: Option<String>,
    /// A value for `If-Range`.
    pub(crate) if_range: Option<String>,
}

/// How a transfer ended without an error.
#[derive(Debug)]
pub(crate) enum End {
    /// All of it is there; its size.
    Complete(u64, Caching),
    /// An answer without content.
    Other(Response),
}

impl<'a> Transfer<'a> {
    /// Content that is known by its digest, of which `already` bytes may be in the file.
    pub(crate) fn of_digest(
        into: &'a File,
        already: u64,
        (digest, size): (&'a Digest, u64),
        is_checked: bool,
        on_bytes: &'a mut OnBytes<'a>,
    ) -> Result<Self, Error> {
        let mut transfer = Self {
            into,
            expected: Some((digest, size)),
            limit: size,
            on_bytes,
            position: 0,
            is_checked,
            hasher: is_checked.then(|| Hasher::new(digest.algorithm())),
            is_fresh: already == 0,
            etag: None,
            can_resume: true,
        };
        if already > size {
            transfer.restart()?;
        } else if is_checked {
            transfer.read_again(already)?;
        } else {
            transfer.position = already;
        }
        Ok(transfer)
    }

    /// Content of which nothing is known but its ETag, if a part of it is in the file already.
    pub(crate) fn of_url(
        into: &'a File,
        already: u64,
        etag: Option<&str>,
        limit: u64,
        on_bytes: &'a mut OnBytes<'a>,
    ) -> Result<Self, Error> {
        // A weak one says nothing about bytes (RFC 9110, section 13.1.5).
        let etag = etag.filter(|etag| etag.starts_with('"')).map(str::to_owned);
        let mut transfer = Self {
            into,
            expected: None,
            limit,
            on_bytes,
            position: already.min(limit),
            is_checked: false,
            hasher: None,
            is_fresh: already == 0,
            can_resume: etag.is_some(),
            etag,
        };
        if already > 0 && !transfer.can_resume {
            transfer.restart()?;
        }
        Ok(transfer)
    }

    /// Hashes what is in the file.
    fn read_again(&mut self, already: u64) -> Result<(), Error> {
        let mut chunk = vec![0; CHUNK];
        while self.position < already {
            let most = usize::try_from(already - self.position).unwrap_or(CHUNK).min(CHUNK);
            let count = self.into.read_at(&mut chunk[..most], self.position);
            let count = count
                .map_err(|source| Error::File { action: "read what is there already", source })?;
            if count == 0 {
                break;
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&chunk[..count]);
            }
            self.position += count as u64;
        }
        Ok(())
    }

    /// Forgets all that came.
    fn restart(&mut self) -> Result<(), Error> {
        self.into
            .set_len(0)
            .map_err(|source| Error::File { action: "empty the file for what comes", source })?;
        self.position = 0;
        self.is_fresh = true;
        self.etag = None;
        self.can_resume = self.expected.is_some();
        let expected = self.expected.filter(|_| self.is_checked);
        self.hasher = expected.map(|(digest, _)| Hasher::new(digest.algorithm()));
        Ok(())
    }

    fn report(&mut self) -> Result<(), Error> {
        match (self.on_bytes)(self.position) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }

    fn next(&self) -> Ask {
        let resumes = self.can_resume && self.position > 0;
        Ask {
            range: resumes.then(|| format!("bytes={}-", self.position)),
            if_range: self.etag.clone().filter(|_| resumes),
        }
    }

    /// Takes one answer, as far as it goes.
    fn receive(&mut self, response: Response, stall: Duration) -> Result<End, Error> {
        let url = response.url.clone();
        let announced = content_length(&url, &response.headers)?;
        let url = url.shown();
        let caching = Caching::of(&response.headers);
        match response.status {
            200 => {
                if self.position > 0 {
                    self.restart()?;
                }
                match (self.expected, announced) {
                    (Some((_, expected)), Some(found)) if found != expected => {
                        return Err(Error::Length { url, found, expected });
                    }
                    (None, Some(found)) if found > self.limit => {
                        return Err(Error::TooLarge { url, limit: self.limit });
                    }
                    _ => {}
                }
                self.etag = caching.etag.clone().filter(|etag| etag.starts_with('"'));
                self.can_resume = self.expected.is_some() || self.etag.is_some();
            }
            206 if self.is_the_rest(&response.headers, announced, &caching) => {}
            // Not what was asked for; whatever it is, it is not believed.
            206 | 416 if self.position > 0 && self.can_resume => {
                self.restart()?;
                return Err(Error::Range(url));
            }
            206 | 416 => return Err(Error::Range(url)),
            _ => return Ok(End::Other(response)),
        }
        self.read_body(response, announced, stall)?;
        Ok(End::Complete(self.position, caching))
    }

    /// Whether an answer's part of the content is the one that is missing.
    fn is_the_rest(&self, headers: &HeaderMap, announced: Option<u64>, caching: &Caching) -> bool {
        let Some(range) = ContentRange::of(headers) else { return false };
        let is_same = match (&self.etag, &caching.etag) {
            (Some(before), Some(now)) => before == now,
            _ => true,
        };
        let fits = match (self.expected, range.total) {
            (Some((_, size)), Some(total)) => total == size && range.end + 1 == size,
            (Some((_, size)), None) => range.end + 1 == size,
            (None, Some(total)) => range.end + 1 == total && total <= self.limit,
            (None, None) => range.end < self.limit,
        };
        self.next().range.is_some()
            && range.start == self.position
            && announced.is_none_or(|length| length == range.end + 1 - range.start)
            && fits
            && is_same
    }

    fn read_body(
        &mut self,
        response: Response,
        announced: Option<u64>,
        stall: Duration,
    ) -> Result<(), Error> {
        let Response { url, body, .. } = response;
        let begin = self.position;
        let mut reader = body.into_reader();
        let mut chunk = vec![0; CHUNK];
        let shown = url.shown();
        let mut window = (Instant::now(), self.position);
        loop {
            let count = reader.read(&mut chunk).map_err(|error| Error::of_io(&url, &error))?;
            if count == 0 {
                break;
            }
            if self.position + count as u64 > self.limit {
                return Err(match self.expected {
                    Some((_, expected)) => {
                        Error::Length { url: shown, found: self.position + count as u64, expected }
                    }
                    None => Error::TooLarge { url: shown, limit: self.limit },
                });
            }
            self.into
                .write_all_at(&chunk[..count], self.position)
                .map_err(|source| Error::File { action: "store what comes", source })?;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&chunk[..count]);
            }
            self.position += count as u64;
            self.report()?;
            if window.0.elapsed() >= stall {
                if self.position - window.1 < least(stall) {
                    return Err(Error::Timeout { url: shown, problem: "it comes in too slowly" });
                }
                window = (Instant::now(), self.position);
            }
        }
        let found = self.position - begin;
        let expected = match self.expected {
            Some((_, size)) => Some(size - begin),
            None => announced,
        };
        match expected {
            Some(expected) if found < expected => {
                Err(Error::Truncated { url: shown, found, expected })
            }
            _ => Ok(()),
        }
    }

    /// The digest of all of it.
    fn digest(&mut self) -> Option<Digest> {
        self.hasher.take().map(Hasher::finish)
    }
}

/// What has to come in this time at least.
fn least(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).saturating_mul(Timeouts::MIN_RATE) / 1000
}

impl Client {
    /// Gets content by as many requests as it takes. `ask` makes one.
    ///
    /// Gives the digest that was found, too, if one was expected and it is checked; that it is
    /// another one is not an error here.
    pub(crate) fn transfer<E: From<Error>>(
        &self,
        transfer: &mut Transfer<'_>,
        ask: &mut dyn FnMut(&Ask) -> Result<Response, E>,
        is_transient: fn(&E) -> bool,
    ) -> Result<(End, Option<Digest>), E> {
        let stall = self.options().timeouts.stall;
        let mut failures = 0;
        let mut requests = 0;
        loop {
            requests += 1;
            transfer.report()?;
            if let Some((digest, size)) = transfer.expected
                && transfer.position == size
            {
                let found = transfer.digest();
                let is_right = found.as_ref() == Some(digest) || !transfer.is_checked;
                if is_right || transfer.is_fresh {
                    return Ok((End::Complete(size, Caching::default()), found));
                }
                // What was there before this transfer began was damaged.
                transfer.restart()?;
            }
            let before = transfer.position;
            let answer = ask(&transfer.next());
            let asked = match &answer {
                Ok(response) => retry_after(&response.headers),
                Err(_) => None,
            };
            let result = answer.and_then(|response| {
                if super::error::is_transient(response.status) {
                    let (url, status) = (response.url.shown(), response.status);
                    return Err(Error::Status { url, status, detail: crate::Text::new("") }.into());
                }
                Ok((before > 0, transfer.receive(response, stall)))
            });
            let error = match result {
                Ok((_, Ok(End::Complete(..)))) if transfer.expected.is_some() => continue,
                Ok((_, Ok(end))) => return Ok((end, None)),
                // The next one asks for all of it.
                Ok((true, Err(Error::Range(_)))) if transfer.position == 0 => continue,
                Ok((_, Err(error))) if error.is_transient() => error.into(),
                Ok((_, Err(error))) => return Err(error.into()),
                Err(error) if is_transient(&error) => error,
                Err(error) => return Err(error),
            };
            failures = if transfer.position > before { 1 } else { failures + 1 };
            if failures >= self.options().retry.attempts || requests >= MAX_REQUESTS {
                return Err(error);
            }
            let position = transfer.position;
            let on_bytes = &mut transfer.on_bytes;
            self.pause(failures, asked, &mut || on_bytes(position))?;
        }
    }
}

/// The header `Content-Range` of a single part (RFC 9110, section 14.4).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) total: Option<u64>,
}

impl ContentRange {
    fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(header::CONTENT_RANGE)?.to_str().ok()?)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| {
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u64>().ok().filter(|&number| is_number && number < u64::MAX / 2)
        };
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (number(start)?, number(end)?);
        let total = if total == "*" { None } else { Some(number(total)?) };
        let fits = start <= end && total.is_none_or(|total| end < total);
        fits.then_some(Self { start, end, total })
    }
}

/// What [`Client::download`] is to get.
#[derive(Debug)]
pub struct Download<'a> {
    /// Where it is.
    pub url: &'a Url,
    /// The ETag of what is known already: if it is still that, nothing is sent.
    pub if_none_match: Option<&'a str>,
    /// The file that it is written to.
    pub into: &'a File,
    /// So many bytes of it are in the file already.
    pub already: u64,
    /// The ETag that these bytes had. Without one they are thrown away.
    pub etag: Option<&'a str>,
    /// The most bytes that are taken.
    pub limit: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Downloaded {
    /// It is in the file.
    Complete {
        /// Its size.
        size: u64,
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
    /// Gets a file, with what was configured for its host in `Options::authorizations`.
    ///
    /// # Errors
    /// See [`Error`]; the part that is in the file then can be used to go on later, with the ETag
    /// that `on_etag` was told.
    pub fn download<'a>(
        &self,
        download: &Download<'a>,
        on_bytes: &'a mut OnBytes<'a>,
        on_etag: &mut dyn FnMut(&str),
    ) -> Result<Downloaded, Error> {
        let Download { url, into, already, etag, limit, .. } = *download;
        let mut transfer = Transfer::of_url(into, already, etag, limit, on_bytes)?;
        let mut ask = |ask: &Ask| {
            let mut headers = Vec::new();
            match (&ask.range, &ask.if_range, download.if_none_match) {
                (Some(range), Some(etag), _) => {
                    headers.push(("range", range.as_str()));
                    headers.push(("if-range", etag.as_str()));
                }
                (None, _, Some(etag)) => headers.push(("if-none-match", etag)),
                _ => {}
            }
            let mut request = super::Request::get(url, &headers);
            request.authorization = self.authorization(url);
            let response = self.ask(&request)?;
            if let Some(etag) = Caching::of(&response.headers).etag {
                on_etag(&etag);
            }
            Ok(response)
        };
        let (end, _) = self.transfer(&mut transfer, &mut ask, Error::is_transient)?;
        match end {
            End::Complete(size, caching) => Ok(Downloaded::Complete { size, caching }),
            End::Other(response) => match response.status {
                304 if download.if_none_match.is_some() => {
                    Ok(Downloaded::NotModified(Caching::of(&response.headers)))
                }
                202 => Ok(Downloaded::Deferred),
                status @ 400..500 => Ok(Downloaded::Missing(status)),
                status => {
                    let detail = crate::Text::new("");
                    Err(Error::Status { url: response.url.shown(), status, detail })
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        let parse = ContentRange::parse;
        let range = |start, end, total| Some(ContentRange { start, end, total });
        assert_eq!(parse("bytes 5-9/10"), range(5, 9, Some(10)));
        assert_eq!(parse("bytes 5-9/*"), range(5, 9, None));
        for text in [
            "",
            "bytes",
            "bytes 5-9",
            "bytes */10",
            "bytes 9-5/10",
            "bytes 5-10/10",
            "bytes +5-9/10",
            "bytes 5-18446744073709551615/*",
            "chars 5-9/10",
            "bytes 5-9/10, 1-2/10",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

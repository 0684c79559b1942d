//! Images on their way into a registry.

use super::{
    Client, Error, Place, RegistryReference,
    client::{Answered as _, refused},
    pull::{check_digest, said_digest},
    token::Action,
};
use crate::{
    Digest, Text,
    digest::Hasher,
    http::{self, Body, OnBytes, Reply, Request, Url},
};
use std::{cell::RefCell, fs::File, os::unix::fs::FileExt as _};
use ureq::http::Method;

/// Longest answer to something that was sent.
const MAX_ANSWER: u64 = 64 << 10;
/// How often an upload is begun.
const MAX_UPLOADS: u32 = 3;

impl Client {
    /// Whether the repository has the blob already.
    ///
    /// # Errors
    /// If the registry does not say it.
    pub fn blob_exists(
        &self,
        reference: &RegistryReference,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let place = self.home(reference)?;
        let what = reference.with_digest(digest.clone()).to_string();
        let url = self.url(&place, &format!("blobs/{digest}"))?;
        let reply = self.send(&place, Method::HEAD, &url, &[], &Body::None)?;
        match reply.status {
            200 => Ok(true),
            404 => Ok(false),
            status => Err(refused(&what, &place, status, &reply.bytes)),
        }
    }

    /// Puts a file's first `size` bytes into the repository as a blob, if it isn't there.
    /// `on_bytes` hears how many were sent, and can give up.
    ///
    /// # Errors
    /// If the file does not have the digest, or the registry does not take it.
    pub fn push_blob(
        &self,
        reference: &RegistryReference,
        digest: &Digest,
        size: u64,
        from: &File,
        on_bytes: &mut OnBytes<'_>,
    ) -> Result<(), Error> {
        let what = reference.with_digest(digest.clone()).to_string();
        if self.blob_exists(reference, digest)? {
            let _ = on_bytes(size);
            return Ok(());
        }
        check_file(&what, digest, size, from)?;
        let place = self.home(reference)?;
        let on_bytes = RefCell::new(on_bytes);
        let watch = |bytes| (on_bytes.borrow_mut())(bytes);
        let mut uploads = 0;
        loop {
            uploads += 1;
            let body = Body::File { file: from, size, on_bytes: &watch };
            let error = match self.upload(&place, &what, digest, &body) {
                Ok(()) => return Ok(()),
                Err(error) if error.is_transient() && uploads < MAX_UPLOADS => error,
                Err(error) => return Err(error),
            };
            let mut go_on = || watch(0);
            let paused = self.http.pause(uploads, None, &mut go_on);
            paused.map_err(|_| error)?;
        }
    }

    /// One POST that begins an upload, one PUT with all of the content.
    fn upload(
        &self,
        place: &Place,
        what: &str,
        digest: &Digest,
        body: &Body<'_>,
    ) -> Result<(), Error> {
        let url = self.url(place, "blobs/uploads/")?;
        let begun = self.send(place, Method::POST, &url, &[], &Body::None)?;
        if begun.status != 202 {
            return Err(refused(what, place, begun.status, &begun.bytes));
        }
        let location = http::location_of(&begun.url, &begun.headers)?;
        let location = location.with_parameter("digest", &digest.to_string());
        let headers = [("content-type", "application/octet-stream")];
        let reply = self.send(place, Method::PUT, &location, &headers, body)?;
        if reply.status != 201 {
            return Err(refused(what, place, reply.status, &reply.bytes));
        }
        self.check_stored(what, &reply, digest)
    }

    /// Puts a manifest or index into the repository under the reference's tag, or under its digest
    /// if the reference has one. Gives its digest.
    ///
    /// # Errors
    /// If it does not have the reference's digest, or the registry does not take it.
    pub fn push_manifest(
        &self,
        reference: &RegistryReference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        let what = reference.to_string();
        let place = self.home(reference)?;
        let digest = check_digest(&what, bytes, reference.digest(), None)?;
        let name = match (reference.tag(), reference.digest()) {
            (None, Some(digest)) => digest.to_string(),
            _ => reference.tag_or_default().to_owned(),
        };
        let url = self.url(&place, &format!("manifests/{name}"))?;
        let headers = [("content-type", media_type)];
        let reply = self.send(&place, Method::PUT, &url, &headers, &Body::Bytes(bytes))?;
        if reply.status != 201 {
            return Err(refused(&what, &place, reply.status, &reply.bytes));
        }
        self.check_stored(&what, &reply, &digest)?;
        Ok(digest)
    }

    /// A registry that stored something else than what was sent is not to be believed.
    fn check_stored(&self, what: &str, reply: &Reply, digest: &Digest) -> Result<(), Error> {
        match said_digest(what, reply.headers())? {
            Some(said) if said.algorithm() == digest.algorithm() && said != *digest => {
                let (what, said) = (Text::new(what), Text::new(said.to_string()));
                Err(Error::SaidDigest { what, said, found: digest.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Sends something, with credentials if the URL is one of the registry itself: it may lead
    /// uploads to another server.
    fn send(
        &self,
        place: &Place,
        method: Method,
        url: &Url,
        headers: &[(&'static str, &str)],
        body: &Body<'_>,
    ) -> Result<Reply, Error> {
        let is_home = url.is_same_origin(&self.url(place, "")?);
        let action = if method == Method::HEAD { Action::Pull } else { Action::Push };
        self.authorized(place, action, &mut |authorization| {
            let request = Request {
                method: method.clone(),
                url,
                headers,
                authorization: authorization.filter(|_| is_home),
                body: *body,
            };
            // What has been sent may have been taken: it is not simply sent again.
            let reply = match method {
                Method::HEAD => self.http.document(&request, MAX_ANSWER)?,
                _ => self.http.document_once(&request, MAX_ANSWER)?,
            };
            Ok(reply)
        })
    }
}

/// Checks a file before it is sent.
fn check_file(what: &str, digest: &Digest, size: u64, file: &File) -> Result<(), Error> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut chunk = vec![0; 128 << 10];
    let mut position = 0;
    while position < size {
        let most = usize::try_from(size - position).unwrap_or(chunk.len()).min(chunk.len());
        let count = file.read_at(&mut chunk[..most], position);
        let count =
            count.map_err(|source| http::Error::File { action: "read what is sent", source })?;
        if count == 0 {
            break;
        }
        hasher.update(&chunk[..count]);
        position += count as u64;
    }
    let length = file.metadata().map(|metadata| metadata.len());
    if position == size && length.is_ok_and(|length| length == size) && hasher.finish() == *digest {
        return Ok(());
    }
    Err(Error::Sent { what: Text::new(what), expected: digest.clone() })
}

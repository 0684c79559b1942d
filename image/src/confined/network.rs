//! Files from web servers: App Container Images, their signatures and keys.

use super::{Channel, Files};
use crate::{
    Error, Limit, Limits, Step, Text,
    discovery::{AppcName, Endpoint},
    evidence::Signature,
    http::{self, Answer, Client, Download, Downloaded, Options, Url},
    progress::Reporter,
    protocol::Event,
};
use std::{io::Write as _, ops::ControlFlow};

/// The longest detached signature in bytes.
const MAX_SIGNATURE: u64 = 1 << 20;

/// An ACI to get.
pub(super) struct Asked {
    pub(super) url: Url,
    pub(super) asc: Option<Url>,
    pub(super) if_none_match: Option<String>,
    pub(super) needs_signature: bool,
}

/// Gets a small file.
pub(super) fn get(
    url: &Url,
    options: Options,
    limit: u64,
    if_none_match: Option<&str>,
    mut files: Files,
    channel: &mut Channel,
) -> Result<(), Error> {
    let mut into = files.next_file()?;
    let client = Client::new(options).map_err(refused)?;
    Reporter::new(channel).report(Step::Ask)?;
    match client.get(url, if_none_match, limit).map_err(refused)? {
        Answer::Found { bytes, caching } => {
            let written = into.write_all(&bytes);
            written.map_err(|error| Error::io("write", "what was fetched", error))?;
            channel.say(&Event::Got { caching })
        }
        Answer::NotModified(caching) => channel.say(&Event::NotModified { caching }),
        Answer::Deferred => Err(status(url, 202)),
        Answer::Missing(number) => Err(status(url, number)),
    }
}

/// Gets an ACI as it is shipped, then its signature: a server that signs on demand begins when the
/// image is asked for.
pub(super) fn aci(
    asked: &Asked,
    options: Options,
    mut files: Files,
    limits: &Limits,
    channel: &mut Channel,
) -> Result<(), Error> {
    let Asked { url, asc, if_none_match, needs_signature } = asked;
    let into = files.next_file()?;
    let client = Client::new(options).map_err(refused)?;
    let mut reporter = Reporter::new(channel);
    reporter.report(Step::Ask)?;
    let limit = limits.get(Limit::Size);
    let download = Download {
        url,
        if_none_match: if_none_match.as_deref(),
        into: &into,
        already: 0,
        etag: None,
        limit,
    };
    // Its size is not known before it is there.
    let mut on_bytes =
        |done| match reporter.report(Step::Download { index: 0, count: 1, done, total: 0 }) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
    let downloaded = client.download(&download, &mut on_bytes, &mut |_| ());
    let caching = match downloaded {
        Ok(Downloaded::Complete { caching, .. }) => caching,
        Ok(Downloaded::NotModified(caching)) => {
            return channel.say(&Event::NotModified { caching });
        }
        Ok(Downloaded::Deferred) => return Err(status(url, 202)),
        Ok(Downloaded::Missing(number)) => return Err(status(url, number)),
        Err(http::Error::TooLarge { limit: over, .. }) if over == limit => {
            return limits.check(Limit::Size, u64::MAX).map_err(Error::from);
        }
        Err(error) => return Err(refused(error)),
    };
    let signature = match asc {
        Some(asc) => match signature(&client, asc) {
            Err(_) if !needs_signature => None,
            found => found?,
        },
        None => None,
    };
    channel.say(&Event::Got { caching })?;
    if let Some(signature) = signature {
        let signature = Signature::Detached { signature, facts: None };
        channel.say(&Event::Signature { signature })?;
    }
    Ok(())
}

/// A detached signature; nothing if the server has none. One that is not ready yet is waited for.
fn signature(client: &Client, url: &Url) -> Result<Option<Vec<u8>>, Error> {
    let mut tries = 0;
    loop {
        match client.get(url, None, MAX_SIGNATURE).map_err(refused)? {
            Answer::Found { bytes, .. } => return Ok(Some(bytes)),
            Answer::Missing(404 | 410) => return Ok(None),
            Answer::Missing(number) => return Err(status(url, number)),
            Answer::NotModified(_) => return Err(status(url, 304)),
            Answer::Deferred => {
                tries += 1;
                if tries >= client.options().retry.attempts {
                    return Err(status(url, 202));
                }
                let mut go_on = || ControlFlow::Continue(());
                client.pause(tries, None, &mut go_on).map_err(refused)?;
            }
        }
    }
}

/// Finds out where an ACI is.
pub(super) fn find_image(
    name: &AppcName,
    options: Options,
    channel: &mut Channel,
) -> Result<(), Error> {
    let client = Client::new(options).map_err(refused)?;
    Reporter::new(channel).report(Step::Ask)?;
    let found = client.discover_image(name);
    let Endpoint { aci, asc } =
        found.map_err(|error| Error::Fetch(Text::message(error.to_string())))?;
    channel.say(&Event::Image { aci, asc })
}

/// Finds out where the keys are for ACIs.
pub(super) fn find_keys(
    name: &AppcName,
    options: Options,
    channel: &mut Channel,
) -> Result<(), Error> {
    let client = Client::new(options).map_err(refused)?;
    Reporter::new(channel).report(Step::Ask)?;
    let urls = client.discover_keys(name);
    let urls = urls.map_err(|error| Error::Fetch(Text::message(error.to_string())))?;
    channel.say(&Event::Keys { urls })
}

/// The server answers, but not with what is needed.
fn status(url: &Url, status: u16) -> Error {
    refused(http::Error::Status { url: url.shown(), status, detail: Text::new("") })
}

/// The error in words: nobody looks closer at what a server does.
fn refused(error: http::Error) -> Error {
    match error {
        http::Error::Cancelled => Error::Cancelled,
        error => Error::Fetch(Text::message(error.to_string())),
    }
}

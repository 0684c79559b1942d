//! Public keys on web servers, for `sandbox trust`. Fetched by the confined process.

use crate::{
    Error, FetchOptions,
    discovery::{AppcName, MAX_KEYS},
    fetch::{Child, borrow, malformed},
    http::Url,
    progress::Reporter,
    protocol::{Event, Task},
};
use rustix::{
    fd::BorrowedFd,
    fs::{MemfdFlags, memfd_create},
};
use std::{fs::File, os::unix::fs::FileExt as _};

/// The largest file of keys in bytes.
const MAX: u64 = 1 << 20;

/// Where the keys are for images whose names begin with `prefix` (appc spec, discovery.md).
///
/// # Errors
/// [`Error::Fetch`]
pub fn discover(prefix: &AppcName, options: &FetchOptions) -> Result<Vec<Url>, Error> {
    let http = Box::new(options.network.http.clone());
    let task = Task::DiscoverKeys { name: prefix.clone(), options: http };
    let mut child = start(task, &[], options)?;
    let mut silent = ();
    let mut reporter = Reporter::new(&mut silent);
    let Event::Keys { urls } = child.next(&mut reporter)? else {
        return Err(malformed("it has found no keys"));
    };
    child.finish(&mut reporter)?;
    if urls.len() > MAX_KEYS {
        return Err(malformed("it has found too many keys"));
    }
    Ok(urls)
}

/// Fetches a file of keys, of at most 1 MiB.
///
/// # Errors
/// [`Error::Fetch`]
pub fn get(url: &Url, options: &FetchOptions) -> Result<Vec<u8>, Error> {
    let http = Box::new(options.network.http.clone());
    let task = Task::Get { url: url.clone(), options: http, limit: MAX, if_none_match: None };
    let into = memory("keys")?;
    let mut child = start(task, &borrow([&into]), options)?;
    let mut silent = ();
    let mut reporter = Reporter::new(&mut silent);
    let Event::Got { .. } = child.next(&mut reporter)? else {
        return Err(malformed("it has got no file"));
    };
    child.finish(&mut reporter)?;
    let failed = |error| Error::io("read", "the fetched keys", error);
    let size = into.metadata().map_err(failed)?.len();
    if size > MAX {
        return Err(malformed("it has got more than it was to get"));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    into.read_exact_at(&mut bytes, 0).map_err(failed)?;
    Ok(bytes)
}

fn start(task: Task, files: &[BorrowedFd<'_>], options: &FetchOptions) -> Result<Child, Error> {
    Child::start(&options.program, task, &options.limits, files, memory("diagnosis")?)
}

/// A file without a place: there is no store here.
fn memory(name: &str) -> Result<File, Error> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC);
    file.map(File::from).map_err(|error| Error::io("make a file in", "memory", error))
}

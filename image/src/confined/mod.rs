//! What `sandbox-fetch` does once it has confined itself: all that reads what others wrote.
//!
//! It has its standard streams and the files that came with the [`Request`], and can open no other.
//! What it says is not believed; see [`crate::protocol`].

mod aci;
mod archive;
mod channel;
mod contents;
mod export;
mod network;
mod registry;
mod render;

use crate::{
    Error, Limits,
    protocol::{Event, Failure, Request, Task},
};
use rustix::fd::OwnedFd;
use std::{io, os::unix::net::UnixStream};

pub use channel::Channel;

/// Receives the request, with the files that came with it.
///
/// # Errors
/// If it does not come, or is not one.
pub fn receive(socket: &UnixStream) -> io::Result<(Request, Vec<OwnedFd>)> {
    let (bytes, files) = crate::fetch::frame::receive(socket)?;
    Ok((serde_json::from_slice(&bytes)?, files))
}

/// Does what was asked for, and says how it went. False if it could not be done.
pub fn run(task: Task, limits: &Limits, files: Vec<OwnedFd>, channel: &mut Channel) -> bool {
    let outcome = perform(task, limits, Files(files.into_iter()), channel);
    let event = match &outcome {
        Ok(()) => Event::Done,
        Err(error) => Event::Failed { failure: Failure::of(error) },
    };
    // If nobody hears it, nobody is there any more.
    channel.say(&event).is_ok() && outcome.is_ok()
}

fn perform(task: Task, limits: &Limits, files: Files, channel: &mut Channel) -> Result<(), Error> {
    match task {
        Task::OciArchive { path, name } => {
            archive::oci(&path, name.as_deref(), files, limits, channel)
        }
        Task::DockerArchive { path, name } => {
            archive::docker(&path, name.as_deref(), files, limits, channel)
        }
        Task::Aci { name } => aci::open(&name, files, limits, channel),
        Task::Registry { image, options, lookaside, jobs, needs_signatures } => {
            let asked = registry::Asked { image, lookaside, jobs, needs_signatures };
            registry::pull(asked, *options, files, limits, channel)
        }
        Task::Get { url, options, limit, if_none_match } => {
            network::get(&url, *options, limit, if_none_match.as_deref(), files, channel)
        }
        Task::AciUrl { url, asc, options, if_none_match, needs_signature } => {
            let asked = network::Asked { url, asc, if_none_match, needs_signature };
            network::aci(&asked, *options, files, limits, channel)
        }
        Task::DiscoverImage { name, options } => network::find_image(&name, *options, channel),
        Task::DiscoverKeys { name, options } => network::find_keys(&name, *options, channel),
        Task::Push { image, options, blobs, documents } => {
            registry::push(&image, *options, &blobs, &documents, files, channel)
        }
        Task::Render { contents } => render::erofs(&contents, files, limits, channel),
        Task::Unpack { contents } => render::directory(&contents, files, limits, channel),
        Task::Export { contents } => export::archive(&contents, files, limits, channel),
    }
}

/// The files that came with a request, in order.
struct Files(std::vec::IntoIter<OwnedFd>);

impl Files {
    fn next(&mut self) -> Result<OwnedFd, Error> {
        let missing = || io::Error::other("a file is missing in the request");
        self.0.next().ok_or_else(|| Error::io("use", "the request", missing()))
    }

    fn next_file(&mut self) -> Result<std::fs::File, Error> {
        Ok(self.next()?.into())
    }
}

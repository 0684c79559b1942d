//! `sandbox-fetch`, the process that reads what others wrote: archives, compressed streams, answers
//! of servers. Started by `sandbox`, not by people.
//!
//! It hears one request on standard input, a socket, with the open files that belong to it; gives
//! up all that it does not need for that ([`confine`], [`filter`]); and only then reads a byte of an
//! image. What it has to say goes to standard output, a line each; what it dies of to standard
//! error.

mod confine;
mod filter;
#[cfg(test)]
mod tests;

use sandbox_image::{confined, protocol::Request};
use std::{
    error::Error,
    fs::File,
    io::{self, stdin, stdout},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let mut message = format!("sandbox-fetch: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                message.push_str(&format!(": {error}"));
                source = error.source();
            }
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    confine::close_inherited()?;
    let standard = |stream: io::Result<OwnedFd>| stream.map_err(|error| error.to_string());
    let socket = UnixStream::from(standard(stdin().as_fd().try_clone_to_owned())?);
    let pipe = File::from(standard(stdout().as_fd().try_clone_to_owned())?);
    let (request, files) = confined::receive(&socket)
        .map_err(|error| format!("no request on standard input (sandbox starts this): {error}"))?;
    let Request { confinement, task, limits } = request;
    let profile = task.profile();
    confine::give_up(&confinement, profile, &files)?;
    filter::install(profile)?;
    Ok(confined::run(task, &limits, files, &mut confined::Channel::new(socket, pipe)))
}

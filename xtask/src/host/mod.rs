//! The test host: a Debian 13 machine under QEMU's software emulation with what the product needs
//! from a host and what no development machine has for certain: `/dev/kvm` (nested AMD-V), a TPM
//! 2.0, an enforcing SELinux. Its recipe is in `tests/host/`.
//!
//! One run: [`image`] makes kernel and root file system, once. [`disks`] makes what this run brings
//! along. [`machine`] starts QEMU and the TPM; [`streams`] connects the command's streams to ours.
//! The root disk's changes go to a temporary file, nothing of a run is left.

mod disks;
mod image;
mod machine;
mod signals;
mod streams;
mod terminal;

use crate::build;
use crate::packages;
use crate::programs::Program;
use anyhow::{Result, bail};
use disks::RunDirectory;
use machine::{Connections, Machine};
use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Run a command on the test host, as root, with this workspace's programs installed under /usr.
///
/// Its streams are ours, its exit status too. Without a command there is a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask host -- sandbox doctor
  cargo xtask host --share images -- sandbox run --insecure-options=image oci:/mnt/share/debian
  cargo xtask host --out logs -- sh -c 'dmesg >/mnt/out/dmesg'
  cargo xtask host")]
pub struct Arguments {
    #[command(flatten)]
    host: Host,
    /// The command and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What kind of host.
#[derive(Clone, Debug, clap::Args)]
pub struct Host {
    /// This directory is at /mnt/share, read-only.
    #[arg(long, value_name = "DIR")]
    pub share: Option<PathBuf>,
    /// What the command leaves in /mnt/out comes to this directory.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Count instructions instead of time: one CPU, 1 ms of the host's time is 10^6 instructions,
    /// whatever else this machine does. For benchmarks.
    #[arg(long)]
    pub icount: bool,
    /// The host's memory.
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    pub memory: u32,
    /// The host's CPUs; one with --icount, or where QEMU is older than 8.1.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub cpus: u8,
    /// Build nothing first: install what target/dist holds, if anything.
    #[arg(long)]
    pub no_build: bool,
    /// Programs that are installed in /usr/libexec/sandbox-tests.
    #[arg(skip)]
    pub programs: Vec<Program>,
    /// Another directory to install than the product's; its name is `dist`, too.
    #[arg(skip)]
    pub dist: Option<PathBuf>,
}

impl Default for Host {
    fn default() -> Self {
        Host {
            share: None,
            out: None,
            icount: false,
            memory: 4096,
            cpus: 2,
            no_build: false,
            programs: Vec::new(),
            dist: None,
        }
    }
}

/// Where a command's streams come from and go to.
pub struct Streams {
    /// Its standard input.
    pub stdin: Box<dyn Read + Send>,
    /// Its standard output.
    pub stdout: Box<dyn Write + Send>,
    /// Its standard error.
    pub stderr: Box<dyn Write + Send>,
}

impl Streams {
    /// Our own.
    pub fn own() -> Self {
        Streams {
            stdin: Box::new(std::io::stdin()),
            stdout: Box::new(std::io::stdout()),
            stderr: Box::new(std::io::stderr()),
        }
    }
}

/// `cargo xtask host`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let status = if arguments.command.is_empty() {
        arguments.host.shell()?
    } else {
        arguments.host.run(&arguments.command, Streams::own())?
    };
    Ok(ExitCode::from(status))
}

impl Host {
    /// Runs the command and returns its exit status; 128 + n if we were ended by signal n.
    pub fn run(&self, command: &[OsString], streams: Streams) -> Result<u8> {
        let directory = self.prepare(Some(command))?;
        let (machine, connections) = Machine::start(self, &directory)?;
        let Connections { stdin, stdout, stderr, control, .. } = connections;
        let relays =
            [streams::relay(stdout, streams.stdout), streams::relay(stderr, streams.stderr)];
        streams::feed(streams.stdin, &stdin)?;
        let status = machine.wait(control, || {})?;
        for relay in relays {
            let _ = relay.join();
        }
        self.finish(&directory)?;
        Ok(status)
    }

    /// Runs an interactive shell on our terminal and returns its exit status.
    fn shell(&self) -> Result<u8> {
        if !std::io::stdin().is_terminal() {
            bail!("a shell needs a terminal as standard input: give a command after `--`");
        }
        let directory = self.prepare(None)?;
        let (machine, connections) = Machine::start(self, &directory)?;
        let Connections { terminal, control, .. } = connections;
        let size = control.try_clone()?;
        let raw = terminal::Raw::enter()?;
        let relay = streams::relay(terminal.try_clone()?, Box::new(std::io::stdout()));
        streams::feed(Box::new(std::io::stdin()), &terminal)?;
        let status = machine.wait(control, move || terminal::send_size(&size));
        let _ = relay.join();
        drop(raw);
        let status = status?;
        self.finish(&directory)?;
        Ok(status)
    }

    fn prepare(&self, command: Option<&[OsString]>) -> Result<RunDirectory> {
        packages::ensure(packages::HOST)?;
        let dist = match &self.dist {
            Some(dist) => dist.clone(),
            None if self.no_build => build::directory()?,
            None => build::dist()?,
        };
        let image = image::image()?;
        RunDirectory::create(self, &image, &dist, command)
    }

    fn finish(&self, directory: &RunDirectory) -> Result<()> {
        match &self.out {
            Some(out) => directory.extract_output(out),
            None => Ok(()),
        }
    }
}

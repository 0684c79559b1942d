//! `sandbox attest`: the keys of this host, proofs of what runs on it, and their verification.

mod enroll;
mod export;
mod init;
mod quote;
mod reference;
mod seal;
mod serve;
mod status;
mod verify;

use super::apps::AppWords;
use super::{Global, Outcome};
use crate::installation::Installation;
use clap::{Args, Subcommand};
use sandbox_attestation::session::Attestor;
use sandbox_attestation::settings::Settings;
use std::error::Error;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Prove what runs on this host, and check such proofs.
///
/// What is launched with 'sandbox run --tpm-attest' is written into the TPM before it runs. The
/// TPM signs what was written; whoever knows its key can check the signature on any machine.
#[derive(Debug, Args)]
#[command(after_help = "\
Files:
  /etc/sandbox/attest.json     which TPM, which register, where the log is, which service verifies
  /var/lib/sandbox/attest      the log, one file for each boot, and the key's blobs")]
pub struct Attest {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Init),
    Status(status::StatusOf),
    Quote(quote::Quote),
    Verify(verify::Verify),
    Enroll(enroll::Enroll),
    Seal(seal::Seal),
    Serve(serve::Serve),
    Export(export::Export),
    Reference(Box<reference::Reference>),
}

impl Attest {
    /// The name that messages begin with.
    pub fn name(&self) -> &'static str {
        match &self.verb {
            Verb::Init(_) => "init",
            Verb::Status(_) => "status",
            Verb::Quote(_) => "quote",
            Verb::Verify(_) => "verify",
            Verb::Enroll(enroll) => enroll.name(),
            Verb::Seal(_) => "seal",
            Verb::Serve(_) => "serve",
            Verb::Export(_) => "export",
            Verb::Reference(_) => "reference",
        }
    }

    /// The verb that has apps on the command line gets them.
    ///
    /// # Errors
    /// What clap has to complain about.
    pub fn take_apps(&mut self, words: Vec<AppWords>) -> Result<(), clap::Error> {
        match &mut self.verb {
            Verb::Reference(reference) => reference.take_apps(words),
            _ => Ok(()),
        }
    }

    /// Does what the verb says.
    pub fn execute(&self, global: &Global) -> Outcome {
        match &self.verb {
            Verb::Init(init) => init.execute(),
            Verb::Status(status) => status.execute(),
            Verb::Quote(quote) => quote.execute(global),
            Verb::Verify(verify) => verify.execute(global),
            Verb::Enroll(enroll) => enroll.execute(),
            Verb::Seal(seal) => seal.execute(),
            Verb::Serve(serve) => serve.execute(),
            Verb::Export(export) => export.execute(global),
            Verb::Reference(reference) => reference.execute(global),
        }
    }
}

/// This host's settings.
fn settings() -> Result<Settings, Box<dyn Error>> {
    Ok(Settings::load(Path::new(Settings::PATH))?)
}

/// The one program that opens the TPM, ready for a request.
fn attestor(settings: &Settings) -> Result<Attestor, Box<dyn Error>> {
    super::require_root()?;
    Ok(Attestor::start(&Installation::find()?.attestor, settings)?)
}

/// Reads a file of at most `most` bytes; `-` is standard input.
fn read(path: &Path, most: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let mut content = Vec::new();
    let most = u64::try_from(most)?;
    let mut input: Box<dyn io::Read> = match path.to_str() {
        Some("-") => Box::new(io::stdin()),
        _ => Box::new(File::open(path).map_err(failed)?),
    };
    input.by_ref().take(most + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > most {
        return Err(format!("{} is longer than {most} bytes", path.display()).into());
    }
    Ok(content)
}

/// Writes a document: to a new file that only its owner can read, or to standard output.
fn write(to: Option<&PathBuf>, content: &[u8]) -> Result<(), Box<dyn Error>> {
    match to {
        Some(path) => {
            let file = File::options().write(true).create_new(true).mode(0o600).open(path);
            let written = file.and_then(|mut file| file.write_all(content));
            written.map_err(|error| format!("cannot write {}: {error}", path.display()).into())
        }
        None => Ok(io::stdout().write_all(content)?),
    }
}

use super::apps::{AppWords, GrammarError};
use super::complaint::ComplaintKind;
use super::pull::Pull;
use super::{Global, Outcome};
use crate::images::{self, Images, Wanted};
use crate::message::Messages;
use clap::{Args, Parser};
use sandbox_image::{PullPolicy, Reference};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;

const USAGE: &str = "sandbox fetch [OPTIONS] IMAGE [--signature FILE] [IMAGE …]…";

const EXAMPLES: &str = "\
Examples:
  From a registry, by tag and by digest:
    sandbox fetch docker://registry.example.com/team/app:1.2
    sandbox fetch registry.example.com/team/app@sha256:b5b2…
  An App Container Image by its name, by URL, and with its signature in a file:
    sandbox fetch example.com/app:1.2
    sandbox fetch https://example.com/app-1.2-linux-amd64.aci
    sandbox fetch app.aci --signature app.aci.asc
  What other tools have left on disk:
    sandbox fetch oci:/srv/layout:app docker-archive:saved.tar

The policy is asked before an image is put into the store (see 'sandbox policy check'), and again
whenever it is run. Prints the ID of each image, in the order of the command line.

Exit status: 0 if all images are in the store; 254 otherwise.";

/// Fetch images and put them into the store.
#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = EXAMPLES, args_override_self = true)]
pub struct Fetch {
    #[arg(value_name = "IMAGE", help = crate::images::REFERENCE_HELP)]
    words: Vec<OsString>,
    #[command(flatten)]
    options: FetchFlags,
    #[command(flatten)]
    app: AppFlags,
    #[arg(skip)]
    images: Vec<Named>,
}

#[derive(Debug, Args)]
struct FetchFlags {
    /// Print whole IDs.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set,
          value_parser = crate::options::boolean)]
    full: bool,
    #[command(flatten)]
    pull: Pull,
}

/// Options of one image.
#[derive(Clone, Debug, Parser)]
#[command(no_binary_name = true, next_help_heading = "Options of an image, after it")]
pub struct AppFlags {
    /// Hold the image, an ACI, against the detached signature in this file, in place of the one
    /// that lies beside it. It is fetched for that even if the store has it.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
}

/// An image of the command line and its signature.
#[derive(Clone, Debug)]
struct Named {
    image: OsString,
    signature: Option<PathBuf>,
}

impl Fetch {
    /// Takes the images of the command line.
    ///
    /// # Errors
    /// If one has arguments.
    pub fn take_apps(&mut self, words: Vec<AppWords>) -> Result<(), ComplaintKind> {
        for AppWords { image, flags, arguments } in words {
            if !arguments.is_empty() {
                return Err(ComplaintKind::Grammar(GrammarError::NoArguments));
            }
            let AppFlags { signature } =
                AppFlags::try_parse_from(flags).map_err(ComplaintKind::Clap)?;
            self.images.push(Named { image, signature });
        }
        Ok(())
    }

    /// The images and their signatures.
    #[cfg(test)]
    pub fn images(&self) -> Vec<(&str, Option<&str>)> {
        fn named(named: &Named) -> (&str, Option<&str>) {
            let signature = named.signature.as_deref().and_then(std::path::Path::to_str);
            (named.image.to_str().unwrap_or_default(), signature)
        }
        self.images.iter().map(named).collect()
    }

    /// Fetches the images one after the other and prints their IDs.
    pub fn execute(&self, global: &Global) -> Outcome {
        if self.images.is_empty() {
            return Err("must provide at least one image".into());
        }
        let messages = Messages::new("fetch", global.debug);
        let policy = self.options.pull.policy(PullPolicy::Update, messages)?;
        let limits = self.options.pull.limits()?;
        let store = Images::open(global.image_settings()?, messages)?;
        for Named { image, signature } in &self.images {
            let reference = Reference::parse(image)?;
            let wanted = Wanted {
                reference: &reference,
                policy,
                signature: signature.as_deref(),
                limits: &limits,
            };
            let image = store.obtain(&wanted)?;
            let id = match self.options.full {
                true => images::key(image.id()),
                false => images::short(image.id(), 32),
            };
            writeln!(std::io::stdout(), "{id}")?;
        }
        Ok(0)
    }
}

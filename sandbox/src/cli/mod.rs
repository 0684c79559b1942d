//! The command line: what each verb accepts, and what it does in the words of its manual page.

mod apps;
mod attest;
mod complaint;
mod completion;
mod config;
mod doctor;
mod fetch;
mod gate;
mod gc;
mod image;
mod list;
mod policy;
mod pull;
mod run;
mod status;
mod trust;
mod version;

#[cfg(test)]
mod tests;

use crate::images::{ImageSettings, ImagesError};
use crate::message::Messages;
use crate::options::{InsecureOptions, boolean};
use crate::settings::{Directories, Settings, SettingsError};
use clap::{Args, CommandFactory, Parser, Subcommand};
use complaint::{Complaint, ComplaintKind};
use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit status of every failure of our own, as of rkt.
pub const FAILURE: u8 = 254;

/// What a verb ends with: an exit status, or an error to print.
type Outcome = Result<u8, Box<dyn Error>>;

/// Runs containers, every pod in a microVM of its own.
///
/// The command line is that of rkt.
#[derive(Debug, Parser)]
#[command(
    name = "sandbox",
    version,
    infer_subcommands = true,
    args_override_self = true,
    after_help = "The name of a command can be cut short as long as it is unique, and global \
                  options may stand before or after it.\n\n\
                  Exit status: the app's; 254 for a failure of sandbox itself, with a line on \
                  standard error that says what was tried, what was found and what to do."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options of every verb.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Directory that holds images and pods; if it is not given, the one that paths.d in the
    /// configuration directories names, or /var/lib/rkt.
    #[arg(long, global = true, value_name = "DIR", value_parser = absolute)]
    dir: Option<PathBuf>,
    /// Directory of the configuration that packages bring.
    #[arg(long, global = true, value_name = "DIR", default_value = "/usr/lib/rkt",
          value_parser = absolute)]
    system_config: PathBuf,
    /// Directory of the host's own configuration; what it says wins over --system-config.
    #[arg(long, global = true, value_name = "DIR", default_value = "/etc/rkt",
          value_parser = absolute)]
    local_config: PathBuf,
    /// Directory of a user's configuration; what it says wins over both others.
    #[arg(long, global = true, value_name = "DIR", value_parser = absolute)]
    user_config: Option<PathBuf>,
    /// The policy that says which images may run (containers-policy.json(5)). If there is no such
    /// file, none may but those that keys of 'sandbox trust' have signed.
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/sandbox/policy.json",
          value_parser = absolute)]
    policy: PathBuf,
    /// Say more about what is done, on standard error.
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set, value_parser = boolean)]
    debug: bool,
    /// Security features to switch off, separated by commas: none, image (run images that the
    /// policy refuses), tls (accept any certificate), http (fetch without TLS), pubkey (fetch keys
    /// without TLS), capabilities, paths, seccomp, all-fetch, all-run, all.
    #[arg(long, global = true, value_name = "LIST", default_value_t)]
    insecure_options: InsecureOptions,
    /// Trust keys that are found by discovery and come over https, without a review.
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set, value_parser = boolean)]
    trust_keys_from_https: bool,
}

impl Global {
    /// The configuration directories.
    fn directories(&self) -> Directories {
        Directories {
            system: self.system_config.clone(),
            local: self.local_config.clone(),
            user: self.user_config.clone(),
        }
    }

    /// What the verbs need that have to do with images.
    fn image_settings(&self) -> Result<ImageSettings, SettingsError> {
        Ok(ImageSettings {
            data_dir: self.data_dir()?,
            directories: self.directories(),
            policy: self.policy.clone(),
            insecure: self.insecure_options,
            trust_keys_from_https: self.trust_keys_from_https,
        })
    }

    /// The data directory: as rkt, `--dir` wins if it is given, then `paths.d`.
    fn data_dir(&self) -> Result<PathBuf, SettingsError> {
        Ok(match &self.dir {
            Some(directory) => directory.clone(),
            None => match Settings::load(&self.directories())?.paths.data {
                configured if configured.is_empty() => PathBuf::from("/var/lib/rkt"),
                configured => PathBuf::from(configured),
            },
        })
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(Box<run::Run>),
    List(list::List),
    Status(status::Status),
    Fetch(fetch::Fetch),
    Image(image::Image),
    Trust(trust::Trust),
    Policy(policy::Policy),
    Attest(attest::Attest),
    Gate(gate::Gate),
    Config(config::Config),
    Gc(gc::Gc),
    Doctor(doctor::Doctor),
    Version(version::Version),
    Completion(completion::Completion),
    #[command(hide = true)]
    Man(completion::Man),
}

impl Verb {
    /// The verb that has apps on the command line gets them.
    fn take_apps(&mut self, words: Vec<apps::AppWords>) -> Result<(), ComplaintKind> {
        match self {
            Self::Run(run) => run.take_apps(words).map_err(ComplaintKind::Clap),
            Self::Fetch(fetch) => fetch.take_apps(words),
            Self::Image(image) => image.take_apps(words),
            Self::Attest(attest) => attest.take_apps(words).map_err(ComplaintKind::Clap),
            _ => Ok(()),
        }
    }

    /// The name that messages begin with: the innermost verb's, as in rkt.
    fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::List(_) => "list",
            Self::Status(_) => "status",
            Self::Fetch(_) => "fetch",
            Self::Image(image) => image.name(),
            Self::Trust(trust) => trust.name(),
            Self::Policy(policy) => policy.name(),
            Self::Attest(attest) => attest.name(),
            Self::Gate(gate) => gate.name(),
            Self::Config(_) => "config",
            Self::Gc(_) => "gc",
            Self::Doctor(_) => "doctor",
            Self::Version(_) => "version",
            Self::Completion(_) => "completion",
            Self::Man(_) => "man",
        }
    }

    fn execute(&self, global: &Global) -> Outcome {
        match self {
            Self::Run(run) => run.execute(global),
            Self::List(list) => list.execute(global),
            Self::Status(status) => status.execute(global),
            Self::Fetch(fetch) => fetch.execute(global),
            Self::Image(image) => image.execute(global),
            Self::Trust(trust) => trust.execute(global),
            Self::Policy(policy) => policy.execute(global),
            Self::Attest(attest) => attest.execute(global),
            Self::Gate(gate) => gate.execute(global),
            Self::Config(config) => config.execute(global),
            Self::Gc(gc) => gc.execute(global),
            Self::Doctor(doctor) => doctor.execute(global),
            Self::Version(version) => version.execute(),
            Self::Completion(completion) => completion.execute(Cli::command()),
            Self::Man(man) => man.execute(Cli::command()),
        }
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("must be an absolute path".into()) }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    ExitCode::from(match parse(words) {
        Ok(cli) => execute(&cli),
        Err(complaint) => {
            complaint.print();
            complaint.status()
        }
    })
}

/// Reads a command line.
fn parse(mut words: Vec<OsString>) -> Result<Cli, Complaint> {
    let mut root = Cli::command();
    root.build();
    let (verbs, end) = apps::verbs(&root, words.get(1..).unwrap_or_default());
    let names: Vec<String> = verbs.iter().map(|verb| verb.get_name().to_owned()).collect();
    let complaint = |error| Complaint { verbs: names.clone(), error };

    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let app_flags = match names[..] {
        ["run"] | ["attest", "reference"] => Some(run::AppFlags::command()),
        ["fetch"] | ["image", "fetch"] => Some(fetch::AppFlags::command()),
        _ => None,
    };
    let mut app_words = Vec::new();
    if let (Some(flags), Some(verb)) = (app_flags, verbs.last()) {
        let (others, of_apps) = apps::split(verb, &flags, words.split_off(1 + end))
            .map_err(|error| complaint(ComplaintKind::Grammar(error)))?;
        words.extend(others);
        app_words = of_apps;
    }
    let mut cli =
        Cli::try_parse_from(words).map_err(|error| complaint(ComplaintKind::Clap(error)))?;
    cli.verb.take_apps(app_words).map_err(complaint)?;
    Ok(cli)
}

fn execute(cli: &Cli) -> u8 {
    cli.verb.execute(&cli.global).unwrap_or_else(|error| {
        if let Some(ImagesError::Interrupted(signal)) = error.downcast_ref() {
            return u8::try_from(128 + signal).unwrap_or(FAILURE);
        }
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        // Who reads our output has enough of it, as `head` may have.
        if !error.downcast_ref().is_some_and(gone) {
            Messages::new(cli.verb.name(), cli.global.debug).error(&*error);
        }
        FAILURE
    })
}

/// What only root may do is refused to others before anything is done.
fn require_root() -> Result<(), Box<dyn Error>> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err("cannot run as unprivileged user".into())
    }
}

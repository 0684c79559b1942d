//! The command line: what each verb accepts, and what it does in the words of its manual page.

mod apps;
mod completion;
mod doctor;
mod gc;
mod run;
mod version;

#[cfg(test)]
mod tests;

use crate::message::{self, Messages};
use crate::options::{InsecureOptions, boolean};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
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
    /// Directory that holds images and pods.
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/rkt",
          value_parser = absolute)]
    dir: PathBuf,
    /// Say more about what is done, on standard error.
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set, value_parser = boolean)]
    debug: bool,
    /// Security features to switch off, separated by commas: none, image, tls, http, pubkey,
    /// capabilities, paths, seccomp, all-fetch, all-run, all.
    #[arg(long, global = true, value_name = "LIST", default_value_t)]
    insecure_options: InsecureOptions,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(Box<run::Run>),
    Gc(gc::Gc),
    Doctor(doctor::Doctor),
    Version(version::Version),
    Completion(completion::Completion),
    #[command(hide = true)]
    Man(completion::Man),
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("must be an absolute path".into()) }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    ExitCode::from(match parse(words) {
        Ok((cli, apps)) => execute(cli, apps),
        Err(complaint) => {
            complaint.print();
            complaint.status()
        }
    })
}

/// A command line that can't be executed.
#[derive(Debug)]
struct Complaint {
    /// Name of the verb, if it was recognized.
    verb: Option<String>,
    error: ComplaintKind,
}

#[derive(Debug)]
enum ComplaintKind {
    Clap(clap::Error),
    Grammar(apps::GrammarError),
}

/// Reads a command line. The apps are those of a verb that has apps.
fn parse(mut words: Vec<OsString>) -> Result<(Cli, Vec<run::App>), Complaint> {
    let mut root = Cli::command();
    root.build();
    let verb_at = words.get(1..).and_then(|words| apps::position_of_verb(&root, words));
    let verb = verb_at.and_then(|at| verb_of(&root, words[1 + at].to_str()?));
    let complaint = |error| Complaint { verb: verb.map(|verb| verb.get_name().to_owned()), error };
    let clap_complaint = |error| complaint(ComplaintKind::Clap(error));

    let mut apps = Vec::new();
    if let (Some(at), Some(verb)) = (verb_at, verb)
        && verb.get_name() == "run"
    {
        let (pod_words, app_words) =
            apps::split(verb, &run::AppFlags::command(), words.split_off(2 + at))
                .map_err(|error| complaint(ComplaintKind::Grammar(error)))?;
        words.extend(pod_words);
        for app in app_words {
            apps.push(run::App::parse(app).map_err(clap_complaint)?);
        }
    }
    let cli = Cli::try_parse_from(words).map_err(clap_complaint)?;
    Ok((cli, apps))
}

/// The verb that `word` names, in full or by a prefix that no other verb has.
fn verb_of<'a>(root: &'a clap::Command, word: &str) -> Option<&'a clap::Command> {
    let verbs = || root.get_subcommands();
    verbs().find(|verb| verb.get_name() == word).or_else(|| {
        let mut matching = verbs().filter(|verb| verb.get_name().starts_with(word));
        matching.next().filter(|_| matching.next().is_none())
    })
}

fn execute(cli: Cli, apps: Vec<run::App>) -> u8 {
    let global = cli.global;
    let debug = global.debug;
    let (verb, outcome) = match cli.verb {
        Verb::Run(run) => ("run", run.execute(&global, apps)),
        Verb::Gc(gc) => ("gc", gc.execute(&global)),
        Verb::Doctor(doctor) => ("doctor", doctor.execute(&global)),
        Verb::Version(version) => ("version", version.execute()),
        Verb::Completion(completion) => ("completion", completion.execute(Cli::command())),
        Verb::Man(man) => ("man", man.execute(Cli::command())),
    };
    outcome.unwrap_or_else(|error| {
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        // Who reads our output has enough of it, as `head` may have.
        if !error.downcast_ref().is_some_and(gone) {
            Messages::new(verb, debug).error(&*error);
        }
        FAILURE
    })
}

impl Complaint {
    /// Shows help where it was asked for, else what is wrong with the command line.
    fn print(&self) {
        let verb = self.verb.as_deref();
        let say = |text: &dyn std::fmt::Display| message::say(verb.unwrap_or("sandbox"), text);
        match &self.error {
            ComplaintKind::Clap(error) if self.status() != FAILURE => {
                // Help that can't be written, because its reader has gone, is no failure.
                let _ = error.print();
                return;
            }
            ComplaintKind::Clap(error) => {
                let text = error.render().to_string();
                let end = ["\n\nUsage:", "\n\nFor more information"]
                    .iter()
                    .filter_map(|mark| text.find(mark))
                    .min()
                    .unwrap_or(text.len());
                for line in text[..end].lines().filter(|line| !line.is_empty()) {
                    say(&line.trim().trim_start_matches("error: "));
                }
            }
            ComplaintKind::Grammar(error) => say(error),
        }
        let command = verb.map(|verb| format!("{verb} ")).unwrap_or_default();
        say(&format_args!("run 'sandbox {command}--help' for usage"));
    }

    /// The exit status: as of rkt, 2 for no command at all.
    fn status(&self) -> u8 {
        match &self.error {
            ComplaintKind::Clap(error) => match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if self.verb.is_none() => 2,
                _ => FAILURE,
            },
            ComplaintKind::Grammar(_) => FAILURE,
        }
    }
}

/// What only root may do is refused to others before anything is done.
fn require_root() -> Result<(), Box<dyn Error>> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err("cannot run as unprivileged user".into())
    }
}

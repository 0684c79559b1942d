//! A command line that can't be executed.

use super::FAILURE;
use super::apps::GrammarError;
use crate::message;
use clap::error::ErrorKind;

/// What is wrong with a command line, or the help that it asked for.
#[derive(Debug)]
pub struct Complaint {
    /// The verbs that were recognized, outermost first.
    pub verbs: Vec<String>,
    /// What is wrong.
    pub error: ComplaintKind,
}

/// Who complains.
#[derive(Debug)]
pub enum ComplaintKind {
    /// The parser of options. Help counts as an error, too.
    Clap(clap::Error),
    /// The grammar of images.
    Grammar(GrammarError),
}

impl Complaint {
    /// Shows help where it was asked for, else what is wrong with the command line.
    pub fn print(&self) {
        let verb = self.verbs.last().map_or("sandbox", String::as_str);
        let say = |text: &dyn std::fmt::Display| message::say(verb, text);
        match &self.error {
            ComplaintKind::Clap(error) if self.status() != FAILURE || is_help(error) => {
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
        let command: String = self.verbs.iter().map(|verb| format!("{verb} ")).collect();
        say(&format_args!("run 'sandbox {command}--help' for usage"));
    }

    /// The exit status: as of rkt, 2 for no command at all.
    pub fn status(&self) -> u8 {
        match &self.error {
            ComplaintKind::Clap(error) => match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if self.verbs.is_empty() => 2,
                _ => FAILURE,
            },
            ComplaintKind::Grammar(_) => FAILURE,
        }
    }
}

/// Whether the help is shown because something is missing.
fn is_help(error: &clap::Error) -> bool {
    error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

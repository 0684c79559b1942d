use super::{Global, Outcome};
use crate::output;
use crate::settings::{Credentials, Paths, Settings, Stage1};
use clap::{ArgAction, Args};
use serde::Serialize;
use serde_json::Value;
use std::io::Write as _;

/// Print the configuration that is in force, as rkt's JSON.
///
/// It is what the files of the configuration directories come to after stronger ones were laid over
/// weaker ones. Passwords and tokens are shown as "***" unless --show-secrets is given.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sandbox config --local-config=/srv/rkt --pretty-print=false")]
pub struct Config {
    /// Indent the output.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true", hide_possible_values = true,
          action = ArgAction::Set, value_parser = crate::options::boolean)]
    pretty_print: bool,
    /// Print passwords and tokens, too, as rkt does.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set,
          value_parser = crate::options::boolean)]
    show_secrets: bool,
}

impl Config {
    /// Reads the files and prints them.
    pub fn execute(&self, global: &Global) -> Outcome {
        let directories = global.directories();
        let settings = Settings::load(&directories)?;
        let credentials = Credentials::load(&directories)?;
        let secrets = credentials.documents(self.show_secrets);
        let text = output::json(&Document::of(secrets, &settings), self.pretty_print)?;
        write!(std::io::stdout(), "{text}")?;
        Ok(0)
    }
}

/// What is printed.
#[derive(Serialize)]
struct Document<'a> {
    stage0: Vec<Part<'a>>,
}

/// What one file of a configuration directory could say.
#[derive(Serialize)]
#[serde(untagged)]
enum Part<'a> {
    Credentials(Value),
    Paths(Headed<&'a Paths>),
    Stage1(Headed<&'a Stage1>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Headed<T> {
    rkt_version: &'static str,
    rkt_kind: &'static str,
    #[serde(flatten)]
    content: T,
}

impl<'a> Document<'a> {
    fn of(credentials: Vec<Value>, settings: &'a Settings) -> Self {
        let mut stage0: Vec<_> = credentials.into_iter().map(Part::Credentials).collect();
        stage0.push(Part::Paths(Headed {
            rkt_version: "v1",
            rkt_kind: "paths",
            content: &settings.paths,
        }));
        stage0.push(Part::Stage1(Headed {
            rkt_version: "v1",
            rkt_kind: "stage1",
            content: &settings.stage1,
        }));
        Self { stage0 }
    }
}

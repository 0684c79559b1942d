use super::{Global, Outcome};
use crate::doctor::{self, State};
use crate::installation::Installation;
use clap::{Args, ValueEnum};
use std::io::Write as _;
use std::path::PathBuf;

/// Tell whether this machine can run pods, and what to do if it can't.
///
/// Each line says ok, warning or missing, the name of a check, what was found, and what to do.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sandbox doctor
  sandbox doctor --format=json

Exit status: 0 if a pod can be run, 1 if something it needs is missing.")]
pub struct Doctor {
    /// How to print what was found.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Look at this guest kernel instead of the installed one.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

impl Doctor {
    /// Makes the checks and prints them.
    pub fn execute(&self, global: &Global) -> Outcome {
        let mut installation = Installation::find()?;
        if let Some(kernel) = &self.kernel {
            installation.kernel.clone_from(kernel);
        }
        let checks = doctor::examine(&installation, &global.image_settings()?);
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&checks)?)?,
            Format::Text => {
                for check in &checks {
                    writeln!(out, "{check}")?;
                }
            }
        }
        let missing = checks.iter().any(|check| check.required && check.state == State::Missing);
        Ok(u8::from(missing))
    }
}

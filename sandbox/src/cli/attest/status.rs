use super::{attestor, init, settings};
use crate::cli::Outcome;
use crate::output::{self, Format};
use clap::Args;
use sandbox_attestation::session::{LogState, Status};
use sandbox_image::Text;
use std::fmt::Write as _;
use std::io::Write as _;

/// Say what the TPM and the log are like.
///
/// Nothing is changed.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sandbox attest status --format=json

Exit status: 0 if launches can be measured and quoted; 1 if the log and the TPM contradict each
other, or there is no key; 254 if that can't be found out.")]
pub struct StatusOf {
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse, default_value = "",
          hide_default_value = true, help = Format::HELP)]
    format: Format,
}

/// The exit status where launches can't be measured, or not be quoted.
const NOT_READY: u8 = 1;

impl StatusOf {
    /// Asks, and prints the answer.
    pub fn execute(&self) -> Outcome {
        let status = attestor(&settings()?)?.status()?;
        let text = match self.format {
            Format::Text => text(&status),
            format => output::json(&status, format == Format::JsonPretty)?,
        };
        write!(std::io::stdout(), "{text}")?;
        let is_ready = status.identity.is_some() && !matches!(status.log, LogState::Differs { .. });
        Ok(if is_ready { 0 } else { NOT_READY })
    }
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{name:<25}{}", Text::message(value.to_string()));
    };
    line("TPM", &format_args!("{} {:x}", status.manufacturer.trim(), status.firmware));
    line("register", &status.pcr);
    for (bank, value) in &status.values {
        line(&format!("  {bank}"), &format_args!("{value:?}"));
    }
    line("records of this boot", &status.records);
    match &status.log {
        LogState::Empty => line("log", &"empty"),
        LogState::Agrees => line("log", &"agrees with the register"),
        LogState::Interrupted => line("log", &"interrupted; the next launch puts it in order"),
        LogState::Differs { problem } => line("log", &format_args!("DIFFERS: {problem}")),
    }
    for warning in &status.warnings {
        line("warning", warning);
    }
    match &status.identity {
        Some(identity) => text.push_str(&init::text(identity)),
        None => line("attestation key", &"none; 'sandbox attest init' makes one"),
    }
    text
}

use super::Outcome;
use clap::Args;
use std::io::Write as _;

/// Print the version and how this program was built.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sandbox version")]
pub struct Version {}

impl Version {
    /// Prints the five lines of rkt, with what stands in their place here.
    pub fn execute(&self) -> Outcome {
        let lines = [
            format!("sandbox Version: {}", env!("CARGO_PKG_VERSION")),
            format!("appc Version: {}", crate::pod::manifest::AC_VERSION),
            format!("Protocol Version: {}", sandbox_protocol::VERSION),
            format!("OS/Arch: {}/amd64", std::env::consts::OS),
            "Features: -TPM -SELINUX".to_owned(),
        ];
        writeln!(std::io::stdout(), "{}", lines.join("\n"))?;
        Ok(0)
    }
}

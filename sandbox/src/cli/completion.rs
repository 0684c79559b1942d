use super::Outcome;
use clap::{Args, Command};
use clap_complete::Shell;
use std::io::Write as _;
use std::path::PathBuf;

/// Print a script that completes this program's commands and options in a shell.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sandbox completion bash >/etc/bash_completion.d/sandbox")]
pub struct Completion {
    /// The shell.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(["bash", "zsh", "fish"]))]
    shell: String,
}

impl Completion {
    /// Prints the script.
    pub fn execute(&self, mut command: Command) -> Outcome {
        let shell = match self.shell.as_str() {
            "bash" => Shell::Bash,
            "zsh" => Shell::Zsh,
            _ => Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "sandbox", &mut script);
        std::io::stdout().write_all(&script)?;
        Ok(0)
    }
}

/// Write manual pages, one for each command.
#[derive(Debug, Args)]
pub struct Man {
    /// Directory to write them to.
    dir: PathBuf,
}

impl Man {
    /// Writes the pages.
    pub fn execute(&self, command: Command) -> Outcome {
        std::fs::create_dir_all(&self.dir)?;
        clap_mangen::generate_to(command, &self.dir)?;
        Ok(0)
    }
}

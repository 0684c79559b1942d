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
        for page in std::fs::read_dir(&self.dir)? {
            let page = page?.path();
            if page.extension().is_some_and(|extension| extension == "1") {
                // What the generator calls so is what follows the options in the help.
                let text = std::fs::read_to_string(&page)?;
                std::fs::write(
                    &page,
                    text.replace(".SH EXTRA\n", ".SH EXAMPLES AND EXIT STATUS\n"),
                )?;
            }
        }
        Ok(0)
    }
}

use super::list::Entry;
use super::{Global, Outcome};
use crate::output::{self, Format, local_time};
use crate::pod::{DataDir, Life, Listed};
use clap::{ArgGroup, Args};
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

/// Show the state of a pod.
///
/// The lines are those of rkt, and two more: attested says how far the launch was written down and
/// checked (none, measured, local, remote: see 'sandbox list'), and launch is the number of its
/// record in the log.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("pod").required(true).args(["uuid", "uuid_file"])),
    after_help = "\
Examples:
  sandbox status 6f0e9b1c
  sandbox status --uuid-file=/run/web.uuid --format=json

Exit status: 0; 1 if the file with the UUID cannot be read; 254 if there is no such pod."
)]
pub struct Status {
    /// UUID of the pod, or its first digits.
    #[arg(value_name = "UUID")]
    uuid: Option<String>,
    /// A file that the UUID is read from, as 'sandbox run --uuid-file-save' writes it.
    #[arg(long, value_name = "FILE")]
    uuid_file: Option<PathBuf>,
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse, default_value = "",
          hide_default_value = true, help = Format::HELP)]
    format: Format,
}

/// As of rkt, for a file with a UUID that can't be read.
const UNREADABLE: u8 = 1;

impl Status {
    /// Prints what there is about it.
    pub fn execute(&self, global: &Global) -> Outcome {
        let uuid = match (&self.uuid, &self.uuid_file) {
            (Some(uuid), _) => uuid.clone(),
            (None, Some(file)) => match fs::read_to_string(file) {
                Ok(content) => content.trim().to_owned(),
                Err(error) => {
                    let message = format!("unable to read {}: {error}", file.display());
                    crate::message::Messages::new("status", global.debug).say(message);
                    return Ok(UNREADABLE);
                }
            },
            (None, None) => return Err("must provide the UUID of a pod".into()),
        };
        let pod = DataDir::at(&global.data_dir()?)?.find(&uuid)?;
        let text = match self.format {
            Format::Text => text(&pod)?,
            format => output::json(&Entry::of(&pod), format == Format::JsonPretty)?,
        };
        write!(std::io::stdout(), "{text}")?;
        Ok(0)
    }
}

fn text(pod: &Listed) -> Result<String, Box<dyn Error>> {
    let mut text = format!("state={}\n", pod.life);
    for (name, time) in [("created", pod.created), ("started", pod.started)] {
        if let Some(time) = time {
            writeln!(text, "{name}={}", local_time(time))?;
        }
    }
    if pod.life == Life::Running || pod.life.is_over() {
        writeln!(text, "networks=")?;
        if let Some(pid) = pod.pid {
            writeln!(text, "pid={pid}")?;
        }
        writeln!(text, "exited={}", pod.life.is_over())?;
    }
    writeln!(text, "attested={}", pod.attestation)?;
    if let Some(number) = pod.attestation.number() {
        writeln!(text, "launch={number}")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Attestation;

    #[test]
    fn the_lines_are_those_of_rkt_and_how_far_it_is_attested() {
        let mut pod = Listed {
            uuid: uuid::Uuid::nil(),
            life: Life::Running,
            manifest: None,
            created: None,
            started: None,
            pid: Some(42),
            attestation: Attestation::Remote { number: 3 },
        };
        assert_eq!(
            text(&pod).unwrap(),
            "state=running\nnetworks=\npid=42\nexited=false\nattested=remote\nlaunch=3\n"
        );
        pod = Listed { life: Life::Prepared, pid: None, attestation: Attestation::None, ..pod };
        assert_eq!(text(&pod).unwrap(), "state=prepared\nattested=none\n");
        pod = Listed { life: Life::Exited, ..pod };
        assert_eq!(text(&pod).unwrap(), "state=exited\nnetworks=\nexited=true\nattested=none\n");
    }
}

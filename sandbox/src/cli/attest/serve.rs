use super::read;
use crate::cli::Outcome;
use crate::message::Messages;
use clap::Args;
use sandbox_attestation::service::{Confined, Directory, Server, Service, confine};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};
use std::error::Error;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Verify launches for the hosts of a team.
///
/// Hosts that run pods with '--tpm-attest=URL' ask this service for a nonce, send it what their TPM
/// signed, and launch nothing that it does not accept. Its verdicts are signed; each host pins the
/// key. It needs neither root nor a TPM, and should run on a machine that is none of the hosts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  The service, on a machine of its own; the key's public half is for the hosts:
    sandbox attest serve --directory=/srv/verifier --show-key >verifier.pub
    sandbox attest serve --directory=/srv/verifier --listen='[::]:8443' \\
      --certificate=verifier.crt --key=verifier.key
  A host that is enrolled there, in /etc/sandbox/attest.json:
    {\"version\": 1, \"verifier\": {\"url\": \"https://verifier.example.com:8443\",
                               \"key\": \"/etc/sandbox/verifier.pub\"}}
    sandbox run --tpm-attest=service example.com/worker:1.0

Files in the directory:
  service.json           rules, see below
  signing-key.pem        signs verdicts; made at the first start; signing-key.pub is its public half
  hosts/NAME.json        the hosts that are answered: enrolments, as 'sandbox attest enroll sign'
                         writes them
  policies/NAME.json     policies, as 'sandbox attest verify' takes them
  secrets/NAME           secrets for pods, of mode 0600
  verdicts/              what was decided, one file for each verdict; the oldest ones go

service.json, here with two policies and a secret:
  {\"version\": 1, \"name\": \"verifier of the team\",
   \"rules\": [
     {\"policy\": \"strict\", \"tenant\": \"blue\", \"imagePrefix\": \"registry.example.com/blue\"},
     {\"policy\": \"team\", \"hosts\": [\"node1\", \"node2\"]}],
   \"secrets\": [{\"name\": \"db\", \"policy\": \"strict\", \"tenant\": \"blue\"}]}
The first rule that a pod fits names the policy that it has to pass; members of a rule that are left
out fit every pod. A pod without a rule is refused. A secret goes to pods that have passed its policy
with the verdict 'affirming', which leaves nothing open that decides what runs; with \"accept\":
\"warning\", to those as well where something is. All policies for a host select the same registers.
More can be set: tokenLife, challengeLife (seconds), keepVerdicts, limits.

SIGHUP has hosts, policies, rules and the certificate read anew; if something is wrong with them, the
old ones hold on. SIGTERM and SIGINT let requests that have begun come to their end.

Exit status: 0 after a signal; 254 if the service cannot run.")]
pub struct Serve {
    /// The directory with all that the service knows; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Address and port to listen at, as in 192.0.2.7:8443 or '[::]:8443'.
    #[arg(long, value_name = "ADDR:PORT", required_unless_present = "show_key")]
    listen: Option<SocketAddr>,
    /// The certificate for TLS (PEM), and after it those between it and its authority's.
    #[arg(long, value_name = "FILE", required_unless_present = "show_key")]
    certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", required_unless_present = "show_key")]
    key: Option<PathBuf>,
    /// Show the public key that verdicts are signed with, and end.
    #[arg(long, conflicts_with_all = ["listen", "certificate", "key"])]
    show_key: bool,
}

/// The longest file with a certificate or its key.
const MAX_PEM: usize = 1 << 20;

/// How long requests that have begun may go on after a signal.
const PATIENCE: Duration = Duration::from_secs(20);

impl Serve {
    /// Serves until a signal comes.
    pub fn execute(&self) -> Outcome {
        let directory = Directory::open(&self.directory)?;
        if self.show_key {
            io::stdout().write_all(directory.public_key()?.as_bytes())?;
            return Ok(0);
        }
        let (Some(listen), Some(certificate), Some(key)) =
            (self.listen, &self.certificate, &self.key)
        else {
            return Err("--listen, --certificate and --key are needed".into());
        };
        let messages = Messages::new("serve", false);
        let (service, odd) = Service::open(directory)?;
        odd.iter().for_each(|line| messages.say(line));
        let log = Box::new(move |line: &str| messages.say(line));
        let (chain, secret) = (read(certificate, MAX_PEM)?, read(key, MAX_PEM)?);
        let server = Arc::new(Server::new(service, &chain, &secret, log)?);

        let ends = Arc::new(AtomicBool::new(false));
        let (mut wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        for signal in [SIGTERM, SIGINT] {
            flag::register(signal, Arc::clone(&ends))?;
        }
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            pipe::register(signal, waker.try_clone()?)?;
        }
        let listener = TcpListener::bind(listen)
            .map_err(|error| format!("cannot listen at {listen}: {error}"))?;
        if confine(&self.directory, &[certificate, key])? == Confined::WithoutFiles {
            messages.say(
                "this kernel has no Landlock, or it is switched off (boot parameter lsm): who takes \
                 the service over can open every file that its user can",
            );
        }
        // With port 0, the system has chosen one.
        messages.say(format_args!("listening at {}", listener.local_addr()?));
        loop {
            server.run(&listener, wake.as_fd())?;
            let _ = wake.read(&mut [0; 64]);
            if ends.load(Ordering::Relaxed) {
                break;
            }
            match reload(&server, certificate, key) {
                Ok(odd) => {
                    messages.say("hosts, policies, rules and certificate were read anew");
                    odd.iter().for_each(|line| messages.say(line));
                }
                Err(error) => messages.say(format_args!("what was there holds on: {error}")),
            }
        }
        drop(listener);
        match server.finish(PATIENCE) {
            true => messages.say("ends"),
            false => messages.say("ends, and leaves requests unanswered"),
        }
        Ok(0)
    }
}

fn reload(server: &Server, certificate: &Path, key: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let (chain, secret) = (read(certificate, MAX_PEM)?, read(key, MAX_PEM)?);
    server.set_certificate(&chain, &secret)?;
    Ok(server.service().reload()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use sandbox_attestation::service::ServiceSettings;
    use sandbox_attestation::settings::Settings;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        _serve: Serve,
    }

    fn help() -> String {
        Serve::augment_args(Command::command()).get_after_help().unwrap().to_string()
    }

    #[test]
    fn the_rules_in_the_help_are_rules() {
        let help = help();
        let start = help.find("{\"version\": 1, \"name\"").unwrap();
        let end = help[start..].find("}]}").unwrap() + start + 3;
        let settings = ServiceSettings::parse(&help.as_bytes()[start..end]).unwrap();
        assert_eq!((settings.rules.len(), settings.secrets.len()), (2, 1));
    }

    #[test]
    fn the_settings_of_a_host_in_the_help_are_settings() {
        let help = help();
        let start = help.find("{\"version\": 1, \"verifier\"").unwrap();
        let end = help[start..].find("}}").unwrap() + start + 2;
        let settings = Settings::parse(&help.as_bytes()[start..end]).unwrap();
        assert_eq!(settings.verifier.unwrap().url, "https://verifier.example.com:8443");
    }
}

use super::apps::AppWords;
use super::pull::Pull;
use super::{Global, Outcome};
use crate::images::{Images, Wanted};
use crate::installation::Installation;
use crate::measure::{Installed, Meter, Parts, RemoteOptions, Secrets};
use crate::message::Messages;
use crate::options::{
    AcName, Cpu, Environment, Layers, Memory, Mount, ScratchSize, SecretOption, Variable, Volume,
    boolean,
};
use crate::pod::{AppOptions, Assembly, Console, DataDir, Plan, PodOptions, PodSpec, PreparedPod};
use crate::supervisor::{self, RunOptions, event, signals::Signals, terminal};
use clap::{ArgAction, Args, Parser};
use sandbox_attestation::record::{Record, Variable as Measurand};
use sandbox_attestation::settings::Settings as AttestSettings;
use sandbox_gate::{Measured, Verifier};
use sandbox_image::{PullPolicy, Reference, StoredImage};
use sandbox_protocol::TerminalSize;
use sandbox_vmm::config::CommandLine;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

const USAGE: &str = "sandbox run [OPTIONS] IMAGE [APP OPTIONS] [-- ARGS… [---]] [IMAGE …]…";

const EXAMPLES: &str = "\
Examples:
  A shell in an image of a registry:
    sandbox run --interactive docker://registry.example.com/team/debian:13 --exec /bin/bash
  A program with arguments, limits and a directory of the host:
    sandbox run --insecure-options=image --volume src,kind=host,source=/srv/src \\
      oci-archive:gcc.tar --mount volume=src,target=/src --memory=1G --cpu=2 \\
      --working-dir=/src --exec make -- -j2 all
  Two apps in one pod, each with arguments:
    sandbox run example.com/worker:1.0 -- --loglevel verbose --- \\
      syncer.aci --signature syncer.asc -- --interval 30s
  Only if a verifier accepts what this host's TPM says of the launch ('sandbox attest serve'):
    sandbox run --tpm-attest=https://verifier.example.com --attest-key=verifier.pub \\
      example.com/worker:1.0
  With a secret that only a host that has booted as this one has can open:
    sandbox attest seal --out db.sealed <password.txt
    sandbox run --tpm-attest --secret db=sealed:db.sealed example.com/worker:1.0

An image that is not in the store is fetched first, as 'sandbox fetch' does it. Whether a pod may run
is decided at every start ('sandbox gate explain' says how); the pod's directory keeps the answer.

What follows -- are arguments of the image before it, up to --- or the end of the line. They are
added to the image's command line, or to the one of --exec.

A pod has as many virtual CPUs as its apps' --cpu limits add up to, rounded up, and at least one.
Its memory is the sum of its apps' --memory limits, 192 MiB for an app without one, and 64 MiB for
the guest itself. What an app writes outside of volumes is kept in that memory, or on a disk that goes
with the pod if --scratch gives one.

The environment of an app comes from, each over the one before: --inherit-env, the image,
--environment, --set-env-file, --set-env.

Exit status: that of the first app that fails, 128 and the signal's number if a signal ended it,
0 if none fails; 254 for a failure of sandbox itself. The first app that fails ends the pod.
SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to the apps. The third SIGINT
in a row, or a second SIGTERM, kills the pod.";

/// Run one or more images as a pod, in a microVM of its own.
#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = EXAMPLES, args_override_self = true)]
pub struct Run {
    #[arg(value_name = "IMAGE", help = crate::images::REFERENCE_HELP)]
    images: Vec<OsString>,
    #[command(flatten)]
    pod: PodFlags,
    #[command(flatten)]
    pull: Pull,
    #[command(flatten)]
    app: AppFlags,
    #[arg(skip)]
    apps: Vec<App>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of the pod")]
struct PodFlags {
    /// Connect the app with this terminal, or with standard input if that is none. For one image.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = ArgAction::Set, value_parser = boolean)]
    interactive: bool,
    #[arg(
        long = "volume",
        value_name = "VOLUME",
        help = "A volume: \
          NAME,kind=host,source=PATH[,readOnly=BOOL][,recursive=BOOL] or \
          NAME,kind=empty[,readOnly=BOOL][,mode=0755][,uid=0][,gid=0]"
    )]
    volumes: Vec<Volume>,
    /// Set an environment variable of all apps.
    #[arg(long, value_name = "NAME=VALUE")]
    set_env: Vec<Variable>,
    /// Set environment variables of all apps from the lines of a file; those that begin with # or ;
    /// are comments.
    #[arg(long, value_name = "FILE")]
    set_env_file: Option<PathBuf>,
    /// Pass on this environment's variables that neither image nor options set.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = ArgAction::Set, value_parser = boolean)]
    inherit_env: bool,
    /// Host name of the pod; rkt-UUID if there is none.
    #[arg(long, value_name = "NAME", value_parser = hostname)]
    hostname: Option<String>,
    /// Write the pod's UUID to a file.
    #[arg(long, value_name = "FILE")]
    uuid_file_save: Option<PathBuf>,
    /// Keep what the apps write outside of volumes on a disk of this size, as in 2Gi, instead of in
    /// memory. It takes room as it is written to, and goes with the pod. Needs mke2fs (e2fsprogs).
    #[arg(long, value_name = "SIZE")]
    scratch: Option<ScratchSize>,
    /// Write the launch into the TPM before the pod runs, and hold what the TPM signs of it against
    /// this host's own demands (/etc/sandbox/attest-policy.json). 'sandbox attest init' makes the key
    /// for that. With the URL of a service ('sandbox attest serve'), or 'service' for the one in
    /// /etc/sandbox/attest.json, that has to accept the launch, too. Rules in gate.d can demand either
    /// for all pods.
    #[arg(long, value_name = "BOOL|URL|service", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = ArgAction::Set)]
    tpm_attest: Attest,
    /// The certificates (PEM) of the authorities that the service's may be of; those that this host
    /// trusts otherwise, if it is not given.
    #[arg(long, value_name = "FILE")]
    attest_ca: Option<PathBuf>,
    /// The public key (PEM) that the service's verdicts are signed with.
    #[arg(long, value_name = "FILE")]
    attest_key: Option<PathBuf>,
    /// Give the pod a secret, as the file /run/secrets/NAME of every app, readable for all of its
    /// users and in memory alone. From the service that verifies the launch (there it is called KEY,
    /// or NAME), or from a file that 'sandbox attest seal' has made. Needs --tpm-attest.
    #[arg(long = "secret", value_name = "NAME=service[:KEY]|NAME=sealed:FILE")]
    secrets: Vec<SecretOption>,
    /// Whose pod it is, for the rules in gate.d and the TPM's log.
    #[arg(long, value_name = "NAME", value_parser = not_empty)]
    tenant: Option<String>,
    /// Boot this guest kernel instead of the installed one.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
}

/// Who verifies the launch.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Attest {
    /// It is not measured.
    No,
    /// This host.
    Local,
    /// And the service in the settings.
    Service,
    /// And the service with this URL.
    Url(String),
}

impl FromStr for Attest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "service" {
            return Ok(Self::Service);
        }
        if text.starts_with("https://") {
            return Ok(Self::Url(text.to_owned()));
        }
        match boolean(text) {
            Ok(true) => Ok(Self::Local),
            Ok(false) => Ok(Self::No),
            Err(_) => {
                Err("must be true, false, service, or the URL of a service, which begins with \
                           https://"
                    .to_owned())
            }
        }
    }
}

impl Attest {
    /// The service to ask, if there is one.
    fn service(&self, flags: &PodFlags) -> Result<Option<RemoteOptions>, &'static str> {
        let (ca, key) = (flags.attest_ca.clone(), flags.attest_key.clone());
        match self {
            Self::Url(url) => Ok(Some(RemoteOptions { url: Some(url.clone()), ca, key })),
            _ if ca.is_some() || key.is_some() => {
                Err("--attest-ca and --attest-key need --tpm-attest=URL")
            }
            Self::Service => Ok(Some(RemoteOptions::default())),
            Self::No | Self::Local => Ok(None),
        }
    }
}

/// Options of one app.
#[derive(Debug, Parser)]
#[command(
    no_binary_name = true,
    args_override_self = true,
    next_help_heading = "Options of an app, after its image"
)]
pub struct AppFlags {
    /// Hold the image, an ACI, against the detached signature in this file, in place of the one
    /// that lies beside it. It is fetched for that even if the store has it.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Run this program instead of the image's.
    #[arg(long, value_name = "PROGRAM")]
    exec: Option<String>,
    /// Mount a volume: volume=NAME,target=PATH. Before the first image: in every app.
    #[arg(long = "mount", value_name = "MOUNT")]
    mounts: Vec<Mount>,
    /// Set an environment variable.
    #[arg(long, value_name = "NAME=VALUE")]
    environment: Vec<Variable>,
    /// Start in this directory.
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    working_dir: Option<String>,
    /// Run as this user: a name or number of the image, or a path whose owner it is.
    #[arg(long, value_name = "USER", value_parser = not_empty)]
    user: Option<String>,
    /// Run with this group: a name or number of the image, or a path whose group it is.
    #[arg(long, value_name = "GROUP", value_parser = not_empty)]
    group: Option<String>,
    /// Run with these further groups, by number.
    #[arg(long, value_name = "GID,…", value_delimiter = ',')]
    supplementary_gids: Option<Vec<u32>>,
    /// Limit memory, as in 512M or 1Gi.
    #[arg(long, value_name = "QUANTITY")]
    memory: Option<Memory>,
    /// Limit CPU time, as in 2 or 500m.
    #[arg(long, value_name = "QUANTITY")]
    cpu: Option<Cpu>,
    /// Name of the app; from the image's name if there is none.
    #[arg(long, value_name = "NAME")]
    name: Option<AcName>,
    /// Make the root file system read-only.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, value_parser = boolean,
          default_value = "false", hide_default_value = true, hide_possible_values = true)]
    readonly_rootfs: bool,
}

/// One image of the command line and what belongs to it.
#[derive(Debug)]
pub struct App {
    image: OsString,
    flags: AppFlags,
    arguments: Vec<OsString>,
}

impl App {
    /// Reads the flags.
    ///
    /// # Errors
    /// What clap has to complain about.
    pub fn parse(words: AppWords) -> Result<Self, clap::Error> {
        let flags = AppFlags::try_parse_from(words.flags)?;
        Ok(Self { image: words.image, flags, arguments: words.arguments })
    }

    fn options(&self) -> Result<AppOptions, Box<dyn Error>> {
        let flags = &self.flags;
        let arguments = self.arguments.iter().map(|argument| {
            argument
                .to_str()
                .map(str::to_owned)
                .ok_or_else(|| format!("argument {} of an app is not UTF-8", argument.display()))
        });
        Ok(AppOptions {
            name: flags.name.clone(),
            exec: flags.exec.clone(),
            arguments: arguments.collect::<Result<_, _>>()?,
            environment: Environment::from_option("--environment", &flags.environment)?,
            working_directory: flags.working_dir.clone(),
            user: flags.user.clone(),
            group: flags.group.clone(),
            supplementary_gids: flags.supplementary_gids.clone(),
            mounts: flags.mounts.clone(),
            memory: flags.memory,
            cpu: flags.cpu,
            read_only_root: flags.readonly_rootfs,
        })
    }
}

impl Run {
    /// Takes the apps of the command line.
    ///
    /// # Errors
    /// What clap has to complain about.
    pub fn take_apps(&mut self, words: Vec<AppWords>) -> Result<(), clap::Error> {
        self.apps = words.into_iter().map(App::parse).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// The images.
    #[cfg(test)]
    pub fn images(&self) -> Vec<&str> {
        self.apps.iter().map(|app| app.image.to_str().unwrap_or_default()).collect()
    }

    /// Runs a pod. The result is its exit status.
    pub fn execute(&self, global: &Global) -> Outcome {
        if self.apps.is_empty() {
            return Err("must provide at least one image".into());
        }
        if self.pod.interactive && self.apps.len() > 1 {
            return Err("interactive option only supports one image".into());
        }
        super::require_root()?;
        let messages = Messages::new("run", global.debug);
        let (events, signal_sender, inbox) = event::inbox();
        let signals = Signals::listen(signal_sender)?;

        let console = self.console();
        let installation = self.installation()?;
        let secrets = Secrets::of(&self.pod.secrets)?;
        // What opens the TPM gets ready while images are looked for.
        let service = self.pod.tpm_attest.service(&self.pod)?;
        let mut meter = match self.pod.tpm_attest {
            Attest::No => None,
            _ => Some(Meter::start(&installation, service.as_ref())?),
        };

        let settings = global.image_settings()?;
        let data = DataDir::open(&settings.data_dir)?.of_host();
        let images = Images::open_with(settings, messages, signals)?;
        let (spec, stored) = self.assemble(&images, console, messages)?;
        let gate = images.gate()?;
        let attest = meter.as_ref().map(Meter::verifier);
        let tenant = self.pod.tenant.clone();
        let plan = Plan::new(spec, installation, gate.digests_asked(), tenant, attest)?;
        let size = plan.size();
        let approval = gate.decide(&plan, &stored)?;
        if approval.demands().measurement.is_some() && meter.is_none() {
            meter = Some(Meter::start(plan.installation(), None)?);
        }
        if let (Some(meter), Some(Verifier::Service)) = (&mut meter, approval.demands().by_rules) {
            meter.require_service()?;
            if !meter.service_is_the_hosts() {
                return Err(format!(
                    "a rule of this host demands that a service verifies the launch, and {} does \
                     not name it: set 'verifier' there",
                    AttestSettings::PATH
                )
                .into());
            }
        }
        self.check_secrets(&secrets, meter.as_ref())?;
        let verifier = meter.as_ref().map_or(Verifier::Local, Meter::verifier);
        let roots = images.roots(stored)?;
        let pod = PreparedPod::prepare(approval, &data, plan, roots, self.pod.scratch)?;
        let uuid = pod.uuid();
        // Before it is measured: what fails from there on has to be written into the TPM.
        if let Some(file) = &self.pod.uuid_file_save {
            fs::write(file, format!("{uuid}\n"))
                .map_err(|error| format!("cannot save the UUID to {}: {error}", file.display()))?;
        }
        let (pod, mut measured) = match meter {
            Some(meter) => {
                let (pod, measured) = pod.measure(meter, gate.digest(), &secrets.names())?;
                let (number, times) = (measured.0.number(), measured.0.times());
                messages.debug(format_args!("measured as record {number}: {times}"));
                (pod, Some(measured))
            }
            None => (pod, None),
        };
        let answer = measured
            .as_ref()
            .map(|(launch, _)| Measured::new(&uuid.to_string(), launch.number(), true, verifier));
        let pod = pod.permitted(answer, measured.as_mut().map(|(launch, _)| launch))?;
        messages.debug(format_args!(
            "pod {uuid}, {} CPU(s), {} MiB",
            u8::from(size.vcpus),
            u32::from(size.memory)
        ));
        let hostname = self.pod.hostname.clone().unwrap_or_else(|| format!("rkt-{uuid}"));
        let options = RunOptions { hostname, console, secrets, messages };
        Ok(supervisor::run(pod, measured, &options, &events, &inbox)?)
    }

    /// Whether somebody can give the pod its secrets.
    fn check_secrets(&self, secrets: &Secrets, meter: Option<&Meter>) -> Result<(), &'static str> {
        match meter {
            None if !secrets.is_empty() => {
                Err("--secret needs --tpm-attest: only a pod that is measured gets secrets")
            }
            Some(meter) if secrets.need_service() && meter.verifier() != Verifier::Service => {
                Err("--secret NAME=service needs a service that verifies the launch: \
                 --tpm-attest=URL or --tpm-attest=service")
            }
            _ => Ok(()),
        }
    }

    /// The pod of this command line, and its images, which are fetched where they are not there.
    fn assemble(
        &self,
        images: &Images,
        console: Console,
        messages: Messages,
    ) -> Result<(PodSpec, Vec<StoredImage>), Box<dyn Error>> {
        let options = self.options(console)?;
        let policy = self.pull.policy(PullPolicy::New, messages)?;
        let limits = self.pull.limits()?;
        let mut assembly = Assembly::new(&options)?;
        let mut stored = Vec::new();
        for app in &self.apps {
            let reference = Reference::parse(&app.image)?;
            let signature = app.flags.signature.as_deref();
            let wanted = Wanted { reference: &reference, policy, signature, limits: &limits };
            let image = images.obtain(&wanted)?;
            assembly.add(&image, &app.options()?)?;
            stored.push(image);
        }
        let (spec, warnings) = assembly.finish();
        for warning in warnings {
            messages.say(warning);
        }
        Ok((spec, stored))
    }

    /// What would be measured of the pod if it ran here, with this installation: nothing is started,
    /// and no TPM is needed.
    ///
    /// # Errors
    /// If it could not run because of its images, or of what the gate says.
    pub fn expected_record(&self, global: &Global) -> Result<Record, Box<dyn Error>> {
        if self.apps.is_empty() {
            return Err("must provide at least one image".into());
        }
        super::require_root()?;
        let messages = Messages::new("reference", global.debug);
        let (_events, signal_sender, _inbox) = event::inbox();
        let signals = Signals::listen(signal_sender)?;
        let mut installation = Installation::find()?;
        if let Some(kernel) = &self.pod.kernel {
            installation = installation.with_kernel(kernel)?;
        }
        installation.check()?;
        let directory = AttestSettings::load(Path::new(AttestSettings::PATH))?.directory;
        let installed = Installed::measure(&installation, &directory)?;
        let images = Images::open_with(global.image_settings()?, messages, signals)?;
        let (spec, stored) = self.assemble(&images, self.console(), messages)?;
        let gate = images.gate()?;
        let attest = Some(Verifier::Local);
        let tenant = self.pod.tenant.clone();
        let plan = Plan::new(spec, installation, gate.digests_asked(), tenant, attest)?;
        let approval = gate.decide(&plan, &stored)?;
        let secrets: Vec<_> = self.pod.secrets.iter().map(|secret| secret.name.clone()).collect();
        let record = Parts {
            pod: uuid::Uuid::nil().to_string(),
            tenant: plan.launch().tenant.as_deref().unwrap_or_default(),
            spec: plan.spec(),
            shares: plan.shares(),
            images: &images.roots(stored)?,
            decisions: approval.decisions(),
            policy_digest: gate.digest(),
            size: plan.size(),
            scratch_bytes: self.pod.scratch.map(ScratchSize::bytes).unwrap_or_default(),
            secrets: &secrets,
            installed: &installed,
            kernel_release: plan.installation().kernel_release(installed.kernel.digest()),
            command_line: String::from(CommandLine::default()),
            salt: &[0; Measurand::SALT],
        };
        Ok(record.record()?)
    }

    fn console(&self) -> Console {
        match terminal::size() {
            Some(size) if self.pod.interactive && terminal::is_terminal() => {
                Console::Terminal(size)
            }
            None if self.pod.interactive && terminal::is_terminal() => {
                Console::Terminal(TerminalSize { rows: 24, columns: 80 })
            }
            _ => Console::Streams { stdin: self.pod.interactive },
        }
    }

    fn options(&self, console: Console) -> Result<PodOptions, Box<dyn Error>> {
        let pod = &self.pod;
        let on_terminal = matches!(console, Console::Terminal(_));
        Ok(PodOptions {
            volumes: pod.volumes.clone(),
            mounts: self.app.mounts.clone(),
            environment: Layers {
                inherited: if pod.inherit_env { std::env::vars_os().collect() } else { Vec::new() },
                file: match &pod.set_env_file {
                    Some(file) => Environment::from_file(file)?,
                    None => Environment::default(),
                },
                explicit: Environment::from_option("--set-env", &pod.set_env)?,
            },
            terminal: std::env::var("TERM").ok().filter(|_| on_terminal),
        })
    }

    /// The installation, after a look whether everything is there that takes no time to look at.
    fn installation(&self) -> Result<Installation, Box<dyn Error>> {
        let mut installation = Installation::find()?;
        if let Some(kernel) = &self.pod.kernel {
            installation = installation.with_kernel(kernel)?;
        }
        installation.check()?;
        fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").map_err(|error| {
            format!(
                "/dev/kvm: {error}; a pod needs hardware virtualisation, 'sandbox doctor' says more"
            )
        })?;
        Ok(installation)
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".into()) } else { Ok(text.to_owned()) }
}

fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("must be an absolute path".into()) }
}

/// A host name of Linux, of letters that no program that prints it trips over (RFC 1123 §2.1).
fn hostname(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
    };
    if text.len() <= 64 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err("must be at most 64 letters, digits, hyphens and dots".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_is_verified_by_nobody_this_host_or_a_service() {
        for (text, expected) in [
            ("false", Attest::No),
            ("true", Attest::Local),
            ("1", Attest::Local),
            ("service", Attest::Service),
            ("https://a.example", Attest::Url("https://a.example".to_owned())),
        ] {
            assert_eq!(text.parse::<Attest>().unwrap(), expected, "{text}");
        }
        for text in ["http://a.example", "a.example", "yes", ""] {
            assert!(text.parse::<Attest>().unwrap_err().contains("https://"), "{text}");
        }
    }
}

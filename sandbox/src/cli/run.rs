use super::apps::AppWords;
use super::pull::Pull;
use super::{Global, Outcome};
use crate::images::{Images, Wanted};
use crate::installation::Installation;
use crate::measure::Meter;
use crate::message::Messages;
use crate::options::{
    AcName, Cpu, Environment, Layers, Memory, Mount, ScratchSize, Variable, Volume, boolean,
};
use crate::pod::{AppOptions, Assembly, Console, DataDir, Plan, PodOptions, PreparedPod};
use crate::supervisor::{self, RunOptions, event, signals::Signals, terminal};
use clap::{ArgAction, Args, Parser};
use sandbox_gate::{Measured, Verifier};
use sandbox_image::{PullPolicy, Reference};
use sandbox_protocol::TerminalSize;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

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
    /// for that. Rules in gate.d can demand it for all pods.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = ArgAction::Set, value_parser = boolean)]
    tpm_attest: bool,
    /// Whose pod it is, for the rules in gate.d and the TPM's log.
    #[arg(long, value_name = "NAME", value_parser = not_empty)]
    tenant: Option<String>,
    /// Boot this guest kernel instead of the installed one.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
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
        let options = self.options(console)?;
        let policy = self.pull.policy(PullPolicy::New, messages)?;
        let limits = self.pull.limits()?;
        let installation = self.installation()?;
        // What opens the TPM gets ready while images are looked for.
        let mut meter = match self.pod.tpm_attest {
            true => Some(Meter::start(&installation)?),
            false => None,
        };

        let settings = global.image_settings()?;
        let data = DataDir::open(&settings.data_dir)?;
        let images = Images::open_with(settings, messages, signals)?;
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
        let gate = images.gate()?;
        let attest = self.pod.tpm_attest.then_some(Verifier::Local);
        let tenant = self.pod.tenant.clone();
        let plan = Plan::new(spec, installation, gate.digests_asked(), tenant, attest)?;
        let size = plan.size();
        let approval = gate.decide(&plan, &stored)?;
        if approval.demands().measurement.is_some() && meter.is_none() {
            meter = Some(Meter::start(plan.installation())?);
        }
        let roots = images.roots(stored)?;
        let pod = PreparedPod::prepare(approval, &data, plan, roots, self.pod.scratch)?;
        let uuid = pod.uuid();
        let (pod, measured) = match meter {
            Some(meter) => {
                let (pod, measured) = pod.measure(meter, gate.digest())?;
                (pod, Some(measured))
            }
            None => (pod, None),
        };
        let answer = measured.as_ref().map(|(launch, _)| {
            Measured::new(&uuid.to_string(), launch.number(), true, Verifier::Local)
        });
        let pod = pod.permitted(answer)?;

        if let Some(file) = &self.pod.uuid_file_save {
            fs::write(file, format!("{uuid}\n"))
                .map_err(|error| format!("cannot save the UUID to {}: {error}", file.display()))?;
        }
        messages.debug(format_args!(
            "pod {uuid}, {} CPU(s), {} MiB",
            u8::from(size.vcpus),
            u32::from(size.memory)
        ));
        let hostname = self.pod.hostname.clone().unwrap_or_else(|| format!("rkt-{uuid}"));
        let options = RunOptions { hostname, console, messages };
        Ok(supervisor::run(pod, measured, &options, &events, &inbox)?)
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

//! What is to run: the apps of a pod after images, options and defaults were put together.

use crate::options::{AcName, Cpu, Environment, Layers, Memory, Mount, Volume, VolumeKind};
use sandbox_image::{ImageConfig, Isolator, Kind, MountPoint, StoredImage, Text};
use sandbox_vmm::config::Config;

/// What the command line says about one app.
#[derive(Clone, Debug, Default)]
pub struct AppOptions {
    /// `--name`
    pub name: Option<AcName>,
    /// `--exec`: stands in for the image's command line.
    pub exec: Option<String>,
    /// What follows `--`: added to the command line.
    pub arguments: Vec<String>,
    /// `--environment`
    pub environment: Environment,
    /// `--working-dir`
    pub working_directory: Option<String>,
    /// `--user`
    pub user: Option<String>,
    /// `--group`
    pub group: Option<String>,
    /// `--supplementary-gids`
    pub supplementary_gids: Option<Vec<u32>>,
    /// `--mount` after the image.
    pub mounts: Vec<Mount>,
    /// `--memory`
    pub memory: Option<Memory>,
    /// `--cpu`
    pub cpu: Option<Cpu>,
    /// `--readonly-rootfs`
    pub read_only_root: bool,
}

/// What the command line says about the pod.
#[derive(Clone, Debug, Default)]
pub struct PodOptions {
    /// `--volume`
    pub volumes: Vec<Volume>,
    /// `--mount` before any image.
    pub mounts: Vec<Mount>,
    /// `--inherit-env`, `--set-env-file`, `--set-env`
    pub environment: Layers,
    /// The value of `TERM` for an app on a terminal.
    pub terminal: Option<String>,
}

/// An app of a pod, complete.
#[derive(Clone, Debug)]
pub struct AppSpec {
    /// Its name, the only one in the pod.
    pub name: AcName,
    /// The image's ID in the form of rkt: `sha256-HEX` or `sha512-HEX`.
    pub image_id: String,
    /// The image's name, as it says itself.
    pub image_name: String,
    /// The image's configuration.
    pub image: ImageConfig,
    /// The program and its arguments, not empty.
    pub exec: Vec<String>,
    /// Its environment.
    pub environment: Environment,
    /// Absolute.
    pub working_directory: String,
    /// User as name, number or path.
    pub user: String,
    /// Group as name, number or path; empty for the user's own.
    pub group: String,
    /// Further groups.
    pub supplementary_gids: Vec<u32>,
    /// Where volumes are mounted, outer paths before inner ones.
    pub mounts: Vec<AppMount>,
    /// Memory limit.
    pub memory: Option<Memory>,
    /// CPU limit.
    pub cpu: Option<Cpu>,
    /// Whether the app may not write to its root file system.
    pub read_only_root: bool,
}

/// A volume's place in an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppMount {
    /// Index into [`PodSpec::volumes`].
    pub volume: usize,
    /// Absolute path in the app.
    pub path: String,
    /// Whether the app may only read.
    pub read_only: bool,
}

/// The apps of a pod and the volumes that they mount.
#[derive(Clone, Debug, Default)]
pub struct PodSpec {
    /// The apps in the order of the command line, at least one.
    pub apps: Vec<AppSpec>,
    /// The volumes that at least one app mounts.
    pub volumes: Vec<Volume>,
}

impl PodSpec {
    /// The images of the apps, each once, in the order of the first app that has it.
    pub fn image_ids(&self) -> Vec<&str> {
        let mut ids = Vec::new();
        for app in &self.apps {
            if !ids.contains(&app.image_id.as_str()) {
                ids.push(&app.image_id);
            }
        }
        ids
    }

    /// Whether an app mounts a directory or file of the host.
    pub fn has_host_volumes(&self) -> bool {
        self.volumes.iter().any(|volume| matches!(volume.kind, VolumeKind::Host { .. }))
    }
}

/// Why images and options don't make a pod.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Two apps of the same name.
    #[error("multiple apps with name {0} (use --name to tell them apart)")]
    SameName(AcName),
    /// The image's name gives no app name.
    #[error("no app name can be made of the image's name {0:?} (use --name)")]
    NoName(Text),
    /// Nothing to run.
    #[error("app {0}: the image says no program to run and --exec is not given")]
    NoProgram(AcName),
    /// A mount of a volume that is not there.
    #[error(
        "dangling mount point {target:?}: volume \"{volume}\" not found (define it with --volume)"
    )]
    DanglingMount {
        /// Where it should be mounted.
        target: String,
        /// The name.
        volume: AcName,
    },
    /// Two `--volume` of the same name.
    #[error("multiple volumes with name {0}")]
    SameVolume(AcName),
    /// A mount point of the image is none.
    #[error("app {app}: mount point of the image: {problem}")]
    MountPoint {
        /// The app.
        app: AcName,
        /// What is wrong.
        problem: Text,
    },
    /// An isolator of the image has a value that is none.
    #[error("app {app}: isolator {isolator} of the image: {problem}")]
    Isolator {
        /// The app.
        app: AcName,
        /// Its name.
        isolator: &'static str,
        /// What is wrong.
        problem: Text,
    },
    /// More than the guest can count.
    #[error("a pod can have at most {MAX} apps and {MAX} volumes")]
    TooMany,
    /// More than there are disks for.
    #[error("a pod can have at most {MAX_IMAGES} images")]
    TooManyImages,
}

/// Most apps of a pod, and most volumes.
const MAX: usize = 64;

/// Most images of a pod: each has a disk, and so have what the apps write.
const MAX_IMAGES: usize = Config::MAX_DISKS - 1;

/// What an app is made from.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// The image's ID.
    pub id: String,
    /// Its name.
    pub name: &'a str,
    /// The app's name unless another is given.
    pub app_name: String,
    /// Its configuration.
    pub config: &'a ImageConfig,
    /// Whether it has files of its own where it declares volumes, as images of OCI and Docker do.
    pub files_at_mount_points: bool,
}

/// Collects apps into a [`PodSpec`].
#[derive(Debug)]
pub struct Assembly<'a> {
    options: &'a PodOptions,
    spec: PodSpec,
    warnings: Vec<String>,
}

impl<'a> Assembly<'a> {
    /// A pod with these options and no app yet.
    ///
    /// # Errors
    /// [`SpecError::SameVolume`]
    pub fn new(options: &'a PodOptions) -> Result<Self, SpecError> {
        for (index, volume) in options.volumes.iter().enumerate() {
            if options.volumes[..index].iter().any(|other| other.name == volume.name) {
                return Err(SpecError::SameVolume(volume.name.clone()));
            }
        }
        Ok(Self { options, spec: PodSpec::default(), warnings: Vec::new() })
    }

    /// Adds an app of an image.
    ///
    /// # Errors
    /// See [`SpecError`].
    pub fn add(&mut self, image: &StoredImage, options: &AppOptions) -> Result<(), SpecError> {
        let docker = |(name, _): &(String, String)| name == "appc.io/docker/repository";
        let config = image.config();
        let source = Source {
            id: image.id().file_name(),
            name: image.name(),
            app_name: image.app_name(),
            config,
            files_at_mount_points: image.record().kind != Kind::Aci
                || config.annotations.iter().any(docker),
        };
        self.add_source(&source, options)
    }

    /// The pod, and what its owner should be told about it.
    pub fn finish(self) -> (PodSpec, Vec<String>) {
        (self.spec, self.warnings)
    }

    pub(super) fn add_source(
        &mut self,
        source: &Source<'_>,
        options: &AppOptions,
    ) -> Result<(), SpecError> {
        let config = source.config;
        let name = match &options.name {
            Some(name) => name.clone(),
            None => AcName::try_from(source.app_name.clone())
                .map_err(|_| SpecError::NoName(Text::new(source.name)))?,
        };
        if self.spec.apps.iter().any(|app| app.name == name) {
            return Err(SpecError::SameName(name));
        }
        let app = config.app.clone().unwrap_or_default();
        let mut exec: Vec<String> = match &options.exec {
            Some(program) => vec![program.clone()],
            None => app.exec().map(str::to_owned).collect(),
        };
        if exec.is_empty() {
            return Err(SpecError::NoProgram(name));
        }
        exec.extend(options.arguments.iter().cloned());

        let own = |own: &Option<String>, image: &str, default: &str| match own {
            Some(own) => own.clone(),
            None if image.is_empty() => default.to_owned(),
            None => image.to_owned(),
        };
        // An OCI image that names a user alone means the user's own group.
        let default_group = if config.app.is_some() { "" } else { "0" };
        let limits = Limits::of(&name, &app.isolators)?;
        let mut spec = AppSpec {
            image_id: source.id.clone(),
            image_name: source.name.to_owned(),
            environment: self.environment(&name, &app.environment, &options.environment),
            working_directory: own(&options.working_directory, &app.working_directory, "/"),
            user: own(&options.user, &app.user, "0"),
            group: own(&options.group, &app.group, default_group),
            supplementary_gids: options
                .supplementary_gids
                .clone()
                .unwrap_or_else(|| app.supplementary_gids.clone()),
            mounts: Vec::new(),
            memory: options.memory.or(limits.memory),
            cpu: options.cpu.or(limits.cpu),
            read_only_root: options.read_only_root,
            image: config.clone(),
            name,
            exec,
        };
        for isolator in limits.ignored {
            self.warnings.push(format!(
                "app {}: isolator {} of the image is not applied",
                spec.name,
                Text::new(isolator)
            ));
        }
        if !app.event_handlers.is_empty() {
            self.warnings
                .push(format!("app {}: event handlers of the image are not run", spec.name));
        }
        // A directory with the image's files is the app's own and writable without a volume; an
        // empty one would hide them.
        let fill = spec.read_only_root || !source.files_at_mount_points;
        self.mounts(&mut spec, &app.mount_points, &options.mounts, fill)?;
        self.spec.apps.push(spec);
        if self.spec.apps.len() > MAX || self.spec.volumes.len() > MAX {
            return Err(SpecError::TooMany);
        }
        if self.spec.image_ids().len() > MAX_IMAGES {
            return Err(SpecError::TooManyImages);
        }
        Ok(())
    }

    fn environment(
        &self,
        name: &AcName,
        image: &[(String, String)],
        own: &Environment,
    ) -> Environment {
        let mut of_image = Environment::default();
        for (name, value) in image {
            of_image.set(name, value);
        }
        let mut environment = self.options.environment.apply(name.as_str(), &of_image, own);
        if let Some(terminal) = &self.options.terminal {
            environment.set_if_missing("TERM", terminal);
        }
        environment
    }

    /// What is mounted where: `--mount` of the app, then `--mount` of the pod, then the image's
    /// mount points by their names. The first one for a path counts. Where no volume has a mount
    /// point's name, `fill` puts an empty one there.
    fn mounts(
        &mut self,
        app: &mut AppSpec,
        mount_points: &[MountPoint],
        own: &[Mount],
        fill: bool,
    ) -> Result<(), SpecError> {
        let free = |mounts: &[AppMount], path: &str| mounts.iter().all(|mount| mount.path != path);
        for Mount { volume, target } in own.iter().chain(&self.options.mounts) {
            if !free(&app.mounts, target) {
                continue;
            }
            let Some(volume) = self.defined(volume) else {
                let target = target.clone();
                return Err(SpecError::DanglingMount { target, volume: volume.clone() });
            };
            self.mount(app, volume, target.clone(), false);
        }
        for MountPoint { name, path, read_only } in mount_points {
            let wrong = |problem: String| SpecError::MountPoint {
                app: app.name.clone(),
                problem: Text::new(problem),
            };
            let path = crate::options::clean(path).map_err(wrong)?;
            if !free(&app.mounts, &path) {
                continue;
            }
            let name: AcName = name.parse().map_err(wrong)?;
            if let Some(volume) = self.defined(&name) {
                self.mount(app, volume, path, *read_only);
            } else if fill {
                let name = format!("{}-{name}", app.name).parse().map_err(wrong)?;
                self.warnings.push(format!(
                    "app {}: no volume for the image's mount point {path}, it gets an empty one",
                    app.name
                ));
                let kind = VolumeKind::Empty { mode: 0o755, uid: 0, gid: 0 };
                self.mount(app, Volume { name, kind, read_only: false }, path, *read_only);
            }
        }
        app.mounts.sort_by_key(|mount| mount.path.matches('/').count());
        Ok(())
    }

    fn defined(&self, name: &AcName) -> Option<Volume> {
        self.options.volumes.iter().find(|volume| volume.name == *name).cloned()
    }

    fn mount(&mut self, app: &mut AppSpec, volume: Volume, path: String, read_only: bool) {
        let read_only = read_only || volume.read_only;
        let volumes = &mut self.spec.volumes;
        let volume =
            volumes.iter().position(|known| known.name == volume.name).unwrap_or_else(|| {
                volumes.push(volume);
                volumes.len() - 1
            });
        app.mounts.push(AppMount { volume, path, read_only });
    }
}

/// What an image's isolators ask for.
#[derive(Debug, Default)]
struct Limits {
    memory: Option<Memory>,
    cpu: Option<Cpu>,
    /// Those that nothing here applies.
    ignored: Vec<String>,
}

impl Limits {
    fn of(app: &AcName, isolators: &[Isolator]) -> Result<Self, SpecError> {
        let mut limits = Self::default();
        for Isolator { name, value } in isolators {
            let limit = value.get("limit").and_then(|limit| limit.as_str());
            let wrong = |isolator| {
                let app = app.clone();
                move |problem: String| SpecError::Isolator {
                    app,
                    isolator,
                    problem: Text::new(problem),
                }
            };
            match (name.as_str(), limit) {
                ("resource/memory", Some(limit)) => {
                    limits.memory = Some(limit.parse().map_err(wrong("resource/memory"))?);
                }
                ("resource/cpu", Some(limit)) => {
                    limits.cpu = Some(limit.parse().map_err(wrong("resource/cpu"))?);
                }
                _ => limits.ignored.push(name.clone()),
            }
        }
        Ok(limits)
    }
}

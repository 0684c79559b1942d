//! A pod as the guest and its file server see it.

use super::spec::PodSpec;
use crate::options::{Volume, VolumeKind};
use sandbox_image::verity::Verity;
use sandbox_protocol as protocol;
use sandbox_protocol::{FIRST_STREAM_PORT, Stdio, TerminalSize};
use std::io;
use std::path::{Path, PathBuf};

/// Name of the virtio-fs device.
pub const SHARE_TAG: &str = "pod";

/// Name of the virtio-blk device that holds what the apps write.
pub const SCRATCH_SERIAL: &str = "scratch";

/// Name of the virtio-blk device that holds an image, by its index in the pod.
pub fn image_serial(index: usize) -> String {
    format!("image-{index}")
}

/// A directory or file of the host that the guest sees below the root of the virtio-fs device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its name there.
    pub name: String,
    /// Absolute path without symbolic links.
    pub path: PathBuf,
    /// Whether writing is refused by the host.
    pub read_only: bool,
    /// Whether what is mounted below it is visible, too.
    pub recursive: bool,
}

/// Why a volume can't be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The source can't be looked at.
    #[error("volume {name}: {}: {error}", path.display())]
    Source {
        /// The volume.
        name: String,
        /// Its source.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Neither a directory nor a file.
    #[error("volume {name}: {} is neither a directory nor a regular file", path.display())]
    Kind {
        /// The volume.
        name: String,
        /// Its source.
        path: PathBuf,
    },
}

/// How the apps' standard streams are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// The only app has a terminal of this size.
    Terminal(TerminalSize),
    /// Pipes; standard input only if `stdin` is set.
    Streams {
        /// Whether the app reads our standard input.
        stdin: bool,
    },
}

/// What the file server has to share: the volumes of the host that apps mount.
///
/// # Errors
/// See [`ShareError`].
pub fn shares(pod: &PodSpec) -> Result<Vec<Share>, ShareError> {
    let mut shares = Vec::new();
    for (index, volume) in pod.volumes.iter().enumerate() {
        let VolumeKind::Host { source, recursive } = &volume.kind else { continue };
        let mut mounts = pod.apps.iter().flat_map(|app| &app.mounts);
        shares.push(Share {
            name: volume_share(volume),
            path: host_source(volume, source)?,
            read_only: volume.read_only
                || mounts.all(|mount| mount.volume != index || mount.read_only),
            recursive: *recursive,
        });
    }
    Ok(shares)
}

fn host_source(volume: &Volume, source: &Path) -> Result<PathBuf, ShareError> {
    let name = || volume.name.to_string();
    let failed = |error| ShareError::Source { name: name(), path: source.to_owned(), error };
    let path = source.canonicalize().map_err(failed)?;
    let kind = path.metadata().map_err(failed)?.file_type();
    if kind.is_dir() || kind.is_file() {
        Ok(path)
    } else {
        Err(ShareError::Kind { name: name(), path: source.to_owned() })
    }
}

fn volume_share(volume: &Volume) -> String {
    format!("volume-{}", volume.name)
}

/// The disks of a pod.
#[derive(Clone, Debug, Default)]
pub struct Disks {
    /// What each image's disk must hold, in the order of [`PodSpec::image_ids`].
    pub images: Vec<Verity>,
    /// Whether there is one for what the apps write.
    pub scratch: bool,
}

/// The pod as the message that sets the guest up.
pub fn message(pod: &PodSpec, disks: &Disks, hostname: &str, console: Console) -> protocol::Pod {
    let image_ids = pod.image_ids();
    // A pod has far fewer of whatever is counted here.
    let index = |place: usize| u16::try_from(place).unwrap_or(u16::MAX);
    let mut port = FIRST_STREAM_PORT..;
    // The range of ports is longer than any pod.
    let mut next_port = || port.next().unwrap_or(FIRST_STREAM_PORT);
    let apps = pod
        .apps
        .iter()
        .map(|app| protocol::App {
            name: app.name.to_string(),
            root: protocol::Root::Image(
                image_ids.iter().position(|id| *id == app.image_id).map_or(u16::MAX, index),
            ),
            root_read_only: app.read_only_root,
            argv: app.exec.iter().map(|word| word.clone().into_bytes()).collect(),
            environment: app
                .environment
                .variables()
                .iter()
                .map(|variable| format!("{}={}", variable.name, variable.value).into_bytes())
                .collect(),
            working_directory: app.working_directory.clone().into_bytes(),
            user: app.user.clone(),
            group: app.group.clone(),
            supplementary_groups: app.supplementary_gids.clone(),
            mounts: app
                .mounts
                .iter()
                .map(|mount| protocol::Mount {
                    volume: index(mount.volume),
                    target: mount.path.clone().into_bytes(),
                    read_only: mount.read_only,
                })
                .collect(),
            memory: app.memory.map(|limit| limit.bytes()),
            cpu_millis: app.cpu.map(|limit| limit.millis()),
            stdio: match console {
                Console::Terminal(size) => Stdio::Terminal { port: next_port(), size },
                Console::Streams { stdin } => Stdio::Streams {
                    stdin: stdin.then(&mut next_port),
                    stdout: next_port(),
                    stderr: next_port(),
                },
            },
        })
        .collect();
    let volumes = pod
        .volumes
        .iter()
        .map(|volume| protocol::Volume {
            name: volume.name.to_string(),
            source: match volume.kind {
                VolumeKind::Host { .. } => protocol::VolumeSource::Share(volume_share(volume)),
                VolumeKind::Empty { mode, uid, gid } => {
                    protocol::VolumeSource::Empty { mode, uid, gid }
                }
            },
        })
        .collect();
    let images = disks
        .images
        .iter()
        .enumerate()
        .map(|(index, verity)| protocol::ImageDisk {
            serial: image_serial(index),
            verity: protocol::Verity {
                data_blocks: verity.data_blocks,
                hash_start: verity.hash_start,
                root_hash: verity.root_hash,
            },
        })
        .collect();
    protocol::Pod {
        hostname: hostname.to_owned(),
        share_tag: pod.has_host_volumes().then(|| SHARE_TAG.to_owned()),
        images,
        scratch: disks.scratch.then(|| SCRATCH_SERIAL.to_owned()),
        volumes,
        apps,
        measured: None,
    }
}

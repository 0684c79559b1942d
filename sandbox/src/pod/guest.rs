//! A pod as the guest and its file server see it.

use super::spec::{AppSpec, PodSpec};
use crate::options::{Volume, VolumeKind};
use sandbox_image::StoredTree;
use sandbox_protocol as protocol;
use sandbox_protocol::{FIRST_STREAM_PORT, Stdio, TerminalSize};
use std::io;
use std::path::{Path, PathBuf};

/// Name of the virtio-fs device.
pub const SHARE_TAG: &str = "pod";

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

/// What the file server has to share.
///
/// # Errors
/// See [`ShareError`].
pub fn shares(pod: &PodSpec, trees: &[StoredTree]) -> Result<Vec<Share>, ShareError> {
    let roots = pod.apps.iter().zip(trees).map(|(app, tree)| {
        Ok(Share {
            name: root_share(app),
            path: tree.rootfs().to_owned(),
            read_only: true,
            recursive: false,
        })
    });
    let volumes = pod.volumes.iter().enumerate().filter_map(|(index, volume)| match &volume.kind {
        VolumeKind::Empty { .. } => None,
        VolumeKind::Host { source, recursive } => Some(host_source(volume, source).map(|path| {
            Share {
                name: volume_share(volume),
                path,
                read_only: volume.read_only
                    || pod
                        .apps
                        .iter()
                        .flat_map(|app| &app.mounts)
                        .filter(|mount| mount.volume == index)
                        .all(|mount| mount.read_only),
                recursive: *recursive,
            }
        })),
    });
    roots.chain(volumes).collect()
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

fn root_share(app: &AppSpec) -> String {
    format!("root-{}", app.name)
}

fn volume_share(volume: &Volume) -> String {
    format!("volume-{}", volume.name)
}

/// The pod as the message that sets the guest up.
pub fn message(pod: &PodSpec, hostname: &str, console: Console) -> protocol::Pod {
    let mut port = FIRST_STREAM_PORT..;
    // The range of ports is longer than any pod.
    let mut next_port = || port.next().unwrap_or(FIRST_STREAM_PORT);
    let apps = pod
        .apps
        .iter()
        .map(|app| protocol::App {
            name: app.name.to_string(),
            root: protocol::Root::Share(root_share(app)),
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
                    // A pod has far fewer volumes.
                    volume: u16::try_from(mount.volume).unwrap_or(u16::MAX),
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
    protocol::Pod {
        hostname: hostname.to_owned(),
        share_tag: Some(SHARE_TAG.to_owned()),
        images: Vec::new(),
        scratch: None,
        volumes,
        apps,
    }
}

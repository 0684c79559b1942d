use crate::Text;
use crate::secret::KEY;
use serde::{Deserialize, Serialize};

/// Of how many corrupted blocks of an image the host is told at most.
pub const MAX_CORRUPTED: usize = 16;

/// What the guest tells the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// The first message on the control connection.
    Hello {
        /// The guest's [`crate::VERSION`].
        version: u16,
        /// The running kernel's release, as of `uname -r`.
        kernel: Text,
    },
    /// The public half of the key that this guest has made for its secrets. The first message after
    /// the set-up of a pod that has [`Pod::measured`], and only of such a one.
    Key {
        /// An X25519 key, see [`crate::secret`].
        public: [u8; KEY],
    },
    /// An app's program was executed.
    Started {
        /// Index into [`Pod::apps`].
        app: u16,
    },
    /// An app ended, and all its output was sent.
    Exited {
        /// Index into [`Pod::apps`].
        app: u16,
        /// How it ended.
        status: ExitStatus,
        /// The kernel killed a process of this app because the app's memory limit, or the whole
        /// guest's memory, was exhausted.
        out_of_memory: bool,
    },
    /// An app, or with `None` the pod as a whole, could not be started. No [`ToHost::Exited`]
    /// follows for it.
    Failed {
        /// Index into [`Pod::apps`].
        app: Option<u16>,
        /// What was tried, what was found.
        error: Text,
    },
    /// A block of an image was read that is not what the image's root hash says, in the files or
    /// in the hash tree: the disk was changed after it was verified. Whoever read it got an I/O
    /// error. Sent once for each block, and for at most [`MAX_CORRUPTED`] blocks of an image.
    Corrupted {
        /// Index into [`Pod::images`].
        image: u16,
        /// Number of the block on the image's disk, in units of 4096 bytes.
        block: u64,
    },
    /// Something the host's owner should read in the pod's log.
    Log {
        /// How much it matters.
        level: Level,
        /// One line.
        text: Text,
    },
    /// Every app has ended and file systems are synced; the guest resets the machine once the
    /// host has closed the control connection.
    Finished,
}

/// How an app's main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It called exit with this code.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
}

impl ExitStatus {
    /// The status as a shell reports it: the code, or 128 plus the signal's number.
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is not as it should be, and the pod goes on.
    Warning,
    /// A step of the pod's life.
    Info,
}

/// What the host tells the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// The answer to [`ToHost::Hello`]: set this pod up and start its apps.
    Setup(Pod),
    /// The pod's secrets, once, if [`Measured::secrets`] names some: apps start when they are there.
    Secrets {
        /// One for each name, in their order, sealed for [`ToHost::Key`] (see [`crate::secret`]).
        sealed: Vec<Vec<u8>>,
    },
    /// Send this signal to an app's main process.
    Signal {
        /// Index into [`Pod::apps`].
        app: u16,
        /// The signal's number.
        signal: u8,
    },
    /// The host's terminal has a new size.
    Resize {
        /// Index into [`Pod::apps`].
        app: u16,
        /// The new size.
        size: TerminalSize,
    },
}

/// A pod, as the guest has to set it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Host name of the guest.
    pub hostname: String,
    /// Tag of the virtio-fs device that holds volumes and root file systems, if there is one.
    /// Each share is a directory (or a file) directly below its root.
    pub share_tag: Option<String>,
    /// The disks that hold images, each once. Apps name theirs by index.
    pub images: Vec<ImageDisk>,
    /// Serial of the disk that holds what the apps write to their root file systems, if there is
    /// one: an empty ext4 that nobody needs after the pod. Without it all that is in memory.
    pub scratch: Option<String>,
    /// Volumes, which apps mount by index.
    pub volumes: Vec<Volume>,
    /// The apps, in the order of the command line.
    pub apps: Vec<App>,
    /// What a pod has whose launch is in the host's TPM.
    pub measured: Option<Measured>,
}

/// A pod whose launch is in the host's TPM: its guest makes a key, and answers its apps who ask for
/// evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The pod's UUID as text.
    pub uuid: String,
    /// Whose pod it is; empty for nobody's.
    pub tenant: String,
    /// Its secrets.
    pub secrets: Vec<Secret>,
}

/// A secret of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its name in the pod, that of a file in `/run/secrets`.
    pub name: String,
    /// The name that it is sealed with: what whoever has it calls it.
    pub sealed_as: String,
}

/// A virtio-blk disk that holds an image: an EROFS file system, and the tree of hashes that it is
/// verified with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDisk {
    /// The disk's serial: 1 to 20 bytes of `[A-Za-z0-9_-]`.
    pub serial: String,
    /// What the disk has to hold.
    pub verity: Verity,
}

/// What dm-verity has to know to verify a disk: hash format 1 of SHA-256 without a salt, data and
/// hash blocks of 4096 bytes, no superblock (Documentation/admin-guide/device-mapper/verity.rst of
/// the kernel).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verity {
    /// How many blocks, from the beginning of the disk, hold the file system.
    pub data_blocks: u64,
    /// The block at which the hash tree begins, behind the file system.
    pub hash_start: u64,
    /// The hash of the tree's topmost block: all that the guest trusts.
    pub root_hash: [u8; 32],
}

/// A volume of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name (an ACName: appc `types.md`).
    pub name: String,
    /// Where its files are.
    pub source: VolumeSource,
}

/// Where a volume's files are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeSource {
    /// A share of the virtio-fs device, by its name below the device's root. Read-only shares are
    /// enforced by the host.
    Share(String),
    /// An empty directory that lives as long as the pod, shared by the apps that mount it.
    Empty {
        /// Permission bits of its root.
        mode: u32,
        /// Owner of its root.
        uid: u32,
        /// Group of its root.
        gid: u32,
    },
}

/// The lower layer of an app's root file system. What the app writes stays in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// A share of the virtio-fs device, by its name below the device's root.
    Share(String),
    /// A verified image, by its index into [`Pod::images`].
    Image(u16),
}

/// An app of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Its name (an ACName).
    pub name: String,
    /// The lower layer of its root file system.
    pub root: Root,
    /// Whether the app may write to its root file system.
    pub root_read_only: bool,
    /// The program and its arguments; not empty. Without a slash in it the program is looked up
    /// in the `PATH` of `environment`, inside the app's root.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=VALUE` each. `HOME` is added if it is missing: the user's in the image's passwd.
    pub environment: Vec<Vec<u8>>,
    /// Working directory, absolute, made if it is missing.
    pub working_directory: Vec<u8>,
    /// User as name, number, or absolute path of a file whose owner is taken (appc `aci.md`).
    pub user: String,
    /// Group, likewise; empty for the user's own group in the image's passwd.
    pub group: String,
    /// Further groups of the app's processes. The user's groups in the image's group file are
    /// added when the user was given by name.
    pub supplementary_groups: Vec<u32>,
    /// Volumes to mount, in order.
    pub mounts: Vec<Mount>,
    /// Most memory that the app's processes may use, in bytes.
    pub memory: Option<u64>,
    /// Most CPU time that the app may use, in thousandths of one CPU.
    pub cpu_millis: Option<u32>,
    /// Where its standard streams go.
    pub stdio: Stdio,
}

/// A volume's place in an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Index into [`Pod::volumes`].
    pub volume: u16,
    /// Absolute path in the app, made if it is missing.
    pub target: Vec<u8>,
    /// Whether the app may only read.
    pub read_only: bool,
}

/// Where an app's standard streams go: ports of the host, each for one connection that guest-init
/// opens before it starts the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// A terminal in the guest, both ways over one connection.
    Terminal {
        /// The connection's port.
        port: u32,
        /// First size of the terminal.
        size: TerminalSize,
    },
    /// Pipes. End of file on a connection closes the pipe, and the other way round.
    Streams {
        /// Standard input's port; without one the app reads `/dev/null`.
        stdin: Option<u32>,
        /// Standard output's port.
        stdout: u32,
        /// Standard error's port.
        stderr: u32,
    },
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

//! What an image says about itself, independent of its format.

/// What an image says about itself and its program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageConfig {
    /// Name and value: an ACI's labels (`version`, `os`, `arch`, …), or `os` and `arch` of an OCI
    /// image and `version` if it is known.
    pub labels: Vec<(String, String)>,
    /// An ACI's annotations, or those of an OCI image's manifest.
    pub annotations: Vec<(String, String)>,
    /// How to run its program. An ACI may have none.
    pub app: Option<App>,
}

/// How to run an image's program. No string of it holds a NUL.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct App {
    /// First part of the command line: an OCI image's `Entrypoint`, or an ACI's whole `exec`.
    pub entrypoint: Vec<String>,
    /// Second part of the command line: an OCI image's `Cmd`; empty for an ACI.
    pub arguments: Vec<String>,
    /// Name and value. Names are not empty, hold no `=` and are not repeated.
    pub environment: Vec<(String, String)>,
    /// Absolute; `/` if the image has none.
    pub working_directory: String,
    /// Name, number, or (ACI only) absolute path of a file whose owner is meant; `0` if the image
    /// has none.
    pub user: String,
    /// The same for the group. Empty if an OCI image names a user alone: it is then the user's own
    /// group in the image's `/etc/passwd`.
    pub group: String,
    /// Further groups (ACI).
    pub supplementary_gids: Vec<u32>,
    /// Where the image expects volumes.
    pub mount_points: Vec<MountPoint>,
    /// Where the program listens.
    pub ports: Vec<Port>,
    /// An ACI's isolators.
    pub isolators: Vec<Isolator>,
    /// Programs to run before and after (ACI).
    pub event_handlers: Vec<EventHandler>,
    /// An OCI image's labels, or an ACI's `userLabels`.
    pub user_labels: Vec<(String, String)>,
    /// An ACI's `userAnnotations`.
    pub user_annotations: Vec<(String, String)>,
    /// The signal that stops the program (OCI `StopSignal`), as a name or number.
    pub stop_signal: Option<String>,
}

impl App {
    /// The whole command line. May be empty.
    pub fn exec(&self) -> impl Iterator<Item = &str> {
        self.entrypoint.iter().chain(&self.arguments).map(String::as_str)
    }
}

/// Where an image expects a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// An ACName, not repeated; for an OCI image made from the path: `volume-var-lib-db`.
    pub name: String,
    /// Absolute path.
    pub path: String,
    /// Whether the image wants it read-only.
    pub read_only: bool,
}

/// Where an image's program listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// An ACName, not repeated; for an OCI image made from port and protocol: `80-tcp`.
    pub name: String,
    /// `tcp`, `udp` or another in lower case.
    pub protocol: String,
    /// First port, at least 1.
    pub port: u16,
    /// How many from that one, at least 1.
    pub count: u16,
    /// Whether the program wants its listening socket handed over.
    pub socket_activated: bool,
}

/// A restriction that an ACI asks for, by its registered name; the value is checked by who
/// implements it.
#[derive(Clone, Debug, PartialEq)]
pub struct Isolator {
    /// Such as `resource/memory`.
    pub name: String,
    /// As in the manifest.
    pub value: serde_json::Value,
}

/// A program to run before or after an ACI's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHandler {
    /// `pre-start` or `post-stop`.
    pub name: String,
    /// The command line; not empty.
    pub exec: Vec<String>,
}

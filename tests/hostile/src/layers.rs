//! The layers, and which of them a run goes without.

/// The variable with the names of those that are left out, separated by commas.
pub const VARIABLE: &str = "SANDBOX_HOSTILE_OFF";

/// Variables that begin so are passed on to monitor and file server.
pub const PREFIX: &str = "SANDBOX_HOSTILE_";

/// A layer of the isolation; each is put on by one call in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// A user of its own, no capability (seven for the file server), no new privileges.
    Identity,
    /// User, mount (with an empty root), pid, ipc, net, uts and cgroup namespaces.
    Namespaces,
    /// No file, no connection, no signal to others, by Landlock.
    Landlock,
    /// A filter of system calls for each thread.
    Seccomp,
    /// A domain, and the pod's own pair of categories.
    Selinux,
    /// A cgroup and resource limits.
    Limits,
}

impl Layer {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Identity,
        Self::Namespaces,
        Self::Landlock,
        Self::Seccomp,
        Self::Selinux,
        Self::Limits,
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Namespaces => "namespaces",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::Selinux => "selinux",
            Self::Limits => "limits",
        }
    }
}

/// Whether this run has the layer.
pub fn on(layer: Layer) -> bool {
    has(layer.name())
}

/// Whether this run has the layer of this name.
pub fn has(layer: &str) -> bool {
    let off = std::env::var(VARIABLE).unwrap_or_default();
    !off.split(',').any(|name| name == layer)
}

/// The variables of this process that its children in the hostile build get, too.
pub fn passed_on() -> impl Iterator<Item = (String, String)> {
    std::env::vars().filter(|(name, _)| name.starts_with(PREFIX))
}

//! What a pod's processes are put into, besides namespaces: a user that no other pod has.
//!
//! The processes themselves are started by `supervisor`; what they then give up on their own is in
//! `sandbox-vmm` and `sandbox-fs`.

mod settings;

pub use settings::{Settings, SettingsError};

use crate::pod::Slot;
use rustix::process::geteuid;
use sandbox_spawn::User;

/// The jail of a host's pods.
#[derive(Clone, Debug)]
pub struct Jail {
    settings: Settings,
}

impl Jail {
    /// The one of this host.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn of_host() -> Result<Self, SettingsError> {
        Ok(Self { settings: Settings::load(Settings::PATH.as_ref())? })
    }

    /// The user that the monitor of the pod with this number is: nobody else on this host, as long
    /// as the range is left to pods. Who is not root can be nobody else.
    ///
    /// # Errors
    /// [`SettingsError::Range`] if there are more pods than users.
    pub fn user(&self, slot: Slot) -> Result<User, SettingsError> {
        if geteuid().is_root() { self.settings.user(slot.number()) } else { Ok(User::own()) }
    }
}

//! The pod's secrets: opened with a key that nobody else has ever had, kept in memory alone.
//!
//! They are files of a tmpfs, mounted read-only at `/run/secrets` of every app, readable for all of
//! its users: as containers find theirs elsewhere. The key is gone, and wiped, before the first app
//! is forked.

use crate::error::{Error, Tried};
use crate::mounts::{self, attach, new_filesystem, open_directory};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::MountAttrFlags;
use sandbox_protocol::secret::{KEY, MAX_COUNT, PrivateKey, is_name};
use sandbox_protocol::{Measured, Secret};
use std::fs::File;
use std::io::Write as _;

/// A pod that waits for its secrets.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    measured: &'a Measured,
    key: PrivateKey,
}

impl<'a> Waiting<'a> {
    /// Makes the pod's key.
    pub(crate) fn new(measured: &'a Measured) -> Self {
        Self { measured, key: PrivateKey::generate() }
    }

    /// Its public half.
    pub(crate) fn public_key(&self) -> [u8; KEY] {
        self.key.public()
    }

    /// Opens what the host has sent, and makes files of it.
    pub(crate) fn place(self, sealed: &[Vec<u8>]) -> Result<(), Error> {
        let Measured { uuid, secrets, .. } = self.measured;
        if secrets.len() != sealed.len() || secrets.len() > MAX_COUNT {
            return Err(Error::Refused(format!(
                "{} secrets came, of {} that the pod has",
                sealed.len(),
                secrets.len()
            )));
        }
        mounts::directory(mounts::SECRETS, 0o755)?;
        // A page for each is the most that is lost to rounding.
        let options = [("size", "8m"), ("mode", "0755")];
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let files = new_filesystem("tmpfs", &options, attributes)?;
        attach(&files, open_directory(mounts::SECRETS)?)?;
        for (Secret { name, sealed_as }, sealed) in secrets.iter().zip(sealed) {
            if !is_name(name) {
                return Err(Error::Refused(format!("\"{name}\" cannot be the name of a secret")));
            }
            let secret = self
                .key
                .open(uuid, sealed_as, sealed)
                .map_err(|error| Error::Refused(format!("secret {name}: {error}")))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            openat(&files, name.as_str(), flags, Mode::from_raw_mode(0o444))
                .and_then(|file| {
                    File::from(file).write_all(&secret).map_err(|error| {
                        rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)
                    })
                })
                .tried(format_args!("writing the secret {name}"))?;
        }
        Ok(())
    }
}

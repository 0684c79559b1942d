//! The disks of a pod, as the monitor gets them.

use crate::pod::{PodParts, SCRATCH_SERIAL, image_serial};
use sandbox_spawn::number;
use sandbox_vmm::config::{self, ConfigError, Serial};
use std::fs::File;

/// A disk of a pod.
#[derive(Debug)]
pub struct Disk<'a> {
    serial: String,
    /// What is on it.
    pub file: &'a File,
    read_only: bool,
}

/// The disks of a pod: its images, which the guest can only read, and the one for what apps write.
pub fn of(pod: &PodParts) -> Vec<Disk<'_>> {
    let images = pod.images.iter().enumerate().map(|(index, image)| Disk {
        serial: image_serial(index),
        file: &image.rootfs.file,
        read_only: true,
    });
    let scratch = pod.scratch.iter().map(|file| Disk {
        serial: SCRATCH_SERIAL.to_owned(),
        file,
        read_only: false,
    });
    images.chain(scratch).collect()
}

impl Disk<'_> {
    /// The device that shows it to the guest.
    ///
    /// # Errors
    /// [`ConfigError::Serial`]
    pub fn device(&self) -> Result<config::Disk, ConfigError> {
        Ok(config::Disk {
            serial: Serial::try_from(self.serial.clone())?,
            fd: number(self.file),
            read_only: self.read_only,
        })
    }
}

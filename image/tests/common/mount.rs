//! The kernel's own reading of an EROFS file system.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};
use tempfile::TempDir;

/// A file system that is mounted until this is dropped.
pub struct Mounted(TempDir);

impl Mounted {
    pub fn new(image: &Path) -> Self {
        let output = Self::try_new(image);
        output.unwrap_or_else(|output| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    }

    fn try_new(image: &Path) -> Result<Self, Output> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "erofs", "-o", "loop,ro"]).arg(image).arg(directory.path());
        let output = mount.output().unwrap();
        if output.status.success() { Ok(Self(directory)) } else { Err(output) }
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("--lazy").arg(self.0.path()).status().unwrap();
        assert!(status.success(), "umount: {status}");
    }
}

/// Whether EROFS can be mounted here, tried with one that is not ours. Says why if not.
pub fn can_mount() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let reason = try_mount().err();
        if let Some(reason) = &reason {
            eprintln!("skip: cannot mount EROFS: {}", reason.trim());
        }
        reason.is_none()
    })
}

fn try_mount() -> Result<(), String> {
    let place = tempfile::tempdir().unwrap();
    let (image, root) = (place.path().join("image"), place.path().join("root"));
    std::fs::create_dir(&root).unwrap();
    let made = Command::new("mkfs.erofs").arg(&image).arg(&root).output();
    let made = made.map_err(|error| format!("mkfs.erofs: {error}"))?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned());
    }
    match Mounted::try_new(&image) {
        Ok(_) => Ok(()),
        Err(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Holds `fsck.erofs` against an image, which also reads all contents, if it is there.
pub fn fsck(image: &Path) {
    let output = match Command::new("fsck.erofs").arg("--extract").arg(image).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skip: fsck.erofs: {error}");
            return;
        }
    };
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "fsck.erofs: {} {}",
        said(&output.stdout),
        said(&output.stderr)
    );
}

/// An image file in a folder of its own.
pub struct ImageFile {
    folder: TempDir,
}

impl ImageFile {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    pub fn open(&self) -> std::fs::File {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).open(self.path()).unwrap()
    }
}

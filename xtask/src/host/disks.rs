//! What one run brings along and takes back, as disks: no file server is needed, and the same files
//! work with every version of QEMU.

use super::Host;
use crate::cache;
use crate::command::{self, quoted};
use crate::workspace;
use anyhow::{Context, Result, ensure};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The size of the disk for what the command leaves in /mnt/out. It takes as much of this machine's
/// disk as is written.
const OUTPUT_SIZE: u64 = 8 << 30;

/// The directory of one run. It is removed when this is dropped; one that a killed run left is
/// removed by the next run.
#[derive(Debug)]
pub struct RunDirectory {
    directory: TempDir,
    /// Held as long as the run lasts, so that others know the directory is in use.
    _lock: File,
    /// The test host's kernel.
    pub kernel: PathBuf,
    /// The test host's root file system.
    pub root: PathBuf,
    /// The tar archive that is unpacked into the root file system.
    pub payload: PathBuf,
    /// The file system with the shared directory.
    pub share: Option<PathBuf>,
    /// The disk that takes the tar archive of /mnt/out.
    pub output: Option<PathBuf>,
}

impl RunDirectory {
    /// Makes the directory and the disks.
    pub fn create(
        host: &Host,
        image: &Path,
        dist: &Path,
        command: Option<&[OsString]>,
    ) -> Result<Self> {
        let runs = workspace::target()?.join("host");
        fs::create_dir_all(&runs)?;
        // Of several that begin at once, one after the other: a new directory is not locked yet.
        let beginning = cache::lock(&runs.join("lock"))?;
        remove_left_behind(&runs)?;
        let directory = tempfile::Builder::new().prefix("run-").tempdir_in(&runs)?;
        let lock = File::create(directory.path().join("lock"))?;
        lock.lock()?;
        drop(beginning);
        fs::create_dir(directory.path().join("tpm"))?;

        let payload = directory.path().join("payload.tar");
        make_payload(host, directory.path(), dist, command, &payload)?;
        let share = host.share.as_deref().map(|from| make_share(from, directory.path()));
        let output = host.out.as_deref().map(|_| {
            let path = directory.path().join("output.tar");
            File::create(&path)?.set_len(OUTPUT_SIZE)?;
            anyhow::Ok(path)
        });
        Ok(RunDirectory {
            kernel: image.join("vmlinuz"),
            root: image.join("root.ext4"),
            payload,
            share: share.transpose()?,
            output: output.transpose()?,
            directory,
            _lock: lock,
        })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Unpacks what the command left in /mnt/out.
    pub fn extract_output(&self, to: &Path) -> Result<()> {
        let Some(archive) = &self.output else { return Ok(()) };
        fs::create_dir_all(to).with_context(|| to.display().to_string())?;
        // The archive's end is marked, the rest of the disk is never read.
        command::output(Command::new("tar").arg("-C").arg(to).arg("-xf").arg(archive))?;
        Ok(())
    }
}

/// Removes directories of runs that were killed.
fn remove_left_behind(runs: &Path) -> Result<()> {
    for entry in fs::read_dir(runs)? {
        let path = entry?.path();
        let Ok(lock) = File::open(path.join("lock")) else { continue };
        if lock.try_lock().is_ok() {
            // Another run may be doing the same.
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

/// The archive with the product, the test programs, the start-up and the command.
fn make_payload(
    host: &Host,
    directory: &Path,
    dist: &Path,
    command: Option<&[OsString]>,
    payload: &Path,
) -> Result<()> {
    let tree = directory.join("payload");
    let ours = tree.join("run/host");
    fs::create_dir_all(&ours)?;
    for name in ["init", "session"] {
        let from = workspace::root().join("tests/host").join(name);
        fs::copy(&from, ours.join(name)).with_context(|| from.display().to_string())?;
    }
    fs::set_permissions(ours.join("init"), Permissions::from_mode(0o755))?;
    fs::write(ours.join("settings"), settings(host))?;
    if let Some(command) = command {
        fs::write(ours.join("command"), script(command)?)?;
    }
    if !host.programs.is_empty() {
        let programs = tree.join("usr/libexec/sandbox-tests");
        fs::create_dir_all(&programs)?;
        for program in &host.programs {
            fs::copy(&program.path, programs.join(&program.name))
                .with_context(|| program.path.display().to_string())?;
        }
    }
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "-cf"]).arg(payload);
    tar.arg("--transform=flags=rh;s,^dist,usr,").arg("-C").arg(&tree).arg("run");
    if !host.programs.is_empty() {
        tar.arg("usr");
    }
    if dist.exists() {
        tar.arg("-C").arg(dist.parent().context("target/dist has no parent")?).arg("dist");
    }
    command::output(&mut tar)?;
    fs::remove_dir_all(&tree)?;
    Ok(())
}

/// The variables that the start-up reads. Disks are named in the order of [`super::machine`].
fn settings(host: &Host) -> String {
    let mut free = ["/dev/vdb", "/dev/vdc"].into_iter();
    let mut disk = |wanted: bool| if wanted { free.next().unwrap_or_default() } else { "" };
    let (share, out) = (disk(host.share.is_some()), disk(host.out.is_some()));
    let terminal = std::env::var("TERM").unwrap_or_else(|_| "dumb".into());
    format!("SHARE={share}\nOUT={out}\nTERMINAL={}\n", quoted(&terminal))
}

/// The command as a shell script.
fn script(command: &[OsString]) -> Result<String> {
    let word = |word: &OsString| {
        word.to_str().map(quoted).with_context(|| format!("{word:?} is not UTF-8"))
    };
    let words = command.iter().map(word).collect::<Result<Vec<_>>>()?;
    Ok(format!("exec {}\n", words.join(" ")))
}

/// The shared directory as a file system.
fn make_share(from: &Path, directory: &Path) -> Result<PathBuf> {
    ensure!(from.is_dir(), "--share {}: not a directory", from.display());
    let disk = directory.join("share.ext4");
    let (bytes, files) = usage(from)?;
    // A block more for each file, a fifth more for what the file system itself needs.
    let size = (bytes + files * 8192) / 5 * 6 + (16 << 20);
    let options = [OsStr::new("-q"), "-t".as_ref(), "ext4".as_ref(), "-m0".as_ref()];
    command::output(
        Command::new("mke2fs")
            .args(options)
            .args(["-O", "^has_journal", "-E", "lazy_itable_init=0"])
            .arg(format!("-N{}", files + files / 8 + 64))
            .arg("-d")
            .arg(from)
            .arg(&disk)
            .arg(format!("{}k", size.div_ceil(1024))),
    )
    .with_context(|| format!("--share {}", from.display()))?;
    Ok(disk)
}

/// The bytes and the number of files below the directory.
fn usage(directory: &Path) -> Result<(u64, u64)> {
    let (mut bytes, mut files) = (0, 1);
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            let (inner_bytes, inner_files) = usage(&entry.path())?;
            bytes += inner_bytes;
            files += inner_files;
        } else {
            bytes += metadata.size();
            files += 1;
        }
    }
    Ok((bytes, files))
}

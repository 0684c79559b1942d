//! The disk that takes what apps write to their root file systems, where that should not cost memory
//! (`--scratch`).
//!
//! It is a sparse file in the pod's directory, with an ext4 on it that is made by `mke2fs` before
//! the guest has ever seen it: the host never mounts what a guest has written to. There is no
//! journal, since nobody reads it after the pod, and tables are initialized lazily, so that it costs
//! the same few milliseconds for any size.

use super::{DirectoryError, PodDir};
use crate::options::ScratchSize;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Its name in the pod's directory.
const NAME: &str = "scratch";

/// Where Debian's e2fsprogs has the program.
const PROGRAMS: [&str; 2] = ["/usr/sbin/mke2fs", "/sbin/mke2fs"];

/// Why there is no scratch disk.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// See [`DirectoryError`].
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The program that makes file systems is not there.
    #[error(
        "--scratch needs mke2fs, and there is no {}; install e2fsprogs, or do without --scratch \
         (what apps write is then kept in memory)",
        PROGRAMS[0]
    )]
    NoProgram,
    /// It can't be made.
    #[error("cannot make a scratch disk of {size} bytes: {error}")]
    Size {
        /// How large it should be.
        size: u64,
        /// What the system says.
        error: io::Error,
    },
    /// The program can't be run.
    #[error("cannot run {}: {error}", program.display())]
    Run {
        /// Its path.
        program: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The program has failed.
    #[error("{} cannot make a file system for --scratch: {message}", program.display())]
    Failed {
        /// Its path.
        program: PathBuf,
        /// The last line of what it said, or its exit status.
        message: String,
    },
}

/// Where mke2fs is, if it is there.
pub fn program() -> Option<&'static Path> {
    PROGRAMS.iter().map(Path::new).find(|program| program.is_file())
}

/// Makes the disk in a pod's directory.
///
/// # Errors
/// See [`ScratchError`].
pub fn create(directory: &PodDir, size: ScratchSize) -> Result<File, ScratchError> {
    let program = program().ok_or(ScratchError::NoProgram)?;
    let file = directory.create_disk(NAME)?;
    file.set_len(size.bytes()).map_err(|error| ScratchError::Size { size: size.bytes(), error })?;
    let output = format(program, &file)
        .map_err(|error| ScratchError::Run { program: program.to_owned(), error })?;
    if output.status.success() {
        return Ok(file);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message = said.lines().rfind(|line| !line.trim().is_empty());
    let message = message.map_or_else(|| output.status.to_string(), str::to_owned);
    Err(ScratchError::Failed { program: program.to_owned(), message })
}

fn format(program: &Path, file: &File) -> io::Result<Output> {
    const DISK: i32 = 3;
    let from = file.as_raw_fd();
    let mut command = Command::new(program);
    command
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0"])
        .args(["-O", "^has_journal,^resize_inode"])
        .args(["-E", "lazy_itable_init=1,nodiscard,root_owner=0:0"])
        .arg(format!("/proc/self/fd/{DISK}"))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // SAFETY: the closure runs between fork and exec of a process that may have threads. It makes
    // one system call and allocates nothing.
    unsafe {
        command.pre_exec(move || inherit(from, DISK));
    }
    command.output()
}

/// Makes `from` the descriptor `to` of a new process.
fn inherit(from: i32, to: i32) -> io::Result<()> {
    let done = if from == to {
        // SAFETY: F_SETFD changes a flag of this process' descriptor and nothing else.
        unsafe { libc::fcntl(to, libc::F_SETFD, 0) }
    } else {
        // SAFETY: the descriptor that it replaces in this new process is used by nobody any more:
        // what follows is exec.
        unsafe { libc::dup2(from, to) }
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::DataDir;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    #[test]
    fn a_scratch_disk_is_an_ext4_that_takes_no_room_and_goes_with_the_pod() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::open(temporary.path()).unwrap();
        let directory = PodDir::create(&data).unwrap();
        let size: ScratchSize = "1Gi".parse().unwrap();
        if program().is_none() {
            let error = create(&directory, size).unwrap_err();
            assert!(error.to_string().contains("install e2fsprogs"), "{error}");
            return;
        }
        let file = create(&directory, size).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 1 << 30);
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert!(metadata.blocks() * 512 < 8 << 20, "{} blocks", metadata.blocks());
        // The superblock: magic number, and no journal among the features.
        let mut superblock = [0; 1024];
        file.read_exact_at(&mut superblock, 1024).unwrap();
        assert_eq!(superblock[0x38..0x3a], [0x53, 0xef]);
        assert_eq!(superblock[0x5c] & 4, 0);
        let path = directory.path().join(NAME);
        assert!(path.is_file());
        directory.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_mke2fs_says_is_passed_on() {
        let Some(program) = program() else { return };
        let file = tempfile::tempfile().unwrap();
        let output = format(program, &file).unwrap();
        assert!(!output.status.success());
        assert!(!output.stderr.is_empty());
    }
}

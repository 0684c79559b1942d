//! Where the parts are that a pod needs besides this program.

use sandbox_image::Digest;
use serde::Deserialize;
use std::env;
use std::io;
use std::path::{Path, PathBuf};

/// The parts of an installation, found relative to this program:
/// `<dir>/../libexec/sandbox/{sandbox-vmm,sandbox-fs,sandbox-fetch,sandbox-attest}` and `<dir>/../lib/sandbox/{vmlinux,initramfs}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The monitor.
    pub monitor: PathBuf,
    /// The virtio-fs worker.
    pub worker: PathBuf,
    /// The program that fetches images, and reads what others wrote.
    pub fetcher: PathBuf,
    /// The program that opens the TPM. Only measured launches need it.
    pub attestor: PathBuf,
    /// The guest kernel.
    pub kernel: PathBuf,
    /// Whether that is the one that came with this program, and not one of the user's.
    pub kernel_is_installed: bool,
    /// The initramfs that holds guest-init.
    pub initramfs: PathBuf,
    /// What was recorded about the guest kernel when it was built.
    pub kernel_record: PathBuf,
}

/// A part is missing.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// This program does not know where it is.
    #[error("cannot tell where this program is installed: {0}")]
    Executable(io::Error),
    /// No usable file.
    #[error("{what} {}: {error}; {advice}", path.display())]
    Part {
        /// What it is.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
        /// What to do.
        advice: &'static str,
    },
}

impl Installation {
    /// The installation that this program belongs to.
    ///
    /// # Errors
    /// [`InstallationError::Executable`]
    pub fn find() -> Result<Self, InstallationError> {
        let executable = env::current_exe()
            .and_then(|path| path.canonicalize())
            .map_err(InstallationError::Executable)?;
        let prefix = executable.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
        Ok(Self::below(prefix))
    }

    fn below(prefix: &Path) -> Self {
        let programs = prefix.join("libexec/sandbox");
        let data = prefix.join("lib/sandbox");
        Self {
            monitor: programs.join("sandbox-vmm"),
            worker: programs.join("sandbox-fs"),
            fetcher: programs.join("sandbox-fetch"),
            attestor: programs.join("sandbox-attest"),
            kernel: data.join("vmlinux"),
            kernel_is_installed: true,
            initramfs: data.join("initramfs"),
            kernel_record: data.join("kernel.json"),
        }
    }

    /// The same with a guest kernel of the user's.
    ///
    /// # Errors
    /// Its path can't be resolved.
    pub fn with_kernel(mut self, kernel: &Path) -> Result<Self, InstallationError> {
        let kernel = kernel.canonicalize().map_err(|error| InstallationError::Part {
            what: "guest kernel",
            path: kernel.to_owned(),
            error,
            advice: "name another one with --kernel",
        })?;
        self.kernel_is_installed &= self.kernel == kernel;
        self.kernel = kernel;
        Ok(self)
    }

    /// The release of the kernel with this digest, as its build has recorded it; empty for another
    /// one.
    pub fn kernel_release(&self, digest: &Digest) -> String {
        #[derive(Deserialize)]
        struct Record {
            release: String,
            vmlinux: File,
        }
        #[derive(Deserialize)]
        struct File {
            sha256: String,
        }
        let read = std::fs::read(&self.kernel_record).ok();
        let record = read.and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        let of_it = record.filter(|record| record.vmlinux.sha256 == digest.hex());
        of_it.map(|record| record.release).unwrap_or_default()
    }

    /// The files that a pod can't do without: what each is, where it is, and what to do without.
    pub fn parts(&self) -> [(&'static str, &Path, &'static str); 5] {
        const INSTALL: &str = "install this package anew, or build it with cargo xtask dist";
        [
            ("monitor", &self.monitor, INSTALL),
            ("worker", &self.worker, INSTALL),
            ("fetcher", &self.fetcher, INSTALL),
            (
                "guest kernel",
                &self.kernel,
                "build it with cargo xtask kernel, or name one with --kernel",
            ),
            ("initramfs", &self.initramfs, INSTALL),
        ]
    }

    /// Looks whether every part is there.
    ///
    /// # Errors
    /// [`InstallationError::Part`]
    pub fn check(&self) -> Result<(), InstallationError> {
        for (what, path, advice) in self.parts() {
            regular_file(path).map_err(|error| InstallationError::Part {
                what,
                path: path.to_owned(),
                error,
                advice,
            })?;
        }
        Ok(())
    }
}

fn regular_file(path: &Path) -> io::Result<()> {
    let file = std::fs::File::open(path)?;
    if file.metadata()?.is_file() { Ok(()) } else { Err(io::Error::other("not a regular file")) }
}

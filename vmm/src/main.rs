//! `sandbox-vmm --config-fd N`: runs one microVM as the JSON on descriptor N says.
//!
//! The exit status tells how the microVM ended, see [`sandbox_vmm::exit`].

use sandbox_vmm::config::Config;
use sandbox_vmm::jail::{self, JailError};
use sandbox_vmm::machine::Machine;
use sandbox_vmm::{VmmError, exit, inherited, panic};
use std::fs::File;
use std::io::Read;
use std::os::fd::RawFd;

/// Longest configuration in bytes.
const MAX_CONFIG: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("usage: sandbox-vmm --config-fd N")]
    Usage,
    #[error("cannot read the configuration: {0}")]
    Read(#[from] std::io::Error),
    #[error("configuration: {0}")]
    Config(#[from] serde_json::Error),
    #[error(transparent)]
    Jail(#[from] JailError),
    #[error(transparent)]
    Vmm(#[from] VmmError),
}

fn main() {
    panic::install();
    exit::leave(match run() {
        Ok(exit) => exit.code(),
        Err(error) => {
            eprintln!("sandbox-vmm: {error}");
            exit::FAILURE
        }
    })
}

fn run() -> Result<exit::Exit, Error> {
    // It was executed by a descriptor, whose number older kernels take for its name.
    rustix::thread::set_name(c"sandbox-vmm").map_err(std::io::Error::from)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [flag, descriptor] = arguments.as_slice() else { return Err(Error::Usage) };
    let descriptor: RawFd = descriptor.parse().map_err(|_| Error::Usage)?;
    if flag != "--config-fd" || descriptor < 3 {
        return Err(Error::Usage);
    }
    let mut text = Vec::new();
    File::from(inherited(descriptor)?).take(MAX_CONFIG).read_to_end(&mut text)?;
    let config: Config = serde_json::from_slice(&text)?;
    jail::enter(&config)?;
    #[cfg(feature = "hostile")]
    sandbox_vmm::hostile::start()?;
    Ok(Machine::new(&config)?.run()?)
}

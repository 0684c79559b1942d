//! A pod as it would be launched: what the gate is asked about, and what is then prepared.

use super::guest::{Share, shares};
use super::size::Size;
use super::spec::PodSpec;
use super::{PrepareError, ProgramError};
use crate::installation::Installation;
use crate::jail::Jail;
use crate::options::VolumeKind;
use sandbox_gate::{DigestsAsked, Launch, LaunchVolume, Program, Verifier};
use sandbox_image::{Algorithm, Digest};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Everything about a pod that is decided about, besides its images. It does not change any more.
#[derive(Debug)]
pub struct Plan {
    spec: PodSpec,
    installation: Installation,
    shares: Vec<Share>,
    size: Size,
    jail: Jail,
    launch: Launch,
}

impl Plan {
    /// Looks at what a pod would be given. Digests of programs are computed where they are `asked`
    /// for, since that takes its time. `attest` is the measurement that the user asks for.
    ///
    /// # Errors
    /// What a volume shares can't be found, the pod would be too large, or a program can't be read.
    pub fn new(
        spec: PodSpec,
        installation: Installation,
        asked: DigestsAsked,
        tenant: Option<String>,
        attest: Option<Verifier>,
    ) -> Result<Self, PrepareError> {
        let size = Size::of(&spec.apps)?;
        let shares = shares(&spec)?;
        let jail = Jail::of_host()?;
        let launch = Launch {
            kernel: program(&installation.kernel, asked.kernel)?,
            kernel_is_installed: installation.kernel_is_installed,
            monitor: program(&installation.monitor, asked.monitor)?,
            cpus: u8::from(size.vcpus).into(),
            memory_mib: u32::from(size.memory).into(),
            volumes: volumes(&spec, &shares),
            // A pod has no network yet.
            networks: Vec::new(),
            // Every app has the usual ones (guest-init's); nothing adds to them yet.
            capabilities: Vec::new(),
            // The store has no image without a hash tree.
            verified: true,
            label: None,
            tenant,
            attest,
        };
        Ok(Self { spec, installation, shares, size, jail, launch })
    }

    /// The apps.
    pub fn spec(&self) -> &PodSpec {
        &self.spec
    }

    /// The programs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// What the guest sees of the host's files.
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// How large the microVM is.
    pub fn size(&self) -> Size {
        self.size
    }

    /// What its processes are put into.
    pub fn jail(&self) -> &Jail {
        &self.jail
    }

    /// What the gate is asked about.
    pub fn launch(&self) -> &Launch {
        &self.launch
    }
}

/// Every volume, with what is really shared: symbolic links are resolved.
fn volumes(spec: &PodSpec, shares: &[Share]) -> Vec<LaunchVolume> {
    // There is a share for each volume of the host, in their order.
    let mut shares = shares.iter();
    let volume = |volume: &crate::options::Volume| {
        let share = match volume.kind {
            VolumeKind::Host { .. } => shares.next(),
            VolumeKind::Empty { .. } => None,
        };
        LaunchVolume {
            name: volume.name.to_string(),
            host: share.map(|share| share.path.clone()),
            read_only: share.map_or(volume.read_only, |share| share.read_only),
        }
    };
    spec.volumes.iter().map(volume).collect()
}

/// The largest program that is read.
const MAX: u64 = 1 << 30;

/// A program as it is now. It is opened again, by its path, when it is used: a rule about digests holds
/// against who names another file, not against who can write to this one in between.
fn program(path: &Path, hash: bool) -> Result<Program, ProgramError> {
    let digest = match hash {
        true => Some(digest(path).map_err(|error| ProgramError { path: path.to_owned(), error })?),
        false => None,
    };
    Ok(Program { path: path.to_owned(), digest })
}

fn digest(path: &Path) -> io::Result<Digest> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Digest::of(Algorithm::Sha256, &content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_hashed_where_that_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kernel");
        assert_eq!(program(&path, false).unwrap().digest, None);
        let error = program(&path, true).unwrap_err().to_string();
        assert!(error.contains("kernel"), "{error}");
        std::fs::write(&path, "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            program(&path, true).unwrap().digest.unwrap().hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}

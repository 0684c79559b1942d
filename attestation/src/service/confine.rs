//! What the service gives up before it hears anyone.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs,
};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// The kernel's rules as they are in Linux 6.12: files, ports, and who may be signalled. Of an older
/// kernel those that it has.
const RULES: ABI = ABI::V6;

/// The files of certificate and key may belong to a user of their own.
const CAPABILITIES: CapabilitySet = CapabilitySet::DAC_OVERRIDE;

/// Why the service can't be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// One of the steps failed.
    #[error("cannot {step}: {error}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the kernel answered.
        error: io::Error,
    },
    /// The rules can't be set.
    #[error("cannot forbid files and ports (Landlock): {0}")]
    Landlock(#[from] RulesetError),
}

/// How far the kernel went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confined {
    /// Other files than its own are out of reach.
    Whole,
    /// This kernel has no rules of files (Landlock), or they are switched off.
    WithoutFiles,
}

/// Leaves this thread, and those that it starts, the `directory` of the service and the files in
/// `renewed`, which whoever renews them replaces; no program to start, no port to open, nobody outside
/// to signal. What is open stays usable, so the service listens already.
///
/// # Errors
/// [`ConfineError`]; the service must not start then.
pub fn confine(directory: &Path, renewed: &[&Path]) -> Result<Confined, ConfineError> {
    let failed = |step: &'static str| {
        move |error: rustix::io::Errno| ConfineError::Step { step, error: error.into() }
    };
    if geteuid().is_root() {
        clear_ambient_capability_set().map_err(failed("clear the ambient capabilities"))?;
        let sets = CapabilitySets {
            effective: CAPABILITIES,
            permitted: CAPABILITIES,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).map_err(failed("drop capabilities"))?;
    }
    set_no_new_privs(true).map_err(failed("set no_new_privs"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("forbid tracing"))?;

    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        .scope(Scope::from_all(RULES))?
        .create()?;
    let own = [(directory.to_owned(), AccessFs::from_all(RULES) & !AccessFs::Execute)];
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let others = renewed.iter().flat_map(|file| places(file)).map(|place| (place, read));
    for (place, access) in own.into_iter().chain(others) {
        let open = |error: landlock::PathFdError| ConfineError::Step {
            step: "open a directory of the service's",
            error: io::Error::other(error),
        };
        rules = rules.add_rule(PathBeneath::new(PathFd::new(place).map_err(open)?, access))?;
    }
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Confined::WithoutFiles,
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Confined::Whole,
    })
}

/// The directories in which a file is looked for: its own, and where it really is if that is another
/// one, as with tools that keep old certificates.
fn places(file: &Path) -> BTreeSet<PathBuf> {
    let real = file.canonicalize().ok();
    let own = std::path::absolute(file).ok();
    [real, own].into_iter().flatten().filter_map(|path| Some(path.parent()?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::symlink;
    use std::process::Command;
    use std::thread;

    #[test]
    fn a_confined_service_has_its_own_files_and_no_others() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().to_owned();
        let path = move |name: &str| root.join(name);
        for name in ["service", "live", "archive"] {
            fs::create_dir(path(name)).unwrap();
        }
        for name in ["other", "live/key", "archive/one", "archive/two"] {
            fs::write(path(name), name).unwrap();
        }
        symlink("../archive/one", path("live/certificate")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let denied = |result: io::Result<()>| {
            result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        // The rules are a thread's, and those's that it starts.
        let confined = thread::spawn(move || {
            let renewed = [path("live/certificate"), path("live/key")];
            let renewed: Vec<&Path> = renewed.iter().map(PathBuf::as_path).collect();
            assert_eq!(confine(&path("service"), &renewed).unwrap(), Confined::Whole);
            fs::write(path("service/new"), "1").unwrap();
            fs::rename(path("service/new"), path("service/verdict")).unwrap();
            for name in ["live/certificate", "live/key", "archive/two"] {
                fs::read(path(name)).unwrap();
            }
            assert!(denied(fs::write(path("live/key"), "2")));
            assert!(denied(fs::read(path("other")).map(drop)));
            assert!(denied(fs::read("/etc/passwd").map(drop)));
            assert!(denied(Command::new("/bin/true").status().map(drop)));
            // The listener, which was open, goes on.
            let address = listener.local_addr().unwrap();
            let client = thread::scope(|scope| {
                scope.spawn(|| denied(TcpStream::connect(address).map(drop))).join().unwrap()
            });
            assert!(client, "it can connect to others");
            assert!(denied(TcpListener::bind("127.0.0.1:0").map(drop)));
        });
        confined.join().unwrap();
    }
}

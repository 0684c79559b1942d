//! What the process gives up before it hears its request.

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
};
use rustix::{
    fs::Mode,
    process::{
        DumpableBehavior, Resource, Rlimit, geteuid, set_dumpable_behavior, setrlimit, umask,
    },
    thread::{
        CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities,
        set_no_new_privs,
    },
};
use sandbox_attestation::settings::Settings;
use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt as _, path::Path};

/// The TPM's device may belong to a user of its own.
const CAPABILITIES: CapabilitySet = CapabilitySet::DAC_OVERRIDE;

/// The standard streams, the lock, the log, its folder, the TPM, and what libraries open meanwhile.
const DESCRIPTORS: u64 = 64;

/// A log of some hundred thousand launches fits, with the quote that goes with it.
const MEMORY: u64 = 4 << 30;

/// The kernel's rules of files as they are in Linux 6.1, the oldest that this runs on.
const RULES: ABI = ABI::V2;

/// What is read: libraries and how they are set up, the boot, what others have measured.
const READ: &[&str] = &[
    "/dev/urandom",
    "/etc",
    "/lib",
    "/lib64",
    "/proc/sys/kernel/random/boot_id",
    "/run/log/systemd",
    "/sys/kernel/security",
    "/usr",
];

/// Gives up privileges and resources, for good.
pub(super) fn confine() -> Result<(), String> {
    close_inherited().map_err(|error| format!("cannot close inherited descriptors: {error}"))?;
    let failed = |step: &'static str| {
        move |error: rustix::io::Errno| format!("cannot {step}: {}", io::Error::from(error))
    };
    let limit = |resource, most, step| {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(failed(step))
    };
    limit(Resource::Core, 0, "forbid core files")?;
    limit(Resource::Nofile, DESCRIPTORS, "limit open files")?;
    limit(Resource::As, MEMORY, "limit memory")?;
    umask(Mode::RWXG | Mode::RWXO);
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
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("forbid tracing"))
}

/// Forbids to open anything by name but what is needed, and to start any program. A kernel without
/// such rules (Landlock) does without.
pub(super) fn forbid_files(settings: &Settings) -> Result<(), String> {
    // A rule is for what is there. Where this is not possible, waiting for the turn says why.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&settings.directory);
    if made.is_err() {
        return Ok(());
    }
    rules(settings).map_err(|error| format!("cannot forbid files (Landlock): {error}"))
}

fn rules(settings: &Settings) -> Result<(), RulesetError> {
    let device = settings.tcti.strip_prefix("device:").map(Path::new);
    let write = AccessFs::ReadFile | AccessFs::WriteFile;
    let allowed = READ
        .iter()
        .map(|path| (Path::new(path), AccessFs::ReadFile | AccessFs::ReadDir))
        .chain(device.map(|path| (path, write)))
        .chain([(settings.directory.as_path(), AccessFs::from_all(RULES))]);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RULES))?
        .create()?;
    for (path, access) in allowed {
        // One that is not there can't be opened either.
        if let Ok(file) = PathFd::new(path) {
            let access: BitFlags<AccessFs> = match path.is_dir() {
                true => access,
                false => access & AccessFs::from_file(RULES),
            };
            rules = rules.add_rule(PathBeneath::new(file, access))?;
        }
    }
    rules.restrict_self()?;
    Ok(())
}

/// Closes everything that was inherited besides the standard streams.
fn close_inherited() -> io::Result<()> {
    // SAFETY: called first of all, when nothing in this process owns a descriptor above the
    // standard streams.
    if unsafe { libc::close_range(3, u32::MAX, 0) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, process::Command, thread};

    #[test]
    fn only_what_is_needed_can_be_opened() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().to_owned();
        let path = move |name: &str| root.join(name);
        for name in ["device", "other"] {
            fs::write(path(name), name).unwrap();
        }
        let settings = Settings {
            tcti: format!("device:{}", path("device").display()),
            directory: path("attest"),
            ..Settings::default()
        };
        // The rules are a thread's, and those's that it starts.
        let confined = thread::spawn(move || {
            forbid_files(&settings).unwrap();
            let denied = |result: io::Result<()>| {
                result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            };
            if !denied(fs::read(path("other")).map(drop)) {
                eprintln!("skipped: this kernel has no Landlock");
                return;
            }
            fs::write(settings.directory.join("lock"), "1").unwrap();
            fs::rename(settings.directory.join("lock"), settings.directory.join("it")).unwrap();
            fs::write(path("device"), "2").unwrap();
            fs::read("/etc/passwd").unwrap();
            fs::read("/proc/sys/kernel/random/boot_id").unwrap();
            assert!(denied(fs::write(path("new"), "3")));
            assert!(denied(fs::write("/etc/sandbox-test", "3")));
            assert!(denied(fs::read("/proc/self/environ").map(drop)));
            assert!(denied(Command::new("/bin/true").status().map(drop)));
        });
        confined.join().unwrap();
    }
}

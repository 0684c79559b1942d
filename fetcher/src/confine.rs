//! What the process gives up before it reads anything of an image, besides system calls
//! ([`crate::filter`]).

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};
use rustix::{
    process::{
        DumpableBehavior, Gid, Pid, Resource, Rlimit, Signal, Uid, geteuid, getppid,
        set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
    },
    thread::{
        CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities,
        set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};
use sandbox_image::protocol::{Confinement, Profile};
use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};
use thiserror::Error;

/// What it takes to make files of any owner. `MKNOD` is not needed for named pipes.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP);

/// What looking up a host's address reads.
const FOR_NAMES: &[&str] = &["/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"];

/// The kernel's rules of files as they are in Linux 6.1, the oldest that this runs on.
const RULES: ABI = ABI::V2;

/// Why the process could not be confined.
#[derive(Debug, Error)]
pub(crate) enum ConfineError {
    /// One of the steps failed.
    #[error("cannot {step}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The process that started this one is gone.
    #[error("the process that started this one has ended")]
    Orphan,
    /// The rules of files can't be set.
    #[error("cannot forbid files (Landlock)")]
    Landlock(#[from] RulesetError),
    /// The kernel has no rules of files.
    #[error(
        "this kernel has no Landlock, or it is switched off; it needs Linux 5.19 with \
         CONFIG_SECURITY_LANDLOCK and 'landlock' in the boot parameter lsm"
    )]
    NoLandlock,
}

fn failed(step: &'static str) -> impl Fn(rustix::io::Errno) -> ConfineError {
    move |error| ConfineError::Step { step, source: error.into() }
}

/// Closes everything that was inherited besides the standard streams.
pub(crate) fn close_inherited() -> Result<(), ConfineError> {
    // SAFETY: called first of all, when nothing in this process owns a descriptor above the
    // standard streams.
    if unsafe { libc::close_range(3, u32::MAX, 0) } == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    Err(ConfineError::Step { step: "close inherited descriptors", source })
}

/// Gives up privileges, files and resources, for good.
pub(crate) fn give_up(
    confinement: &Confinement,
    profile: Profile,
    files: &[OwnedFd],
) -> Result<(), ConfineError> {
    let limit = |resource, most, step| {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(failed(step))
    };
    limit(Resource::Core, 0, "forbid core files")?;
    limit(Resource::Fsize, confinement.file_size, "limit the size of files")?;
    limit(Resource::As, confinement.memory, "limit memory")?;

    match (profile, confinement.user) {
        // Files of an image have owners of their own.
        (Profile::Unpack, _) if geteuid().is_root() => keep(CAPABILITIES)?,
        (_, Some(user)) => become_user(user)?,
        _ => keep(CapabilitySet::empty())?,
    }
    set_no_new_privs(true).map_err(failed("set no_new_privs"))?;
    forbid_files(profile, files)?;
    // The kernel forgets the signal when the user changes, so this comes after it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("die with sandbox"))?;
    if getppid().map(Pid::as_raw_pid) != i32::try_from(confinement.parent).ok() {
        return Err(ConfineError::Orphan);
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("forbid tracing"))
}

/// Becomes a user that nobody else is, with a group that nobody else has.
fn become_user(user: u32) -> Result<(), ConfineError> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    set_thread_groups(&[]).map_err(failed("drop supplementary groups"))?;
    set_thread_res_gid(gid, gid, gid).map_err(failed("change the group"))?;
    set_thread_res_uid(uid, uid, uid).map_err(failed("change the user"))?;
    keep(CapabilitySet::empty())
}

/// Gives up all other capabilities.
fn keep(capabilities: CapabilitySet) -> Result<(), ConfineError> {
    clear_ambient_capability_set().map_err(failed("clear the ambient capabilities"))?;
    let sets = CapabilitySets {
        effective: capabilities,
        permitted: capabilities,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(failed("drop capabilities"))
}

/// Forbids to open anything by name but what the profile needs. What is open stays usable.
fn forbid_files(profile: Profile, files: &[OwnedFd]) -> Result<(), ConfineError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RULES))?
        .create()?;
    match profile {
        Profile::Offline => {}
        Profile::Network => {
            for path in FOR_NAMES {
                // One that is not there can't be read either.
                if let Ok(file) = PathFd::new(path) {
                    rules = rules.add_rule(PathBeneath::new(file, AccessFs::ReadFile))?;
                }
            }
        }
        Profile::Unpack => {
            if let Some(directory) = files.last() {
                let directory: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(directory);
                let rule = PathBeneath::new(directory, AccessFs::from_all(RULES));
                rules = rules.add_rule(rule)?;
            }
        }
    }
    match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced => {
            Err(ConfineError::NoLandlock)
        }
    }
}

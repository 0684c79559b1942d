//! Landlock (landlock(7)): no file can be opened, made or changed by name, no port bound or connected
//! to, no process outside signalled. What is open stays usable.

use super::JailError;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetStatus, Scope,
};

/// The newest rules that are known here. An older kernel has fewer.
const RULES: ABI = ABI::V9;

/// `LANDLOCK_CREATE_RULESET_VERSION` of landlock_create_ruleset(2).
const VERSION: u32 = 1;

/// The version of the rules that this kernel enforces, as far as they are known here; 0 if it has
/// none.
pub fn version() -> u32 {
    let none = std::ptr::null::<u8>();
    // SAFETY: with this flag the call takes no structure, and makes nothing.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION) };
    u32::try_from(version).map_or(0, |version| version.min(RULES as u32))
}

/// Forbids everything, for this thread and all that it will start. On a kernel without Landlock
/// nothing is done: the evidence about the pod says so, and host policy can refuse it.
pub fn forbid_everything() -> Result<(), JailError> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        .scope(Scope::from_all(RULES))?
        .create()?;
    match rules.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced if version() != 0 => Err(JailError::NotForbidden),
        _ => Ok(()),
    }
}

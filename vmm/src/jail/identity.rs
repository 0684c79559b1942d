//! Who the process is: a user that nobody else is, without a capability and without a way to one.

use super::{JailError, failed};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
    set_no_new_privs,
};

/// Being root of a namespace means nothing any more: neither exec nor a change of user gives
/// capabilities.
const ROOT_IS_NOBODY: CapabilitiesSecureBits = CapabilitiesSecureBits::NO_ROOT
    .union(CapabilitiesSecureBits::NO_ROOT_LOCKED)
    .union(CapabilitiesSecureBits::NO_SETUID_FIXUP)
    .union(CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED)
    .union(CapabilitiesSecureBits::KEEP_CAPS_LOCKED)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED);

/// Gives up every capability and every way to gain one, and is closed to other processes of its
/// user, if there is one.
pub fn give_up() -> Result<(), JailError> {
    // Without namespaces it was started as the pod's user, which has no capability to begin with.
    #[cfg(feature = "hostile")]
    if !super::has("namespaces") {
        set_no_new_privs(true).map_err(failed("set no_new_privs"))?;
        return set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(failed("forbid tracing"));
    }
    set_capabilities_secure_bits(ROOT_IS_NOBODY).map_err(failed("make root of no account"))?;
    clear_ambient_capability_set().map_err(failed("clear the ambient capabilities"))?;
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // Past the last capability this kernel has.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(failed("empty the capability bounding set")(error)),
        }
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).map_err(failed("drop capabilities"))?;
    set_no_new_privs(true).map_err(failed("set no_new_privs"))?;
    // An exec that changes the SELinux domain makes the kernel forget it. Should the supervisor have
    // died since, the control socket has been closed, which ends the monitor.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("die with sandbox"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("forbid tracing"))
}

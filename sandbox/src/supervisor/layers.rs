//! The layers of the processes' isolation that are put on from here. The product puts on all of
//! them; the build that attacks them one by one (`tests/hostile`) leaves out those that it is told
//! to, and tells the processes.

use sandbox_spawn::Namespaces;
use std::ffi::CString;

/// The environment of a pod's processes: none.
#[cfg(not(feature = "hostile"))]
pub fn environment() -> Vec<CString> {
    Vec::new()
}

/// What the environment has for the attackers.
#[cfg(feature = "hostile")]
pub fn environment() -> Vec<CString> {
    let words = sandbox_hostile::layers::passed_on();
    words.filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok()).collect()
}

/// The namespaces that a process gets: those that are meant for it.
#[cfg(not(feature = "hostile"))]
pub fn namespaces(meant: Namespaces) -> Namespaces {
    meant
}

/// The same without those layers that are off.
#[cfg(feature = "hostile")]
pub fn namespaces(meant: Namespaces) -> Namespaces {
    use sandbox_hostile::layers::has;
    use sandbox_spawn::User;
    match (meant, has("namespaces"), has("identity")) {
        (meant, true, true) | (meant @ Namespaces::Pid, true, _) => meant,
        (_, true, false) => Namespaces::All(User { uid: 0, gid: 0 }),
        (Namespaces::All(user), false, true) => Namespaces::Host(Some(user)),
        _ => Namespaces::Host(None),
    }
}

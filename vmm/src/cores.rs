//! Who else runs on the hardware threads of a core (Linux
//! Documentation/admin-guide/hw-vuln/core-scheduling.rst).

use rustix::io::Errno;
use rustix::process::getpid;
use rustix::thread::{CoreSchedulingScope, create_core_scheduling_cookie};

/// Keeps other processes from the cores that this one runs on, for as long as it runs there: what
/// hardware threads of a core can learn from each other, the virtual CPUs of a pod can learn from
/// nobody else. To be called before there is a second thread; all threads after it are together.
///
/// Where no core has several threads there is nothing to do, and where the kernel can't do it
/// (before Linux 5.14, or without `CONFIG_SCHED_CORE`) `sandbox doctor` says so.
///
/// # Errors
/// The kernel's, if it can and doesn't.
pub fn keep_to_itself() -> Result<(), Errno> {
    match create_core_scheduling_cookie(getpid(), CoreSchedulingScope::ThreadGroup) {
        Err(Errno::NODEV | Errno::INVAL) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::core_scheduling_cookie;

    #[test]
    fn a_process_has_a_cookie_wherever_the_kernel_has_them() {
        let cookie = || core_scheduling_cookie(getpid(), CoreSchedulingScope::Thread);
        keep_to_itself().unwrap();
        match cookie() {
            Ok(cookie) => assert_ne!(cookie, 0),
            Err(error) => assert!([Errno::NODEV, Errno::INVAL].contains(&error), "{error}"),
        }
    }
}

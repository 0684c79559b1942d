//! Becoming the app's program: environment, limits, privileges, and the search for the program.

use super::user::Identity;
use crate::error::{Error, Tried, checked};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use std::ffi::{CStr, CString};

/// Where programs are searched when the environment has no `PATH` (appc `ace.md`).
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What apps may do at most unless their manifest says otherwise (appc `ace.md`).
const DEFAULT_CAPABILITIES: CapabilitySet = CapabilitySet::AUDIT_WRITE
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_CHROOT);

/// A program with its arguments and environment, as execve(2) takes them.
#[derive(Debug)]
pub(crate) struct Program {
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    /// Checks arguments and environment.
    pub(crate) fn new(arguments: &[Vec<u8>], environment: &[Vec<u8>]) -> Result<Self, Error> {
        let strings = |what: &str, list: &[Vec<u8>]| -> Result<Vec<CString>, Error> {
            list.iter()
                .map(|item| {
                    CString::new(item.as_slice())
                        .map_err(|_| Error::Refused(format!("{what} has a zero byte in it")))
                })
                .collect()
        };
        let arguments = strings("an argument of the program", arguments)?;
        if arguments.first().is_none_or(|program| program.is_empty()) {
            return Err(Error::Refused(
                "the app has no program: neither its image nor the command line names one".into(),
            ));
        }
        Ok(Self { arguments, environment: strings("the environment", environment)? })
    }

    /// Sets a variable that the environment does not have.
    pub(crate) fn set_default(&mut self, name: &str, value: &[u8]) {
        if self.variable(name).is_none() {
            let entry = [name.as_bytes(), b"=", value].concat();
            // A value with a zero byte in it could only be cut off, which helps nobody.
            self.environment.extend(CString::new(entry));
        }
    }

    /// Replaces this process by the program; returns only if that fails.
    pub(crate) fn execute(&self) -> Error {
        let program = self.arguments[0].to_bytes();
        let path = self.variable("PATH").unwrap_or(DEFAULT_PATH);
        let argv = pointers(&self.arguments);
        let envp = pointers(&self.environment);
        let mut failure = None;
        for candidate in candidates(program, path) {
            // SAFETY: the path is a C string, both lists are null-terminated and point to C
            // strings, and all of them outlive the call.
            let result = unsafe { libc::execve(candidate.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
            let found = match checked(result) {
                Err(found) => found,
                Ok(_) => Errno::IO,
            };
            match found {
                Errno::NOENT | Errno::NOTDIR if !exists(&candidate) => {}
                // The search goes on as in execvp(3), but this is then what was wrong.
                Errno::ACCESS => failure = failure.or(Some((candidate, found))),
                _ => return explain(&candidate, found),
            }
        }
        match failure {
            Some((candidate, found)) => explain(&candidate, found),
            None => not_found(program, path),
        }
    }

    fn variable(&self, name: &str) -> Option<&[u8]> {
        self.environment
            .iter()
            .find_map(|entry| entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }
}

/// The files that can be meant by the name of a program: with a slash in it, itself.
fn candidates(program: &[u8], path: &[u8]) -> Vec<CString> {
    if program.contains(&b'/') {
        return CString::new(program).into_iter().collect();
    }
    path.split(|byte| *byte == b':')
        .map(|directory| match directory {
            b"" => program.to_vec(),
            directory => [directory, b"/", program].concat(),
        })
        .filter_map(|candidate| CString::new(candidate).ok())
        .collect()
}

fn exists(file: &CStr) -> bool {
    rustix::fs::stat(file).is_ok()
}

fn not_found(program: &[u8], path: &[u8]) -> Error {
    let program = String::from_utf8_lossy(program);
    Error::Refused(if program.contains('/') {
        format!("program \"{program}\" not found in the image")
    } else {
        let path = String::from_utf8_lossy(path);
        format!("program \"{program}\" not found in the PATH of the image ({path})")
    })
}

fn explain(file: &CStr, found: Errno) -> Error {
    let file = file.to_string_lossy();
    Error::Refused(match found {
        Errno::NOENT | Errno::NOTDIR => format!(
            "program \"{file}\" is there, but not the interpreter or dynamic loader that it names"
        ),
        Errno::ACCESS => {
            format!("program \"{file}\" may not be executed by the app's user, or is no file")
        }
        Errno::NOEXEC => format!(
            "program \"{file}\" is neither a program for this machine nor a script that starts \
             with #!"
        ),
        Errno::TOOBIG => {
            format!("arguments and environment of \"{file}\" are longer than Linux takes")
        }
        found => format!("executing \"{file}\": {found}"),
    })
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Sets what a new program expects: no signal is blocked or ignored, files are made with the usual
/// permissions, and only the standard streams are open.
pub(crate) fn reset_process() {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // SAFETY: sigset_t is plain bits, for which zero is valid, and sigemptyset writes only to it;
    // descriptors are only marked to be closed by a successful execve.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
    }
}

/// Gives up what the app is not to have. For root the kernel grants the bounding set at exec, for
/// others nothing; nothing is inheritable, since files with inheritable capabilities would
/// otherwise hand them to any user.
pub(crate) fn drop_privileges(identity: &Identity) -> Result<(), Error> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if DEFAULT_CAPABILITIES.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error).tried("dropping capabilities"),
        }
    }
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    set_thread_groups(&groups)
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        .tried(format_args!("becoming user {} and group {}", identity.uid, identity.gid))?;
    if uid.is_root() {
        let sets = CapabilitySets {
            effective: DEFAULT_CAPABILITIES,
            permitted: DEFAULT_CAPABILITIES,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).tried("dropping capabilities")?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;

//! The system calls the worker may make once it reads what a guest wrote. Any other kills it.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};
use thiserror::Error;

/// Why the filter could not be installed.
#[derive(Debug, Error)]
pub enum FilterError {
    /// The table below doesn't compile.
    #[error("cannot compile the system call filter")]
    Compile(#[from] BackendError),
    /// The kernel refuses it.
    #[error("cannot install the system call filter")]
    Install(#[from] seccompiler::Error),
}

/// A condition on a system call's argument, numbered from 0. All compare the lower 32 bits, which
/// is what the kernel looks at in each argument named here.
#[derive(Clone, Copy, Debug)]
enum Argument {
    /// Equals the value.
    Is(u8, u32),
    /// Equals the value in the bits of the mask: (argument, mask, value).
    Masked(u8, u32, u32),
}
use Argument::{Is, Masked};

/// One way in which a system call is allowed: all conditions hold.
type Way = &'static [Argument];

/// Allowed whatever its arguments.
const ANY: &[Way] = &[];

const PROT_EXEC: u32 = libc::PROT_EXEC.cast_unsigned();
const UNCHANGED: u32 = u32::MAX;

#[rustfmt::skip]
const TABLE: &[(i64, &[Way])] = &[
    // The frontend, the rings, the listener.
    (libc::SYS_accept4,        ANY),
    (libc::SYS_ppoll,          ANY),
    (libc::SYS_recvmsg,        ANY),
    (libc::SYS_sendmsg,        ANY),
    (libc::SYS_read,           ANY), // kicks
    (libc::SYS_write,          ANY), // calls, standard error

    // Names: every path is one component below an open directory, or a number in /proc/self/fd.
    (libc::SYS_openat,         &[&[Masked(2, libc::O_CREAT.cast_unsigned(), 0)]]),
    (libc::SYS_openat2,        ANY),
    (libc::SYS_mkdirat,        ANY),
    (libc::SYS_mknodat,        &[
        &[Masked(2, libc::S_IFMT, 0)],
        &[Masked(2, libc::S_IFMT, libc::S_IFREG)],
        &[Masked(2, libc::S_IFMT, libc::S_IFIFO)],
        &[Masked(2, libc::S_IFMT, libc::S_IFSOCK)],
        &[Masked(2, libc::S_IFMT, libc::S_IFCHR), Is(3, 0)], // overlay whiteout
    ]),
    (libc::SYS_symlinkat,      ANY),
    (libc::SYS_linkat,         ANY),
    (libc::SYS_unlinkat,       ANY),
    (libc::SYS_renameat2,      ANY),
    (libc::SYS_readlinkat,     ANY),
    (libc::SYS_fchdir,         ANY), // to /proc/self/fd and back, for attributes of special files

    // Metadata.
    (libc::SYS_statx,          ANY),
    (libc::SYS_fstatfs,        ANY),
    (libc::SYS_fchmod,         ANY),
    (libc::SYS_fchmodat,       ANY),
    (libc::SYS_fchownat,       ANY),
    (libc::SYS_utimensat,      ANY),
    (libc::SYS_umask,          ANY),
    (libc::SYS_getxattr,       ANY),
    (libc::SYS_setxattr,       ANY),
    (libc::SYS_listxattr,      ANY),
    (libc::SYS_removexattr,    ANY),
    (libc::SYS_fgetxattr,      ANY),
    (libc::SYS_fsetxattr,      ANY),
    (libc::SYS_flistxattr,     ANY),
    (libc::SYS_fremovexattr,   ANY),

    // Contents.
    (libc::SYS_preadv2,        ANY),
    (libc::SYS_pwritev2,       ANY),
    (libc::SYS_getdents64,     ANY),
    (libc::SYS_lseek,          ANY),
    (libc::SYS_ftruncate,      ANY),
    (libc::SYS_fallocate,      ANY),
    (libc::SYS_copy_file_range, ANY),
    (libc::SYS_fsync,          ANY),
    (libc::SYS_fdatasync,      ANY),
    (libc::SYS_syncfs,         ANY),
    (libc::SYS_dup,            ANY), // flush: duplicates and closes
    (libc::SYS_close,          ANY),
    (libc::SYS_fcntl,          &[
        &[Is(1, libc::F_GETFD.cast_unsigned())], // assertions of debug builds
    ]),

    // The guest's users: the effective ids alone, so that the way back to root stays open.
    (libc::SYS_setresuid,      &[&[Is(0, UNCHANGED), Is(2, UNCHANGED)]]),
    (libc::SYS_setresgid,      &[&[Is(0, UNCHANGED), Is(2, UNCHANGED)]]),
    (libc::SYS_setgroups,      ANY),
    (libc::SYS_geteuid,        ANY),
    (libc::SYS_getegid,        ANY),
    (libc::SYS_gettid,         ANY),
    (libc::SYS_capget,         ANY),
    (libc::SYS_capset,         ANY), // FSETID off and on
    (libc::SYS_prctl,          &[ // libcap-ng looks before it switches
        &[Is(0, libc::PR_CAPBSET_READ.cast_unsigned())],
        &[Is(0, libc::PR_CAP_AMBIENT.cast_unsigned()),
          Is(1, libc::PR_CAP_AMBIENT_IS_SET.cast_unsigned())],
    ]),

    // Memory: the guest's and our own, never executable.
    (libc::SYS_mmap,           &[&[Masked(2, PROT_EXEC, 0)]]),
    (libc::SYS_mprotect,       &[&[Masked(2, PROT_EXEC, 0)]]),
    (libc::SYS_munmap,         ANY),
    (libc::SYS_mremap,         ANY),
    (libc::SYS_madvise,        ANY),
    (libc::SYS_brk,            ANY),

    // The process itself.
    (libc::SYS_clock_gettime,  ANY),
    (libc::SYS_futex,          ANY),
    (libc::SYS_getrandom,      ANY),
    (libc::SYS_rt_sigreturn,   ANY),
    (libc::SYS_rt_sigprocmask, ANY),
    (libc::SYS_sigaltstack,    ANY), // the runtime's clean-up at the end
    (libc::SYS_getpid,         ANY),
    (libc::SYS_tgkill,         &[&[Is(2, libc::SIGABRT.cast_unsigned())]]), // a panic ends here
    (libc::SYS_exit,           ANY),
    (libc::SYS_exit_group,     ANY),
];

/// Installs the filter for the calling thread, for good.
///
/// # Errors
/// [`FilterError`] if the kernel has no seccomp filters.
pub fn install() -> Result<(), FilterError> {
    Ok(seccompiler::apply_filter(&compile()?)?)
}

fn compile() -> Result<BpfProgram, BackendError> {
    let mut rules = BTreeMap::new();
    for (call, ways) in TABLE {
        let chain = ways
            .iter()
            .map(|way| {
                let conditions: Result<Vec<_>, _> = way.iter().map(condition).collect();
                SeccompRule::new(conditions?)
            })
            .collect::<Result<Vec<_>, _>>()?;
        rules.insert(*call, chain);
    }
    SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

fn condition(argument: &Argument) -> Result<SeccompCondition, BackendError> {
    let (index, operator, value) = match *argument {
        Is(index, value) => (index, SeccompCmpOp::Eq, value),
        Masked(index, mask, value) => (index, SeccompCmpOp::MaskedEq(u64::from(mask)), value),
    };
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, u64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_compiles_and_names_each_call_once() {
        assert!(!compile().unwrap().is_empty());
        let mut calls: Vec<_> = TABLE.iter().map(|(call, _)| call).collect();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), TABLE.len());
    }
}

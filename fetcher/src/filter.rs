//! The system calls that the process may make once it reads what others wrote. Any other kills it;
//! a few that libraries try, and can do without, fail instead.

use sandbox_image::protocol::Profile;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use thiserror::Error;

/// Why the filter could not be installed.
#[derive(Debug, Error)]
pub(crate) enum FilterError {
    /// A table below doesn't compile.
    #[error("cannot compile the system call filter")]
    Compile(#[from] BackendError),
    /// The kernel refuses it.
    #[error("cannot install the system call filter")]
    Install(#[from] seccompiler::Error),
}

/// A condition on a system call's argument, numbered from 0, in its lower 32 bits.
#[derive(Clone, Copy, Debug)]
enum Argument {
    /// Equals the value.
    Is(u8, u32),
    /// Does not.
    IsNot(u8, u32),
    /// Equals the value in the bits of the mask: (argument, mask, value).
    Masked(u8, u32, u32),
}
use Argument::{Is, IsNot, Masked};

/// One way in which a system call is meant: all conditions hold.
type Way = &'static [Argument];

/// System calls, and the ways in which they are meant.
type Table = &'static [(i64, &'static [Way])];

/// Whatever the arguments.
const ANY: &[Way] = &[];

const PROT_EXEC: u32 = libc::PROT_EXEC.cast_unsigned();
const THREAD: u32 = libc::CLONE_THREAD.cast_unsigned();
const INET: u32 = libc::AF_INET.cast_unsigned();
const INET6: u32 = libc::AF_INET6.cast_unsigned();
/// As in asm-generic/ioctls.h.
const FIONREAD: u32 = 0x541b;
const FIONBIO: u32 = 0x5421;
const NETLINK: u32 = libc::AF_NETLINK.cast_unsigned();

/// What every profile needs.
#[rustfmt::skip]
const COMMON: Table = &[
    // Open files, the socket and the pipe.
    (libc::SYS_read,              ANY),
    (libc::SYS_write,             ANY),
    (libc::SYS_readv,             ANY),
    (libc::SYS_writev,            ANY),
    (libc::SYS_pread64,           ANY),
    (libc::SYS_pwrite64,          ANY),
    (libc::SYS_preadv2,           ANY),
    (libc::SYS_pwritev2,          ANY),
    (libc::SYS_lseek,             ANY),
    (libc::SYS_statx,             ANY),
    (libc::SYS_fstat,             ANY),
    (libc::SYS_newfstatat,        ANY),
    (libc::SYS_ftruncate,         ANY),
    (libc::SYS_fallocate,         ANY),
    (libc::SYS_fadvise64,         ANY),
    (libc::SYS_copy_file_range,   ANY),
    (libc::SYS_sendfile,          ANY),
    (libc::SYS_splice,            ANY),
    (libc::SYS_fsync,             ANY),
    (libc::SYS_fdatasync,         ANY),
    (libc::SYS_close,             ANY),
    (libc::SYS_dup,               ANY),
    (libc::SYS_fcntl,             ANY),
    (libc::SYS_poll,              ANY),
    (libc::SYS_ppoll,             ANY),
    (libc::SYS_recvmsg,           ANY),
    (libc::SYS_recvfrom,          ANY),
    (libc::SYS_sendmsg,           ANY),
    (libc::SYS_sendto,            ANY),

    // Memory, never executable.
    (libc::SYS_mmap,              &[&[Masked(2, PROT_EXEC, 0)]]),
    (libc::SYS_mprotect,          &[&[Masked(2, PROT_EXEC, 0)]]),
    (libc::SYS_munmap,            ANY),
    (libc::SYS_mremap,            ANY),
    (libc::SYS_madvise,           ANY),
    (libc::SYS_brk,               ANY),

    // Threads, and no other process.
    (libc::SYS_clone,             &[&[Masked(0, THREAD, THREAD)]]),
    (libc::SYS_clone3,            ANY), // fails: see REFUSED
    (libc::SYS_set_robust_list,   ANY),
    (libc::SYS_rseq,              ANY),
    (libc::SYS_sigaltstack,       ANY),
    (libc::SYS_sched_getaffinity, ANY),
    (libc::SYS_sched_yield,       ANY),
    (libc::SYS_prctl,             &[&[Is(0, libc::PR_SET_NAME.cast_unsigned())]]),
    (libc::SYS_prlimit64,         &[&[Is(2, 0), Is(0, 0)]]), // its own, to look
    (libc::SYS_gettid,            ANY),
    (libc::SYS_getpid,            ANY),
    (libc::SYS_futex,             ANY),
    (libc::SYS_clock_gettime,     ANY),
    (libc::SYS_clock_nanosleep,   ANY),
    (libc::SYS_nanosleep,         ANY),
    (libc::SYS_getrandom,         ANY),
    (libc::SYS_rt_sigaction,      ANY),
    (libc::SYS_rt_sigreturn,      ANY),
    (libc::SYS_rt_sigprocmask,    ANY),
    (libc::SYS_restart_syscall,   ANY),
    (libc::SYS_tgkill,            &[&[Is(2, libc::SIGABRT.cast_unsigned())]]), // a panic ends here
    (libc::SYS_exit,              ANY),
    (libc::SYS_exit_group,        ANY),

    // Fails: see REFUSED; where it does not, Landlock says which.
    (libc::SYS_openat,            ANY),
];

/// Speaking to servers, and looking up their addresses.
#[rustfmt::skip]
const NETWORK: Table = &[
    (libc::SYS_socket,            ANY), // most fail: see REFUSED_ADDRESSES
    (libc::SYS_connect,           ANY),
    (libc::SYS_bind,              ANY),
    (libc::SYS_getsockname,       ANY),
    (libc::SYS_getpeername,       ANY),
    (libc::SYS_getsockopt,        ANY),
    (libc::SYS_setsockopt,        ANY),
    (libc::SYS_shutdown,          ANY),
    (libc::SYS_sendmmsg,          ANY),
    (libc::SYS_recvmmsg,          ANY),
    (libc::SYS_ioctl,             &[&[Is(1, FIONREAD)], &[Is(1, FIONBIO)]]),
    (libc::SYS_uname,             ANY),
    (libc::SYS_getuid,            ANY),
    (libc::SYS_geteuid,           ANY),
];

/// Making files.
#[rustfmt::skip]
const UNPACK: Table = &[
    (libc::SYS_mkdirat,           ANY),
    (libc::SYS_mknodat,           &[&[Masked(2, libc::S_IFMT, libc::S_IFIFO)]]),
    (libc::SYS_symlinkat,         ANY),
    (libc::SYS_linkat,            ANY),
    (libc::SYS_unlinkat,          ANY),
    (libc::SYS_fchown,            ANY),
    (libc::SYS_fchownat,          ANY),
    (libc::SYS_fchmod,            ANY),
    (libc::SYS_fchmodat,          ANY),
    (libc::SYS_fchmodat2,         ANY),
    (libc::SYS_fsetxattr,         ANY),
    (libc::SYS_utimensat,         ANY),
];

/// What libraries try, and do in another way if the kernel does not know it (`ENOSYS`): threads by
/// a call whose arguments no filter can see, and a look at how many CPUs a control group has.
const REFUSED: Table = &[(libc::SYS_clone3, ANY)];
const REFUSED_OFFLINE: Table = &[(libc::SYS_openat, ANY)];

/// The kind of a socket, without flags.
const KIND: u32 = 0xf;

/// Sockets of other kinds than those to servers; a library asks for the name service's. Each kind
/// has its usual protocol: those that few use are where the kernel is weakest.
#[rustfmt::skip]
const REFUSED_ADDRESSES: Table = &[(libc::SYS_socket, &[
    &[IsNot(0, INET), IsNot(0, INET6), IsNot(0, NETLINK)],
    &[IsNot(2, 0)],
    &[Masked(1, KIND, libc::SOCK_RDM.cast_unsigned())],
    &[Masked(1, KIND, libc::SOCK_SEQPACKET.cast_unsigned())],
    &[Masked(1, KIND, libc::SOCK_DCCP.cast_unsigned())],
])];

/// Installs the filter for the calling thread, and those that it starts, for good.
pub(crate) fn install(profile: Profile) -> Result<(), FilterError> {
    let (refused, allowed) = tables(profile);
    for program in [refuse(&refused)?, allow(&allowed)?] {
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

/// What fails, and what may be called.
fn tables(profile: Profile) -> (Vec<Table>, Vec<Table>) {
    match profile {
        Profile::Offline => (vec![REFUSED, REFUSED_OFFLINE], vec![COMMON]),
        Profile::Network => (vec![REFUSED, REFUSED_ADDRESSES], vec![COMMON, NETWORK]),
        Profile::Unpack => (vec![REFUSED], vec![COMMON, UNPACK]),
    }
}

fn allow(tables: &[Table]) -> Result<BpfProgram, BackendError> {
    compile(tables, SeccompAction::KillProcess, SeccompAction::Allow)
}

fn refuse(tables: &[Table]) -> Result<BpfProgram, BackendError> {
    let unknown = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    compile(tables, SeccompAction::Allow, unknown)
}

fn compile(
    tables: &[Table],
    otherwise: SeccompAction,
    action: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let mut rules = BTreeMap::new();
    for (call, ways) in tables.iter().copied().flatten() {
        let chain = ways
            .iter()
            .map(|way| {
                let conditions: Result<Vec<_>, _> = way.iter().map(condition).collect();
                SeccompRule::new(conditions?)
            })
            .collect::<Result<Vec<_>, _>>()?;
        rules.insert(*call, chain);
    }
    SeccompFilter::new(rules, otherwise, action, std::env::consts::ARCH.try_into()?)?.try_into()
}

fn condition(argument: &Argument) -> Result<SeccompCondition, BackendError> {
    let (index, operator, value) = match *argument {
        Is(index, value) => (index, SeccompCmpOp::Eq, value),
        IsNot(index, value) => (index, SeccompCmpOp::Ne, value),
        Masked(index, mask, value) => (index, SeccompCmpOp::MaskedEq(u64::from(mask)), value),
    };
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, u64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_compile_and_name_each_call_once() {
        for profile in [Profile::Offline, Profile::Network, Profile::Unpack] {
            let (refused, allowed) = tables(profile);
            assert!(!refuse(&refused).unwrap().is_empty());
            assert!(!allow(&allowed).unwrap().is_empty());
            let mut calls: Vec<_> =
                allowed.iter().copied().flatten().map(|(call, _)| call).collect();
            let count = calls.len();
            calls.sort_unstable();
            calls.dedup();
            assert_eq!(calls.len(), count);
        }
    }
}

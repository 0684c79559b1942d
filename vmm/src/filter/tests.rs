use super::*;
use sandbox_seccomp::Policy;
use std::io;

fn policy(thread: Thread) -> Policy {
    Policy::parse(thread.policy()).unwrap()
}

/// Firecracker 1.17 has filters of 50 system calls for the thread of its devices and of 27 for that
/// of a virtual CPU (resources/seccomp/x86_64-unknown-linux-musl.json, "vmm" and "vcpu").
#[test]
fn each_filter_allows_fewer_calls_than_firecrackers() {
    assert!(policy(Thread::Main).calls().len() <= 16);
    assert!(policy(Thread::Vcpu).calls().len() <= 5);
    assert!(policy(Thread::Disk).calls().len() <= 9);
}

#[test]
fn no_filter_allows_to_open_start_map_trace_or_signal_anything() {
    for thread in Thread::ALL {
        let policy = policy(thread);
        let calls = policy.calls();
        for part in ["open", "clone", "fork", "exec", "mmap", "mprotect", "ptrace", "kill", "prctl"]
        {
            assert!(!calls.iter().any(|call| call.contains(part)), "{thread:?}: {part}");
        }
        for call in ["ioctl", "socketpair", "futex", "epoll_ctl", "sendmsg"] {
            let mut rules = policy.rules().iter().filter(|rule| rule.call == call);
            assert!(rules.all(|rule| !rule.conditions.is_empty()), "{thread:?}: {call}");
        }
    }
}

/// A system call's number and arguments.
type Call = (i64, [i64; 6]);

/// How a process ends that has the filter of `thread` and makes a call, if there is one.
fn end_of(thread: Thread, call: Option<Call>) -> i32 {
    // SAFETY: the child makes system calls and nothing else, up to _exit(2).
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", io::Error::last_os_error());
    if child == 0 {
        if let (Ok(()), Some((number, [a, b, c, d, e, f]))) = (install(thread), call) {
            // SAFETY: none of the calls below gets an address that it would write to.
            unsafe { libc::syscall(number, a, b, c, d, e, f) };
        }
        crate::exit::leave(7);
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writes.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

#[test]
fn a_forbidden_call_kills_and_so_does_a_forbidden_argument() {
    let anonymous = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let [unix, inet] = [libc::AF_UNIX, libc::AF_INET].map(i64::from);
    let forbidden: [Call; 12] = [
        (libc::SYS_getpid, [0; 6]),
        (libc::SYS_openat, [-1, 0, 0, 0, 0, 0]),
        (libc::SYS_socket, [inet, libc::SOCK_STREAM.into(), 0, 0, 0, 0]),
        (libc::SYS_socketpair, [unix, libc::SOCK_DGRAM.into(), 0, 0, 0, 0]),
        (libc::SYS_socketpair, [inet, (libc::SOCK_STREAM | libc::SOCK_CLOEXEC).into(), 0, 0, 0, 0]),
        // TIOCSTI.
        (libc::SYS_ioctl, [-1, 0x5412, 0, 0, 0, 0]),
        // KVM_CREATE_VM.
        (libc::SYS_ioctl, [-1, 0xae01, 0, 0, 0, 0]),
        (libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]),
        (libc::SYS_tgkill, [1, 1, 0, 0, 0, 0]),
        (libc::SYS_mmap, [0, 4096, libc::PROT_EXEC.into(), anonymous, -1, 0]),
        (libc::SYS_mmap, [0, 4096, libc::PROT_READ.into(), anonymous, -1, 0]),
        // read(2) of the x32 ABI.
        (0x4000_0000, [-1, 0, 0, 0, 0, 0]),
    ];
    for thread in Thread::ALL {
        for call in forbidden {
            let status = end_of(thread, Some(call));
            let killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS;
            assert!(killed, "{thread:?}, {call:?}: {status:#x}");
        }
        let status = end_of(thread, None);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status:#x}");
    }
}

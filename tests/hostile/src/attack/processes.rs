//! Processes of the host's and of other pods.

use super::{Attack, Attempt, Class, Effect, attack};
use crate::call::{Result, open, put, read, written};
use crate::{call, path};

const P: Class = Class::Processes;

pub(super) const LIST: &[Attack] = &[
    attack("kill", P, Effect::Halted("pid"), "stop a process of root's with kill", |it| {
        call!(SYS_kill, it.process("pid")?, libc::SIGSTOP).map(drop)
    }),
    attack("tgkill", P, Effect::Halted("pid"), "the same with tgkill", |it| {
        let pid = it.process("pid")?;
        call!(SYS_tgkill, pid, pid, libc::SIGSTOP).map(drop)
    }),
    attack("pidfd_signal", P, Effect::Halted("pid"), "the same through a pidfd", |it| {
        let pidfd = call!(SYS_pidfd_open, it.process("pid")?, 0)?;
        call!(SYS_pidfd_send_signal, pidfd, libc::SIGSTOP, 0, 0).map(drop)
    }),
    attack("queued_signal", P, Effect::Halted("pid"), "the same with rt_sigqueueinfo", |it| {
        let pid = it.process("pid")?;
        // si_signo, si_errno, si_code: SI_QUEUE.
        let mut information = [0_i32; 32];
        information[0] = libc::SIGSTOP;
        information[2] = -1;
        call!(SYS_rt_sigqueueinfo, pid, libc::SIGSTOP, &information[..]).map(drop)
    }),
    attack(
        "owner_signal",
        P,
        Effect::Halted("pid"),
        "the same by F_SETOWN and F_SETSIG",
        owner_signal,
    ),
    attack(
        "monitor_of_other_pod_stopped",
        P,
        Effect::Halted("victim_monitor"),
        "stop another pod's monitor",
        |it| call!(SYS_kill, it.process("victim_monitor")?, libc::SIGSTOP).map(drop),
    ),
    attack(
        "worker_of_other_pod_stopped",
        P,
        Effect::Halted("victim_worker"),
        "stop another pod's file server",
        |it| call!(SYS_kill, it.process("victim_worker")?, libc::SIGSTOP).map(drop),
    ),
    attack(
        "supervisor_of_other_pod_stopped",
        P,
        Effect::Halted("victim_supervisor"),
        "stop another pod's supervisor",
        |it| call!(SYS_kill, it.process("victim_supervisor")?, libc::SIGSTOP).map(drop),
    ),
    attack("traced", P, Effect::Secret, "read a process's memory with ptrace", traced),
    attack("memory_read", P, Effect::Secret, "the same with process_vm_readv", |it| {
        vm_read(it, "pid", "address")
    }),
    attack("memory_written", P, Effect::Memory, "write to it with process_vm_writev", |it| {
        let local = [it.name.as_ptr() as usize, it.name.len()];
        let remote = [it.number("scribble") as usize, it.name.len()];
        let pid = it.process("pid")?;
        call!(SYS_process_vm_writev, pid, &local[..], 1, &remote[..], 1, 0).map(drop)
    }),
    attack("memory_file_read", P, Effect::Secret, "read it through /proc/PID/mem", |it| {
        let memory = path!("/proc/{}/mem", it.process("pid")?);
        let file = open(memory.as_c_str(), libc::O_RDONLY)?;
        it.take_at(file, 64, it.number("address"))
    }),
    attack(
        "memory_of_other_pod_read",
        P,
        Effect::Secret,
        "read another guest's memory with process_vm_readv",
        |it| vm_read(it, "victim_monitor", "victim_address"),
    ),
    attack(
        "memory_file_of_other_pod_read",
        P,
        Effect::Secret,
        "read another guest's memory through /proc/PID/mem",
        |it| {
            let memory = path!("/proc/{}/mem", it.process("victim_monitor")?);
            let file = open(memory.as_c_str(), libc::O_RDONLY)?;
            it.take_at(file, 64, it.number("victim_address"))
        },
    ),
    attack("environment_read", P, Effect::Secret, "read a process's environment", |it| {
        it.take_file(path!("/proc/{}/environ", it.process("pid")?).as_c_str())
    }),
    attack(
        "descriptor_taken",
        P,
        Effect::Secret,
        "take a process's open file by pidfd_getfd",
        |it| {
            let pidfd = call!(SYS_pidfd_open, it.process("pid")?, 0)?;
            let file = call!(SYS_pidfd_getfd, pidfd, it.number("descriptor"), 0)?;
            it.take_at(file as i32, 64, 0)
        },
    ),
    attack("descriptor_opened", P, Effect::Secret, "the same through /proc/PID/fd", |it| {
        let file = path!("/proc/{}/fd/{}", it.process("pid")?, it.number("descriptor"));
        it.take_file(file.as_c_str())
    }),
    attack(
        "limits_changed",
        P,
        Effect::Shows("/proc/{pid}/limits", "Max open files            77"),
        "change a process's limits with prlimit",
        |it| {
            let limit = [77_u64, 4096];
            let pid = it.process("pid")?;
            call!(SYS_prlimit64, pid, libc::RLIMIT_NOFILE, &limit[..], 0).map(drop)
        },
    ),
    attack(
        "priority_lowered",
        P,
        Effect::Shows("/proc/{pid}/stat", " 39 19 "),
        "lower a process's priority",
        |it| call!(SYS_setpriority, libc::PRIO_PROCESS, it.process("pid")?, 19).map(drop),
    ),
    attack(
        "made_first_to_be_killed",
        P,
        Effect::Shows("/proc/{victim_monitor}/oom_score_adj", "997"),
        "make the kernel prefer another pod's monitor when memory is short",
        |it| {
            let file = path!("/proc/{}/oom_score_adj", it.process("victim_monitor")?);
            put(file.as_c_str(), b"997")
        },
    ),
    attack("key_read", P, Effect::Secret, "read a key of root's from the kernel's keyring", |it| {
        // KEYCTL_SEARCH in the user's keyring, KEYCTL_READ.
        let key = call!(SYS_keyctl, 10, -4, c"user", c"sandbox-canary", 0)?;
        it.length = call!(SYS_keyctl, 11, key, &mut it.proof[..], super::PROOF)?;
        Ok(())
    }),
];

fn vm_read(it: &mut Attempt<'_>, process: &str, address: &str) -> Result {
    let local = [it.proof.as_mut_ptr() as usize, 64];
    let remote = [it.number(address) as usize, 64];
    let pid = it.process(process)?;
    it.length = call!(SYS_process_vm_readv, pid, &local[..], 1, &remote[..], 1, 0)?;
    Ok(())
}

/// PTRACE_SEIZE, PTRACE_INTERRUPT, then word by word. The tracer's end lets it go.
fn traced(it: &mut Attempt<'_>) -> Result {
    const PEEK_DATA: i32 = 2;
    const SEIZE: i32 = 0x4206;
    const INTERRUPT: i32 = 0x4207;
    let pid = it.process("pid")?;
    call!(SYS_ptrace, SEIZE, pid, 0, 0)?;
    call!(SYS_ptrace, INTERRUPT, pid, 0, 0)?;
    let mut status = 0_i32;
    call!(SYS_wait4, pid, written(&mut status), libc::__WALL, 0)?;
    let address = it.number("address");
    for index in 0..8 {
        let mut word = 0_u64;
        call!(SYS_ptrace, PEEK_DATA, pid, address + 8 * index, written(&mut word))?;
        it.proof[it.length..it.length + 8].copy_from_slice(&word.to_ne_bytes());
        it.length += 8;
    }
    Ok(())
}

/// The kernel signals the owner of a socket when it can be read.
fn owner_signal(it: &mut Attempt<'_>) -> Result {
    let pid = it.process("pid")?;
    let mut pair = [0_i32; 2];
    call!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, &mut pair[..])?;
    // F_OWNER_PID
    let owner = [1_i32, pid];
    call!(SYS_fcntl, pair[0], libc::F_SETFL, libc::O_ASYNC)?;
    call!(SYS_fcntl, pair[0], F_SETOWN_EX, read(&owner))?;
    call!(SYS_fcntl, pair[0], F_SETSIG, libc::SIGSTOP)?;
    crate::call::write(pair[1], b"x")
}

const F_SETOWN_EX: i32 = 15;
const F_SETSIG: i32 = 10;

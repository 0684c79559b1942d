//! The server of attempts: a child of the monitor or the file server, jailed as they are, but without
//! a filter of its own.

use crate::attack::{self, Attempt, PROOF};
use crate::call;
use crate::call::written;
use crate::layers::{self, Layer};
use crate::targets::Targets;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// An attempt that takes longer than this is given up.
const LIMIT: Duration = Duration::from_secs(5);

/// Begun, but no result.
const BEGUN: u32 = 1;
/// It came to its end.
const ENDED: u32 = 2;
/// The filter could not be installed.
const UNFILTERED: u32 = 3;

/// What a child leaves behind, in memory that it shares with the server: it reports without any
/// system call, so that no filter can keep it from reporting.
#[repr(C)]
struct Report {
    state: AtomicU32,
    errno: AtomicI32,
    length: AtomicU32,
    proof: [AtomicU32; PROOF / 4],
}

/// Makes the attempt that a request, `NAME` or `NAME THREAD`, asks for. `install` installs a filter
/// in the calling thread; it does nothing if the layer is left out.
///
/// The answer is the name, what it came to (`done`, `errno N`, `signal N`, `late`) and what it came
/// back with in hexadecimal.
pub fn answer(request: &str, targets: &Targets, install: &dyn Fn(&str) -> bool) -> String {
    let (name, thread) = request.trim().split_once(' ').unwrap_or((request.trim(), ""));
    let Some(attack) = attack::find(name) else { return format!("{name} unknown") };
    let filter = || !layers::on(Layer::Seccomp) || install(thread);
    let Some(report) = shared() else { return format!("{name} no memory") };
    let outcome = attempt(attack, targets, &filter, report);
    let length = (report.length.load(Ordering::Acquire) as usize).min(PROOF);
    let mut answer = format!("{name} {outcome} ");
    for byte in
        report.proof.iter().flat_map(|word| word.load(Ordering::Acquire).to_ne_bytes()).take(length)
    {
        let _ = write!(answer, "{byte:02x}");
    }
    let page = std::ptr::from_ref(report) as usize;
    let _ = call!(SYS_munmap, page, size_of::<Report>());
    answer
}

/// Memory for a report.
fn shared() -> Option<&'static Report> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let page = call!(SYS_mmap, 0, size_of::<Report>(), access, flags, -1, 0).ok()?;
    // SAFETY: a new mapping of this size, zero as the atomics in it may be. It is unmapped where the
    // report is dropped, in `answer`.
    Some(unsafe { &*(page as *const Report) })
}

fn attempt(
    attack: &attack::Attack,
    targets: &Targets,
    filter: &dyn Fn() -> bool,
    report: &'static Report,
) -> String {
    // SAFETY: the server has one thread, so the child finds no lock that another one holds.
    let child = unsafe { libc::fork() };
    if child == 0 {
        run(attack, targets, filter, report);
    }
    if child < 0 {
        return format!("unforked {}", call::errno());
    }
    let status = wait(child);
    // What it has started goes with it.
    let _ = call!(SYS_kill, -child, libc::SIGKILL);
    while call!(SYS_wait4, -1, 0, libc::WNOHANG, 0).is_ok_and(|pid| pid > 0) {}
    let state = report.state.load(Ordering::Acquire);
    match (state, report.errno.load(Ordering::Acquire), status) {
        (ENDED, 0, _) => "done".into(),
        (ENDED, errno, _) => format!("errno {errno}"),
        (UNFILTERED, ..) => "unfiltered".into(),
        (_, _, None) => "late".into(),
        (_, _, Some(status)) if libc::WIFSIGNALED(status) => {
            format!("signal {}", libc::WTERMSIG(status))
        }
        // Another program ran in its place.
        (BEGUN, _, Some(_)) => "done".into(),
        _ => "lost".into(),
    }
}

/// The child.
fn run(
    attack: &attack::Attack,
    targets: &Targets,
    filter: &dyn Fn() -> bool,
    report: &'static Report,
) -> ! {
    let _ = call!(SYS_setpgid, 0, 0);
    let _ = call!(SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    let mut attempt = Attempt::new(attack.name, targets);
    if filter() {
        report.state.store(BEGUN, Ordering::Release);
        let result = (attack.run)(&mut attempt);
        for (to, from) in report.proof.iter().zip(attempt.proof.chunks_exact(4)) {
            to.store(u32::from_ne_bytes([from[0], from[1], from[2], from[3]]), Ordering::Release);
        }
        report.length.store(attempt.length as u32, Ordering::Release);
        report.errno.store(result.err().unwrap_or(0), Ordering::Release);
        report.state.store(ENDED, Ordering::Release);
    } else {
        report.state.store(UNFILTERED, Ordering::Release);
    }
    loop {
        // A filter that doesn't let it go kills it.
        let _ = call!(SYS_exit_group, 0);
    }
}

/// Waits for a child, not for ever; its status.
fn wait(child: i32) -> Option<i32> {
    let since = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        let mut status = 0_i32;
        match call!(SYS_wait4, child, written(&mut status), libc::WNOHANG, 0) {
            Ok(0) if since.elapsed() < LIMIT => {}
            Ok(0) => {
                let _ = call!(SYS_kill, child, libc::SIGKILL);
                let _ = call!(SYS_wait4, child, 0, 0, 0);
                return None;
            }
            Ok(_) => return Some(status),
            Err(_) => return None,
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_reports_what_it_came_to() {
        let file = std::env::temp_dir().join(format!("hostile-secret-{}", std::process::id()));
        std::fs::write(&file, "of the host").unwrap();
        let targets = Targets::parse(&format!("secret={};pid=0", file.display()));
        let made = |name: &str| answer(name, &targets, &|_| true);
        assert_eq!(made("secret_opened"), "secret_opened done 6f662074686520686f7374");
        assert_eq!(made("memory_executable"), "memory_executable done 5a00000000000000");
        assert_eq!(made("memory_file_executed"), "memory_file_executed done ");
        assert_eq!(made("kill"), format!("kill errno {} ", libc::ESRCH));
        assert_eq!(made("nothing"), "nothing unknown");
        assert_eq!(answer("kill", &targets, &|_| false), "kill unfiltered ");
        std::fs::remove_file(&file).unwrap();
    }
}

//! The processes of a pod: started with what they need and nothing else, and never outliving the
//! supervisor.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Signal, pidfd_send_signal};
use sandbox_spawn::{Spawn, SpawnError, Started};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::thread;

/// The end of a process.
#[derive(Debug)]
pub struct End {
    /// Its exit status.
    pub status: ExitStatus,
    /// The last bytes that it wrote to standard error. Not to be shown raw: it may have been taken
    /// over by the guest.
    pub last_words: Vec<u8>,
}

/// Most bytes that are kept of what a process writes to standard error.
const LAST_WORDS: usize = 2048;

/// A running process.
#[derive(Debug)]
pub struct Process {
    id: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// Starts it. `ended` hears of its end, on a thread of its own.
    ///
    /// The process is killed when the calling thread ends, so call this from the main thread.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn start(
        spawn: Spawn<'_>,
        ended: impl FnOnce(End) + Send + 'static,
    ) -> Result<Self, SpawnError> {
        let started = spawn.start()?;
        let id = started.id();
        // Killed with this, should there be no second descriptor.
        let process = Self { id, pidfd: rustix::io::fcntl_dupfd_cloexec(&started.pidfd, 0)? };
        thread::spawn(move || {
            if let Some(end) = wait(started) {
                ended(end);
            }
        });
        Ok(process)
    }

    /// Its number, which another process may have once it has ended.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Kills it.
    pub fn kill(&self) {
        // It may have ended already; there is no other way to fail.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for the end of a process, and collects its last words meanwhile so that a full pipe does
/// not hold it up.
fn wait(started: Started) -> Option<End> {
    let stderr = started.stderr.try_clone().ok().map(File::from);
    let mut stderr = stderr.filter(|pipe| ioctl_fionbio(pipe, true).is_ok());
    let mut last_words = Vec::new();
    loop {
        let mut waiting = vec![PollFd::new(&started.pidfd, PollFlags::IN)];
        waiting.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        match poll(&mut waiting, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
        let ended = !waiting[0].revents().is_empty();
        if stderr.as_mut().is_some_and(|pipe| drain(pipe, &mut last_words)) {
            stderr = None;
        }
        if ended {
            break;
        }
    }
    let status = started.wait().ok()?;
    Some(End { status, last_words })
}

/// Reads what is there. True at the end of the pipe.
fn drain(pipe: &mut File, last_words: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 1024];
    // A process that writes without end must not keep us from seeing that it ended.
    for _ in 0..64 {
        match pipe.read(&mut buffer) {
            Ok(0) => return true,
            Ok(count) => {
                last_words.extend_from_slice(&buffer[..count]);
                let surplus = last_words.len().saturating_sub(LAST_WORDS);
                last_words.drain(..surplus);
            }
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox_spawn::{Namespaces, User, number};
    use std::ffi::CString;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::Duration;

    fn shell(script: &str, inherited: &[BorrowedFd<'_>]) -> (Process, mpsc::Receiver<End>) {
        let (sender, receiver) = mpsc::channel();
        let program = sandbox_spawn::open(Path::new("/bin/sh")).unwrap();
        let spawn = Spawn {
            program: program.as_fd(),
            arguments: ["sh", "-c", script].map(|word| CString::new(word).unwrap()).into(),
            environment: Vec::new(),
            inherited,
            namespaces: Namespaces::All(User::own()),
            cgroup: None,
            label: None,
        };
        let process = Process::start(spawn, move |end| sender.send(end).unwrap()).unwrap();
        (process, receiver)
    }

    fn end(receiver: &mpsc::Receiver<End>) -> End {
        receiver.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn a_process_gets_the_descriptors_it_was_given_and_no_other() {
        let (given, _far) = io::pipe().unwrap();
        // One that would be inherited by accident: it is not closed on exec.
        let leaked = rustix::io::fcntl_dupfd_cloexec(&given, 100).unwrap();
        rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
        let script = "for fd in /proc/self/fd/*; do echo ${fd##*/}; done >&2; env >&2";
        let (_process, receiver) = shell(script, &[given.as_fd()]);
        let end = end(&receiver);
        let words = String::from_utf8(end.last_words).unwrap();
        assert!(words.lines().any(|line| line == number(&given).to_string()), "{words}");
        assert!(!words.lines().any(|line| line == number(&leaked).to_string()), "{words}");
        assert!(!words.contains("CARGO"), "{words}");
    }

    #[test]
    fn the_end_of_a_process_is_told_with_its_last_words() {
        let (_process, receiver) = shell("seq 1 100000 >&2; exit 3", &[]);
        let end = end(&receiver);
        assert_eq!(end.status.code(), Some(3));
        assert!(end.last_words.ends_with(b"99999\n100000\n"));
        assert!(end.last_words.len() <= LAST_WORDS);
    }

    #[test]
    fn a_process_whose_child_keeps_its_standard_error_open_is_seen_to_end() {
        let (_process, receiver) = shell("sleep 30 & exit 4", &[]);
        assert_eq!(end(&receiver).status.code(), Some(4));
    }

    #[test]
    fn a_process_ignores_what_ends_its_group_and_dies_when_dropped() {
        let (process, receiver) = shell("kill -TERM $$; kill -INT $$; exec sleep 60", &[]);
        assert!(receiver.recv_timeout(Duration::from_millis(300)).is_err());
        drop(process);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&end(&receiver).status), Some(9));
    }
}

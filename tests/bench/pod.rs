//! Monitor and worker, started as the supervisor does and stopped when guest-init has said its
//! first line.

use crate::{LIBEXEC, LIBRARY};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{ClockId, clock_gettime};
use sandbox_spawn::{Namespaces, Spawn, Started, User};
use sandbox_vmm::control::{self, Event};
use serde_json::json;
use std::error::Error;
use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// The first line of guest-init on the console ends with this.
const FIRST_LINE: &str = "guest-init: up";

/// Every namespace, and a user that nobody is.
const ALL: Namespaces = Namespaces::All(User { uid: 1_900_065_535, gid: 1_900_065_535 });

/// What a pod is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub vcpus: u8,
    pub memory_mib: u32,
    /// With a virtio-fs worker and a share.
    pub share: bool,
}

/// A pod that has booted and waits for its supervisor.
pub struct Pod {
    pub monitor: Started,
    pub worker: Option<Started>,
    /// From before the monitor's fork to just before its first KVM_RUN.
    pub first_entry: Duration,
    /// From before the monitor's fork to guest-init's first line.
    pub first_line: Duration,
    _control: OwnedFd,
}

impl Pod {
    /// Starts it and waits for guest-init's first line.
    pub fn boot(shape: Shape) -> Result<Self, Box<dyn Error>> {
        let (worker, share) = if shape.share {
            let (worker, share) = start_worker()?;
            (Some(worker), Some(share))
        } else {
            (None, None)
        };
        let (monitor_control, control) = control::pair()?;
        let (console, monitor_console) = pipe_with(PipeFlags::CLOEXEC)?;
        let (config, config_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let shares: Vec<_> =
            share.iter().map(|share| json!({"tag": "pod", "fd": share.as_raw_fd()})).collect();
        let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
        let kernel = File::open(format!("{LIBRARY}/vmlinux"))?;
        let initramfs = File::open(format!("{LIBRARY}/initramfs"))?;
        let text = json!({
            "kvm_fd": kvm.as_raw_fd(),
            "kernel_fd": kernel.as_raw_fd(),
            "initramfs_fd": initramfs.as_raw_fd(),
            "vcpus": shape.vcpus,
            "memory_mib": shape.memory_mib,
            "control_fd": monitor_control.as_raw_fd(),
            "console_fd": monitor_console.as_raw_fd(),
            "shares": shares,
        });
        File::from(config_writer).write_all(text.to_string().as_bytes())?;
        let mut inherited = vec![config.as_fd(), monitor_control.as_fd(), monitor_console.as_fd()];
        inherited.extend([&kvm, &kernel, &initramfs].map(AsFd::as_fd));
        inherited.extend(share.as_ref().map(AsFd::as_fd));

        let number = config.as_raw_fd().to_string();
        come_to_rest();
        let start = now();
        let monitor = start_program("sandbox-vmm", &["--config-fd", &number], &inherited, ALL)?;
        drop(inherited);
        drop((monitor_control, monitor_console, config, share, kvm, kernel, initramfs));
        let first_line = wait_for_first_line(console)? - start;
        let Some(Event::FirstEntry { time }) = control::receive(&control)? else {
            return Err("the monitor did not tell when the guest began".into());
        };
        let first_entry = time - start;
        Ok(Self { monitor, worker, first_entry, first_line, _control: control })
    }

    /// Ends it.
    pub fn stop(self) -> Result<(), Box<dyn Error>> {
        self.monitor.kill()?;
        self.monitor.wait()?;
        if let Some(worker) = self.worker {
            worker.wait()?;
        }
        Ok(())
    }
}

fn wait_for_first_line(console: OwnedFd) -> Result<Duration, Box<dyn Error>> {
    let mut seen = String::new();
    for line in BufReader::new(File::from(console)).lines() {
        let line = line?;
        if line.ends_with(FIRST_LINE) {
            return Ok(now());
        }
        seen += &line;
        seen.push('\n');
    }
    Err(format!("guest-init did not come up; the console says:\n{seen}").into())
}

/// Starts a program as the supervisor does.
fn start_program(
    name: &str,
    arguments: &[&str],
    inherited: &[BorrowedFd<'_>],
    namespaces: Namespaces,
) -> Result<Started, Box<dyn Error>> {
    let path = format!("{LIBEXEC}/{name}");
    let program = sandbox_spawn::open(Path::new(&path))?;
    let words = std::iter::once(path.as_str()).chain(arguments.iter().copied());
    let spawn = Spawn {
        program: program.as_fd(),
        arguments: words.map(CString::new).collect::<Result<_, _>>()?,
        environment: Vec::new(),
        inherited,
        namespaces,
        cgroup: None,
        label: None,
    };
    Ok(spawn.start()?)
}

/// A worker that serves /usr/lib/sandbox read-only, and a stream to it.
fn start_worker() -> Result<(Started, UnixStream), Box<dyn Error>> {
    let path = format!("/run/sandbox-bench-{}.sock", std::process::id());
    let listener = UnixListener::bind(&path)?;
    let (number, share) = (listener.as_raw_fd().to_string(), format!("root={LIBRARY}:ro"));
    let arguments = ["--fd", &number, "--share", &share];
    let worker = start_program("sandbox-fs", &arguments, &[listener.as_fd()], Namespaces::Pid)?;
    let stream = UnixStream::connect(&path)?;
    std::fs::remove_file(&path)?;
    Ok((worker, stream))
}

/// Waits until what was started or ended before is done, and then for the next half second: the
/// host's kernel makes KVM_CREATE_VM wait for timer ticks, so all boots begin at the same distance
/// from one.
fn come_to_rest() {
    const HALF_SECOND: Duration = Duration::from_millis(500);
    std::thread::sleep(HALF_SECOND);
    let past = now().as_nanos() % HALF_SECOND.as_nanos();
    let past = Duration::from_nanos(u64::try_from(past).unwrap_or(0));
    std::thread::sleep(HALF_SECOND - past);
}

fn now() -> Duration {
    // The monotonic clock is never negative.
    clock_gettime(ClockId::Monotonic).try_into().unwrap_or_default()
}

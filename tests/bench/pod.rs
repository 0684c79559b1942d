//! Monitor and worker, started as the supervisor does and stopped when guest-init has said its
//! first line.

use crate::{LIBEXEC, LIBRARY};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::pipe;
use rustix::time::{ClockId, clock_gettime};
use sandbox_vmm::control::{self, Event};
use serde_json::json;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::time::Duration;

/// The first line of guest-init on the console ends with this.
const FIRST_LINE: &str = "guest-init: up";

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
    pub monitor: Child,
    pub worker: Option<Child>,
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
        let (console, monitor_console) = pipe()?;
        let (config, config_writer) = pipe()?;
        let shares: Vec<_> =
            share.iter().map(|share| json!({"tag": "pod", "fd": share.as_raw_fd()})).collect();
        let text = json!({
            "kernel": format!("{LIBRARY}/vmlinux"),
            "initramfs": format!("{LIBRARY}/initramfs"),
            "vcpus": shape.vcpus,
            "memory_mib": shape.memory_mib,
            "control_fd": monitor_control.as_raw_fd(),
            "console_fd": monitor_console.as_raw_fd(),
            "shares": shares,
        });
        File::from(config_writer).write_all(text.to_string().as_bytes())?;
        for inherited in [&monitor_control, &monitor_console, &config] {
            fcntl_setfd(inherited, FdFlags::empty())?;
        }
        if let Some(share) = &share {
            fcntl_setfd(share, FdFlags::empty())?;
        }
        for descriptor in [&control, &console] {
            fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
        }

        let mut command = Command::new(format!("{LIBEXEC}/sandbox-vmm"));
        command.arg("--config-fd").arg(config.as_raw_fd().to_string()).env_clear();
        come_to_rest();
        let start = now();
        let monitor = command.spawn()?;
        drop((monitor_control, monitor_console, config, share));
        let first_line = wait_for_first_line(console)? - start;
        let Some(Event::FirstEntry { time }) = control::receive(&control)? else {
            return Err("the monitor did not tell when the guest began".into());
        };
        let first_entry = time - start;
        Ok(Self { monitor, worker, first_entry, first_line, _control: control })
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<(), Box<dyn Error>> {
        self.monitor.kill()?;
        self.monitor.wait()?;
        if let Some(mut worker) = self.worker {
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

/// A worker that serves /usr/lib/sandbox read-only, and a stream to it.
fn start_worker() -> Result<(Child, UnixStream), Box<dyn Error>> {
    let path = format!("/run/sandbox-bench-{}.sock", std::process::id());
    let listener = UnixListener::bind(&path)?;
    fcntl_setfd(&listener, FdFlags::empty())?;
    let worker = Command::new(format!("{LIBEXEC}/sandbox-fs"))
        .arg("--fd")
        .arg(listener.as_raw_fd().to_string())
        .arg("--share")
        .arg(format!("root={LIBRARY}:ro"))
        .env_clear()
        .spawn()?;
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

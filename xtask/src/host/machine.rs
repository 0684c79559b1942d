//! The machine itself: QEMU with software emulation, and swtpm as its TPM.

use super::Host;
use super::disks::RunDirectory;
use super::signals::Guard;
use crate::command;
use anyhow::{Context, Result, anyhow, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// So many of the console's last lines are shown when the machine fails.
const LINES_SHOWN: usize = 30;

/// A machine whose command hasn't started after this time never starts it. It takes ten seconds if
/// nothing else is done, and longer the more is done.
const START_LIMIT: Duration = Duration::from_secs(300);

/// The kernel's command line: root file system, console, SELinux instead of AppArmor, power-off by
/// sysrq; a panic ends QEMU (`-no-reboot`).
const COMMAND_LINE: &str = "root=/dev/nvme0n1 rw console=ttyS0 quiet lsm=landlock,yama,selinux \
                            sysrq_always_enabled panic=-1";

/// The name of the port that is a terminal.
const TERMINAL: &str = "terminal";

/// A list of arguments of different types.
macro_rules! words {
    ($($word:expr),* $(,)?) => { vec![$(OsString::from($word)),*] };
}

/// A running machine. Dropped, it ends.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    tpm: Child,
    /// Where the files `qemu`, its messages, and `console`, the kernel's, are.
    directory: PathBuf,
}

/// Our ends of the machine's virtio-serial ports.
#[derive(Debug)]
pub struct Connections {
    pub stdin: UnixStream,
    pub stdout: UnixStream,
    pub stderr: UnixStream,
    /// Lines: see `tests/host/init`.
    pub control: UnixStream,
    /// The terminal hvc0.
    pub terminal: UnixStream,
}

impl Machine {
    /// Starts the machine.
    pub fn start(host: &Host, directory: &RunDirectory) -> Result<(Self, Connections)> {
        let (tpm_end, qemu_end) = UnixStream::pair()?;
        let tpm = start_tpm(directory, inheritable(tpm_end)?)?;

        let mut ports = Vec::new();
        let mut port = |name| {
            let (ours, theirs) = UnixStream::pair()?;
            ports.push((name, inheritable(theirs)?));
            anyhow::Ok(ours)
        };
        let connections = Connections {
            stdin: port("stdin")?,
            stdout: port("stdout")?,
            stderr: port("stderr")?,
            control: port("control")?,
            terminal: port(TERMINAL)?,
        };
        let qemu_end = inheritable(qemu_end)?;
        let mut qemu = dies_with_us("qemu-system-x86_64");
        qemu.current_dir(directory.path());
        qemu.args(machine_arguments(host, directory, processors(host.cpus)?));
        qemu.args(disk_arguments(directory));
        qemu.args(port_arguments(&ports));
        qemu.args(tpm_arguments(&qemu_end));
        // Temporary files for changes of the root disk.
        qemu.env("TMPDIR", directory.path());
        let messages = fs::File::create(directory.path().join("qemu"))?;
        qemu.stdin(Stdio::null()).stdout(messages.try_clone()?).stderr(messages);
        let qemu = qemu.spawn().context("starting QEMU")?;
        Ok((Machine { qemu, tpm, directory: directory.path().into() }, connections))
    }

    /// Waits for the command's exit status. If a signal ends us instead, the machine ends and the
    /// status is 128 + its number. `resized` is called at the start and whenever our terminal's
    /// size has changed.
    pub fn wait(mut self, control: UnixStream, resized: impl Fn() + Send + 'static) -> Result<u8> {
        let guard = Guard::new(&self.qemu, resized)?;
        let status = exit_status(&control);
        // All that the command wrote is in our sockets and files by now.
        let _ = self.qemu.kill();
        self.qemu.wait()?;
        match guard.received() {
            Some(signal) => Ok(128 + signal),
            None => {
                status.map_err(|error| anyhow!("the test host: {error:#}{}", self.last_words()))
            }
        }
    }

    fn last_words(&self) -> String {
        let mut text = String::new();
        for (what, file) in [("QEMU said", "qemu"), ("its console", "console")] {
            let said = fs::read(self.directory.join(file)).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            let lines: Vec<&str> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            if !last.is_empty() {
                text += &format!("\n{what}:\n    {}", last.join("\n    "));
            }
        }
        text.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
    }
}

/// Reads what the machine says of its command.
fn exit_status(control: &UnixStream) -> Result<u8> {
    control.set_read_timeout(Some(START_LIMIT))?;
    for line in BufReader::new(control).lines() {
        let line = line.context("it did not start the command in time")?;
        if line == "ready" {
            control.set_read_timeout(None)?;
        } else if let Some(number) = line.strip_prefix("exit ") {
            return number.parse().with_context(|| format!("exit status {number:?}"));
        }
    }
    bail!("it ended before the command did")
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in [&mut self.qemu, &mut self.tpm] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A command that the kernel kills when we die, however that happens.
fn dies_with_us(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// A socket that the programs which we start inherit, until it is dropped.
fn inheritable(socket: UnixStream) -> Result<OwnedFd> {
    fcntl_setfd(&socket, FdFlags::empty())?;
    Ok(socket.into())
}

/// An option that ends with a path; QEMU and swtpm want commas in it doubled.
fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    for (index, part) in path.as_os_str().as_bytes().split(|byte| *byte == b',').enumerate() {
        option.push(if index == 0 { "" } else { ",," });
        option.push(OsStr::from_bytes(part));
    }
    option
}

fn start_tpm(directory: &RunDirectory, control: OwnedFd) -> Result<Child> {
    let state = directory.path().join("tpm");
    let mut swtpm = dies_with_us("swtpm");
    swtpm.args(["socket", "--tpm2", "--tpmstate"]).arg(option("dir=", &state));
    swtpm.arg("--ctrl").arg(format!("type=unixio,clientfd={}", control.as_raw_fd()));
    let messages = fs::File::create(directory.path().join("swtpm"))?;
    swtpm.stdin(Stdio::null()).stdout(messages.try_clone()?).stderr(messages);
    swtpm.spawn().context("starting swtpm")
}

/// How many CPUs the machine gets of those asked for. Before version 8.1 of QEMU a CPU may go on with
/// code that another has just replaced, and kernels replace their own, KVM's too whenever a pod
/// starts; so there it is one. (Two that take turns wait for each other most of the time.)
fn processors(asked: u8) -> Result<u8> {
    let text = command::output(Command::new("qemu-system-x86_64").arg("--version"))?;
    let mut numbers = text
        .split_once("version ")
        .map_or("", |(_, version)| version)
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= (8, 1) => Ok(asked),
        _ => Ok(1),
    }
}

/// Processors, memory, kernel, console; nothing that isn't asked for.
fn machine_arguments(host: &Host, directory: &RunDirectory, processors: u8) -> Vec<OsString> {
    let mut command_line = COMMAND_LINE.to_owned();
    // QEMU 7.2 gets the flags after cmpxchg16b wrong, which now and then makes an interrupted
    // kernel return with a wrong direction flag and overwrite its memory; so there is none.
    let mut cpu = "max,-cx16".to_owned();
    let mut arguments = words!["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"];
    arguments.extend(words!["-machine", "q35"]);
    if host.icount {
        // Without erms and fsrm: each byte of a `rep movsb` would count as an instruction.
        cpu += ",-erms,-fsrm";
        command_line += " norandmaps";
        // Counting takes a single thread.
        arguments.extend(words!["-accel", "tcg,thread=single"]);
        arguments.extend(words!["-smp", "1", "-icount", "shift=0", "-rtc", "clock=vm"]);
    } else {
        arguments.extend(words!["-accel", "tcg", "-smp", processors.to_string()]);
    }
    arguments.extend(words!["-cpu", cpu, "-m", host.memory.to_string()]);
    arguments.extend(words!["-kernel", &directory.kernel, "-append", command_line]);
    arguments.extend(words!["-serial", "file:console"]);
    arguments
}

/// The root file system as NVMe, whose driver is in the kernel; the others as virtio disks in the
/// order vda: payload, vdb and vdc: share and output, if there.
fn disk_arguments(directory: &RunDirectory) -> Vec<OsString> {
    let mut arguments = Vec::new();
    let mut disk = |name: &str, file: &Path, options: &str, device: &str| {
        let drive = format!("if=none,id={name},format=raw,{options},file=");
        arguments.extend(words!["-drive", option(&drive, file)]);
        arguments.extend(words!["-device", format!("{device},drive={name},serial={name}")]);
    };
    disk("root", &directory.root, "snapshot=on,cache=unsafe", "nvme");
    disk("payload", &directory.payload, "readonly=on", "virtio-blk-pci");
    if let Some(file) = &directory.share {
        disk("share", file, "readonly=on", "virtio-blk-pci");
    }
    if let Some(file) = &directory.output {
        disk("output", file, "cache=unsafe", "virtio-blk-pci");
    }
    arguments
}

fn port_arguments(ports: &[(&str, OwnedFd)]) -> Vec<OsString> {
    let mut arguments = words!["-device", "virtio-serial-pci"];
    for (name, socket) in ports {
        let device = if *name == TERMINAL { "virtconsole" } else { "virtserialport" };
        let socket = format!("socket,id={name},fd={}", socket.as_raw_fd());
        arguments.extend(words!["-chardev", socket]);
        arguments.extend(words!["-device", format!("{device},chardev={name},name={name}")]);
    }
    arguments
}

fn tpm_arguments(socket: &OwnedFd) -> Vec<OsString> {
    let socket = format!("socket,id=tpm-control,fd={}", socket.as_raw_fd());
    words![
        "-chardev",
        socket,
        "-tpmdev",
        "emulator,id=tpm,chardev=tpm-control",
        "-device",
        "tpm-crb,tpmdev=tpm"
    ]
}

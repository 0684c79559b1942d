//! Guests that follow a script, over the sockets and the protocol that real ones use.

use crate::message::Messages;
use crate::supervisor::control::Monitor;
use crate::supervisor::corruption::ImageFile;
use crate::supervisor::event::{Event, Role, SignalSender, inbox};
use crate::supervisor::inside::{Inside, Prover};
use crate::supervisor::limits::TimeLimits;
use crate::supervisor::process::End;
use crate::supervisor::trouble::Trouble;
use crate::supervisor::watch::{Ending, HostStreams, Watch};
use rustix::net::SendFlags;
use sandbox_protocol::{
    App, CONTROL_PORT, ExitStatus, ImageDisk, Pod, Root, Stdio, Text, ToGuest, ToHost, VERSION,
    read_to_guest, write_to_host,
};
use sandbox_vmm::control;
use sandbox_vmm::exit::Exit;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

/// The guest, and the monitor that passes on its connections.
pub struct Script {
    monitor: OwnedFd,
    control: Option<UnixStream>,
    events: SyncSender<Event>,
    signals: SignalSender,
}

impl Script {
    /// Connects to a port of the host.
    pub fn connect(&self, port: u32) -> UnixStream {
        let (guest, stream) = UnixStream::pair().unwrap();
        guest.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let event = control::Event::Connection { port, stream: stream.into() };
        control::send(&self.monitor, &event, SendFlags::empty()).unwrap();
        guest
    }

    /// The control connection, dialled when it is first used.
    pub fn control(&mut self) -> &mut UnixStream {
        if self.control.is_none() {
            self.control = Some(self.connect(CONTROL_PORT));
        }
        self.control.as_mut().unwrap()
    }

    /// Sends, as the monitor, what is no event.
    pub fn send_garbage(&self) {
        rustix::io::write(&self.monitor, &[255; 16]).unwrap();
    }

    pub fn send(&mut self, message: ToHost) {
        write_to_host(self.control(), &message).unwrap();
    }

    pub fn receive(&mut self) -> Option<ToGuest> {
        read_to_guest(self.control()).unwrap()
    }

    /// Greets and takes the setup.
    pub fn boot(&mut self) -> Pod {
        self.send(ToHost::Hello { version: VERSION, kernel: Text::new("6.12") });
        match self.receive() {
            Some(ToGuest::Setup(pod)) => pod,
            other => panic!("not a setup: {other:?}"),
        }
    }

    pub fn exited(&mut self, app: u16, code: u8) {
        self.send(ToHost::Exited { app, status: ExitStatus::Code(code), out_of_memory: false });
    }

    pub fn signal(&self, signal: i32) {
        self.signals.send(signal);
    }

    /// Connects an app's output and says that it runs.
    pub fn start(&mut self, app: u16) -> [UnixStream; 2] {
        let port = 1026 + 3 * u32::from(app);
        let streams = [self.connect(port), self.connect(port + 1)];
        self.send(ToHost::Started { app });
        streams
    }

    /// The monitor's end, and then the worker's.
    pub fn end(self, exit: Exit) {
        self.end_with(i32::from(exit.code()) << 8);
    }

    /// The same with a wait status (`wait(2)`) of the monitor.
    pub fn end_with(mut self, status: i32) {
        self.control = None;
        self.ended(Role::Monitor, status);
        self.ended(Role::Worker, 0);
    }

    /// A process ended with this wait status.
    pub fn ended(&self, role: Role, status: i32) {
        let end = End { status: ExitStatusExt::from_raw(status), last_words: Vec::new() };
        // The watch may be over.
        let _ = self.events.send(Event::Ended(role, end));
    }

    /// Says that it has finished, waits to be let go, and resets the machine.
    pub fn finish(mut self) {
        self.send(ToHost::Finished);
        assert_eq!(self.receive(), None);
        self.end(Exit::Reset);
    }

    /// Waits until the supervisor ends the microVM.
    pub fn hung_up(self) {
        rustix::io::read(&self.monitor, &mut [0; 16]).unwrap();
        self.end(Exit::HangUp);
    }
}

fn app(name: &str, port: u32) -> App {
    App {
        name: name.into(),
        root: Root::Share(format!("root-{name}")),
        root_read_only: false,
        argv: vec![b"x".to_vec()],
        environment: Vec::new(),
        working_directory: b"/".to_vec(),
        user: "0".into(),
        group: "0".into(),
        supplementary_groups: Vec::new(),
        mounts: Vec::new(),
        memory: Some(64 << 20),
        cpu_millis: None,
        stdio: Stdio::Streams { stdin: Some(port), stdout: port + 1, stderr: port + 2 },
    }
}

pub fn pod(apps: &[&str]) -> Pod {
    Pod {
        hostname: "h".into(),
        share_tag: None,
        images: Vec::new(),
        scratch: None,
        volumes: Vec::new(),
        apps: apps.iter().zip((1025..).step_by(3)).map(|(name, port)| app(name, port)).collect(),
        measured: None,
    }
}

/// What came of a run.
pub struct Outcome {
    pub ending: Ending,
    pub status: u8,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn trouble(&self) -> &Trouble {
        match &self.ending {
            Ending::Trouble(trouble) => trouble,
            other => panic!("no trouble: {other:?}"),
        }
    }
}

pub fn limits() -> TimeLimits {
    TimeLimits {
        boot: Duration::from_secs(20),
        setup: Duration::from_secs(20),
        secrets: Duration::from_secs(20),
        finish: Duration::from_secs(20),
        drain: Duration::from_secs(5),
        end: Duration::from_secs(1),
        stop: Duration::from_millis(100),
    }
}

/// Watches a guest that does as `script` says, with `input` as our standard input.
pub fn watch(
    pod: &Pod,
    input: &str,
    limits: TimeLimits,
    script: impl FnOnce(Script) + Send + 'static,
) -> Outcome {
    let file = || tempfile::tempfile().unwrap();
    let mut stdin = file();
    stdin.write_all(input.as_bytes()).unwrap();
    stdin.rewind().unwrap();
    let (mut stdout, mut stderr) = (file(), file());
    let streams = HostStreams {
        stdin,
        stdout: stdout.try_clone().unwrap(),
        stderr: stderr.try_clone().unwrap(),
    };
    let outcome = watch_streams(pod, streams, limits, script);
    Outcome { stdout: text(&mut stdout), stderr: text(&mut stderr), ..outcome }
}

/// The same of a pod that was measured.
pub fn watch_measured(
    pod: &Pod,
    prover: Arc<dyn Prover>,
    limits: TimeLimits,
    script: impl FnOnce(Script) + Send + 'static,
) -> Outcome {
    let null = || File::options().read(true).write(true).open("/dev/null").unwrap();
    let streams = HostStreams { stdin: null(), stdout: null(), stderr: null() };
    watch_all(pod, streams, Some(prover), limits, script)
}

/// The same with other streams of ours.
pub fn watch_streams(
    pod: &Pod,
    streams: HostStreams,
    limits: TimeLimits,
    script: impl FnOnce(Script) + Send + 'static,
) -> Outcome {
    watch_all(pod, streams, None, limits, script)
}

fn watch_all(
    pod: &Pod,
    streams: HostStreams,
    prover: Option<Arc<dyn Prover>>,
    limits: TimeLimits,
    script: impl FnOnce(Script) + Send + 'static,
) -> Outcome {
    let (monitor, socket) = control::pair().unwrap();
    let (events, signals, inbox) = inbox();
    let guest = Script { monitor, control: None, events: events.clone(), signals };
    let guest = thread::spawn(move || script(guest));
    let monitor = Monitor::listen(socket, events.clone()).unwrap();
    let messages = Messages::new("run", true);
    let mut watch = Watch::new(pod, image_files(pod), &monitor, streams, events, limits, messages);
    if let Some(prover) = prover {
        watch = watch.proven_by(Inside::new(prover, messages));
    }
    let ending = watch.run(&inbox);
    watch.settle(&inbox, || ());
    let status = watch.status();
    let ending = match ending {
        Ending::Trouble(trouble) => Ending::Trouble(watch.cause(trouble)),
        other => other,
    };
    guest.join().unwrap();
    Outcome { ending, status, stdout: String::new(), stderr: String::new() }
}

fn image_files(pod: &Pod) -> Vec<ImageFile> {
    let file = |image: &ImageDisk| ImageFile {
        name: sandbox_image::Text::new(&image.serial),
        id: "sha256-00".to_owned(),
        path: "/dev/null".into(),
    };
    pod.images.iter().map(file).collect()
}

fn text(file: &mut File) -> String {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

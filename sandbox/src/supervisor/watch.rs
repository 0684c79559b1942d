//! The supervisor's loop: one event after the other, from the first connection to the end.

use super::control::{Guest, Monitor};
use super::corruption::{Corruption, ImageFile, Line};
use super::event::{Event, Inbox, Role};
use super::inside::Inside;
use super::limits::TimeLimits;
use super::process::End;
use super::relay::{self, Output};
use super::session::{AppEnd, Session, Step};
use super::signals::Patience;
use super::terminal::{self, RawMode};
use super::trouble::{Trouble, exit};
use crate::measure::InstalledError;
use crate::message::Messages;
use crate::options::Memory;
use sandbox_protocol::{
    App, CONTROL_PORT, EVIDENCE_PORT, Level, Pod, Stdio, Text, ToGuest, ToHost,
};
use sandbox_vmm::exit::Exit;
use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// Our own standard streams, for the relays.
#[derive(Debug)]
pub struct HostStreams {
    /// What apps read.
    pub stdin: File,
    /// Where their output goes.
    pub stdout: File,
    /// Where their errors go.
    pub stderr: File,
}

/// How a watch ended.
#[derive(Debug)]
pub enum Ending {
    /// The pod ran to its end; its exit status is [`Watch::status`].
    Finished,
    /// This signal ended the pod.
    Signal(i32),
    /// Something went wrong.
    Trouble(Trouble),
}

/// Most lines of the guest's log that are shown.
const LOG_LINES: usize = 100;

enum Phase {
    Booting,
    Starting,
    Running,
    Finishing,
    Draining,
    Resetting,
    /// Something broke; the monitor's end will say more.
    Lost(Trouble),
}

/// A pod that is watched.
pub struct Watch<'a> {
    pod: &'a Pod,
    /// What was said about the pod's images.
    corruption: Corruption,
    messages: Messages,
    limits: TimeLimits,
    streams: HostStreams,
    monitor: &'a Monitor,
    events: SyncSender<Event>,

    session: Session,
    phase: Phase,
    deadline: Option<Instant>,
    /// When apps that were asked to end because another one failed get killed.
    stop_at: Option<Instant>,
    guest: Option<Guest>,
    /// Ports that the guest has connected to.
    connected: Vec<u32>,
    outputs: Vec<Output>,
    outputs_ended: usize,
    /// Streams that the apps that were started must have connected.
    outputs_due: usize,
    /// The connection of the terminal, until input goes to it.
    terminal: Option<UnixStream>,
    raw_mode: Option<RawMode>,
    patience: Patience,
    log_lines: usize,
    /// The first failing app's exit status.
    status: u8,
    /// Processes that have ended.
    ended: Vec<Role>,
    /// The worker's end, unless we have killed it.
    worker: Option<End>,
    guard: Option<Guard<'a>>,
    /// Only a pod that was measured has one.
    inside: Option<Inside>,
}

/// What is asked before the guest is told what to run.
pub type Guard<'a> = &'a dyn Fn() -> Result<(), InstalledError>;

impl<'a> Watch<'a> {
    /// A watch over a pod whose processes have been started. `events` fills the inbox of
    /// [`Watch::run`].
    pub fn new(
        pod: &'a Pod,
        images: Vec<ImageFile>,
        monitor: &'a Monitor,
        streams: HostStreams,
        events: SyncSender<Event>,
        limits: TimeLimits,
        messages: Messages,
    ) -> Self {
        Self {
            session: Session::new(pod.apps.len(), pod.images.len(), pod.measured.is_some()),
            phase: Phase::Booting,
            deadline: Some(Instant::now() + limits.boot),
            stop_at: None,
            guest: None,
            connected: Vec::new(),
            outputs: Vec::new(),
            outputs_ended: 0,
            outputs_due: 0,
            terminal: None,
            raw_mode: None,
            patience: Patience::default(),
            log_lines: 0,
            status: 0,
            ended: Vec::new(),
            worker: None,
            guard: None,
            inside: None,
            pod,
            corruption: Corruption::new(images),
            messages,
            limits,
            streams,
            monitor,
            events,
        }
    }

    /// Watches until the pod has ended, or has to.
    pub fn run(&mut self, inbox: &Inbox) -> Ending {
        loop {
            let wake = [self.deadline, self.stop_at].into_iter().flatten().min();
            let ending = match inbox.next(wake) {
                Some(event) => self.handle(event),
                None => self.expire(Instant::now()),
            };
            if let Some(ending) = ending {
                self.monitor.hang_up();
                return ending;
            }
            if matches!(self.phase, Phase::Draining) && self.output_ended() {
                self.let_go();
            }
        }
    }

    /// Waits until the pod's processes have ended, with `kill` for those that don't, and until what
    /// the apps wrote has been passed on. A reader of ours may take its time, unless we get a
    /// signal.
    pub fn settle(&mut self, inbox: &Inbox, kill: impl Fn()) {
        let mut since = Instant::now();
        let mut killed = false;
        let processes = self.processes();
        while self.ended.len() < processes || !self.output_ended() {
            match inbox.next(Some(Instant::now() + Duration::from_millis(100))) {
                Some(Event::Ended(role, end)) => {
                    self.ended.push(role);
                    if role == Role::Worker && !killed {
                        self.worker = Some(end);
                    }
                }
                Some(Event::OutputEnded(result)) => self.count_output(result),
                // It had been made before the end. Without a thread for it, it is closed.
                Some(Event::Connection { port, stream }) => drop(self.connect(port, stream)),
                Some(Event::Signal(SIGINT | SIGTERM | SIGHUP | SIGQUIT))
                    if self.ended.len() == processes =>
                {
                    return;
                }
                _ => {}
            }
            if self.ended.len() == processes && self.is_writing() {
                since = Instant::now();
            }
            if since.elapsed() > self.limits.end {
                if killed {
                    return;
                }
                kill();
                killed = true;
                since = Instant::now();
            }
        }
    }

    /// The cause of some trouble, once everything has ended: if the worker failed, what the monitor
    /// and the guest did is its consequence.
    pub fn cause(&mut self, trouble: Trouble) -> Trouble {
        match self.worker.take() {
            Some(end) if !end.status.success() => Trouble::Worker(end),
            _ => trouble,
        }
    }

    /// The same, of a pod that was measured.
    pub fn proven_by(self, inside: Inside) -> Self {
        Self { inside: Some(inside), ..self }
    }

    /// The same, where the guest is told nothing unless `guard` agrees.
    pub fn guarded_by(self, guard: Guard<'a>) -> Self {
        Self { guard: Some(guard), ..self }
    }

    /// Gives the terminal back.
    pub fn release_terminal(&mut self) {
        self.raw_mode = None;
    }

    /// The pod's exit status so far: that of the first app that failed.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// How many processes the pod has: the monitor and, if something is shared, the worker.
    fn processes(&self) -> usize {
        1 + usize::from(self.pod.share_tag.is_some())
    }

    fn enter(&mut self, phase: Phase, limit: Option<Duration>) {
        self.phase = phase;
        self.deadline = limit.map(|limit| Instant::now() + limit);
    }

    fn handle(&mut self, event: Event) -> Option<Ending> {
        match event {
            Event::Signal(signal) => self.signal(signal),
            Event::Connection { port, stream } => match self.connect(port, stream) {
                Ok(()) => None,
                Err(error) => Some(Ending::Trouble(Trouble::Connection(error))),
            },
            Event::FirstEntry(time) => {
                self.messages.debug(format_args!("first instruction of the guest at {time:?}"));
                None
            }
            Event::MonitorSilent => self.lose(Trouble::MonitorSilent),
            Event::Wake => None,
            Event::Message(Ok(Some(message))) => self.message(message),
            Event::Message(Ok(None)) => self.lose(Trouble::Silent),
            Event::Message(Err(error)) => self.lose(error.into()),
            Event::OutputEnded(result) => {
                self.count_output(result);
                None
            }
            Event::Secrets(Ok(sealed)) => {
                self.messages.debug("the pod gets its secrets");
                self.send(ToGuest::Secrets { sealed });
                if matches!(self.phase, Phase::Starting) {
                    self.enter(Phase::Starting, Some(self.limits.setup));
                }
                None
            }
            Event::Secrets(Err(why)) => Some(Ending::Trouble(Trouble::Secrets(why))),
            Event::Ended(Role::Monitor, end) => {
                self.ended.push(Role::Monitor);
                Some(self.monitor_ended(end))
            }
            Event::Ended(Role::Worker, end) => {
                self.ended.push(Role::Worker);
                self.worker = Some(end);
                match self.phase {
                    // It has no more to serve.
                    Phase::Draining | Phase::Resetting => None,
                    _ => self.lose(Trouble::WorkerGone),
                }
            }
        }
    }

    /// Waits a moment for the monitor's end, which is the better explanation.
    fn lose(&mut self, trouble: Trouble) -> Option<Ending> {
        match &self.phase {
            Phase::Resetting | Phase::Lost(_) => {}
            Phase::Draining => self.let_go(),
            _ => self.enter(Phase::Lost(trouble), Some(self.limits.end)),
        }
        None
    }

    fn monitor_ended(&mut self, end: End) -> Ending {
        match (&self.phase, exit(&end)) {
            (Phase::Draining | Phase::Resetting, Some(Exit::Reset)) => Ending::Finished,
            _ => Ending::Trouble(Trouble::Monitor(end)),
        }
    }

    /// What to do when a time limit is over.
    fn expire(&mut self, now: Instant) -> Option<Ending> {
        if self.stop_at.is_some_and(|at| at <= now) {
            self.stop_at = None;
            self.forward(SIGKILL);
        }
        if self.deadline.is_none_or(|at| at > now) {
            return None;
        }
        let limits = self.limits;
        let trouble = match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Booting => Trouble::Boot(limits.boot),
            Phase::Starting => Trouble::Setup(limits.setup),
            Phase::Finishing => Trouble::Finish(limits.finish),
            Phase::Lost(trouble) => trouble,
            Phase::Running => {
                self.deadline = None;
                return None;
            }
            Phase::Draining if self.is_writing() => {
                self.enter(Phase::Draining, Some(limits.drain));
                return None;
            }
            Phase::Draining => {
                self.let_go();
                return None;
            }
            Phase::Resetting => {
                self.messages.debug("the guest did not reset its machine; it is ended");
                return Some(Ending::Finished);
            }
        };
        Some(Ending::Trouble(trouble))
    }

    fn message(&mut self, message: ToHost) -> Option<Ending> {
        if matches!(self.phase, Phase::Lost(_)) {
            // What such a guest says changes nothing any more.
            return None;
        }
        let step = match self.session.receive(message) {
            Ok(step) => step,
            Err(violation) => return Some(Ending::Trouble(violation.into())),
        };
        match step {
            Step::Hello { kernel } => {
                self.messages.debug(format_args!("guest is up, Linux {kernel}"));
                // By now everything has been read that the guest runs on.
                if let Some(Err(changed)) = self.guard.map(|guard| guard()) {
                    return Some(Ending::Trouble(changed.into()));
                }
                self.send(ToGuest::Setup(self.pod.clone()));
                self.enter(Phase::Starting, Some(self.limits.setup));
            }
            Step::Key { public } => {
                let measured = self.pod.measured.as_ref();
                let has_secrets = measured.is_some_and(|measured| !measured.secrets.is_empty());
                if has_secrets {
                    self.enter(Phase::Starting, Some(self.limits.secrets));
                }
                let events = self.events.clone();
                let taken = self.inside.as_mut().map(|it| it.take_key(public, has_secrets, events));
                if let Some(Err(error)) = taken {
                    return Some(Ending::Trouble(Trouble::Secrets(error.to_string())));
                }
            }
            Step::Started { app } => {
                self.messages.debug(format_args!("app {} runs", self.name(app)));
                self.outputs_due += self.pod.apps.get(app).map_or(0, outputs);
                self.open_terminal();
                self.stop_after_failure();
            }
            Step::Ended { app, end } => self.app_ended(app, &end),
            Step::Failed { error } => return Some(Ending::Trouble(Trouble::Pod(error))),
            Step::Corrupted { image, block } => match self.corruption.line(image, block) {
                Some(Line::Say(line)) => self.messages.say(line),
                Some(Line::Debug(line)) => self.messages.debug(line),
                None => {}
            },
            Step::Log { level, text } => self.log(level, &text),
            Step::Finished => self.enter(Phase::Draining, Some(self.limits.drain)),
        }
        if self.session.all_started() && matches!(self.phase, Phase::Starting) {
            self.enter(Phase::Running, None);
        }
        if self.session.all_ended() && matches!(self.phase, Phase::Running) {
            self.stop_at = None;
            self.enter(Phase::Finishing, Some(self.limits.finish));
        }
        None
    }

    fn app_ended(&mut self, app: usize, end: &AppEnd) {
        let name = self.name(app);
        let status = match end {
            AppEnd::NotStarted(error) => {
                self.messages.say(format_args!("app {name}: {error}"));
                crate::cli::FAILURE
            }
            AppEnd::Exited { status, out_of_memory } => {
                self.messages.debug(format_args!("app {name} ended: {status:?}"));
                if *out_of_memory {
                    let limit = self.pod.apps.get(app).and_then(|app| app.memory);
                    self.messages.say(match limit.map(Memory::from_bytes) {
                        Some(limit) => format!(
                            "app {name} ran out of memory: its limit is {limit} (raise it with \
                             --memory)"
                        ),
                        None => format!(
                            "app {name} ran out of memory: it has what an app without --memory \
                             gets (give it more with --memory)"
                        ),
                    });
                }
                status.shell_code()
            }
        };
        if self.status == 0 && status != 0 {
            self.status = status;
            self.stop_after_failure();
        }
    }

    /// As in rkt, the first app that fails ends the pod.
    fn stop_after_failure(&mut self) {
        if self.status != 0 && self.session.running().next().is_some() {
            self.messages.debug("an app failed, the others are stopped");
            self.forward(SIGTERM);
            self.stop_at = Some(Instant::now() + self.limits.stop);
        }
    }

    fn log(&mut self, level: Level, text: &Text) {
        self.log_lines += 1;
        match level {
            Level::Info => self.messages.debug(format_args!("guest: {text}")),
            _ if self.log_lines < LOG_LINES => self.messages.say(format_args!("guest: {text}")),
            _ if self.log_lines == LOG_LINES => {
                self.messages.say("guest: too many messages, the rest is dropped");
            }
            _ => {}
        }
    }

    fn signal(&mut self, signal: i32) -> Option<Ending> {
        match signal {
            SIGWINCH => self.resize(),
            SIGUSR1 | SIGUSR2 => self.forward(signal),
            _ if self.session.running().next().is_none()
                && matches!(self.phase, Phase::Booting | Phase::Starting) =>
            {
                return Some(Ending::Signal(signal));
            }
            _ if self.patience.is_at_an_end(signal, Instant::now()) => {
                self.messages.say("the pod did not end when it was asked to; it is killed");
                return Some(Ending::Signal(signal));
            }
            _ => self.forward(signal),
        }
        None
    }

    /// Sends a signal to every app that runs.
    fn forward(&self, signal: i32) {
        let Ok(signal) = u8::try_from(signal) else { return };
        for app in self.session.running() {
            self.send(ToGuest::Signal { app, signal });
        }
    }

    fn resize(&self) {
        for (app, _) in (0..).zip(&self.pod.apps).filter(|(_, app)| is_on_terminal(app)) {
            if let (true, Some(size)) =
                (self.session.is_running(usize::from(app)), terminal::size())
            {
                self.send(ToGuest::Resize { app, size });
            }
        }
    }

    fn send(&self, message: ToGuest) {
        if let Some(guest) = &self.guest {
            guest.send(message);
        }
    }

    /// Gives a connection of the guest to whom it is for. Others are closed.
    fn connect(&mut self, port: u32, stream: UnixStream) -> io::Result<()> {
        if self.connected.contains(&port) {
            return Ok(());
        }
        if port == EVIDENCE_PORT {
            if let (Some(inside), Phase::Starting | Phase::Running) =
                (&mut self.inside, &self.phase)
            {
                inside.answer(stream);
            }
            return Ok(());
        }
        if port == CONTROL_PORT {
            self.guest = Some(Guest::listen(stream, self.events.clone())?);
            self.connected.push(port);
            return Ok(());
        }
        for app in &self.pod.apps {
            match app.stdio {
                Stdio::Terminal { port: terminal, .. } if port == terminal => {
                    self.terminal = Some(stream.try_clone()?);
                    self.output(stream, self.streams.stdout.try_clone()?);
                    self.open_terminal();
                }
                Stdio::Streams { stdin: Some(stdin), .. } if port == stdin => {
                    relay::start_input(self.streams.stdin.try_clone()?, stream);
                }
                Stdio::Streams { stdout, .. } if port == stdout => {
                    self.output(stream, self.streams.stdout.try_clone()?);
                }
                Stdio::Streams { stderr, .. } if port == stderr => {
                    self.output(stream, self.streams.stderr.try_clone()?);
                }
                _ => continue,
            }
            self.connected.push(port);
            return Ok(());
        }
        Ok(())
    }

    fn output(&mut self, from: UnixStream, to: File) {
        self.outputs.push(Output::start(from, to, self.events.clone()));
    }

    /// From now on the terminal is the app's, if the app runs and has connected to it. The two
    /// events come by different ways, in any order.
    fn open_terminal(&mut self) {
        if self.session.running().next().is_none() {
            return;
        }
        let Some(stream) = self.terminal.take() else { return };
        match RawMode::enter() {
            Ok(raw_mode) => self.raw_mode = Some(raw_mode),
            Err(error) => self.messages.say(format_args!("terminal: {error}")),
        }
        match self.streams.stdin.try_clone() {
            Ok(stdin) => relay::start_input(stdin, stream),
            Err(error) => self.messages.say(format_args!("standard input: {error}")),
        }
        // It may have changed since the pod was described.
        self.resize();
    }

    fn count_output(&mut self, result: io::Result<()>) {
        self.outputs_ended += 1;
        if let Err(error) = result {
            self.messages.say(format_args!("cannot write the apps' output: {error}"));
            if self.status == 0 {
                self.status = crate::cli::FAILURE;
            }
        }
    }

    /// Whether the apps' output has arrived in full. A guest connects an app's streams before it
    /// says that the app has started, yet we may hear of that later.
    fn output_ended(&self) -> bool {
        self.outputs_ended >= self.outputs.len().max(self.outputs_due)
    }

    fn is_writing(&self) -> bool {
        self.outputs.iter().any(Output::is_writing)
    }

    /// Lets the guest reset its machine.
    fn let_go(&mut self) {
        if let Some(guest) = &self.guest {
            guest.close();
        }
        self.enter(Phase::Resetting, Some(self.limits.end));
    }

    fn name(&self, app: usize) -> &'a str {
        self.pod.apps.get(app).map_or("", |app| app.name.as_str())
    }
}

fn is_on_terminal(app: &App) -> bool {
    matches!(app.stdio, Stdio::Terminal { .. })
}

/// How many streams of output an app has.
fn outputs(app: &App) -> usize {
    if is_on_terminal(app) { 1 } else { 2 }
}

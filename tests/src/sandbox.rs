//! The command under test, as its user gives it.

use crate::data::shared;
use crate::home;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// How long a command may take before the test gives it up.
const LIMIT: Duration = Duration::from_secs(240);

/// A `sandbox run` that is being put together.
#[derive(Debug)]
pub struct Run {
    data: PathBuf,
    words: Vec<OsString>,
    stdin: Vec<u8>,
    environment: Vec<(OsString, OsString)>,
    insecure: bool,
    wrapper: Vec<OsString>,
}

/// A pod of this image.
pub fn run(image: impl Into<OsString>) -> Run {
    pod().with(image)
}

/// A pod whose options come before its images.
pub fn pod() -> Run {
    Run {
        data: shared(),
        words: Vec::new(),
        stdin: Vec::new(),
        environment: Vec::new(),
        insecure: true,
        wrapper: Vec::new(),
    }
}

impl Run {
    /// In this data directory.
    pub fn data(mut self, directory: &Path) -> Self {
        self.data = directory.to_owned();
        self
    }

    /// With an option.
    pub fn with(mut self, word: impl Into<OsString>) -> Self {
        self.words.push(word.into());
        self
    }

    /// With a directory or file of the host at a place in the app.
    pub fn volume(self, name: &str, source: &Path, options: &str, target: &str) -> Self {
        let source = source.to_str().unwrap();
        self.with(format!("--volume={name},kind=host,source={source}{options}"))
            .with(format!("--mount=volume={name},target={target}"))
    }

    /// With this program and its arguments; options of the app come before.
    pub fn exec<A: Into<OsString>>(
        self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut run = self.with(format!("--exec={program}")).with("--");
        run.words.extend(arguments.into_iter().map(Into::into));
        run.with("---")
    }

    /// With a shell that runs this script.
    pub fn script(self, script: &str) -> Self {
        self.exec("/bin/sh", ["-c", script])
    }

    /// And another app, of this image.
    pub fn and(self, image: impl Into<OsString>) -> Self {
        self.with(image)
    }

    /// With this on standard input, and then its end.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// With a variable in the environment of `sandbox` itself.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Without `--insecure-options=image`.
    pub fn secure(mut self) -> Self {
        self.insecure = false;
        self
    }

    /// Started by another command, which gets this one appended.
    pub fn through<W: Into<OsString>>(mut self, wrapper: impl IntoIterator<Item = W>) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// Runs a script in a shell to its end.
    pub fn sh(self, script: &str) -> Ended {
        self.script(script).end()
    }

    /// Runs to the end.
    pub fn end(self) -> Ended {
        self.start().end()
    }

    /// The words of the command line, and the file that the pod's UUID goes to.
    pub fn command_line(&self) -> (Vec<OsString>, PathBuf) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let uuid = home().join(format!("uuid-{}-{number}", std::process::id()));
        let mut words = self.wrapper.clone();
        words.extend(["sandbox".into(), option("--dir", &self.data), "run".into()]);
        words.push(option("--uuid-file-save", &uuid));
        if self.insecure {
            words.push("--insecure-options=image".into());
        }
        words.extend_from_slice(&self.words);
        (words, uuid)
    }

    /// Starts it, with standard input closed after what was given.
    pub fn start(self) -> Running {
        let stdin = self.stdin.clone();
        let mut running = self.start_open();
        let mut to = running.stdin.take().unwrap();
        // An app that doesn't read it closes it.
        spawn(move || to.write_all(&stdin));
        running
    }

    /// Starts it, with standard input open for the test to write to.
    pub fn start_open(self) -> Running {
        let (words, uuid) = self.command_line();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.environment);
        Running::start(command, Some((self.data, uuid)))
    }
}

fn option(name: &str, path: &Path) -> OsString {
    let mut word = OsString::from(name);
    word.push("=");
    word.push(path);
    word
}

/// Any other verb, with its arguments, run to its end.
pub fn sandbox<A: AsRef<OsStr>>(data: &Path, arguments: impl IntoIterator<Item = A>) -> Ended {
    let mut command = Command::new("sandbox");
    command.arg(option("--dir", data)).args(arguments);
    Running::start(command, None).end()
}

/// Any command, started.
pub fn start(words: &[OsString]) -> Running {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    Running::start(command, None)
}

/// A command that was started.
#[derive(Debug)]
pub struct Running {
    line: String,
    child: Child,
    /// Its standard input.
    pub stdin: Option<ChildStdin>,
    stdout: Collected,
    stderr: Collected,
    /// Data directory and file with the UUID of the pod.
    pod: Option<(PathBuf, PathBuf)>,
    console: Option<File>,
    since: Instant,
}

impl Running {
    fn start(mut command: Command, pod: Option<(PathBuf, PathBuf)>) -> Self {
        let line = shown(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}\n{error}"));
        Self {
            line,
            stdin: child.stdin.take(),
            stdout: Collected::of(child.stdout.take().unwrap()),
            stderr: Collected::of(child.stderr.take().unwrap()),
            child,
            pod,
            console: None,
            since: Instant::now(),
        }
    }

    /// Its process ID.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends it a signal; one that has ended has ended.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid(), signal);
    }

    /// Waits until its standard output has this text.
    pub fn wait_for(&mut self, text: &str) {
        while !self.stdout.text().contains(text) {
            self.look_after();
            if let Ok(Some(status)) = self.child.try_wait() {
                // What it wrote last may only be on its way.
                sleep(Duration::from_millis(300));
                assert!(
                    self.stdout.text().contains(text),
                    "it ended ({status}) before it wrote {text:?}\n{}",
                    self.shown()
                );
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        drop(self.stdin.take());
        let status = loop {
            self.look_after();
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            sleep(Duration::from_millis(20));
        };
        self.stdout.finish();
        self.stderr.finish();
        let shown = format!("{}\nexit status: {status}", self.shown());
        if let Some((_, uuid)) = &self.pod {
            let _ = fs::remove_file(uuid);
        }
        Ended {
            status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: self.stdout.bytes(),
            stderr: without_progress(&self.stderr.text()),
            all: [self.stdout.bytes(), self.stderr.bytes()].concat(),
            took: self.since.elapsed(),
            shown,
        }
    }

    /// Keeps a hold of the pod's console, and gives up what takes too long.
    fn look_after(&mut self) {
        if self.console.is_none()
            && let Some((data, uuid)) = &self.pod
            && let Ok(uuid) = fs::read_to_string(uuid)
        {
            self.console = File::open(data.join("pods/run").join(uuid.trim()).join("console")).ok();
        }
        if self.since.elapsed() > LIMIT {
            let _ = self.child.kill();
            panic!("given up after {LIMIT:?}\n{}", self.shown());
        }
    }

    /// The command, its output so far and the guest's console.
    fn shown(&self) -> String {
        let mut shown = format!("$ {}\n", self.line);
        let mut console = String::new();
        if let Some(mut file) = self.console.as_ref() {
            let mut bytes = Vec::new();
            let _ = std::io::Seek::rewind(&mut file);
            let _ = file.read_to_end(&mut bytes);
            console = String::from_utf8_lossy(&bytes).into_owned();
        }
        for (what, text) in
            [("stdout", self.stdout.text()), ("stderr", self.stderr.text()), ("console", console)]
        {
            // The end tells most.
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(40)..] {
                let line: String = line.chars().take(400).collect();
                writeln!(shown, "{what:>7} | {}", line.escape_debug()).unwrap();
            }
        }
        shown
    }
}

/// On a slow host the work on an image is worth a line, on a fast one it isn't.
fn without_progress(text: &str) -> String {
    const PROGRESS: [&str; 9] = [
        "asking what there is",
        "fetching ",
        "checking what is in the store",
        "reading layer ",
        "unpacking",
        "writing the file system",
        "hashing the file system",
        "writing to disk",
        "waiting for another process ",
    ];
    let is_progress = |line: &&str| {
        let said = line.trim_end().split_once(": ").map_or("", |(_, said)| said);
        PROGRESS.iter().any(|start| match said.strip_prefix(start) {
            Some(rest) => rest.is_empty() || start.ends_with(' '),
            None => false,
        })
    };
    text.split_inclusive('\n').filter(|line| !is_progress(line)).collect()
}

fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for word in command.get_args() {
        let word = word.to_string_lossy();
        let plain = !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_=.,:".contains(&byte));
        line += &if plain { format!(" {word}") } else { format!(" '{word}'") };
    }
    line
}

/// What a command that has ended came to.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status as a shell reports it: 128 and the number of the signal that ended it.
    pub status: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error, without what it says while a slow image is unpacked.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
    /// Standard output and all of standard error.
    all: Vec<u8>,
    shown: String,
}

impl Ended {
    /// Its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// It exited with this status.
    #[track_caller]
    pub fn exits(self, status: i32) -> Self {
        assert!(self.status == status, "should exit with {status}\n{}", self.shown);
        self
    }

    /// Its standard output is this.
    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        assert!(self.text() == text, "should print {text:?}\n{}", self.shown);
        self
    }

    /// Its standard output has this in it.
    #[track_caller]
    pub fn mentions(self, text: &str) -> Self {
        assert!(self.text().contains(text), "should mention {text:?}\n{}", self.shown);
        self
    }

    /// Its standard error is this.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr == text, "should say {text:?}\n{}", self.shown);
        self
    }

    /// It failed for a reason of its own: status 254, nothing on standard output, and one line on
    /// standard error that has all these words.
    #[track_caller]
    pub fn fails_saying(self, words: &[&str]) -> Self {
        self.exits(254).prints("").explains(words)
    }

    /// One line on standard error, with all these words.
    #[track_caller]
    pub fn explains(self, words: &[&str]) -> Self {
        let lines = self.stderr.lines().count();
        assert!(lines == 1, "should say one line\n{}", self.shown);
        for word in words {
            assert!(self.stderr.contains(word), "should say {word:?}\n{}", self.shown);
        }
        self
    }

    /// Nothing that it wrote has this in it, in plain text or in base64.
    #[track_caller]
    pub fn never_shows(self, secret: &str) -> Self {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(secret);
        let all = String::from_utf8_lossy(&self.all);
        for text in [secret, encoded.trim_end_matches('=')] {
            assert!(!all.contains(text), "shows a secret\n{}", self.shown);
        }
        self
    }

    /// What it was and what it came to, for a message.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// A condition of the test's own.
    #[track_caller]
    pub fn check(self, what: &str, holds: impl FnOnce(&Self) -> bool) -> Self {
        assert!(holds(&self), "{what}\n{}", self.shown);
        self
    }
}

/// A stream that a thread reads to its end.
#[derive(Debug)]
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collected {
    fn of(mut stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let collected = bytes.clone();
        let reader = spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                collected.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    fn finish(&mut self) {
        let _ = self.reader.take().map(JoinHandle::join);
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

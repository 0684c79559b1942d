//! The attacker's pod.

use crate::canaries::{Canaries, succeeds};
use crate::sets::Set;
use crate::victim::{data, image};
use sandbox_hostile::{layers, targets};
use sandbox_tests::run;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;
use std::time::Duration;

/// How long an attempt may take, and how long a boot.
const LIMIT: Duration = Duration::from_secs(180);

/// A running pod.
#[derive(Debug)]
pub struct Pod {
    set: Set,
    variables: [(&'static str, String); 3],
    command: Vec<std::ffi::OsString>,
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Pod {
    /// Boots one with these layers.
    pub fn start(set: &Set, canaries: &Canaries) -> Self {
        let volume = canaries.base().join("attacker-volume");
        fs::create_dir_all(&volume).unwrap();
        // A file server in the host's mount namespace serves the host's root.
        fs::create_dir_all("/volume-v").unwrap();
        let _ = Command::new("umount").arg("/volume-v").output();
        succeeds(Command::new("mount").arg("--bind").arg(&volume).arg("/volume-v"));
        let (command, _) = run(image(canaries))
            .data(&data(canaries))
            .with("--tenant=attacker")
            .with("--interactive")
            .with("--memory=96M")
            .volume("v", &volume, "", "/v")
            .exec("/bin/hostile-guest", [""; 0])
            .command_line();
        let variables = [
            (layers::VARIABLE, set.off()),
            (targets::VARIABLE, canaries.targets()),
            (targets::MODULE, canaries.module.clone()),
        ];
        let (child, stdin, lines) = boot(&command, &variables);
        Self { set: *set, variables, command, child, stdin, lines }
    }

    /// Has an attempt made. `None` if the pod has ended over it; then there is a new one.
    pub fn ask(&mut self, request: &str) -> Option<String> {
        let asked = writeln!(self.stdin, "{request}").is_ok();
        let answer = self.lines.recv_timeout(LIMIT).ok().filter(|_| asked);
        if answer.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let (child, stdin, lines) = boot(&self.command, &self.variables);
            (self.child, self.stdin, self.lines) = (child, stdin, lines);
        }
        answer
    }

    /// Ends it.
    pub fn end(self) {
        let Self { set, mut child, stdin, .. } = self;
        drop(stdin);
        let status = child.wait().unwrap();
        if !status.success() {
            println!("{set}: the attacker's pod ended with {status}");
        }
    }
}

fn boot(
    command: &[std::ffi::OsString],
    variables: &[(&'static str, String)],
) -> (Child, ChildStdin, Receiver<String>) {
    let mut process = Command::new(&command[0]);
    process.args(&command[1..]).envs(variables.iter().map(|(name, value)| (name, value)));
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = process.spawn().unwrap();
    let stdin = child.stdin.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let said = spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let (sender, lines) = channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    match lines.recv_timeout(LIMIT) {
        Ok(line) if line == "ready" => {}
        other => {
            let _ = child.kill();
            panic!("the attacker's pod does not boot ({other:?}): {}", said.join().unwrap());
        }
    }
    (child, stdin, lines)
}

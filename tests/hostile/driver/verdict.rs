//! Whether an attempt has succeeded: what has become of its canary.

use crate::canaries::{Canaries, KernelLog};
use crate::pod::Pod;
use crate::victim::Victim;
use rustix::process::{Pid, Signal, kill_process};
use sandbox_hostile::attack::{Actor, Attack, Effect};
use sandbox_tests::eventually;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an effect may take to show after an attempt that has succeeded by its own account.
const PATIENCE: Duration = Duration::from_millis(700);

/// Where ext4 has the identity of its file system.
const IDENTITY: u64 = 1024 + 0x68;

/// What an attempt came to.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Its effect is there.
    pub reached: bool,
    /// What it reports itself.
    pub came_to: String,
}

/// What is remembered from before the attempt.
#[derive(Debug)]
enum Before {
    Nothing,
    Length(u64),
    Time((i64, i64)),
    Log(KernelLog),
}

/// Has an attempt made and looks.
pub fn of(
    attack: &Attack,
    actor: Actor,
    thread: &str,
    pod: &mut Pod,
    canaries: &Canaries,
    victim: &Victim,
) -> Verdict {
    let scene = Scene { attack, actor, canaries };
    let mut before = scene.prepare();
    let answer = match actor {
        Actor::Monitor => pod.ask(&format!("monitor {} {thread}", attack.name)),
        Actor::Worker => pod.ask(&format!("worker {}", attack.name)),
    };
    let (came_to, proof) = match answer.as_deref().map(|answer| read(attack.name, answer)) {
        Some(read) => read,
        None => ("the pod ended".into(), Vec::new()),
    };
    let patience = if came_to == "done" { PATIENCE } else { Duration::ZERO };
    let reached = eventually(patience, || scene.shows(&mut before, &came_to, &proof));
    if reached {
        scene.put_back();
        victim.assert_alive(attack.name);
    }
    Verdict { reached, came_to }
}

/// The answer's outcome and proof.
fn read(name: &str, answer: &str) -> (String, Vec<u8>) {
    let rest = answer.strip_prefix(name).unwrap_or(answer).trim();
    let (outcome, proof) = match rest.split(' ').collect::<Vec<_>>()[..] {
        [word @ ("errno" | "signal"), number] => (format!("{word} {number}"), ""),
        [word @ ("errno" | "signal"), number, proof] => (format!("{word} {number}"), proof),
        [word, proof] => (word.to_owned(), proof),
        _ => (rest.to_owned(), ""),
    };
    let bytes = proof.as_bytes().chunks_exact(2).map(|pair| {
        let pair = std::str::from_utf8(pair).unwrap_or("");
        u8::from_str_radix(pair, 16).unwrap_or(0)
    });
    (outcome, bytes.collect())
}

struct Scene<'a> {
    attack: &'a Attack,
    actor: Actor,
    canaries: &'a Canaries,
}

impl Scene<'_> {
    fn path(&self, target: &str) -> PathBuf {
        self.canaries.get(target).into()
    }

    /// A path with targets in it; the program is that of who attacks.
    fn resolved(&self, path: &str) -> PathBuf {
        let program = match self.actor {
            Actor::Monitor => "sandbox-vmm",
            Actor::Worker => "sandbox-fs",
        };
        self.canaries.resolve(&path.replace("{program}", program)).into()
    }

    /// The file that an attempt of this name leaves in a directory.
    fn left(&self, directory: &str) -> PathBuf {
        self.path(directory).join(self.attack.name)
    }

    fn prepare(&self) -> Before {
        self.canaries.heard.lock().unwrap().clear();
        match self.attack.effect {
            Effect::Secret if self.attack.name == "log_read" => {
                fs::write("/dev/kmsg", &self.canaries.secret).unwrap();
            }
            Effect::Left(directory) => remove(&self.left(directory)),
            Effect::Gone(target) => fs::write(self.path(target), "").unwrap(),
            Effect::Written(target) => {
                return Before::Length(length(&self.path(target)));
            }
            Effect::Touched(path) => return Before::Time(changed(&self.resolved(path))),
            Effect::Shows("kmsg", _) => return Before::Log(KernelLog::new()),
            Effect::Shows(path, text) => {
                let shown = self.shown(path);
                if shown.contains(text) {
                    println!("WRONG: {}: {path} already has {text}", self.attack.name);
                }
            }
            Effect::Memory => self.scribble(&[0; 64]),
            _ => {}
        }
        if self.attack.name.starts_with("by_symbolic_link") {
            remove(&self.left("open"));
        }
        Before::Nothing
    }

    fn shows(&self, before: &mut Before, came_to: &str, proof: &[u8]) -> bool {
        let name = self.attack.name;
        let has = |text: &[u8], part: &str| {
            text.windows(part.len()).any(|window| window == part.as_bytes())
        };
        match (self.attack.effect, before) {
            (Effect::Secret, _) => has(proof, &self.canaries.secret),
            (Effect::Content(path), _) => {
                let content = fs::read(path).unwrap();
                proof.len() > 8 && content.starts_with(proof)
            }
            (Effect::Disk, _) => {
                let mut identity = [0; 16];
                let disk = File::open(self.path("disk")).unwrap();
                disk.read_exact_at(&mut identity, IDENTITY).unwrap();
                proof == identity
            }
            (Effect::Written(target), Before::Length(length)) => {
                let content = fs::read(self.path(target)).unwrap();
                let start = usize::try_from(*length).unwrap().min(content.len());
                has(&content[start..], name)
            }
            (Effect::Left(directory), _) => self.left(directory).symlink_metadata().is_ok(),
            (Effect::Gone(target), _) => !self.path(target).exists(),
            (Effect::Heard, _) => {
                let heard = self.canaries.heard.lock().unwrap();
                heard.iter().any(|text| text == name)
            }
            (Effect::Halted(target), _) => state(self.canaries.get(target)) == Some('T'),
            (Effect::Shows(_, text), Before::Log(log)) => log.read().contains(text),
            (Effect::Shows(path, text), _) => self.shown(path).contains(text),
            (Effect::Lacks(path, text), _) => !self.shown(path).contains(text),
            (Effect::Touched(path), Before::Time(time)) => changed(&self.resolved(path)) != *time,
            (Effect::Grown(path, bytes), _) => length(&self.resolved(path)) >= bytes,
            (Effect::Memory, _) => has(&self.scribbled(), name),
            (Effect::Observed, _) => came_to == "done" && !proof.is_empty(),
            (Effect::Power | Effect::Exhausted, _) => came_to == "done",
            (effect, before) => panic!("{name}: {effect:?} after {before:?}"),
        }
    }

    /// What a file of the host's shows now.
    fn shown(&self, path: &str) -> String {
        fs::read_to_string(self.resolved(path)).unwrap_or_default()
    }

    fn put_back(&self) {
        self.canaries.put_back(self.attack.name);
        match self.attack.effect {
            Effect::Left(directory) => remove(&self.left(directory)),
            Effect::Halted(target) => {
                let pid = self.canaries.get(target).parse().unwrap();
                kill_process(Pid::from_raw(pid).unwrap(), Signal::CONT).unwrap();
                eventually(PATIENCE, || state(self.canaries.get(target)) != Some('T'));
            }
            Effect::Written(target) if target.ends_with("file") || target.ends_with("console") => {
                // Only the beginning is looked at.
                fs::write(self.path(target), &self.canaries.secret).unwrap();
            }
            _ => {}
        }
    }

    fn memory(&self) -> File {
        let path = format!("/proc/{}/mem", self.canaries.process.pid());
        File::options().read(true).write(true).open(path).unwrap()
    }

    fn scribble(&self, bytes: &[u8]) {
        self.memory().write_all_at(bytes, self.canaries.process.scribble).unwrap();
    }

    fn scribbled(&self) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        self.memory().read_exact_at(&mut bytes, self.canaries.process.scribble).unwrap();
        bytes
    }
}

fn remove(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        let _ = fs::remove_dir(path);
    } else {
        let _ = fs::remove_file(path);
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn changed(path: &Path) -> (i64, i64) {
    let metadata = fs::metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    (metadata.ctime(), metadata.ctime_nsec())
}

/// The state of a process: T if it is stopped.
fn state(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

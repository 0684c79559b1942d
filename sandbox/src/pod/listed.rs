//! Pods as others see them: what is on disk about each, and whether somebody is at work on it.

use super::directory::{DataDir, DirectoryError, State, failed};
use crate::measure::{self, Attestation};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::time::SystemTime;
use uuid::Uuid;

/// The longest file of a pod that is read here.
const MOST: u64 = 16 << 20;

/// Where a pod is in its life, in the words of rkt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Its directory is being filled.
    Preparing,
    /// That was given up.
    AbortedPrepare,
    /// It waits to be run.
    Prepared,
    /// It runs.
    Running,
    /// It has ended, or was killed.
    Exited,
    /// It has ended, and is being removed.
    ExitedDeleting,
    /// It has ended, and is to be removed.
    ExitedGarbage,
}

impl Life {
    /// Of a directory in this state, which somebody holds the lock of or not; `None` for what isn't
    /// shown.
    fn of(state: State, is_locked: bool) -> Option<Self> {
        Some(match (state, is_locked) {
            (State::Preparing, true) => Self::Preparing,
            (State::Preparing, false) => Self::AbortedPrepare,
            (State::Prepared, _) => Self::Prepared,
            (State::Running, true) => Self::Running,
            (State::Running, false) => Self::Exited,
            (State::ExitedGarbage, true) => Self::ExitedDeleting,
            (State::ExitedGarbage, false) => Self::ExitedGarbage,
            (State::Embryo | State::Garbage, _) => return None,
        })
    }

    /// Whether it was started and has ended.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Exited | Self::ExitedDeleting | Self::ExitedGarbage)
    }
}

impl fmt::Display for Life {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Preparing => "preparing",
            Self::AbortedPrepare => "aborted prepare",
            Self::Prepared => "prepared",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::ExitedDeleting => "exited deleting",
            Self::ExitedGarbage => "exited garbage",
        })
    }
}

/// A pod.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub uuid: Uuid,
    /// Where it is in its life.
    pub life: Life,
    /// What it consists of; `None` as long as that is not written.
    pub manifest: Option<Manifest>,
    /// When its directory was filled.
    pub created: Option<SystemTime>,
    /// When it was started.
    pub started: Option<SystemTime>,
    /// The process that watches over it, as long as it runs.
    pub pid: Option<u32>,
    /// Whether its launch is in the TPM, and who has checked that.
    pub attestation: Attestation,
}

/// What a listing needs of a pod's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Manifest {
    /// Its apps.
    pub apps: Vec<App>,
    /// Its volumes.
    #[serde(default)]
    pub volumes: Vec<Volume>,
}

/// An app of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct App {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: Image,
    /// Where it mounts volumes.
    #[serde(default)]
    pub mounts: Vec<Mount>,
}

/// An image, by name and ID.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Its ID, such as `sha512-` and 128 digits.
    pub id: String,
    /// Its labels.
    #[serde(default)]
    pub labels: Vec<Label>,
}

/// A label of an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A volume's place in an app.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Mount {
    /// The volume's name.
    pub volume: String,
    /// The path in the app.
    pub path: String,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// The host's path, if it is one of the host.
    #[serde(default)]
    pub source: String,
    /// Whether apps can only read.
    #[serde(default)]
    pub read_only: bool,
}

/// Why no pod is meant.
#[derive(Debug, thiserror::Error)]
pub enum NoPod {
    /// The text can't be the beginning of a UUID.
    #[error("{0:?} is not the beginning of a UUID, of which 'sandbox list --full' shows all")]
    Form(String),
    /// No pod has that name.
    #[error("no matches found for {0:?}; 'sandbox list --full' shows all pods")]
    Unknown(String),
    /// Several have.
    #[error("ambiguous uuid, {0} matches; give more of its digits")]
    Ambiguous(usize),
    /// See [`DirectoryError`].
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl DataDir {
    /// All pods that are more than a directory, by their UUIDs. Those that end meanwhile are left
    /// out.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn pods(&self) -> Result<Vec<Listed>, DirectoryError> {
        let mut found = BTreeMap::new();
        // States only go forward, so that no pod is missed that moves meanwhile.
        for state in State::ALL {
            for uuid in self.uuids(state)? {
                if let Some(pod) = self.pod(state, uuid)? {
                    found.insert(uuid, pod);
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// The one pod whose UUID begins so.
    ///
    /// # Errors
    /// See [`NoPod`].
    pub fn find(&self, beginning: &str) -> Result<Listed, NoPod> {
        let beginning = beginning.to_ascii_lowercase();
        let is_digit = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
        if beginning.is_empty() || !beginning.bytes().all(is_digit) {
            return Err(NoPod::Form(beginning));
        }
        let mut pods = self.pods()?;
        pods.retain(|pod| pod.uuid.to_string().starts_with(&beginning));
        match pods.len() {
            0 | 1 => pods.pop().ok_or(NoPod::Unknown(beginning)),
            several => Err(NoPod::Ambiguous(several)),
        }
    }

    fn uuids(&self, state: State) -> Result<Vec<Uuid>, DirectoryError> {
        let folder = self.folder(state);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed("list", &folder))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("list", &folder))?;
            found.extend(entry.file_name().to_str().and_then(|name| name.parse::<Uuid>().ok()));
        }
        Ok(found)
    }

    /// What there is about a pod, or `None` if it is gone from there.
    fn pod(&self, state: State, uuid: Uuid) -> Result<Option<Listed>, DirectoryError> {
        let Some(directory) = self.open_pod(state, uuid)? else { return Ok(None) };
        let path = self.place(state, uuid);
        let is_locked = match flock(&directory, FlockOperation::NonBlockingLockShared) {
            Ok(()) => false,
            Err(Errno::WOULDBLOCK) => true,
            Err(error) => return Err(failed("lock", &path)(error)),
        };
        let Some(life) = Life::of(state, is_locked) else { return Ok(None) };
        let files = Files { directory: &directory };
        let read = || -> io::Result<Listed> {
            let manifest = files.read("pod")?;
            let pid = files.read("pid")?.filter(|_| life == Life::Running);
            Ok(Listed {
                uuid,
                life,
                // One that is still being written is no manifest yet.
                manifest: manifest.and_then(|content| serde_json::from_slice(&content).ok()),
                created: files.time("pod-created")?,
                started: files.time("pid")?,
                pid: pid.and_then(|pid| String::from_utf8(pid).ok()?.trim_end().parse().ok()),
                attestation: measure::attestation(|name| files.read(name))?,
            })
        };
        read().map(Some).map_err(failed("read the files of", &path))
    }
}

/// The files of a pod's directory, wherever that is moved meanwhile.
struct Files<'a> {
    directory: &'a OwnedFd,
}

impl Files<'_> {
    fn open(&self, name: &str) -> io::Result<Option<fs::File>> {
        use rustix::fs::{Mode, OFlags, openat};
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(self.directory, name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open(name)? else { return Ok(None) };
        let mut content = Vec::new();
        file.take(MOST).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    fn time(&self, name: &str) -> io::Result<Option<SystemTime>> {
        self.open(name)?.map(|file| file.metadata()?.modified()).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::PodDir;

    const MANIFEST: &str = r#"{"acVersion":"0.8.11","acKind":"PodManifest","apps":[
        {"name":"web","image":{"name":"example.com/web","id":"sha512-00","labels":[]},
         "app":{"exec":["/x"]},"mounts":[{"volume":"data","path":"/data"}]}],
        "volumes":[{"name":"data","kind":"host","source":"/srv","readOnly":true}]}"#;

    #[test]
    fn a_pod_is_seen_in_every_state_of_rkt() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::open(temporary.path()).unwrap();
        let mut pod = PodDir::create(&data).unwrap();
        let life = || data.pods().unwrap().first().map(|pod| pod.life.to_string());
        assert_eq!(life().as_deref(), Some("preparing"));
        pod.write("pod", MANIFEST.as_bytes()).unwrap();
        pod.write("pod-created", b"").unwrap();
        pod.move_to(State::Prepared).unwrap();
        assert_eq!(life().as_deref(), Some("prepared"));
        pod.move_to(State::Running).unwrap();
        pod.write("pid", b"4711\n").unwrap();
        let seen = data.find(&pod.uuid().to_string()[..6]).unwrap();
        assert_eq!((seen.uuid, seen.pid), (pod.uuid(), Some(4711)));
        let manifest = seen.manifest.unwrap();
        assert_eq!(manifest.apps[0].image.name, "example.com/web");
        assert_eq!(manifest.volumes[0].source, "/srv");
        assert!(seen.created.unwrap() <= seen.started.unwrap());
        assert_eq!(seen.attestation, Attestation::None);
        // Killed: its lock is free, and its process may be another one now.
        let uuid = pod.uuid();
        pod.leave();
        let seen = data.find(&uuid.to_string()).unwrap();
        assert_eq!((seen.life, seen.pid), (Life::Exited, None));
    }

    #[test]
    fn a_launch_is_shown_as_what_was_done_with_it() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::open(temporary.path()).unwrap();
        let pod = PodDir::create(&data).unwrap();
        let seen = || data.pods().unwrap().remove(0).attestation;
        let launch = |number: &str| {
            format!(
                r#"{{"pod":"{}","number":{number},"bootId":"b","settings":{{"version":1}}}}"#,
                pod.uuid()
            )
        };
        pod.write_whole("launch.json", b"").unwrap();
        assert_eq!(seen(), Attestation::None, "power was lost");
        pod.write_whole("launch.json", launch("null").as_bytes()).unwrap();
        assert_eq!(seen(), Attestation::None, "it may be in no log");
        pod.write_whole("launch.json", launch("7").as_bytes()).unwrap();
        assert_eq!(seen(), Attestation::Measured { number: 7 });
        pod.write_whole("attestation.json", br#"{"version":1}"#).unwrap();
        assert_eq!(seen(), Attestation::Local { number: 7 });
        pod.write_whole("attestation.json", br#"{"remote":null}"#).unwrap();
        assert_eq!(seen(), Attestation::Local { number: 7 });
        pod.write_whole("attestation.json", br#"{"remote":{"url":"x"}}"#).unwrap();
        assert_eq!(seen(), Attestation::Remote { number: 7 });
    }

    #[test]
    fn a_beginning_has_to_mean_one_pod() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::open(temporary.path()).unwrap();
        for uuid in ["aa000000-0000-4000-8000-000000000000", "aa100000-0000-4000-8000-000000000000"]
        {
            fs::create_dir(temporary.path().join("pods/prepared").join(uuid)).unwrap();
        }
        assert!(data.find("AA1").is_ok());
        let error = |text: &str| data.find(text).unwrap_err().to_string();
        assert!(error("aa").starts_with("ambiguous uuid, 2 matches"));
        assert!(error("b").contains("no matches"));
        for text in ["", "../run", "aa\x1b[2J"] {
            assert!(error(text).contains("not the beginning"), "{text:?}");
            assert!(!error(text).contains('\x1b'));
        }
    }

    #[test]
    fn where_nothing_was_ever_run_there_are_no_pods_and_nothing_is_made() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::at(&temporary.path().join("none")).unwrap();
        assert!(data.pods().unwrap().is_empty());
        assert!(!temporary.path().join("none").exists());
    }
}

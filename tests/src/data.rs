//! Data directories, and what pods leave behind in and around them.

use crate::{eventually, home, sandbox, temporary};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The data directory that tests share unless they look at what is left in it: each image is
/// unpacked once.
pub fn shared() -> PathBuf {
    home().join("data")
}

/// A data directory of one test.
#[derive(Debug)]
pub struct Data(TempDir);

impl Default for Data {
    fn default() -> Self {
        Self(temporary())
    }
}

impl Data {
    /// A new one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Nothing of any pod is there any more: no process, mount, socket or directory.
    pub fn assert_nothing_is_left(&self) {
        // What was killed takes a moment to go.
        eventually(Duration::from_secs(20), || self.left().is_empty());
        let left = self.left();
        assert!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
    }

    /// Nothing is left that only `sandbox gc` could remove; then that removes the rest.
    pub fn assert_gc_removes_the_rest(&self) {
        eventually(Duration::from_secs(20), || processes(self.path()).is_empty());
        sandbox(self.path(), ["gc"]).exits(0);
        self.assert_nothing_is_left();
    }

    /// What belongs to pods of this data directory.
    fn left(&self) -> Vec<String> {
        let path = self.path().to_str().unwrap();
        let mut left: Vec<String> = processes(self.path())
            .into_iter()
            .map(|(pid, command)| format!("process {pid}: {command}"))
            .collect();
        for file in ["/proc/self/mountinfo", "/proc/net/unix"] {
            let content = fs::read_to_string(file).unwrap();
            left.extend(content.lines().filter(|line| line.contains(path)).map(str::to_owned));
        }
        for folder in entries(&self.path().join("pods")) {
            left.extend(entries(&folder).iter().map(|pod| pod.display().to_string()));
        }
        left.extend(
            entries(&self.path().join("cas/tmp")).iter().map(|it| it.display().to_string()),
        );
        left
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Processes of the product that have to do with a directory: it is on their command line, or they
/// hold a file in it open. Each with its command line.
pub fn processes(directory: &Path) -> Vec<(i32, String)> {
    let directory = directory.to_str().unwrap();
    let mut found = Vec::new();
    for process in entries(Path::new("/proc")) {
        let Some(pid) = process.file_name().unwrap().to_str().unwrap().parse().ok() else {
            continue;
        };
        // What can't be read any more has ended.
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if !command.split(' ').next().is_some_and(|program| program.contains("sandbox")) {
            continue;
        }
        let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let mut files = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        if command.contains(directory)
            || files.any(|file| file.to_string_lossy().contains(directory))
        {
            found.push((pid, command));
        }
    }
    found
}

/// The one process of a pod that runs this program.
pub fn process(directory: &Path, program: &str) -> Option<i32> {
    let all = processes(directory);
    all.into_iter().find(|(_, command)| command.contains(program)).map(|(pid, _)| pid)
}

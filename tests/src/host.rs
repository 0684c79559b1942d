//! A host of one test: its configuration, its store, its network names. What the product reads from
//! fixed places of `/etc` and `/usr/lib` it reads from here, in a mount namespace of its own, so that
//! tests with different policies run at the same time.

use crate::certificates::Authority;
use crate::sandbox::{Ended, Run, Running, pod, run, start};
use crate::temporary;
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What is this host's own.
const DIRECTORIES: [&str; 5] =
    ["etc/containers", "etc/docker", "etc/rkt", "etc/sandbox", "usr/lib/rkt"];

/// Binds a host's directories and goes on with a command. The host's has this as the file `enter`.
const ENTER: &str = "\
set -e
host=${0%/enter}
for name in etc/containers etc/docker etc/rkt etc/sandbox usr/lib/rkt; do
    mkdir -p /$name
    mount --bind $host/$name /$name
done
mount --bind $host/etc/hosts /etc/hosts
export HOME=$host/root
exec \"$@\"";

/// A host.
#[derive(Debug)]
pub struct Host(TempDir);

impl Default for Host {
    fn default() -> Self {
        let directory = temporary();
        for name in DIRECTORIES.into_iter().chain(["root", "var"]) {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        fs::copy("/etc/hosts", directory.path().join("etc/hosts")).unwrap();
        fs::write(directory.path().join("enter"), ENTER).unwrap();
        Self(directory)
    }
}

impl Host {
    /// One without any configuration: no policy, no key, no registry that it knows.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with this policy.
    pub fn with_policy(policy: &Value) -> Self {
        let host = Self::new();
        host.policy(policy);
        host
    }

    /// One that takes every image.
    pub fn trusting() -> Self {
        let anything = json!([{"type": "insecureAcceptAnything"}]);
        Self::with_policy(&json!({"default": anything, "transports": {"aci": {"": anything}}}))
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.at("/var/data")
    }

    /// Where one of its paths really is: `/etc/sandbox/policy.json`, `/root/x`.
    pub fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    /// Writes one of its files and returns where that really is.
    pub fn put(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.at(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        file
    }

    /// Its policy from now on.
    pub fn policy(&self, policy: &Value) {
        self.put("/etc/sandbox/policy.json", policy.to_string());
    }

    /// It believes that this authority certifies a server, `HOST:PORT`.
    pub fn believes(&self, server: &str, authority: &Authority) {
        let certificate = fs::read(authority.certificate()).unwrap();
        self.put(&format!("/etc/containers/certs.d/{server}/ca.crt"), certificate);
    }

    /// It looks for simple signatures of a registry's images in this directory.
    pub fn looks_aside(&self, registry: &str, directory: &Path) {
        let text =
            format!("docker:\n  {registry}:\n    lookaside: file://{}\n", directory.display());
        self.put("/etc/containers/registries.d/tests.yaml", text);
    }

    /// It knows this name by this address.
    pub fn knows(&self, name: &str, address: &str) {
        let file = self.at("/etc/hosts");
        let known = fs::read_to_string(&file).unwrap();
        fs::write(file, format!("{known}{address} {name}\n")).unwrap();
    }

    /// A pod of this image on it, with no security feature switched off.
    pub fn run(&self, image: impl Into<OsString>) -> Run {
        let run = run(image).data(&self.data()).secure().with("--insecure-options=none");
        run.through(self.enter())
    }

    /// The same, where options of the pod come before its first image.
    pub fn run_pod(&self) -> Run {
        let run = pod().data(&self.data()).secure().with("--insecure-options=none");
        run.through(self.enter())
    }

    /// Any other verb, run to its end.
    pub fn sandbox<A: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = A>) -> Ended {
        self.start(words).end()
    }

    /// Any other verb, started.
    pub fn start<A: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = A>) -> Running {
        self.start_through(&[], words)
    }

    /// Any other verb, started by another command that gets it appended: `env NAME=VALUE`.
    pub fn start_through<A: AsRef<OsStr>>(
        &self,
        wrapper: &[&str],
        words: impl IntoIterator<Item = A>,
    ) -> Running {
        let mut line = self.enter();
        line.extend(wrapper.iter().map(OsString::from));
        let mut data = OsString::from("--dir=");
        data.push(self.data());
        line.extend(["sandbox".into(), data]);
        line.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        start(&line)
    }

    /// Fetches an image and returns its whole ID.
    #[track_caller]
    pub fn fetch(&self, image: impl AsRef<OsStr>) -> String {
        self.fetch_with(image, &[])
    }

    /// The same, with options.
    #[track_caller]
    pub fn fetch_with(&self, image: impl AsRef<OsStr>, options: &[&str]) -> String {
        let mut words: Vec<&OsStr> = vec!["fetch".as_ref(), "--full".as_ref()];
        words.extend(options.iter().map(OsStr::new));
        words.push(image.as_ref());
        let id = self.sandbox(words).exits(0).text();
        id.trim().to_owned()
    }

    /// Fetches an image that it must not take; there is one line that says why, and nothing of the
    /// image is left in the store.
    #[track_caller]
    pub fn refuses(&self, image: impl AsRef<OsStr>, words: &[&str]) -> Ended {
        let command = ["fetch".as_ref(), "--full".as_ref(), image.as_ref()];
        let ended = self.sandbox(command).fails_saying(words);
        self.has_nothing();
        ended
    }

    /// The root hash of an image's file system.
    #[track_caller]
    pub fn verity(&self, image: impl AsRef<OsStr>) -> String {
        let words = ["image".as_ref(), "verity".as_ref(), image.as_ref()];
        self.sandbox(words).exits(0).text().trim().to_owned()
    }

    /// The IDs of the images in the store, sorted.
    #[track_caller]
    pub fn images(&self) -> Vec<String> {
        let words = ["image", "list", "--full", "--no-legend", "--fields=id"];
        let text = self.sandbox(words).exits(0).text();
        let mut images: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        images.sort();
        images
    }

    /// No image is in the store, nor a part of one.
    #[track_caller]
    pub fn has_nothing(&self) {
        let left = self.stored();
        assert!(left.is_empty(), "in the store: {left:?}");
    }

    /// The files in the store that hold images, or parts of them.
    pub fn stored(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![self.data().join("cas")];
        while let Some(directory) = directories.pop() {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries {
                // What goes away meanwhile isn't there.
                let Ok(entry) = entry else { continue };
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                    Ok(_) if entry.file_name() != "lock" => files.push(entry.path()),
                    _ => {}
                }
            }
        }
        files.sort();
        files
    }

    /// Nothing below its data directory has this in it.
    #[track_caller]
    pub fn never_keeps(&self, secret: &str) {
        let mut grep = std::process::Command::new("grep");
        grep.args(["--recursive", "--fixed-strings", "--files-with-matches", "--text", "--regexp"]);
        let found = grep.args([OsStr::new(secret), self.data().as_os_str()]).output().unwrap();
        let files = String::from_utf8_lossy(&found.stdout).into_owned();
        assert_eq!(found.status.code(), Some(1), "a secret is in {files}");
    }

    /// The file system of an image in its store.
    pub fn rootfs(&self, id: &str) -> PathBuf {
        let folders = self.data().join("cas/image");
        let folders = fs::read_dir(folders).unwrap().map(|entry| entry.unwrap().path());
        let mut files = folders.map(|folder| folder.join("rootfs.erofs"));
        files.find(|file| file.to_str().unwrap().contains(id)).expect("the image is in the store")
    }

    /// The words that lead a command into it.
    fn enter(&self) -> Vec<OsString> {
        let words = ["unshare", "--mount", "sh"].map(OsString::from);
        words.into_iter().chain([self.at("enter").into()]).collect()
    }
}

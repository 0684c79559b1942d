//! Images made by hand, in every format.

use crate::home;
use crate::tar::Tar;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The programs of [`tiny`], besides the shell; the shell has `echo`, `kill`, `printf`, `test` and
/// more of its own.
const PROGRAMS: &[&str] = &[
    "cat", "chmod", "chown", "cp", "dd", "df", "echo", "env", "head", "id", "ln", "ls", "mkdir",
    "mknod", "mv", "nproc", "readlink", "rm", "seq", "sleep", "sort", "stat", "stty", "sync",
    "tail", "tee", "touch", "tr", "true", "uname", "wc",
];

/// Who is who in [`tiny`].
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n";
const GROUP: &str = "root:x:0:\nalice:x:1000:\naudio:x:29:alice\nstaff:x:50:\n";

/// An image that is being made.
#[derive(Clone, Debug)]
pub struct Image {
    /// Layers as tar archives, the lowest first.
    pub layers: Vec<Vec<u8>>,
    /// The object `config` of the OCI image configuration.
    pub config: Value,
    /// When it says that it was made, as of RFC 3339.
    pub created: Option<&'static str>,
}

impl Image {
    /// An image of these layers with nothing to run.
    pub fn of(layers: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { layers: layers.into_iter().collect(), config: json!({}), created: None }
    }

    /// The files of [`tiny`], with further layers on them.
    pub fn tiny_and(layers: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let lowest = fs::read(tiny_layer()).unwrap();
        Self::of(std::iter::once(lowest).chain(layers))
    }

    /// Writes an OCI layout, with the layers compressed by gzip, and returns the reference.
    pub fn layout(&self, directory: &Path) -> OsString {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let blob = |kind: &str, content: &[u8]| {
            let digest = sha256(content);
            fs::write(blobs.join(&digest), content).unwrap();
            json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": format!("sha256:{digest}"),
                "size": content.len(),
            })
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| blob("layer.v1.tar+gzip", &filter("gzip", &["-1n"], layer)))
            .collect();
        let config = blob("config.v1+json", self.configuration().to_string().as_bytes());
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        let manifest = blob("manifest.v1+json", manifest.to_string().as_bytes());
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(directory.join("index.json"), index.to_string()).unwrap();
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        reference("oci:", directory)
    }

    /// Writes an OCI archive and returns the reference.
    pub fn oci_archive(&self, file: &Path) -> OsString {
        let layout = file.with_extension("layout");
        self.layout(&layout);
        tar(&layout, file);
        reference("oci-archive:", file)
    }

    /// Writes an archive as of `docker save` and returns the reference.
    pub fn docker_archive(&self, file: &Path) -> OsString {
        let content = file.with_extension("content");
        fs::create_dir_all(&content).unwrap();
        let mut names = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            names.push(format!("{number}.tar"));
            fs::write(content.join(&names[number]), layer).unwrap();
        }
        fs::write(content.join("config.json"), self.configuration().to_string()).unwrap();
        let manifest =
            json!([{"Config": "config.json", "RepoTags": ["test:latest"], "Layers": names}]);
        fs::write(content.join("manifest.json"), manifest.to_string()).unwrap();
        tar(&content, file);
        reference("docker-archive:", file)
    }

    /// The configuration of image and root file system.
    fn configuration(&self) -> Value {
        let digests: Vec<String> =
            self.layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
        let mut configuration = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        if let Some(created) = self.created {
            configuration["created"] = created.into();
        }
        configuration
    }
}

fn reference(scheme: &str, path: &Path) -> OsString {
    let mut reference = OsString::from(scheme);
    reference.push(path);
    reference
}

/// Writes an ACI with these files below its root file system, and returns the reference.
pub fn aci(file: &Path, rootfs: &[u8], app: &Value) -> OsString {
    let content = file.with_extension("content");
    fs::create_dir_all(content.join("rootfs")).unwrap();
    let mut unpack = Command::new("tar");
    unpack.args(["--extract", "--numeric-owner", "--directory"]).arg(content.join("rootfs"));
    piped(&mut unpack, rootfs);
    let manifest = json!({
        "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/test",
        "labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"}],
        "app": app,
    });
    fs::write(content.join("manifest"), manifest.to_string()).unwrap();
    tar(&content, file);
    file.into()
}

/// A shell and a few programs of the test host, as an OCI layout: `/bin/sh` without arguments.
pub fn tiny() -> OsString {
    let directory = home().join("tiny");
    let _lock = lock("tiny.lock");
    if !directory.join("index.json").exists() {
        let mut image = Image::of([fs::read(tiny_layer()).unwrap()]);
        image.config = json!({"Cmd": ["/bin/sh"], "Env": ["PATH=/bin", "FROM=image", "KEPT=yes"]});
        image.layout(&directory);
    }
    reference("oci:", &directory)
}

/// The layer of [`tiny`].
pub fn tiny_layer() -> PathBuf {
    let file = home().join("tiny.tar");
    let _lock = lock("tiny.tar.lock");
    if !file.exists() {
        let mut layer = Tar::new();
        for directory in ["bin", "etc", "home", "lib", "lib/x86_64-linux-gnu", "lib64", "root"] {
            layer = layer.directory(directory, 0o755);
        }
        layer = layer.directory("tmp", 0o1777);
        layer = layer.entry(b'5', "home/alice", 0o700, (1000, 1000), b"", "");
        layer = layer.file("etc/passwd", 0o644, PASSWD).file("etc/group", 0o644, GROUP);
        layer = layer.symlink("bin/sh", "dash");
        let mut files: BTreeSet<String> = BTreeSet::new();
        for program in ["dash"].iter().chain(PROGRAMS) {
            let path = format!("/bin/{program}");
            files.extend(libraries(&path));
            files.insert(path);
        }
        for path in files {
            layer = layer.file(path.trim_start_matches('/'), 0o755, fs::read(&path).unwrap());
        }
        let unfinished = file.with_extension("unfinished");
        fs::write(&unfinished, layer.finish()).unwrap();
        fs::rename(unfinished, &file).unwrap();
    }
    file
}

/// The shared libraries that a program of this host needs, its loader among them.
fn libraries(program: &str) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

/// The Debian image of the tests, in one of its three forms.
pub fn debian(scheme: &str, file: &str) -> OsString {
    let images = std::env::var_os("SANDBOX_TEST_IMAGES").expect("SANDBOX_TEST_IMAGES is set");
    reference(scheme, &Path::new(&images).join(file))
}

fn lock(name: &str) -> File {
    let lock = File::create(home().join(name)).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    lock
}

/// Packs what is in a directory.
fn tar(directory: &Path, file: &Path) {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut tar = Command::new("tar");
    tar.args(["--create", "--numeric-owner", "--file"]).arg(file).arg("--directory");
    assert!(tar.arg(directory).args(names).status().unwrap().success());
}

/// The digest by another program than the one under test.
pub fn sha256(content: &[u8]) -> String {
    let output = filter("sha256sum", &[], content);
    String::from_utf8(output).unwrap()[..64].to_owned()
}

fn filter(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    piped(Command::new(program).args(arguments), input)
}

fn piped(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

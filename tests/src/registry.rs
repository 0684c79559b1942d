//! Registries: Debian's `docker-registry`, behind TLS or not, with a password file or a token
//! server, and what is kept in them.

use crate::certificates::Identity;
use crate::command::Tool;
use crate::tokens::TokenServer;
use crate::{eventually, temporary};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// What is kept in a registry, and a way into it by which everybody may do everything: a
/// `docker-registry` without TLS and passwords.
#[derive(Debug)]
pub struct Registry {
    directory: TempDir,
    process: Process,
}

/// Another way into a registry.
#[derive(Debug)]
pub struct Door(Process);

/// What a door asks for.
#[derive(Clone, Copy, Debug)]
pub enum Access<'a> {
    /// Nothing.
    Anybody,
    /// This user name and password, by HTTP's basic authentication.
    Password(&'a str, &'a str),
    /// A token of this server's.
    Token(&'a TokenServer),
}

impl Default for Registry {
    fn default() -> Self {
        let directory = temporary();
        let process = Process::start(directory.path(), None, Access::Anybody);
        Self { directory, process }
    }
}

impl Registry {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// `localhost:PORT`
    pub fn name(&self) -> String {
        self.process.name()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.process.port
    }

    /// The name of an image in it.
    pub fn image(&self, image: &str) -> String {
        format!("{}/{image}", self.name())
    }

    /// Opens another door.
    pub fn door(&self, tls: Option<&Identity>, access: Access<'_>) -> Door {
        Door(Process::start(self.directory.path(), tls, access))
    }

    /// Copies an image into it, bit for bit, and returns the digest of its manifest.
    pub fn push(&self, from: impl AsRef<OsStr>, image: &str) -> String {
        self.push_with(from, image, &[])
    }

    /// The same, with options of `skopeo copy`.
    pub fn push_with(&self, from: impl AsRef<OsStr>, image: &str, options: &[&str]) -> String {
        let digest = self.directory.path().join("digest");
        Tool::new("skopeo")
            .with(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"])
            .option("--digestfile", &digest)
            .with(options)
            .with([from.as_ref(), format!("docker://{}", self.image(image)).as_ref()])
            .run();
        fs::read_to_string(&digest).unwrap().trim().to_owned()
    }

    /// The bytes of a manifest.
    pub fn manifest(&self, image: &str) -> Vec<u8> {
        let name = format!("docker://{}", self.image(image));
        Tool::new("skopeo").with(["inspect", "--raw", "--tls-verify=false", &name]).run()
    }

    /// Puts a manifest there under a tag or its digest.
    pub fn put_manifest(&self, repository: &str, reference: &str, content: &[u8]) {
        let document: Value = serde_json::from_slice(content).unwrap();
        let media_type = document["mediaType"]
            .as_str()
            .unwrap_or("application/vnd.oci.image.manifest.v1+json")
            .to_owned();
        let address = format!("/v2/{repository}/manifests/{reference}");
        self.send("PUT", &address, &[("Content-Type", &media_type)], content, 201);
    }

    /// Puts a blob there and returns its descriptor of this media type.
    pub fn put_blob(&self, repository: &str, content: &[u8], media_type: &str) -> Value {
        let digest = format!("sha256:{}", crate::image::sha256(content));
        let address = format!("/v2/{repository}/blobs/uploads/");
        let answer = self.send("POST", &address, &[], b"", 202);
        let upload = answer
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .expect("a place for the upload");
        let path = upload.trim().split_once(&self.name()).expect("a place there").1;
        let kind = [("Content-Type", "application/octet-stream")];
        self.send("PUT", &format!("{path}&digest={digest}"), &kind, content, 201);
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    }

    /// The file that holds a blob.
    pub fn blob_file(&self, digest: &str) -> std::path::PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        let blobs = self.directory.path().join("docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        expected: u16,
    ) -> String {
        use std::io::{Read as _, Write as _};
        let mut stream = TcpStream::connect(("127.0.0.1", self.process.port)).unwrap();
        let mut head = format!("{method} {target} HTTP/1.0\r\nHost: {}\r\n", self.name());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let found = answer.split(' ').nth(1).unwrap_or_default();
        assert_eq!(found, expected.to_string(), "{method} {target}\n{answer}");
        answer
    }
}

impl Door {
    /// `localhost:PORT`
    pub fn name(&self) -> String {
        self.0.name()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// The name of an image behind it.
    pub fn image(&self, image: &str) -> String {
        format!("{}/{image}", self.name())
    }
}

/// A running `docker-registry`; it ends with the value.
#[derive(Debug)]
struct Process {
    child: Child,
    port: u16,
    directory: TempDir,
}

impl Process {
    fn start(storage: &Path, tls: Option<&Identity>, access: Access<'_>) -> Self {
        let directory = temporary();
        // Between its being found free and its use nobody else on the test host takes a port.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut http = json!({"addr": format!("127.0.0.1:{port}")});
        if let Some(identity) = tls {
            http["tls"] = json!({"certificate": identity.certificate, "key": identity.key});
        }
        let mut settings = json!({
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": true}},
            "storage": {
                "filesystem": {"rootdirectory": storage},
                "delete": {"enabled": true},
                "maintenance": {"uploadpurging": {"enabled": false}},
            },
            "http": http,
        });
        match access {
            Access::Anybody => {}
            Access::Password(user, password) => {
                let file = directory.path().join("htpasswd");
                let line = Tool::new("htpasswd").with(["-nbB", "-C", "4", user, password]).run();
                fs::write(&file, line).unwrap();
                settings["auth"] = json!({"htpasswd": {"realm": "tests", "path": file}});
            }
            Access::Token(server) => settings["auth"] = json!({"token": server.settings()}),
        }
        // JSON is YAML.
        let file = directory.path().join("settings.yml");
        fs::write(&file, settings.to_string()).unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().expect("docker-registry is installed");
        let mut process = Self { child, port, directory };
        let up = eventually(Duration::from_secs(60), || {
            let ended = process.child.try_wait().unwrap().is_some();
            assert!(!ended, "{}", fs::read_to_string(process.log()).unwrap_or_default());
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        assert!(up, "docker-registry does not listen");
        process
    }

    fn name(&self) -> String {
        format!("localhost:{}", self.port)
    }

    fn log(&self) -> std::path::PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Hosts of their own with ACIs, which are found there by their names.

use super::{
    common::{Tar, layout::gzip},
    server::{Asked, Server, answer},
};
use sandbox_image::{Algorithm, Digest};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
};

/// A host with ACIs at `/NAME-VERSION.aci`, and signatures of them at `/NAME-VERSION.aci.asc`.
pub struct Web {
    pub host: String,
    pub server: Server,
    pub files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Web {
    /// Names hold no port, so each host has an address of its own.
    pub fn new(number: u8) -> Option<Self> {
        let files = Arc::<Mutex<BTreeMap<String, Vec<u8>>>>::default();
        let all = files.clone();
        let web = Self::answering(number, move |asked, to| {
            let all = all.lock().unwrap();
            let Some(bytes) = all.get(&asked.path) else {
                return answer(to, 404, &[], b"");
            };
            let tag = format!("\"{}\"", Digest::of(Algorithm::Sha256, bytes).hex());
            if asked.header("if-none-match") == Some(tag.as_str()) {
                return answer(to, 304, &[], b"");
            }
            answer(to, 200, &[("ETag", &tag)], bytes)
        })?;
        Some(Self { files, ..web })
    }

    /// A host that says where its ACIs are, and answers so if it is asked for anything else.
    pub fn answering(
        number: u8,
        answers: impl Fn(&Asked, &mut dyn Write) -> io::Result<()> + Send + Sync + 'static,
    ) -> Option<Self> {
        let host = format!("127.0.0.{number}");
        let Ok(listener) = TcpListener::bind((host.as_str(), 443)) else {
            eprintln!("skip: only root can be https://{host}, if nobody else is");
            return None;
        };
        let page = format!(
            "<meta name='ac-discovery' content='{host} https://{host}/{{name}}-{{version}}.{{ext}}'>"
        );
        let server = Server::start(
            listener,
            true,
            Arc::new(move |asked, to| match asked.path.as_str() {
                "/?ac-discovery=1" => answer(to, 200, &[], page.as_bytes()),
                path if path.ends_with("?ac-discovery=1") => answer(to, 404, &[], b""),
                _ => answers(asked, to),
            }),
        );
        Some(Self { host, server, files: Arc::default() })
    }

    /// Serves an ACI as the version of that name, and gives it back.
    pub fn put(&self, name: &str, version: &str, aci: &Aci) -> Vec<u8> {
        let bytes = aci.bytes(&self.host);
        let path = format!("/{}/{name}-{version}.aci", self.host);
        let mut files = self.files.lock().unwrap();
        files.insert(format!("{path}.asc"), format!("signature of {name}").into_bytes());
        files.insert(path, bytes.clone());
        bytes
    }

    /// Which ACIs were asked for since the last time, without their signatures.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.server.asked().into_iter().map(|asked| asked.path);
        let mut names: Vec<String> = asked
            .filter_map(|path| Some(path.strip_suffix(".aci")?.rsplit_once('/')?.1.to_owned()))
            .collect();
        names.sort();
        names
    }
}

/// An ACI to be written.
#[derive(Clone)]
pub struct Aci {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub dependencies: Vec<String>,
    pub files: Vec<String>,
}

impl Aci {
    pub fn new(name: &str) -> Self {
        let labels = [("os", "linux"), ("arch", "amd64")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let files = vec![name.to_owned()];
        Self { name: name.to_owned(), labels: labels.into(), dependencies: Vec::new(), files }
    }

    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without_labels(mut self) -> Self {
        self.labels.clear();
        self
    }

    pub fn file(mut self, name: &str) -> Self {
        self.files.push(name.to_owned());
        self
    }

    /// Depends on the image of this name on the same host.
    pub fn on(self, name: &str) -> Self {
        self.on_with(name, "")
    }

    pub fn on_with(mut self, name: &str, more: &str) -> Self {
        self.dependencies.push(format!(r#"{{"imageName":"HOST/{name}"{more}}}"#));
        self
    }

    pub fn manifest(&self, host: &str) -> String {
        let Self { name, labels, dependencies, .. } = self;
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!(r#"{{"name":"{name}","value":"{value}"}}"#))
            .collect();
        format!(
            r#"{{"acKind":"ImageManifest","acVersion":"0.8.11","name":"HOST/{name}",
                "labels":[{}],"dependencies":[{}]}}"#,
            labels.join(","),
            dependencies.join(",")
        )
        .replace("HOST", host)
    }

    pub fn tar(&self, host: &str) -> Vec<u8> {
        let tar = Tar::new().file("manifest", self.manifest(host).as_bytes()).directory("rootfs");
        let tar = self.files.iter().fold(tar, |tar, file| {
            tar.file(&format!("rootfs/{file}"), format!("{file} of {}", self.name).as_bytes())
        });
        tar.finish()
    }

    pub fn bytes(&self, host: &str) -> Vec<u8> {
        gzip(&self.tar(host))
    }

    pub fn id(&self, host: &str) -> Digest {
        Digest::of(Algorithm::Sha512, &self.tar(host))
    }
}

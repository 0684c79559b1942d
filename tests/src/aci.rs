//! App Container Images, made by the specification's own actool.

use crate::command::Tool;
use crate::temporary;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// An image that is being made.
#[derive(Clone, Debug)]
pub struct Aci {
    name: String,
    manifest: Value,
    files: Vec<u8>,
}

impl Aci {
    /// An image of this name with the files of a tar archive, for Linux on x86-64.
    pub fn new(name: &str, files: Vec<u8>) -> Self {
        let manifest = json!({
            "acKind": "ImageManifest", "acVersion": "0.8.11", "name": name,
            "labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"}],
        });
        Self { name: name.to_owned(), manifest, files }
    }

    /// With this version.
    pub fn version(mut self, version: &str) -> Self {
        let label = json!({"name": "version", "value": version});
        self.manifest["labels"].as_array_mut().unwrap().push(label);
        self
    }

    /// With an app that executes this, as root.
    pub fn executes(self, words: &[&str]) -> Self {
        self.with("app", json!({"exec": words, "user": "0", "group": "0"}))
    }

    /// With another member of the manifest.
    pub fn with(mut self, member: &str, value: Value) -> Self {
        self.manifest[member] = value;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes it, compressed by gzip, and returns the reference.
    pub fn write(&self, file: &Path) -> OsString {
        self.build(file, &[])
    }

    /// Writes it without compression.
    pub fn write_plain(&self, file: &Path) -> OsString {
        self.build(file, &["--no-compression"])
    }

    /// Writes it compressed by this program.
    pub fn write_with(&self, program: &str, file: &Path) -> OsString {
        self.write_plain(file);
        let compressed = Tool::new(program).with(["--stdout"]).with([file]).run();
        fs::write(file, compressed).unwrap();
        file.into()
    }

    fn build(&self, file: &Path, options: &[&str]) -> OsString {
        let layout = temporary();
        let rootfs = layout.path().join("rootfs");
        fs::create_dir(&rootfs).unwrap();
        Tool::new("tar")
            .with(["--extract", "--numeric-owner"])
            .option("--directory", &rootfs)
            .stdin(self.files.clone())
            .run();
        fs::write(layout.path().join("manifest"), self.manifest.to_string()).unwrap();
        Tool::new("actool")
            .with(["build", "--overwrite"])
            .with(options)
            .with([layout.path(), file])
            .run();
        file.into()
    }
}

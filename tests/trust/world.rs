//! One image in a registry, and who signs it.

use crate::cases::Key;
use sandbox_tests::certificates::Authority;
use sandbox_tests::image::Image;
use sandbox_tests::registry::{Access, Door, Registry};
use sandbox_tests::{Host, temporary};
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

/// What an image of these tests prints when it runs.
pub const OUTPUT: &str = "trusted\n";

/// The version that the image says it has, and when it says it was made.
pub const VERSION: &str = "1.4.0";
pub const CREATED: &str = "2025-06-01T00:00:00Z";

/// A registry with TLS, and a way in for who prepares a test.
pub struct World {
    pub directory: TempDir,
    pub registry: Registry,
    pub door: Door,
    pub authority: Authority,
    /// The image as a layout.
    pub layout: PathBuf,
    /// Its manifest's digest, in every repository.
    pub digest: String,
}

impl World {
    /// With the image in these repositories, tagged `1`.
    pub fn new(repositories: &[&str]) -> Self {
        let directory = temporary();
        let layout = directory.path().join("layout");
        let reference = image().layout(&layout);
        let registry = Registry::new();
        let mut digest = String::new();
        for repository in repositories {
            digest = registry.push(&reference, &format!("{repository}:1"));
        }
        let authority = Authority::new();
        let door = registry.door(Some(&authority.certify(&["localhost"])), Access::Anybody);
        Self { directory, registry, door, authority, layout, digest }
    }

    /// The image's name, as users have it.
    pub fn name(&self, repository: &str) -> String {
        format!("{}:1", self.repository(repository))
    }

    /// `localhost:PORT/REPOSITORY`
    pub fn repository(&self, repository: &str) -> String {
        self.door.image(repository)
    }

    /// A host that knows the registry.
    pub fn host(&self) -> Host {
        let host = Host::new();
        host.believes(&self.door.name(), &self.authority);
        host
    }

    /// The same, with this policy.
    pub fn host_with(&self, policy: &Value) -> Host {
        let host = self.host();
        host.policy(policy);
        host
    }

    /// A policy that takes everything from the registry.
    pub fn anything(&self) -> Value {
        docker(json!({self.door.name(): anything()}))
    }

    /// A public key in a file.
    pub fn key(&self, name: &str, content: &[u8]) -> Key {
        let file = self.directory.path().join(name);
        std::fs::write(&file, content).unwrap();
        Key(file)
    }
}

/// A small image that has a version and a date, and says that it runs.
pub fn image() -> Image {
    let mut image = Image::tiny_and([]);
    image.config = json!({
        "Cmd": ["/bin/echo", OUTPUT.trim_end()],
        "Labels": {"org.opencontainers.image.version": VERSION},
    });
    image.created = Some(CREATED);
    image
}

/// A policy for images of registries; others are rejected.
pub fn docker(scopes: Value) -> Value {
    json!({"default": reject(), "transports": {"docker": scopes}})
}

/// The requirements that everything meets.
pub fn anything() -> Value {
    json!([{"type": "insecureAcceptAnything"}])
}

/// The requirements that nothing meets.
pub fn reject() -> Value {
    json!([{"type": "reject"}])
}

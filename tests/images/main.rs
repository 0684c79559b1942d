//! Where images come from and how they are kept: real registries, real tools that make images, a
//! store that is killed, filled up and tampered with.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod appc;
mod credentials;
mod failures;
mod files;
mod hostile;
mod registries;
mod store;
mod tampering;
mod tools;

use sandbox_tests::Host;
use sandbox_tests::certificates::Authority;
use sandbox_tests::image::Image;
use sandbox_tests::registry::{Access, Door, Registry};
use sandbox_tests::tar::Tar;
use serde_json::json;

/// An image of two small layers with nothing to run.
fn small(text: &str) -> Image {
    let lower = Tar::new().directory("etc", 0o755).file("etc/lower", 0o644, "lower\n").finish();
    let upper = Tar::new().file("etc/text", 0o640, text).symlink("etc/link", "text").finish();
    let mut image = Image::of([lower, upper]);
    image.config = json!({"Cmd": ["/x"]});
    image
}

/// A registry behind TLS, and who certifies it.
struct Secure {
    registry: Registry,
    authority: Authority,
    door: Door,
}

impl Secure {
    fn new(access: Access<'_>) -> Self {
        let registry = Registry::new();
        let authority = Authority::new();
        let door = registry.door(Some(&authority.certify(&["localhost"])), access);
        Self { registry, authority, door }
    }

    /// A host that takes every image, and knows this registry's authority.
    fn host(&self) -> Host {
        let host = Host::trusting();
        host.believes(&self.door.name(), &self.authority);
        host
    }
}

//! From Docker and OCI to appc, as docker2aci does it.

use super::image::{App, ImageManifest, MountPoint, NameValue, Port};
use crate::pod::manifest::AC_VERSION;
use sandbox_image::{ImageConfig, Reference};

/// Where an image comes from, and what its configuration says about itself.
#[derive(Debug)]
pub struct Origin<'a> {
    /// How it was fetched.
    pub reference: &'a Reference,
    /// Its name, unless it comes from a registry.
    pub name: &'a str,
    /// Digest of its configuration.
    pub image_id: String,
    /// Digest of its manifest; empty if it has none.
    pub manifest_hash: String,
    /// Who made it.
    pub author: String,
    /// When it was made.
    pub created: String,
}

/// The name by which docker2aci knows the registry that Docker calls `docker.io`.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// The manifest that stands for an image in appc's terms.
pub fn convert(origin: &Origin<'_>, config: &ImageConfig) -> ImageManifest {
    let registry = match origin.reference {
        Reference::Registry { image } => Some(match image.registry() {
            "docker.io" => (DOCKER_HUB, image),
            other => (other, image),
        }),
        _ => None,
    };
    let name = match registry {
        Some((host, image)) => format!("{host}/{}", image.repository()),
        None => origin.name.to_owned(),
    };
    let mut labels: Vec<NameValue> =
        config.labels.iter().map(|(name, value)| NameValue::new(name, value)).collect();
    if let Some((_, image)) = registry {
        labels.retain(|label| label.name != "version");
        labels.extend(image.tag().map(|tag| NameValue::new("version", tag)));
    }
    labels.sort_by(|one, two| one.name.cmp(&two.name));

    let mut annotations = Vec::new();
    let mut annotate = |name: &str, value: &str| {
        if !value.is_empty() {
            annotations.push(NameValue::new(name, value));
        }
    };
    annotate("author", &origin.author);
    annotate("created", &origin.created);
    annotate("appc.io/docker/originalname", &origin.reference.to_string());
    if let Some((host, image)) = registry {
        annotate("appc.io/docker/registryurl", host);
        annotate("appc.io/docker/repository", image.repository());
    }
    annotate("appc.io/docker/imageid", &origin.image_id);
    annotate("appc.io/docker/manifesthash", &origin.manifest_hash);
    if let Some(app) = &config.app {
        for (name, words) in
            [("appc.io/docker/entrypoint", &app.entrypoint), ("appc.io/docker/cmd", &app.arguments)]
        {
            if !words.is_empty() {
                annotate(name, &serde_json::json!(words).to_string());
            }
        }
    }
    ImageManifest {
        ac_kind: "ImageManifest".to_owned(),
        ac_version: AC_VERSION.to_owned(),
        name: identifier(&name),
        labels: Some(labels),
        app: config.app.as_ref().map(app),
        annotations: Some(annotations),
        dependencies: None,
        path_whitelist: None,
    }
}

fn app(app: &sandbox_image::App) -> App {
    let pairs = |pairs: &[(String, String)]| pairs.iter().cloned().collect();
    App {
        exec: Some(app.exec().map(str::to_owned).collect()),
        user: app.user.clone(),
        // "To avoid inspecting image content", docker2aci takes the user's name or number again.
        group: if app.group.is_empty() { app.user.clone() } else { app.group.clone() },
        working_directory: Some(app.working_directory.clone()),
        environment: Some(
            app.environment.iter().map(|(name, value)| NameValue::new(name, value)).collect(),
        ),
        mount_points: Some(
            app.mount_points
                .iter()
                .map(|point| MountPoint {
                    name: point.name.clone(),
                    path: point.path.clone(),
                    read_only: point.read_only,
                })
                .collect(),
        ),
        ports: Some(
            app.ports
                .iter()
                .map(|port| Port {
                    name: port.name.clone(),
                    protocol: port.protocol.clone(),
                    port: port.port,
                    count: port.count,
                    socket_activated: port.socket_activated,
                })
                .collect(),
        ),
        user_labels: Some(pairs(&app.user_labels)),
        ..App::default()
    }
}

/// A name as an AC Identifier: in lower case, with `_` for what can't be in one, and nothing but
/// letters and digits at its ends.
fn identifier(name: &str) -> String {
    const MARKS: [char; 5] = ['-', '.', '_', '~', '/'];
    let replaced: String = name
        .to_lowercase()
        .chars()
        .map(|character| match character {
            'a'..='z' | '0'..='9' => character,
            _ if MARKS.contains(&character) => character,
            _ => '_',
        })
        .collect();
    let mut identifier = String::new();
    for character in replaced.trim_matches(MARKS).chars() {
        // Two marks in a row are one too many.
        if !MARKS.contains(&character) || !identifier.ends_with(MARKS) {
            identifier.push(character);
        }
    }
    if identifier.is_empty() { "image".to_owned() } else { identifier }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_become_identifiers() {
        for (name, expected) in [
            ("registry-1.docker.io/library/busybox", "registry-1.docker.io/library/busybox"),
            ("localhost:5000/Team/App", "localhost_5000/team/app"),
            ("/srv/layout", "srv/layout"),
            ("a//b", "a/b"),
            ("...", "image"),
        ] {
            assert_eq!(identifier(name), expected, "{name}");
        }
    }

    proptest! {
        /// appc: `^[a-z0-9]+([-._~/][a-z0-9]+)*$`
        #[test]
        fn whatever_the_name_is_the_identifier_is_one(name in ".{0,30}") {
            let identifier = identifier(&name);
            for part in identifier.split(['-', '.', '_', '~', '/']) {
                prop_assert!(!part.is_empty(), "{identifier}");
                prop_assert!(
                    part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()),
                    "{identifier}"
                );
            }
        }
    }
}

//! How servers are spoken to: what this host's files say about registries, certificates and
//! credentials. It is read here, so that the fetcher opens no file, and only for what is fetched.
//!
//! ```text
//! auth.d, containers-auth.json, config.json, helpers ──▶ credentials of the places of one image
//! /etc/containers/registries.conf[.d]               ──▶ mirrors, moved and blocked registries
//! /etc/containers/registries.d                      ──▶ where its simple signatures are
//! /etc/{containers,docker}/certs.d, ca-certificates ──▶ authorities, client certificates
//! ```
//!
//! Of credentials for one registry those of rkt's `auth.d` count first, which the command line can
//! choose the directories of.

use super::ImageSettings;
use sandbox_image::credentials::{ContainersError, Places, RktAuth, RktAuthError, Sources};
use sandbox_image::discovery::AppcName;
use sandbox_image::http::{self, CertificatePaths, Certificates, CertificatesError, Url};
use sandbox_image::registry::{
    self, LookasideError, Lookasides, RegistryReference, Rules, RulesError,
};
use sandbox_image::{Network, Reference};
use std::path::Path;

/// Where container tools are configured.
const CONTAINERS: &str = "/etc/containers";

/// Why servers can't be spoken to. The message names the file.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// See [`RktAuthError`].
    #[error("credentials: {0}")]
    Rkt(#[from] RktAuthError),
    /// See [`ContainersError`].
    #[error("credentials: {0}")]
    Containers(#[from] ContainersError),
    /// See [`RulesError`].
    #[error("registries: {0}")]
    Rules(#[from] RulesError),
    /// See [`LookasideError`].
    #[error("where signatures are: {0}")]
    Lookaside(#[from] LookasideError),
    /// See [`CertificatesError`].
    #[error("certificates: {0}")]
    Certificates(#[from] CertificatesError),
    /// The rules block the image.
    #[error(transparent)]
    Blocked(#[from] registry::Error),
}

/// What is needed to fetch an image, or to send one to a registry.
///
/// # Errors
/// See [`NetworkError`].
pub fn network(settings: &ImageSettings, reference: &Reference) -> Result<Network, NetworkError> {
    match reference {
        Reference::Registry { image } => of_registry(settings, image, Path::new(CONTAINERS)),
        Reference::AciUrl { url } => of_web(settings, [url.authority().as_str()]),
        Reference::Appc { name } => of_name(settings, name),
        // Nothing is fetched by its ID.
        Reference::Id { .. }
        | Reference::OciLayout { .. }
        | Reference::OciArchive { .. }
        | Reference::DockerArchive { .. }
        | Reference::Aci { .. } => Ok(Network::default()),
    }
}

/// What is needed to ask the web server of a URL.
///
/// # Errors
/// See [`NetworkError`].
pub fn of_url(settings: &ImageSettings, url: &Url) -> Result<Network, NetworkError> {
    of_web(settings, [url.authority().as_str()])
}

/// What is needed to ask these web servers, `HOST[:PORT]` each.
///
/// # Errors
/// See [`NetworkError`].
pub fn of_hosts(settings: &ImageSettings, hosts: &[&str]) -> Result<Network, NetworkError> {
    of_web(settings, hosts.iter().copied())
}

/// What is needed to discover what there is for a name.
///
/// # Errors
/// See [`NetworkError`].
pub fn of_name(settings: &ImageSettings, name: &AppcName) -> Result<Network, NetworkError> {
    of_web(settings, name.name().split('/').next())
}

fn of_registry(
    settings: &ImageSettings,
    image: &RegistryReference,
    containers: &Path,
) -> Result<Network, NetworkError> {
    let rules = Rules::load(containers)?;
    let rkt = RktAuth::load(settings.directories.in_order())?;
    let hosts = registry::Options::hosts(image, &rules)?;
    let lookaside = Lookasides::load(&containers.join("registries.d"))?.of(image).cloned();
    let http = http::Options {
        certificates: certificates(hosts.iter().map(String::as_str))?,
        ..insecure(settings)
    };
    // Helpers may ask the user, and files may be malformed: they are looked at only if needed.
    let mut sources = None;
    let registry = registry::Options::of(image, rules, http, &mut |place| {
        if let Some(credential) = rkt.credential(place) {
            return Ok::<_, NetworkError>(Some(credential.clone()));
        }
        let sources = match &mut sources {
            Some(sources) => sources,
            none => none.insert(Sources::load(&Places::of_environment())?),
        };
        Ok(sources.credential(place)?)
    })?;
    Ok(Network { registry, lookaside, ..Network::default() })
}

fn of_web<'a>(
    settings: &ImageSettings,
    hosts: impl IntoIterator<Item = &'a str>,
) -> Result<Network, NetworkError> {
    let rkt = RktAuth::load(settings.directories.in_order())?;
    let http = http::Options {
        certificates: certificates(hosts)?,
        authorizations: rkt.authorizations().clone(),
        ..insecure(settings)
    };
    Ok(Network { http, ..Network::default() })
}

fn insecure(settings: &ImageSettings) -> http::Options {
    http::Options {
        insecure_http: settings.insecure.allow_http(),
        insecure_tls: settings.insecure.skip_tls_check(),
        ..http::Options::default()
    }
}

fn certificates<'a>(
    hosts: impl IntoIterator<Item = &'a str>,
) -> Result<Certificates, CertificatesError> {
    let bundle = std::env::var_os("SSL_CERT_FILE").map(Into::into);
    Certificates::load(&CertificatePaths::system(bundle), hosts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Directories;
    use serde_json::{Value, json};
    use std::fs;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new(files: &[(&str, &str)]) -> Self {
            let root = tempfile::tempdir().unwrap();
            for (path, content) in files {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            Self(root)
        }

        fn settings(&self, insecure: &str) -> ImageSettings {
            let place = |name| self.0.path().join(name);
            ImageSettings {
                data_dir: place("data"),
                directories: Directories {
                    system: place("system"),
                    local: place("local"),
                    user: Some(place("user")),
                },
                policy: place("policy.json"),
                insecure: insecure.parse().unwrap(),
                trust_keys_from_https: false,
            }
        }

        fn registry(&self, reference: &str, insecure: &str) -> Result<Network, NetworkError> {
            let image = RegistryReference::parse(reference).unwrap();
            of_registry(&self.settings(insecure), &image, &self.0.path().join("containers"))
        }
    }

    const AUTH: &str = r#"{"rktKind": "dockerAuth", "rktVersion": "v1",
        "registries": ["r.example.com"], "credentials": {"user": "u", "password": "geheim"}}"#;
    const DOMAIN: &str = r#"{"rktKind": "auth", "rktVersion": "v1", "domains": ["example.com"],
        "type": "oauth", "credentials": {"token": "geheim"}}"#;

    #[test]
    fn a_registry_gets_its_own_credentials_and_mirrors_and_no_others() {
        let mirror = "[[registry]]\nprefix = \"other.example.com\"\n\
                      location = \"mirror.example.com/x\"\ninsecure = true\n";
        let host = Host::new(&[
            ("local/auth.d/r.json", AUTH),
            ("user/auth.d/d.json", DOMAIN),
            ("containers/registries.conf", mirror),
        ]);
        let value = |reference| -> Value {
            let network = host.registry(reference, "none").unwrap();
            serde_json::to_value(network.registry).unwrap()
        };
        let options = value("r.example.com/a/b:1");
        let credential = json!({"basic": {"user": "u", "password": "geheim"}});
        assert_eq!(options["credentials"], json!({"r.example.com/a/b": credential}));
        assert_eq!(options["http"]["authorizations"], json!({}));
        assert_eq!(options["http"]["insecure_http"], false);
        let options = value("other.example.com/a");
        assert_eq!(options["credentials"], json!({}));
        assert_eq!(options["http"]["insecure_hosts"], json!(["mirror.example.com"]));
    }

    #[test]
    fn insecure_options_are_passed_on_one_by_one() {
        let host = Host::new(&[]);
        for (insecure, http, tls) in [
            ("none", false, false),
            ("image", false, false),
            ("http", true, false),
            ("tls", false, true),
            ("pubkey", false, false),
            ("all-fetch", true, true),
            ("all", true, true),
        ] {
            let options = host.registry("r.example.com/a", insecure).unwrap().registry.http;
            assert_eq!((options.insecure_http, options.insecure_tls), (http, tls), "{insecure}");
            let url = Reference::parse("https://example.com/a.aci".as_ref()).unwrap();
            let options = network(&host.settings(insecure), &url).unwrap().http;
            assert_eq!((options.insecure_http, options.insecure_tls), (http, tls), "{insecure}");
        }
    }

    #[test]
    fn a_web_server_gets_what_rkt_has_for_domains_and_files_on_disk_nothing() {
        let host = Host::new(&[("local/auth.d/r.json", AUTH), ("user/auth.d/d.json", DOMAIN)]);
        let options = |reference: &str| {
            let reference = Reference::parse(reference.as_ref()).unwrap();
            network(&host.settings("none"), &reference).unwrap()
        };
        for reference in ["https://example.com/a.aci", "example.com/app:1"] {
            let network = options(reference);
            let domains: Vec<_> = network.http.authorizations.keys().collect();
            assert_eq!(domains, ["example.com"], "{reference}");
        }
        assert!(options("oci:/srv/layout").http.authorizations.is_empty());
    }

    #[test]
    fn an_error_names_the_file_and_shows_no_secret() {
        let broken = AUTH.replace("\"credentials\"", "credentials");
        let host = Host::new(&[("local/auth.d/r.json", &broken)]);
        let error = host.registry("r.example.com/a", "none").unwrap_err().to_string();
        assert!(error.starts_with("credentials: "), "{error}");
        assert!(error.contains("local/auth.d/r.json") && !error.contains("geheim"), "{error}");
    }
}

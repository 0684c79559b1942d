//! Where a policy may say something about an image, from the most specific place.

use super::docker_reference::{is_host, is_host_by_looks, is_name, is_tag};
use crate::Identity;
use sandbox_image::Text;

/// The transports that containers-policy.json(5) and its tools know, and `aci`, which is ours.
/// Rules for those that no image comes from here are read, checked, and never needed.
pub(super) const TRANSPORTS: &[&str] = &[
    "aci",
    "atomic",
    "containers-storage",
    "dir",
    "docker",
    "docker-archive",
    "docker-daemon",
    "oci",
    "oci-archive",
    "ostree",
    "sif",
    "tarball",
];

/// Where an image comes from, in the policy's words.
#[derive(Debug)]
pub(crate) struct Place {
    /// The transport.
    pub transport: &'static str,
    /// Its scopes that hold the image, from the most specific one, the empty one excepted.
    pub scopes: Vec<String>,
}

impl Place {
    /// Where `image` is.
    ///
    /// # Errors
    /// If the caller passes what can't be looked up: a path that is not absolute.
    pub(crate) fn of(image: &Identity<'_>) -> Result<Self, String> {
        let place = |transport, scopes| Ok(Self { transport, scopes });
        match *image {
            Identity::Docker { registry, repository, tag, ref digest } => {
                let name = format!("{registry}/{repository}");
                let mut scopes = Vec::new();
                scopes.extend(digest.as_ref().map(|digest| format!("{name}@{digest}")));
                scopes.extend(tag.map(|tag| format!("{name}:{tag}")));
                scopes.extend(prefixes(&name).map(str::to_owned));
                scopes.extend(wildcards(registry));
                place("docker", scopes)
            }
            Identity::Oci { path, name } => place("oci", path_scopes(path, name)?),
            Identity::OciArchive { path, name } => place("oci-archive", path_scopes(path, name)?),
            // As with the other tools, which know no scope of it but the empty one.
            Identity::DockerArchive { .. } => place("docker-archive", Vec::new()),
            Identity::Aci { name, .. } => place("aci", prefixes(name).map(str::to_owned).collect()),
        }
    }
}

/// `a/b/c`, `a/b`, `a`.
pub(crate) fn prefixes(name: &str) -> impl Iterator<Item = &str> {
    let mut next = Some(name);
    std::iter::from_fn(move || {
        let this = next?;
        next = this.rsplit_once('/').map(|(parent, _)| parent);
        Some(this)
    })
}

/// `*.example.com` and `*.com` for `registry.example.com:5000`.
fn wildcards(registry: &str) -> impl Iterator<Item = String> {
    let host = registry.split_once(':').map_or(registry, |(host, _)| host);
    let mut rest = host;
    std::iter::from_fn(move || {
        rest = rest.split_once('.')?.1;
        Some(format!("*.{rest}"))
    })
}

fn path_scopes(path: &str, name: Option<&str>) -> Result<Vec<String>, String> {
    if !is_clean_path(path) {
        return Err(format!("'{}' is not an absolute path", Text::new(path)));
    }
    let named = name.map(|name| format!("{path}:{name}"));
    Ok(named
        .into_iter()
        .chain(prefixes(path).filter(|path| !path.is_empty()).map(str::to_owned))
        .collect())
}

/// Absolute, without `.`, `..`, doubled or trailing slashes, and not the root itself.
pub(crate) fn is_clean_path(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').all(|part| !matches!(part, "" | "." | "..")) && !rest.contains('\0')
    })
}

/// Refuses a scope that could never hold an image: it was meant for something else than it says.
pub(super) fn check(transport: &str, scope: &str) -> Result<(), String> {
    match transport {
        _ if scope.is_empty() => Ok(()),
        "docker-archive" | "tarball" => {
            Err(format!("images of {transport} have no scope but the empty one (\"\")"))
        }
        _ => check_form(transport, scope).map_err(|problem| format!("the scope {problem}")),
    }
}

fn check_form(transport: &str, scope: &str) -> Result<(), &'static str> {
    match transport {
        "docker" | "atomic" => check_docker(scope),
        "oci" | "oci-archive" => {
            // A path may hold colons, a name may hold slashes: one reading must be right.
            let places = scope.match_indices(':').map(|(place, _)| place);
            if is_clean_path(scope) || places.clone().any(|at| is_clean_path(&scope[..at])) {
                return Ok(());
            }
            Err("should be an absolute path without '.', '..' and trailing slashes, or such a \
                 path and :NAME; for all paths use the empty scope")
        }
        "dir" if is_clean_path(scope) => Ok(()),
        "dir" => Err("should be an absolute path without '.', '..' and trailing slashes; for all \
                      paths use the empty scope"),
        "aci" if is_ac_identifier(scope) => Ok(()),
        "aci" => Err("should be the beginning of an ACI's name, whole components of it"),
        _ => Ok(()),
    }
}

fn check_docker(scope: &str) -> Result<(), &'static str> {
    if let Some(domain) = scope.strip_prefix("*.") {
        let single = !domain.contains([':', '*', '/']);
        return if single && (is_host(domain) || is_host(&format!("x.{domain}"))) {
            Ok(())
        } else {
            Err("should be *.DOMAIN, without a port or path: a wildcard stands for the first part \
                 of a host's name only")
        };
    }
    if scope.contains('*') {
        return Err("has a '*' where none can be: only *.DOMAIN is known");
    }
    let (name, digest) = match scope.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (scope, None),
    };
    let (name, tag) = match name.rsplit_once(':') {
        Some((rest, tag)) if rest.contains('/') && !tag.contains('/') => (rest, Some(tag)),
        _ => (name, None),
    };
    let first = name.split('/').next().unwrap_or_default();
    if !is_host_by_looks(first) {
        return Err("should begin with the registry's host, as docker.io/library/debian does: \
                    names are not expanded here");
    }
    let whole = digest.is_none() && tag.is_none() && is_host(name);
    let digest = digest.is_none_or(|digest| digest.parse::<sandbox_image::Digest>().is_ok());
    if whole || (is_name(name) && tag.is_none_or(is_tag) && digest) {
        return Ok(());
    }
    Err("is not HOST[:PORT][/PATH][:TAG or @DIGEST]")
}

/// The identifier of appc's spec, "AC Identifier Type".
pub(crate) fn is_ac_identifier(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_separator = |byte: u8| matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/');
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(is_word)
        && bytes.last().copied().is_some_and(is_word)
        && bytes.iter().all(|&byte| is_word(byte) || is_separator(byte))
        && bytes.windows(2).all(|pair| !(is_separator(pair[0]) && is_separator(pair[1])))
}

/// `HOST[:PORT][/PATH]`, without a tag or digest.
pub(crate) fn is_docker_prefix(text: &str) -> bool {
    is_host(text) || is_name(text)
}

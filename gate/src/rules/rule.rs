//! A rule of version 2.

use super::{
    age::Age,
    check::{Finding, ImageFacts},
    check_prefix, is_below,
};
use crate::{
    Launch, Verifier,
    launch::Program,
    policy::is_clean_path,
    strict::{JsonError, Members, Value},
};
use sandbox_image::{Algorithm, Digest, Text};
use std::path::{Component, Path, PathBuf};

/// What has to be so for the images below a name, and for pods that have one of them.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    prefix: Option<String>,
    tenant: Option<String>,
    require: Require,
    age: Age,
    kernels: Option<Kernels>,
    monitors: Option<Vec<Digest>>,
    volumes: Option<Vec<PathBuf>>,
    networks: Option<Vec<String>>,
    capabilities: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default)]
struct Require {
    signature: bool,
    tpm: Option<Verifier>,
    selinux: bool,
    verity: bool,
}

/// Guest kernels that are allowed.
#[derive(Debug, Clone, Default)]
struct Kernels {
    installed: bool,
    digests: Vec<Digest>,
}

/// The word for the kernel that came with this program.
const INSTALLED: &str = "installed";

impl Rule {
    pub(super) fn parse(value: Value, path: &str) -> Result<Self, JsonError> {
        let mut members = Members::of(value, path)?;
        let prefix = members.optional_string("prefix")?;
        if let Some(prefix) = &prefix {
            check_prefix(prefix, &members)?;
        }
        let tenant = members.optional_string("tenant")?;
        if let Some(problem) = tenant.as_deref().and_then(|tenant| not_a_name(tenant, "._-")) {
            return Err(JsonError::at(&members.path_of("tenant"), problem));
        }
        let require = match members.has("require") {
            true => Some(Require::parse(members.object("require")?)?),
            false => None,
        };
        let rule = Self {
            prefix,
            tenant,
            age: Age::take(&mut members)?,
            kernels: list(&mut members, "kernels", kernel)?.map(|list| Kernels {
                installed: list.iter().any(Option::is_none),
                digests: list.into_iter().flatten().collect(),
            }),
            monitors: list(&mut members, "monitors", digest)?,
            volumes: list(&mut members, "volumes", host_path)?,
            networks: list(&mut members, "networks", network)?,
            capabilities: list(&mut members, "capabilities", capability)?,
            require: require.clone().unwrap_or_default(),
        };
        let lists = [
            rule.kernels.is_some(),
            rule.monitors.is_some(),
            rule.volumes.is_some(),
            rule.networks.is_some(),
            rule.capabilities.is_some(),
        ];
        if require.is_none() && rule.age.is_empty() && !lists.contains(&true) {
            return Err(members.problem("asks for nothing"));
        }
        members.finish()?;
        Ok(rule)
    }

    pub(super) fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    pub(super) fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    pub(super) fn asks_for_kernel_digest(&self) -> bool {
        self.kernels.as_ref().is_some_and(|kernels| !kernels.digests.is_empty())
    }

    pub(super) fn asks_for_monitor_digest(&self) -> bool {
        self.monitors.is_some()
    }

    /// Which measurement it asks for.
    pub(crate) fn measurement(&self) -> Option<Verifier> {
        self.require.tpm
    }

    /// Whether it is about images of this name.
    pub(super) fn is_about(&self, key: &str) -> bool {
        self.prefix.as_deref().is_none_or(|prefix| is_below(key, prefix))
    }

    /// Whether it is about pods of this one's tenant.
    pub(super) fn holds_for(&self, launch: &Launch) -> bool {
        self.tenant.is_none() || self.tenant == launch.tenant
    }

    /// What it asks of an image.
    pub(super) fn of_image(&self, image: &ImageFacts<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.require.signature {
            let demand = "a signature that counts";
            findings.push(match image.keys {
                [] => Finding::unmet(
                    demand,
                    "no signature of the image was accepted, and the rule asks for one, also where \
                     the policy or an option does not: sign it, and name the key in the policy",
                ),
                keys => Finding::met(demand, format!("signed by {}", keys.join(", "))),
            });
        }
        findings.extend(self.age.findings(image));
        findings
    }

    /// What it asks of a pod, but for the measurement. Without one, everything stays open.
    pub(super) fn of_pod(&self, launch: Option<&Launch>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut ask =
            |demand: String, look: &dyn Fn(&Launch) -> Result<String, Vec<String>>| match launch
                .map(look)
            {
                None => findings.push(Finding::open(demand, "known when a pod is launched")),
                Some(Ok(found)) => findings.push(Finding::met(demand, found)),
                Some(Err(problems)) => findings
                    .extend(problems.into_iter().map(|problem| Finding::unmet(&demand, problem))),
            };
        if self.require.selinux {
            ask("an SELinux label".to_owned(), &|launch| match &launch.label {
                Some(label) => Ok(format!("the pod's label is {}", Text::new(label))),
                None => Err(vec!["the pod has no SELinux label".to_owned()]),
            });
        }
        if self.require.verity {
            ask("verified root file systems".to_owned(), &|launch| match launch.verified {
                true => Ok("the guest verifies every root file system".to_owned()),
                false => Err(vec!["a root file system is not verified as it is read".to_owned()]),
            });
        }
        if let Some(Kernels { installed, digests }) = &self.kernels {
            let words = installed.then_some(INSTALLED.to_owned());
            let words = words.into_iter().chain(digests.iter().map(Digest::to_string));
            ask(one_of_these("guest kernel", words), &|launch| {
                if *installed && launch.kernel_is_installed {
                    return Ok("the guest kernel is the installed one".to_owned());
                }
                one_of("guest kernel", &launch.kernel, digests)
            });
        }
        if let Some(digests) = &self.monitors {
            let words = digests.iter().map(Digest::to_string);
            ask(one_of_these("monitor", words), &|launch| {
                one_of("monitor", &launch.monitor, digests)
            });
        }
        if let Some(allowed) = &self.volumes {
            let words = allowed.iter().map(|path| Text::of_os(path).to_string());
            ask(only("volumes of the host", words), &|launch| {
                let of_host = launch.volumes.iter().filter_map(|volume| {
                    let host = volume.host.as_deref()?;
                    let is_allowed = allowed.iter().any(|above| is_within(host, above));
                    let name = Text::new(&volume.name);
                    Some((format!("volume {name}, {}", Text::of_os(host)), is_allowed))
                });
                all_allowed("volumes of the host", of_host)
            });
        }
        if let Some(allowed) = &self.networks {
            ask(only("networks", allowed.iter().cloned()), &|launch| {
                let networks = launch.networks.iter().map(|network| {
                    (format!("network {}", Text::new(network)), allowed.contains(network))
                });
                all_allowed("networks", networks)
            });
        }
        if let Some(allowed) = &self.capabilities {
            ask(only("added capabilities", allowed.iter().cloned()), &|launch| {
                let of_apps = launch.capabilities.iter().flat_map(|(app, capabilities)| {
                    capabilities.iter().map(move |capability| (app, capability))
                });
                let capabilities = of_apps.map(|(app, capability)| {
                    let what = format!("{} of app {}", Text::new(capability), Text::new(app));
                    (what, allowed.contains(capability))
                });
                all_allowed("added capabilities", capabilities)
            });
        }
        if let Some(by) = self.require.tpm {
            let demand = match by {
                Verifier::Local => "a measurement that this host or a service has verified",
                Verifier::Service => "a measurement that a service has verified",
            };
            findings.push(Finding::open(demand, "known when the launch has been measured"));
        }
        findings
    }
}

impl Require {
    fn parse(mut members: Members) -> Result<Self, JsonError> {
        let require = Self {
            signature: only_true(&mut members, "signature")?,
            tpm: match members.take("tpm") {
                None => None,
                Some(Value::Bool(true)) => Some(Verifier::Local),
                Some(Value::String(word)) if word == "service" => Some(Verifier::Service),
                Some(_) => {
                    let problem = "should be true or \"service\"; leave it out if nothing is asked";
                    return Err(JsonError::at(&members.path_of("tpm"), problem));
                }
            },
            selinux: only_true(&mut members, "selinux")?,
            verity: only_true(&mut members, "verity")?,
        };
        let Self { signature, tpm, selinux, verity } = &require;
        if !(*signature || tpm.is_some() || *selinux || *verity) && members.is_empty() {
            return Err(members.problem("asks for nothing"));
        }
        members.finish()?;
        Ok(require)
    }
}

fn only_true(members: &mut Members, name: &str) -> Result<bool, JsonError> {
    match members.take(name) {
        None => Ok(false),
        Some(Value::Bool(true)) => Ok(true),
        Some(_) => {
            let problem = "can only be true: a rule can't take back what another asks for, so leave \
                           it out instead";
            Err(JsonError::at(&members.path_of(name), problem))
        }
    }
}

/// A list of texts that `read` understands.
fn list<T>(
    members: &mut Members,
    name: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<Vec<T>>, JsonError> {
    let path = members.path_of(name);
    let Some(value) = members.take(name) else { return Ok(None) };
    let entry = |(place, value): (usize, Value)| {
        let path = format!("{path}[{place}]");
        read(&value.string(&path)?).map_err(|problem| JsonError::at(&path, problem))
    };
    value.array(&path)?.into_iter().enumerate().map(entry).collect::<Result<_, _>>().map(Some)
}

fn digest(text: &str) -> Result<Digest, String> {
    let digest = text.parse().ok();
    digest
        .filter(|digest: &Digest| digest.algorithm() == Algorithm::Sha256)
        .ok_or_else(|| "should be sha256: and 64 lower-case hexadecimal digits".to_owned())
}

/// `None` for the installed one.
fn kernel(text: &str) -> Result<Option<Digest>, String> {
    if text == INSTALLED {
        return Ok(None);
    }
    digest(text).map(Some).map_err(|problem| format!("{problem}, or {INSTALLED}"))
}

fn host_path(text: &str) -> Result<PathBuf, String> {
    if is_clean_path(text) {
        return Ok(PathBuf::from(text));
    }
    Err("should be an absolute path below '/', without '.', '..' and a '/' at the end".to_owned())
}

fn network(text: &str) -> Result<String, String> {
    not_a_name(text, "._-").map_or_else(|| Ok(text.to_owned()), Err)
}

/// capabilities(7): `CAP_NET_ADMIN`.
fn capability(text: &str) -> Result<String, String> {
    let is_one = text.strip_prefix("CAP_").is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    });
    if is_one { Ok(text.to_owned()) } else { Err("should be a name as CAP_NET_ADMIN".to_owned()) }
}

/// What is wrong with a name.
fn not_a_name(text: &str, also: &str) -> Option<String> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || also.as_bytes().contains(&byte);
    let fine = (1..=253).contains(&text.len()) && text.bytes().all(is_fine);
    (!fine).then(|| "should be a name of letters, digits, '.', '_' and '-'".to_owned())
}

/// `the guest kernel to be A or B`.
fn one_of_these(what: &str, words: impl Iterator<Item = String>) -> String {
    let words: Vec<_> = words.collect();
    if words.is_empty() {
        return format!("the {what} to be one that is allowed, and none is");
    }
    format!("the {what} to be {}", words.join(" or "))
}

/// `no networks but A, B`.
fn only(what: &str, words: impl Iterator<Item = String>) -> String {
    let words: Vec<_> = words.collect();
    if words.is_empty() {
        format!("no {what}")
    } else {
        format!("no {what} but {}", words.join(", "))
    }
}

fn one_of(what: &str, program: &Program, allowed: &[Digest]) -> Result<String, Vec<String>> {
    let path = Text::of_os(&program.path);
    match &program.digest {
        Some(digest) if allowed.contains(digest) => {
            Ok(format!("the {what} {path} is {digest}, which is allowed"))
        }
        Some(digest) => Err(vec![format!("the {what} {path} is {digest}, which is not allowed")]),
        None => Err(vec![format!("the {what} {path} is not allowed: its digest is not known")]),
    }
}

/// Whether a path is `above`, or below it by whole components. A path that says `..` is not.
fn is_within(path: &Path, above: &Path) -> bool {
    path.components().all(|part| part != Component::ParentDir) && path.starts_with(above)
}

fn all_allowed(
    what: &str,
    found: impl Iterator<Item = (String, bool)>,
) -> Result<String, Vec<String>> {
    let (mut names, mut problems) = (Vec::new(), Vec::new());
    for (name, is_allowed) in found {
        if is_allowed {
            names.push(name);
        } else {
            problems.push(format!("{name} is not allowed"));
        }
    }
    match (problems.is_empty(), names.is_empty()) {
        (false, _) => Err(problems),
        (true, true) => Ok(format!("the pod has no {what}")),
        (true, false) => Ok(format!("allowed: {}", names.join("; "))),
    }
}

//! The host's own rules, `gate.d/*.json`: what images and pods have to be like here, whoever signed
//! them. Nothing on a command line overrides them.
//!
//! # Version 2
//!
//! ```json
//! {"version": 2, "rules": [
//!   {"require": {"signature": true, "verity": true}, "kernels": ["installed"]},
//!   {"prefix": "registry.example.com/team", "tenant": "payments",
//!    "require": {"tpm": "service", "selinux": true},
//!    "minimumVersion": "1.2.3", "notBefore": "2026-01-01T00:00:00Z",
//!    "volumes": ["/srv/data"], "networks": [], "capabilities": ["CAP_NET_ADMIN"]}
//! ]}
//! ```
//!
//! A rule holds for the images below `prefix`, for all if there is none, and for the pods of
//! `tenant`, for all if there is none. A pod without a tenant is nobody's: rules with a tenant don't
//! hold for it. A rule for everybody should name none.
//!
//! **All rules that hold for an image apply together.** A rule can therefore only tighten what the
//! others say, and their order, and the file they are in, mean nothing: what one rule refuses,
//! no other allows. (Lists work alike: what a pod may have is what *every* list has.)
//!
//! About each image:
//!
//! - `require.signature`: at least one signature of a key that the policy names was accepted. An
//!   image that runs since the policy accepts anything, or by `--insecure-options=image`, has none.
//! - `notBefore`: held against the time of the signatures by which the image is accepted (of those
//!   that meet one requirement the newest, of all requirements the oldest), or if there is none
//!   that says its time, against the time when the image was made by its own account.
//! - `minimumVersion`: held against the image's version by its own account: an ACI's label
//!   `version`, or `org.opencontainers.image.version`. The order is that of Semantic Versioning
//!   with any count of numbers: `1.10` comes after `1.9`, `1.2.3-rc1` and `1.2.3-alpine` before
//!   `1.2.3`. A version that is not of this form is refused.
//!
//! About the whole pod, as soon as the rule holds for one of its images, or for one that they depend
//! on:
//!
//! - `require.tpm`: the launch has to be measured into the TPM, and the measurement to be verified,
//!   by this host itself or by a service (`true`), or by a service (`"service"`).
//! - `require.selinux`: it has to have a label.
//! - `require.verity`: the guest has to verify what it reads of every root file system.
//! - `kernels`, `monitors`: the digests, as `sha256:HEX`, of the guest kernels and of the programs
//!   `sandbox-vmm` that it may have; in `kernels` also `installed`, for the one that was installed
//!   with this program, whatever its digest.
//! - `volumes`: the directories and files of the host that it may be given, with all below them: whole
//!   components, symbolic links resolved. `[]` forbids all. Empty volumes are not of the host.
//! - `networks`, `capabilities`: those that it may have, by name. `[]` forbids all. Capabilities are
//!   those that an app gets beyond the usual ones.
//!
//! What is left out is not asked for; what is not known here is an error, and so is `false` in
//! `require`, which would look as if it took back what another rule asks for.
//!
//! # Version 1
//!
//! ```json
//! {"version": 1, "images": [
//!   {"prefix": "docker.io/library/debian", "notBefore": "2026-01-01T00:00:00Z"},
//!   {"prefix": "example.com/app", "minimumVersion": "1.2.3"}
//! ]}
//! ```
//!
//! Of these rules, in all files together, the one with the most specific prefix alone counts, so
//! that one for a part can be laxer; two for one prefix are an error. What it allows, a rule of
//! version 2 can still refuse.
//!
//! # Both
//!
//! `prefix` is whole components of an image's name, as a policy writes it: `HOST/REPOSITORY` without
//! a tag, the name of an App Container Image, or the path of a local layout or archive. An image that
//! does not say what a rule asks for is refused.

mod age;
mod check;
mod rule;

#[cfg(test)]
mod tests;

pub(crate) use check::ImageFacts;
pub use check::{Answer, Check};
pub(crate) use rule::Rule;

use crate::{
    Identity, Launch,
    policy::{is_ac_identifier, is_clean_path, is_docker_prefix, prefixes},
    strict::{JsonError, Members, Value},
};
use age::Age;
use sandbox_image::Text;
use std::path::{Path, PathBuf};

/// The rules of one file.
#[derive(Debug, Clone)]
pub struct Rules(Content);

#[derive(Debug, Clone)]
enum Content {
    Version1(Vec<Anchored>),
    Version2(Vec<Rule>),
}

/// A rule of version 1.
#[derive(Debug, Clone)]
struct Anchored {
    prefix: String,
    age: Age,
}

impl Rules {
    /// The most bytes that a file may have.
    pub const MAX: usize = 1024 * 1024;

    /// Parses a file.
    ///
    /// # Errors
    /// If it is too large, is not what is described above, or says a thing twice.
    pub fn parse(document: &[u8]) -> Result<Self, JsonError> {
        let mut members = Members::of(Value::parse(document, Self::MAX)?, "")?;
        let content = match members.required("version")?.integer("version")? {
            1 => Content::Version1(Anchored::list(members.required("images")?)?),
            2 => {
                let list = members.required("rules")?.array("rules")?.into_iter().enumerate();
                let rule = |(place, value)| Rule::parse(value, &format!("rules[{place}]"));
                Content::Version2(list.map(rule).collect::<Result<_, _>>()?)
            }
            version => {
                let problem = format!("is {version}; only 1 and 2 are known here");
                return Err(JsonError::at("version", problem));
            }
        };
        members.finish()?;
        Ok(Self(content))
    }
}

impl Anchored {
    fn list(value: Value) -> Result<Vec<Self>, JsonError> {
        let mut rules: Vec<Self> = Vec::new();
        for (place, value) in value.array("images")?.into_iter().enumerate() {
            let mut members = Members::of(value, &format!("images[{place}]"))?;
            let prefix = members.string("prefix")?;
            check_prefix(&prefix, &members)?;
            if rules.iter().any(|other| other.prefix == prefix) {
                let problem = format!("there are two rules for '{}'", Text::new(&prefix));
                return Err(JsonError::at(&members.path_of("prefix"), problem));
            }
            let age = Age::take(&mut members)?;
            if age.is_empty() {
                return Err(members.problem("has neither notBefore nor minimumVersion"));
            }
            members.finish()?;
            rules.push(Self { prefix, age });
        }
        Ok(rules)
    }
}

fn check_prefix(prefix: &str, members: &Members) -> Result<(), JsonError> {
    if is_ac_identifier(prefix) || is_clean_path(prefix) || is_docker_prefix(prefix) {
        return Ok(());
    }
    let problem = "should be HOST[:PORT][/PATH] without a tag, the beginning of an ACI's name, or an \
                   absolute path; whole components, without a '/' at the end";
    Err(JsonError::at(&members.path_of("prefix"), problem))
}

/// Whether `name` is `prefix`, or below it by whole components.
fn is_below(name: &str, prefix: &str) -> bool {
    prefixes(name).any(|above| above == prefix)
}

/// Which programs' digests rules ask for. Computing them takes longer than the rest of a decision,
/// so it is left to be done where it is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DigestsAsked {
    /// The guest kernel's.
    pub kernel: bool,
    /// The monitor's.
    pub monitor: bool,
}

/// The rules of all files.
#[derive(Debug, Default)]
pub(crate) struct HostRules {
    anchored: Vec<(PathBuf, Anchored)>,
    rules: Vec<Named>,
}

/// A rule of version 2, and what it is called.
#[derive(Debug)]
pub(crate) struct Named {
    pub name: String,
    pub rule: Rule,
}

impl Named {
    /// What it says about a pod.
    pub(crate) fn of_pod(&self, launch: &Launch) -> Vec<Check> {
        let findings = self.rule.of_pod(Some(launch)).into_iter();
        findings.map(|finding| finding.of(&self.name)).collect()
    }
}

/// Two files have a rule for one prefix.
pub(crate) struct Twice {
    pub prefix: Text,
    pub other: PathBuf,
}

impl HostRules {
    pub(crate) fn add(&mut self, path: &Path, rules: Rules) -> Result<(), Twice> {
        match rules.0 {
            Content::Version1(list) => {
                for rule in list {
                    let same = |(_, other): &&(PathBuf, Anchored)| other.prefix == rule.prefix;
                    if let Some((other, _)) = self.anchored.iter().find(same) {
                        let prefix = Text::new(&rule.prefix);
                        return Err(Twice { prefix, other: other.clone() });
                    }
                    self.anchored.push((path.to_owned(), rule));
                }
            }
            Content::Version2(list) => {
                let file = Text::of_os(path);
                for (place, rule) in list.into_iter().enumerate() {
                    let place = place + 1;
                    let name = match rule.prefix() {
                        Some(prefix) => {
                            format!("rule {place}, for '{}', in {file}", Text::new(prefix))
                        }
                        None => format!("rule {place} in {file}"),
                    };
                    self.rules.push(Named { name, rule });
                }
            }
        }
        Ok(())
    }

    pub(crate) fn digests_asked(&self) -> DigestsAsked {
        let mut asked = DigestsAsked::default();
        for Named { rule, .. } in &self.rules {
            asked.kernel |= rule.asks_for_kernel_digest();
            asked.monitor |= rule.asks_for_monitor_digest();
        }
        asked
    }

    /// What the rules say about an image. Without a pod, as when it is fetched, what depends on the
    /// pod stays open.
    pub(crate) fn of_image(
        &self,
        image: &Identity<'_>,
        facts: &ImageFacts<'_>,
        launch: Option<&Launch>,
    ) -> Vec<Check> {
        let key = image.key();
        let mut checks = Vec::new();
        let of_prefix = |prefix| self.anchored.iter().find(|(_, rule)| rule.prefix == prefix);
        if let Some((path, Anchored { prefix, age })) = prefixes(&key).find_map(of_prefix) {
            let rule = format!("the rule for '{}' in {}", Text::new(prefix), Text::of_os(path));
            checks.extend(age.findings(facts).into_iter().map(|finding| finding.of(&rule)));
        }
        for Named { name, rule } in &self.rules {
            if !rule.is_about(&key) {
                continue;
            }
            let named = |finding: check::Finding| finding.of(name);
            match (launch, rule.tenant()) {
                (Some(launch), _) if rule.holds_for(launch) => {
                    checks.extend(rule.of_image(facts).into_iter().map(named));
                }
                (Some(_), _) => {}
                (None, None) => {
                    checks.extend(rule.of_image(facts).into_iter().map(named));
                    checks.extend(rule.of_pod(None).into_iter().map(named));
                }
                (None, Some(tenant)) => {
                    let findings = rule.of_image(facts).into_iter().chain(rule.of_pod(None));
                    let only_for = |finding: check::Finding| finding.only_for(tenant);
                    checks.extend(findings.map(only_for).map(named));
                }
            }
        }
        checks
    }

    /// The rules that hold for a pod of images with these keys.
    pub(crate) fn of_pod(&self, keys: &[String], launch: &Launch) -> Vec<&Named> {
        let holds = |named: &&Named| {
            named.rule.holds_for(launch) && keys.iter().any(|key| named.rule.is_about(key))
        };
        self.rules.iter().filter(holds).collect()
    }
}

//! Where to look for what a reference names: mirrors, moved and blocked registries, as
//! containers-registries.conf(5) has them. The parent reads the files.

use super::{DOCKER_IO, Error, RegistryReference, reference};
use crate::Text;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// The rules of a host about registries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rules(Vec<Rule>);

/// What holds for all names with a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// `HOST[:PORT][/PATH]`, or `*.DOMAIN`.
    prefix: String,
    #[serde(default)]
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirrors: Vec<Mirror>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mirror {
    location: String,
    insecure: bool,
    tags: bool,
    digests: bool,
}

/// A place where an image may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `HOST[:PORT]`.
    pub registry: String,
    /// The repository's name there.
    pub repository: String,
    /// Whether http, and TLS without a check of certificates, are allowed.
    pub is_insecure: bool,
    /// Whether it is another one than the registry itself.
    pub is_mirror: bool,
    /// Whether it is asked what a tag is. Mirrors only are if they are configured so.
    pub has_tags: bool,
    /// Whether it is asked for content by its digest.
    pub has_digests: bool,
}

impl Place {
    /// `REGISTRY/REPOSITORY`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

/// A file of rules can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The operating system refuses.
    #[error("read {}: {source}", Text::of_os(.path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what registries.conf(5) allows.
    #[error("{}: {problem}", Text::of_os(.path))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Text,
    },
}

/// The file, as far as it is used. The rest of it is about short names, which are not looked up.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    registry: Vec<Registry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Registry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct MirrorTable {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<PullFrom>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    All,
    DigestOnly,
    TagOnly,
}

const MAX_FILE: u64 = 1 << 20;

impl Rules {
    /// Reads `registries.conf` in a directory, and the files `*.conf` of `registries.conf.d`
    /// there in the order of their names; of two tables for one prefix the later one counts.
    /// What does not exist has no rules.
    ///
    /// # Errors
    /// See [`RulesError`].
    pub fn load(directory: &Path) -> Result<Self, RulesError> {
        let mut files = vec![directory.join("registries.conf")];
        let more = directory.join("registries.conf.d");
        let failed = |source| RulesError::Io { path: more.clone(), source };
        match fs::read_dir(&more) {
            Ok(entries) => {
                let mut found = Vec::new();
                for entry in entries {
                    found.push(entry.map_err(failed)?.path());
                }
                found.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
                found.sort();
                files.extend(found);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let mut rules = Self::default();
        for path in files {
            let failed = |source| RulesError::Io { path: path.clone(), source };
            let mut text = String::new();
            match File::open(&path) {
                Ok(file) => file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let problem = |problem: String| RulesError::Malformed {
                path: path.clone(),
                problem: Text::new(problem),
            };
            rules.add(&text).map_err(problem)?;
        }
        Ok(rules)
    }

    /// Adds the rules of one file.
    fn add(&mut self, text: &str) -> Result<(), String> {
        let document: Document =
            toml::from_str(text).map_err(|error| error.message().to_owned())?;
        for table in document.registry {
            let rule = Rule::of(table)?;
            self.0.retain(|other| other.prefix != rule.prefix);
            self.0.push(rule);
        }
        Ok(())
    }

    /// Where to look for an image, in this order: mirrors, and at last the registry itself.
    ///
    /// # Errors
    /// If the rules block it.
    pub fn places(&self, reference: &RegistryReference) -> Result<Vec<Place>, Error> {
        let name = reference.name();
        let matching = self.0.iter().filter_map(|rule| Some((rule.matched(&name)?, rule)));
        let Some((matched, rule)) = matching.max_by_key(|(matched, rule)| {
            // A name counts more than a pattern.
            (*matched, !rule.prefix.starts_with('*'), rule.prefix.len())
        }) else {
            return Ok(vec![Place {
                registry: reference.registry().to_owned(),
                repository: reference.repository().to_owned(),
                is_insecure: false,
                is_mirror: false,
                has_tags: true,
                has_digests: true,
            }]);
        };
        if rule.blocked {
            return Err(Error::Blocked(Text::new(name)));
        }
        let rest = &name[matched..];
        let moved = |location: &str, is_insecure| {
            let (registry, repository) = split(&format!("{location}{rest}"))
                .ok_or_else(|| Error::malformed(&name, "its mirror's name is not allowed"))?;
            let (is_mirror, has_tags, has_digests) = (false, true, true);
            Ok::<_, Error>(Place {
                registry,
                repository,
                is_insecure,
                is_mirror,
                has_tags,
                has_digests,
            })
        };
        let mut places = Vec::new();
        for mirror in &rule.mirrors {
            let (has_tags, has_digests) = (mirror.tags, mirror.digests);
            let place = moved(&mirror.location, mirror.insecure)?;
            places.push(Place { is_mirror: true, has_tags, has_digests, ..place });
        }
        places.push(moved(rule.location.as_deref().unwrap_or(&name[..matched]), rule.insecure)?);
        Ok(places)
    }
}

impl Rule {
    fn of(table: Registry) -> Result<Self, String> {
        let Registry { prefix, location, insecure, blocked, mirror, .. } = table;
        let is_location = |location: &String| split(&format!("{location}/x")).is_some();
        let prefix = prefix.filter(|prefix| !prefix.is_empty());
        let prefix = prefix.or_else(|| location.clone());
        let prefix = prefix.ok_or("a registry has neither prefix nor location")?;
        if !is_location(&prefix.strip_prefix("*.").unwrap_or(&prefix).to_owned()) {
            return Err(format!(
                "the prefix '{}' is not of the form HOST[:PORT][/PATH]",
                Text::new(prefix)
            ));
        }
        let location = location.filter(|location| !location.is_empty());
        let locations = location.iter().chain(mirror.iter().map(|mirror| &mirror.location));
        if let Some(wrong) = locations.into_iter().find(|location| !is_location(location)) {
            return Err(format!(
                "the location '{}' is not of the form HOST[:PORT][/PATH]",
                Text::new(wrong)
            ));
        }
        let mirrors = mirror.into_iter().map(|mirror| {
            let MirrorTable { location, insecure, pull_from_mirror } = mirror;
            let pull = match pull_from_mirror {
                _ if table.mirror_by_digest_only => PullFrom::DigestOnly,
                pull => pull.unwrap_or(PullFrom::All),
            };
            let tags = matches!(pull, PullFrom::All | PullFrom::TagOnly);
            let digests = matches!(pull, PullFrom::All | PullFrom::DigestOnly);
            Mirror { location, insecure, tags, digests }
        });
        let prefix = prefix.to_ascii_lowercase();
        Ok(Self { prefix, location, insecure, blocked, mirrors: mirrors.collect() })
    }

    /// How much of a name the prefix is, if it is one by whole components.
    fn matched(&self, name: &str) -> Option<usize> {
        if let Some(domain) = self.prefix.strip_prefix('*') {
            let host = name.find('/').unwrap_or(name.len());
            return name[..host].ends_with(domain).then_some(host);
        }
        let rest = name.strip_prefix(&self.prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(self.prefix.len())
    }
}

/// Registry and repository of a name that has both.
fn split(name: &str) -> Option<(String, String)> {
    let (registry, repository) = name.split_once('/')?;
    let registry = reference::canonical_registry(registry)?;
    let is_short = registry == DOCKER_IO && !repository.contains('/');
    let repository = if is_short { format!("library/{repository}") } else { repository.to_owned() };
    reference::is_repository(&repository).then_some((registry, repository))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str, reference: &str) -> Vec<String> {
        let mut rules = Rules::default();
        rules.add(text).unwrap();
        let reference = RegistryReference::parse(reference).unwrap();
        match rules.places(&reference) {
            Err(Error::Blocked(_)) => vec!["blocked".to_owned()],
            Err(error) => panic!("{error}"),
            Ok(places) => places
                .iter()
                .map(|place| {
                    let mark = |is, mark: &'static str| if is { mark } else { "" };
                    format!(
                        "{}{}{}{}{}",
                        place.name(),
                        mark(place.is_mirror, " mirror"),
                        mark(place.is_insecure, " insecure"),
                        mark(place.has_tags, " tags"),
                        mark(place.has_digests, " digests")
                    )
                })
                .collect(),
        }
    }

    const RULES: &str = r#"
        unqualified-search-registries = ["docker.io"]
        short-name-mode = "enforcing"

        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.example:5000/hub"
        [[registry.mirror]]
        location = "localhost"
        insecure = true
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tags.example"
        pull-from-mirror = "tag-only"

        [[registry]]
        prefix = "docker.io/evil"
        blocked = true

        [[registry]]
        prefix = "old.example/team"
        location = "new.example/group/team"

        [[registry]]
        prefix = "*.internal.example"
        insecure = true
    "#;

    #[test]
    fn mirrors_come_first_and_are_asked_for_what_they_are_there_for() {
        assert_eq!(
            places(RULES, "debian"),
            [
                "mirror.example:5000/hub/library/debian mirror tags digests",
                "localhost/library/debian mirror insecure digests",
                "tags.example/library/debian mirror tags",
                "docker.io/library/debian tags digests",
            ]
        );
        assert_eq!(places(RULES, "quay.io/x"), ["quay.io/x tags digests"]);
        let digest_only = "[[registry]]\nlocation='a.example'\nmirror-by-digest-only=true\n\
                           [[registry.mirror]]\nlocation='b.example'\npull-from-mirror='all'";
        assert_eq!(
            places(digest_only, "a.example/x"),
            ["b.example/x mirror digests", "a.example/x tags digests"]
        );
    }

    #[test]
    fn prefixes_are_whole_components_and_the_longest_counts() {
        assert_eq!(places(RULES, "evil/x"), ["blocked"]);
        assert_eq!(places(RULES, "docker.io/evil/x/y"), ["blocked"]);
        assert_eq!(places(RULES, "evil-not/x").len(), 4);
        assert_eq!(places(RULES, "old.example/team/x"), ["new.example/group/team/x tags digests"]);
        assert_eq!(places(RULES, "old.example/teams/x"), ["old.example/teams/x tags digests"]);
        assert_eq!(
            places(RULES, "a.internal.example/x"),
            ["a.internal.example/x insecure tags digests"]
        );
        for other in ["internal.example/x", "evilinternal.example/x"] {
            assert!(!places(RULES, other)[0].contains("insecure"), "{other}");
        }
    }

    #[test]
    fn malformed_rules_are_refused() {
        for text in [
            "[[registry]]",
            "[[registry]]\nlocation='no scheme'",
            "[[registry]]\nlocation='https://x.example'",
            "[[registry]]\nprefix='a.example'\nlocation='../x'",
            "[[registry]]\nlocation='a.example'\ninsecur=true",
            "[[registry]]\nlocation='a.example'\nblocked='yes'",
            "[[registry]]\nlocation='a.example'\n[[registry.mirror]]\ninsecure=true",
            "[[registry]]\nlocation='a.example'\n[[registry.mirror]]\nlocation='b'\npull-from-mirror='x'",
            "[registry",
        ] {
            assert!(Rules::default().add(text).is_err(), "{text}");
        }
    }

    #[test]
    fn later_files_replace_tables_of_the_same_prefix() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert_eq!(Rules::load(directory.path()).unwrap(), Rules::default());
        fs::create_dir(at("registries.conf.d")).unwrap();
        fs::write(at("registries.conf"), RULES).unwrap();
        let text = "[[registry]]\nprefix='docker.io/evil'\n";
        fs::write(at("registries.conf.d/50-mine.conf"), text).unwrap();
        fs::write(at("registries.conf.d/README"), "not TOML").unwrap();
        let rules = Rules::load(directory.path()).unwrap();
        let reference = RegistryReference::parse("evil/x").unwrap();
        assert_eq!(rules.places(&reference).unwrap().len(), 1);
        fs::write(at("registries.conf.d/60.conf"), "[").unwrap();
        assert!(Rules::load(directory.path()).unwrap_err().to_string().contains("60.conf"));
    }
}

use crate::Text;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// What is meant where no `os` or `arch` is asked for. Nothing else than this runs here.
pub(super) const MACHINE: [(&str, &str); 2] = [("os", "linux"), ("arch", "amd64")];

/// An App Container Image by its name: `NAME[:VERSION][,LABEL=VALUE…]`, as rkt writes it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppcName {
    name: String,
    labels: BTreeMap<String, String>,
}

/// The text is not the name of an App Container Image.
#[derive(Debug, thiserror::Error)]
pub enum AppcNameError {
    /// It is longer than any that is needed.
    #[error("'{0}' is longer than {max} bytes", max = AppcName::MAX)]
    Long(Text),
    /// The name itself is not allowed.
    #[error(
        "'{0}' is not an image name: it consists of lower-case letters and digits, with single \
         '-', '.', '_', '~' or '/' between them"
    )]
    Name(Text),
    /// There is more than one colon before the labels.
    #[error("'{0}' has more than one colon before its labels")]
    Colons(Text),
    /// A label is not of the form NAME=VALUE.
    #[error("the label '{0}' is not of the form NAME=VALUE")]
    Label(Text),
    /// A label comes twice.
    #[error("the label '{0}' is given twice")]
    Twice(Text),
    /// A label's value can't be part of a URL's path.
    #[error("the value '{value}' of the label '{label}' is empty, a path or not printable")]
    Value {
        /// The label.
        label: Text,
        /// Its value.
        value: Text,
    },
}

impl AppcName {
    /// The longest name in bytes, with labels.
    pub const MAX: usize = 1024;

    /// Reads a name as rkt does.
    ///
    /// # Errors
    /// See [`AppcNameError`].
    pub fn parse(text: &str) -> Result<Self, AppcNameError> {
        if text.len() > Self::MAX {
            return Err(AppcNameError::Long(Text::new(text)));
        }
        let mut parts = text.split(',');
        let first = parts.next().unwrap_or_default();
        let mut labels = Vec::new();
        let name = match first.split_once(':') {
            Some((_, version)) if version.contains(':') => {
                return Err(AppcNameError::Colons(Text::new(first)));
            }
            Some((name, version)) => {
                labels.push(("version".to_owned(), version.to_owned()));
                name
            }
            None => first,
        };
        for part in parts {
            let refused = || AppcNameError::Label(Text::new(part));
            let (label, value) = part.split_once('=').ok_or_else(refused)?;
            labels.push((label.to_owned(), value.to_owned()));
        }
        Self::new(name, labels)
    }

    /// Makes a name of its parts, as the dependencies of an image give them.
    ///
    /// # Errors
    /// See [`AppcNameError`].
    pub fn new(
        name: &str,
        labels: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, AppcNameError> {
        if name.len() > Self::MAX || !is_identifier(name) {
            return Err(AppcNameError::Name(Text::new(name)));
        }
        let mut map = BTreeMap::new();
        for (label, value) in labels {
            if !is_identifier(&label) || label == "name" {
                return Err(AppcNameError::Label(Text::new(&label)));
            }
            if !is_value(&value) {
                let (label, value) = (Text::new(&label), Text::new(&value));
                return Err(AppcNameError::Value { label, value });
            }
            let shown = Text::new(&label);
            if map.insert(label, value).is_some() {
                return Err(AppcNameError::Twice(shown));
            }
        }
        Ok(Self { name: name.to_owned(), labels: map })
    }

    /// The name without labels.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The labels that were asked for, `version` among them, without default ones.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// The label `version`, if it was asked for.
    pub fn version(&self) -> Option<&str> {
        self.labels.get("version").map(String::as_str)
    }

    /// Whether an image that calls itself `name` and has `labels` is the one that was asked for.
    ///
    /// The name and every label that was asked for are equal. Where no `os` or `arch` was asked
    /// for, `linux` and `amd64` are meant, as in rkt; an image that does not say for which it is
    /// is for all (aci.md, "labels").
    ///
    /// # Errors
    /// What is not as it was asked for.
    pub fn hold_against<'a>(
        &self,
        name: &str,
        labels: impl Clone + IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), AppcMismatch> {
        if self.name != name {
            return Err(AppcMismatch::Name { is: Text::new(name), wanted: Text::new(&self.name) });
        }
        let asked = self.labels.iter().map(|(label, value)| (label.as_str(), value.as_str()));
        let machine = MACHINE.into_iter().filter(|(label, _)| !self.labels.contains_key(*label));
        for (label, wanted) in asked.chain(machine) {
            let mut all = labels.clone().into_iter();
            let is = all.find(|(known, _)| *known == label).map(|(_, value)| value);
            let is_any = is.is_none() && MACHINE.iter().any(|(known, _)| *known == label);
            if is != Some(wanted) && !is_any {
                return Err(AppcMismatch::Label {
                    label: Text::new(label),
                    is: is.map(Text::new),
                    wanted: Text::new(wanted),
                });
            }
        }
        Ok(())
    }

    /// Whether [`Self::hold_against`] finds nothing.
    pub fn is_met_by<'a>(
        &self,
        name: &str,
        labels: impl Clone + IntoIterator<Item = (&'a str, &'a str)>,
    ) -> bool {
        self.hold_against(name, labels).is_ok()
    }
}

/// An image is another one than was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppcMismatch {
    /// It has another name.
    #[error("its name is '{is}' instead of '{wanted}'")]
    Name {
        /// What it calls itself.
        is: Text,
        /// What was asked for.
        wanted: Text,
    },
    /// It has another label, or does not have it.
    #[error("its label '{label}' is {} instead of '{wanted}'", missing_or(.is.as_ref()))]
    Label {
        /// The label's name.
        label: Text,
        /// Its value, if it has one.
        is: Option<Text>,
        /// What was asked for, or is meant where nothing was.
        wanted: Text,
    },
}

fn missing_or(value: Option<&Text>) -> String {
    value.map_or_else(|| "missing".to_owned(), |value| format!("'{value}'"))
}

impl FromStr for AppcName {
    type Err = AppcNameError;

    fn from_str(text: &str) -> Result<Self, AppcNameError> {
        Self::parse(text)
    }
}

/// The name as it can be read again: the version after a colon, then the other labels in order.
impl fmt::Display for AppcName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)?;
        // A version with a colon can be given as a label only.
        let version = self.version().filter(|version| !version.contains(':'));
        version.iter().try_for_each(|version| write!(out, ":{version}"))?;
        let others =
            self.labels.iter().filter(|(label, _)| version.is_none() || *label != "version");
        others.into_iter().try_for_each(|(label, value)| write!(out, ",{label}={value}"))
    }
}

impl fmt::Debug for AppcName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl Serialize for AppcName {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AppcName {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Whether the text is an AC Identifier (appc, types.md).
fn is_identifier(text: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.as_bytes()
        .split(|byte| b"-._~/".contains(byte))
        .all(|word| !word.is_empty() && word.iter().all(is_word))
}

/// Values become parts of URLs and of the text that a user reads; what would lead elsewhere, or
/// could not be written as an argument, is refused.
fn is_value(value: &str) -> bool {
    !matches!(value, "" | "." | "..")
        && !value.contains(['/', '\\', ','])
        && !value.chars().any(|character| character.is_control() || character.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_with_versions_and_labels() {
        for (text, name, version, shown) in [
            ("example.com/app", "example.com/app", None, "example.com/app"),
            ("example.com/app:1.0.0", "example.com/app", Some("1.0.0"), "example.com/app:1.0.0"),
            (
                "example.com/app,os=linux,version=2",
                "example.com/app",
                Some("2"),
                "example.com/app:2,os=linux",
            ),
            ("a~b/c_d,version=1:2", "a~b/c_d", Some("1:2"), "a~b/c_d,version=1:2"),
        ] {
            let parsed = AppcName::parse(text).unwrap();
            assert_eq!((parsed.name(), parsed.version()), (name, version), "{text}");
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(AppcName::parse(shown).unwrap(), parsed);
        }
    }

    #[test]
    fn what_is_no_name() {
        for text in [
            "",
            "Example.com/app",
            "example.com//app",
            "example.com/../app",
            "example.com/app/",
            "example.com/app:1:2",
            "example.com/app:",
            "example.com/app:..",
            "example.com/app:1/../../2",
            "example.com/app,os",
            "example.com/app,os=",
            "example.com/app,name=x",
            "example.com/app,os=linux,os=linux",
            "example.com/app:1,version=2",
            "example.com/app:1 2",
            "example.com/app,OS=linux",
        ] {
            assert!(AppcName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_image_has_to_be_what_was_asked_for() {
        let wanted = AppcName::parse("example.com/app:1,os=linux").unwrap();
        let labels = [("version", "1"), ("os", "linux"), ("arch", "amd64")];
        assert!(wanted.is_met_by("example.com/app", labels));
        assert!(!wanted.is_met_by("example.com/other", labels));
        assert!(!wanted.is_met_by("example.com/app", [("os", "linux")]));
        assert!(!wanted.is_met_by("example.com/app", [("version", "2"), ("os", "linux")]));
        let problem = |labels: &[(&str, &str)]| {
            let held = wanted.hold_against("example.com/app", labels.iter().copied());
            held.unwrap_err().to_string()
        };
        assert_eq!(problem(&[]), "its label 'version' is missing instead of '1'");
        assert_eq!(problem(&[("version", "2")]), "its label 'version' is '2' instead of '1'");
    }

    /// rkt adds the host's os and arch to what was asked for; aci.md: "If one or both values are
    /// not provided, the image is assumed to be OS- and/or architecture-independent."
    #[test]
    fn an_image_is_for_this_machine_or_for_all() {
        for (wanted, labels, is_met) in [
            ("a.b/c", &[][..], true),
            ("a.b/c", &[("os", "linux")], true),
            ("a.b/c", &[("os", "linux"), ("arch", "amd64")], true),
            ("a.b/c", &[("os", "freebsd")], false),
            ("a.b/c", &[("os", "linux"), ("arch", "aarch64")], false),
            ("a.b/c,os=linux", &[], true),
            ("a.b/c,os=linux,arch=amd64", &[("os", "linux")], true),
            ("a.b/c,arch=aarch64", &[("os", "linux"), ("arch", "aarch64")], true),
            ("a.b/c,arch=aarch64", &[("arch", "amd64")], false),
            ("a.b/c,os=freebsd", &[("os", "linux")], false),
            // Only those two mean anything where they are missing.
            ("a.b/c,channel=beta", &[("os", "linux")], false),
        ] {
            let name = AppcName::parse(wanted).unwrap();
            assert_eq!(
                name.is_met_by("a.b/c", labels.iter().copied()),
                is_met,
                "{wanted} {labels:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_name_reads_back_as_itself(text in "[a-z0-9./~_:,=-]{1,40}") {
            if let Ok(first) = AppcName::parse(&text) {
                prop_assert_eq!(AppcName::parse(&first.to_string()).unwrap(), first);
            }
        }
    }
}

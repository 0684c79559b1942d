//! The host's rules against rollback, `gate.d/*.json`: how old an image may be.
//!
//! Somebody who controls a registry, or the way to it, can hand out an old image with known holes;
//! its signature is as good as ever. A rule says from when on images below a name are accepted:
//!
//! ```json
//! {"version": 1, "images": [
//!   {"prefix": "docker.io/library/debian", "notBefore": "2026-01-01T00:00:00Z"},
//!   {"prefix": "example.com/app", "minimumVersion": "1.2.3"}
//! ]}
//! ```
//!
//! - `prefix`: whole components of an image's name, as a policy writes it: `HOST/REPOSITORY`
//!   without a tag, the name of an App Container Image, or the path of a local layout or archive.
//!   The most specific prefix alone counts. Two rules for one prefix are an error.
//! - `notBefore`: held against the time of the signatures by which the image is accepted (of those
//!   that meet one requirement the newest, of all requirements the oldest), or if there is none
//!   that says its time, against the time when the image was made by its own account.
//! - `minimumVersion`: held against the image's version by its own account: an ACI's label
//!   `version`, or `org.opencontainers.image.version`. The order is that of Semantic Versioning
//!   with any count of numbers: `1.10` comes after `1.9`, `1.2.3-rc1` and `1.2.3-alpine` before
//!   `1.2.3`. A version that is not of this form is refused.
//!
//! An image that does not say what a rule asks for is refused. `--insecure-options=image` changes
//! nothing here: it says that signatures don't matter, not that holes don't.

use crate::{
    Identity, instant,
    policy::{is_ac_identifier, is_clean_path, is_docker_prefix, prefixes},
    strict::{JsonError, Members, Value},
    version::Version,
};
use sandbox_image::Text;

/// The rules of one file.
#[derive(Debug, Clone)]
pub struct Rules(Vec<Rule>);

/// What holds for the images below a name.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub prefix: String,
    not_before: Option<i64>,
    minimum: Option<(String, Version)>,
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
        let version = members.required("version")?.integer("version")?;
        if version != 1 {
            return Err(JsonError::at("version", format!("is {version}; only 1 is known here")));
        }
        let mut rules: Vec<Rule> = Vec::new();
        for (place, value) in members.required("images")?.array("images")?.into_iter().enumerate() {
            let rule = Rule::parse(value, &format!("images[{place}]"))?;
            if rules.iter().any(|other| other.prefix == rule.prefix) {
                let problem = format!("there are two rules for '{}'", Text::new(&rule.prefix));
                return Err(JsonError::at(&format!("images[{place}].prefix"), problem));
            }
            rules.push(rule);
        }
        members.finish()?;
        Ok(Self(rules))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }
}

impl Rule {
    fn parse(value: Value, path: &str) -> Result<Self, JsonError> {
        let mut members = Members::of(value, path)?;
        let prefix = members.string("prefix")?;
        if !is_ac_identifier(&prefix) && !is_clean_path(&prefix) && !is_docker_prefix(&prefix) {
            let problem = "should be HOST[:PORT][/PATH] without a tag, the beginning of an ACI's \
                           name, or an absolute path; whole components, without a '/' at the end";
            return Err(JsonError::at(&members.path_of("prefix"), problem));
        }
        let not_before = match members.optional_string("notBefore")? {
            None => None,
            Some(text) => Some(instant::parse(&text).ok_or_else(|| {
                let problem = "should be a time as 2026-01-01T00:00:00Z";
                JsonError::at(&members.path_of("notBefore"), problem)
            })?),
        };
        let minimum = match members.optional_string("minimumVersion")? {
            None => None,
            Some(text) => match Version::parse(&text) {
                Some(version) => Some((text, version)),
                None => {
                    let problem = "should be a version as 1.2.3";
                    return Err(JsonError::at(&members.path_of("minimumVersion"), problem));
                }
            },
        };
        if not_before.is_none() && minimum.is_none() {
            return Err(members.problem("has neither notBefore nor minimumVersion"));
        }
        members.finish()?;
        Ok(Self { prefix, not_before, minimum })
    }

    /// What is wrong with an image, and what is fine. `signed` is the time of its signatures.
    pub(crate) fn check(
        &self,
        version: Option<&str>,
        signed: Option<i64>,
        created: Option<i64>,
    ) -> (Vec<String>, Vec<String>) {
        let (mut wrong, mut fine) = (Vec::new(), Vec::new());
        if let Some(earliest) = self.not_before {
            let not_before = instant::format(earliest);
            let found = signed
                .map(|time| (time, "was signed"))
                .or_else(|| created.map(|time| (time, "was made, by its own account,")));
            match found {
                None => wrong.push(format!(
                    "nothing says when the image was signed or made, and notBefore {not_before} \
                     asks for it"
                )),
                Some((time, what)) => {
                    let is_old = time < earliest;
                    let line = format!("the image {what} at {}", instant::format(time));
                    if is_old {
                        wrong.push(format!("{line}, before {not_before}"));
                    } else {
                        fine.push(format!("{line}, not before {not_before}"));
                    }
                }
            }
        }
        if let Some((text, minimum)) = &self.minimum {
            match version.map(|version| (version, Version::parse(version))) {
                None => wrong.push(format!(
                    "the image says no version, and minimumVersion {text} asks for one"
                )),
                Some((version, None)) => wrong.push(format!(
                    "the image's version '{}' can't be compared with minimumVersion {text}: it is \
                     not of the form 1.2.3",
                    Text::new(version)
                )),
                Some((version, Some(parsed))) => {
                    let version = Text::new(version);
                    if parsed < *minimum {
                        wrong.push(format!("the image's version {version} is older than {text}"));
                    } else {
                        fine.push(format!("the image's version {version} is at least {text}"));
                    }
                }
            }
        }
        (wrong, fine)
    }
}

/// The rule for an image: that with the most specific prefix.
pub(crate) fn applicable<'a, T>(
    rules: &'a [(T, Rule)],
    image: &Identity<'_>,
) -> Option<&'a (T, Rule)> {
    let key = image.key();
    prefixes(&key).find_map(|prefix| rules.iter().find(|(_, rule)| rule.prefix == prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(members: &str) -> Result<Rules, JsonError> {
        Rules::parse(format!(r#"{{"version": 1, "images": [{{{members}}}]}}"#).as_bytes())
    }

    #[test]
    fn what_a_rule_has_to_look_like() {
        for fine in [
            r#""prefix": "docker.io/library/debian", "notBefore": "2026-01-01T00:00:00Z""#,
            r#""prefix": "localhost:5000", "minimumVersion": "1""#,
            r#""prefix": "example.com/app", "minimumVersion": "v1.2", "notBefore": "2026-01-01T00:00:00+01:00""#,
            r#""prefix": "/srv/images", "minimumVersion": "1""#,
        ] {
            one(fine).unwrap();
        }
        for refused in [
            r#""prefix": "docker.io/library/debian""#,
            r#""prefix": "docker.io/library/debian/", "minimumVersion": "1""#,
            r#""prefix": "docker.io/library/debian:13", "minimumVersion": "1""#,
            r#""prefix": "docker.io/library/debian@sha256:00", "minimumVersion": "1""#,
            r#""prefix": "*.example.com", "minimumVersion": "1""#,
            r#""prefix": "", "minimumVersion": "1""#,
            r#""prefix": "/", "minimumVersion": "1""#,
            r#""prefix": "/srv/../a", "minimumVersion": "1""#,
            r#""prefix": "a", "minimumVersion": "new""#,
            r#""prefix": "a", "minimumVersion": 1"#,
            r#""prefix": "a", "notBefore": "2026-01-01""#,
            r#""prefix": "a", "notBefore": 1767225600"#,
            r#""prefix": "a", "minimumVersion": "1", "notbefore": "2026-01-01T00:00:00Z""#,
            r#""prefix": "a", "minimumVersion": "1", "minimumVersion": "2""#,
            r#""prefix": "a", "minimumVersion": "1"}, {"prefix": "a", "minimumVersion": "2""#,
            r#""minimumVersion": "1""#,
        ] {
            assert!(one(refused).is_err(), "{refused}");
        }
        for refused in [
            "",
            "{}",
            r#"{"images": []}"#,
            r#"{"version": 2, "images": []}"#,
            r#"{"version": 1}"#,
            r#"{"version": 1, "images": [], "more": 1}"#,
            r#"{"version": "1", "images": []}"#,
        ] {
            assert!(Rules::parse(refused.as_bytes()).is_err(), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn a_prefix_holds_whole_components(name in "[ab]{1,2}(/[ab]{1,2}){0,3}", prefix in "[ab]{1,2}(/[ab]{1,2}){0,3}") {
            let Rules(rules) = one(&format!(r#""prefix": "{prefix}", "minimumVersion": "1""#)).unwrap();
            let rules: Vec<_> = rules.into_iter().map(|rule| ((), rule)).collect();
            let found = applicable(&rules, &Identity::Aci { name: &name, labels: &[] });
            let holds = format!("{name}/").starts_with(&format!("{prefix}/"));
            prop_assert_eq!(found.is_some(), holds);
        }

        #[test]
        fn any_document_is_read_or_refused(document in "\\PC{0,60}") {
            let _ = Rules::parse(document.as_bytes());
        }
    }
}

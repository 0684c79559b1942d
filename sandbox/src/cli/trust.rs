use super::{Global, Outcome};
use crate::images::{KeyReview, Keys, Location};
use crate::message::Messages;
use crate::output::{self, Format};
use clap::{Args, Subcommand};
use sandbox_gate::keystore::{Layer, Scope, TrustedKey};
use sandbox_image::Text;
use sandbox_image::discovery::AppcName;
use serde::Serialize;
use std::error::Error;
use std::ffi::OsString;
use std::io::Write as _;

/// Trust a key to sign App Container Images.
///
/// Without a command the keys at PUBKEY (files, or URLs) are shown, and after a look at their
/// fingerprints trusted for images whose names begin with the prefix. Without PUBKEY the keys are
/// looked for by discovery: the web server of the prefix says where they are.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    override_usage = "sandbox trust [OPTIONS] --prefix PREFIX [PUBKEY]…\n       \
                      sandbox trust [OPTIONS] --root PUBKEY…\n       \
                      sandbox trust list\n       \
                      sandbox trust rm FINGERPRINT",
    after_help = "\
Examples:
  Keys that example.com names for its images:
    sandbox trust --prefix=example.com/app
  A key in a file, for all images of example.com:
    sandbox trust --prefix=example.com app-signing-key.asc
  A key that may sign anything:
    sandbox trust --root https://example.com/pubkeys.gpg

A prefix is meant by whole components: example.com/app is for example.com/app and example.com/app/x,
not for example.com/application. Keys are kept in /etc/rkt/trustedkeys (--local-config), where rkt
keeps them.

Exit status: 0, also if a key was not trusted after its review; 254 for a failure."
)]
pub struct Trust {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Files or URLs of armored keys.
    #[arg(value_name = "PUBKEY")]
    keys: Vec<OsString>,
    /// What the names of the images begin with that the keys may sign.
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Let the keys sign images of any name.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set,
          value_parser = crate::options::boolean)]
    root: bool,
    /// Trust the keys without asking.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set,
          value_parser = crate::options::boolean)]
    skip_fingerprint_review: bool,
    /// Let keys come over http, too.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set,
          value_parser = crate::options::boolean)]
    insecure_allow_http: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(List),
    Rm(Rm),
}

impl Trust {
    /// The name that messages begin with.
    pub fn name(&self) -> &'static str {
        match self.verb {
            None => "trust",
            Some(Verb::List(_)) => "list",
            Some(Verb::Rm(_)) => "rm",
        }
    }

    /// Does what the verb says.
    pub fn execute(&self, global: &Global) -> Outcome {
        match &self.verb {
            None => self.add(global),
            Some(Verb::List(list)) => list.execute(global),
            Some(Verb::Rm(rm)) => rm.execute(global),
        }
    }

    fn add(&self, global: &Global) -> Outcome {
        let scope = self.scope()?;
        let settings = global.image_settings()?;
        let allow_http = self.insecure_allow_http || settings.insecure.allow_http_for_keys();
        let keys = Keys::new(&settings, allow_http, Messages::new("trust", global.debug));
        let locations = match (&scope, self.keys.is_empty()) {
            (Scope::Prefix(prefix), true) => keys.discover(&AppcName::parse(prefix)?)?,
            _ => self.keys.iter().map(|key| Location::parse(key)).collect::<Result<_, _>>()?,
        };
        let review = match self.skip_fingerprint_review {
            true => KeyReview::Skip,
            false => KeyReview::Ask,
        };
        keys.trust(&scope, &locations, review)?;
        Ok(0)
    }

    fn scope(&self) -> Result<Scope, Box<dyn Error>> {
        match (&self.prefix, self.root) {
            (Some(_), true) => Err("--prefix and --root exclude each other".into()),
            (Some(text), false) => prefix(text),
            (None, true) if self.keys.is_empty() => {
                Err("--root needs the file or URL of a key: root keys can't be discovered".into())
            }
            (None, true) => Ok(Scope::Root),
            (None, false) if self.keys.is_empty() => {
                Err("must provide a --prefix, or --root and a key".into())
            }
            (None, false) => Err("--root required for non-prefixed (root) keys".into()),
        }
    }
}

fn prefix(text: &str) -> Result<Scope, Box<dyn Error>> {
    if text.contains("://") {
        return Err("--prefix: the name of images has no scheme such as https://".into());
    }
    let name = AppcName::parse(text)
        .map_err(|error| format!("--prefix: {error}; it is a name such as example.com/app"))?;
    if name.version().is_some() || !name.labels().is_empty() {
        return Err(
            "--prefix: a key is trusted for a name, not for a version or other label".into()
        );
    }
    Ok(Scope::Prefix(name.name().to_owned()))
}

/// List the keys that are trusted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sandbox trust list
  sandbox trust list --format=json

STATE is trusted; or expired, revoked and the like: such a key signs nothing that counts; or removed:
a system's key that the host has taken back; or is broken: the file is no key, and no image runs that
it could be about until it is repaired or removed.")]
pub struct List {
    /// Print no headings.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set,
          value_parser = crate::options::boolean)]
    no_legend: bool,
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse, default_value = "",
          hide_default_value = true, help = Format::HELP)]
    format: Format,
}

/// A key as JSON has it.
#[derive(Serialize)]
struct Entry<'a> {
    /// None for a root key.
    prefix: Option<&'a str>,
    fingerprint: &'a str,
    from: &'static str,
    path: String,
    state: &'a str,
    identities: &'a [String],
}

impl List {
    /// Prints the keys.
    pub fn execute(&self, global: &Global) -> Outcome {
        let settings = global.image_settings()?;
        let keys = Keys::new(&settings, false, Messages::new("list", global.debug)).list()?;
        let text = match self.format {
            Format::Text => self.table(&keys),
            format => {
                let entries: Vec<_> = keys.iter().map(entry).collect();
                output::json(&entries, format == Format::JsonPretty)?
            }
        };
        write!(std::io::stdout(), "{text}")?;
        Ok(0)
    }

    fn table(&self, keys: &[TrustedKey]) -> String {
        let mut rows: Vec<Vec<String>> = Vec::new();
        if !self.no_legend {
            rows.push(
                ["PREFIX", "FINGERPRINT", "FROM", "STATE", "IDENTITY"].map(str::to_owned).to_vec(),
            );
        }
        for key in keys {
            let Entry { prefix, fingerprint, from, state, identities, .. } = entry(key);
            let identity = identities.first().map_or("-", String::as_str);
            let more = match identities.len() {
                0 | 1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            rows.push(vec![
                prefix.unwrap_or("(root)").to_owned(),
                fingerprint.to_owned(),
                from.to_owned(),
                Text::new(state).to_string(),
                format!("{}{more}", Text::new(identity)),
            ]);
        }
        output::table(&rows)
    }
}

fn entry(key: &TrustedKey) -> Entry<'_> {
    Entry {
        prefix: match &key.scope {
            Scope::Root => None,
            Scope::Prefix(prefix) => Some(prefix),
        },
        fingerprint: &key.fingerprint,
        from: match key.layer {
            Layer::System => "system",
            Layer::Local => "local",
        },
        path: key.path.display().to_string(),
        state: match &key.problem {
            _ if key.masked => "removed",
            Some(problem) => problem,
            None => "trusted",
        },
        identities: &key.identities,
    }
}

/// Trust a key no longer.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sandbox trust rm 8b86de38890ddb7291867b025210bd8888182190
  sandbox trust rm --prefix=example.com '8B86 DE38 890D DB72 9186  7B02 5210 BD88 8818 2190'

A key that a package brings (--system-config) stays where it is; an empty file in --local-config
takes it back, as rkt has it. Images that it has signed are refused from the next launch on.")]
pub struct Rm {
    /// The key's fingerprint, all of it.
    #[arg(value_name = "FINGERPRINT")]
    fingerprint: String,
    /// Only for this prefix.
    #[arg(long, value_name = "PREFIX", conflicts_with = "root")]
    prefix: Option<String>,
    /// Only as a root key.
    #[arg(long)]
    root: bool,
}

impl Rm {
    /// Removes the key.
    pub fn execute(&self, global: &Global) -> Outcome {
        let settings = global.image_settings()?;
        let keys = Keys::new(&settings, false, Messages::new("rm", global.debug));
        let scope = match (&self.prefix, self.root) {
            (Some(text), _) => Some(prefix(text)?),
            (None, true) => Some(Scope::Root),
            (None, false) => None,
        };
        let fingerprint = fingerprint(&self.fingerprint)?;
        let removed = keys.remove(&fingerprint, scope.as_ref())?;
        if removed.is_empty() {
            return Err(format!(
                "no such key is trusted: {fingerprint}; 'sandbox trust list' shows those that are"
            )
            .into());
        }
        for key in removed {
            let scope = match &key.scope {
                Scope::Root => "root key".to_owned(),
                Scope::Prefix(prefix) => format!("key for prefix {prefix:?}"),
            };
            let path = key.path.display();
            let line = match key.masked {
                false => format!("Removed {scope} at \"{path}\""),
                true => format!("Removed {scope} of the system by an empty file at \"{path}\""),
            };
            writeln!(std::io::stdout(), "{line}")?;
        }
        Ok(0)
    }
}

/// A fingerprint as it is printed anywhere: in either case, with blanks or colons, or after `0x`.
fn fingerprint(text: &str) -> Result<String, String> {
    let digits: String = text
        .trim_start_matches("0x")
        .chars()
        .filter(|character| !matches!(character, ' ' | ':'))
        .map(|character| character.to_ascii_lowercase())
        .collect();
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && matches!(digits.len(), 40 | 64) {
        Ok(digits)
    } else {
        Err(format!(
            "{text:?} is not a fingerprint of 40 digits (64 of a newer key); a shorter ID does not \
             say which key is meant"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(scope: Scope, problem: Option<&str>, masked: bool, identities: &[&str]) -> TrustedKey {
        TrustedKey {
            scope,
            fingerprint: "8b".repeat(20),
            path: "/etc/rkt/trustedkeys/x".into(),
            layer: Layer::Local,
            masked,
            problem: problem.map(str::to_owned),
            identities: identities.iter().map(|&identity| identity.to_owned()).collect(),
        }
    }

    #[test]
    fn keys_are_listed_with_what_they_are_good_for() {
        let keys = [
            key(Scope::Root, None, false, &["CoreOS <a@example.com>", "x", "y"]),
            key(Scope::Prefix("example.com/app".into()), Some("expired"), false, &["E\u{1b}[2J"]),
            key(Scope::Prefix("example.com".into()), Some("expired"), true, &[]),
        ];
        let cells = |list: &List| -> Vec<Vec<String>> {
            let table = list.table(&keys);
            let cells = |line: &str| {
                line.split('\t').filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
            };
            table.lines().map(cells).collect()
        };
        let fingerprint = "8b".repeat(20);
        let expected = [
            vec!["PREFIX", "FINGERPRINT", "FROM", "STATE", "IDENTITY"],
            vec!["(root)", &fingerprint, "local", "trusted", "CoreOS <a@example.com> (and 2 more)"],
            vec!["example.com/app", &fingerprint, "local", "expired", "E\\u{1b}[2J"],
            vec!["example.com", &fingerprint, "local", "removed", "-"],
        ];
        let list = List { no_legend: false, format: Format::Text };
        assert_eq!(cells(&list), expected);
        let list = List { no_legend: true, format: Format::Text };
        assert_eq!(cells(&list), expected[1..]);
        let json = serde_json::to_value(entry(&keys[0])).unwrap();
        assert_eq!(json["prefix"], serde_json::Value::Null);
        assert_eq!(json["state"], "trusted");
    }

    #[test]
    fn a_fingerprint_is_read_in_any_form_but_not_in_part() {
        let plain = "8b86de38890ddb7291867b025210bd8888182190";
        for text in [
            plain,
            "8B86DE38890DDB7291867B025210BD8888182190",
            "0x8b86de38890ddb7291867b025210bd8888182190",
            "8B86 DE38 890D DB72 9186  7B02 5210 BD88 8818 2190",
            "8b:86:de:38:89:0d:db:72:91:86:7b:02:52:10:bd:88:88:18:21:90",
        ] {
            assert_eq!(fingerprint(text).as_deref(), Ok(plain), "{text}");
        }
        for text in ["", "88182190", "x".repeat(40).as_str(), &"a".repeat(41)] {
            assert!(fingerprint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_is_a_name_without_scheme_or_version() {
        assert_eq!(prefix("example.com/app").unwrap(), Scope::Prefix("example.com/app".into()));
        for (text, expected) in [
            ("https://example.com", "has no scheme"),
            ("example.com/app:1.0", "not for a version"),
            ("example.com/*", "it is a name such as"),
            ("", "it is a name such as"),
        ] {
            let error = prefix(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

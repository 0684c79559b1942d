//! Where simple signatures are: containers-registries.d(5). The parent reads the files, and the
//! signatures if they are files themselves.

use super::{
    RegistryReference,
    signatures::{MAX_PAYLOAD, MAX_SIGNATURES},
};
use crate::{Digest, Text, evidence::Signature, http::Url};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// A place with simple signatures. Those of an image are at
/// `PLACE/REPOSITORY@ALGORITHM=HEX/signature-N`, with N from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lookaside {
    /// On a web server.
    Web(Url),
    /// In a directory of this host; see [`Lookaside::read`].
    Directory(PathBuf),
}

/// Which lookaside is for which images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookasides {
    default: Option<Lookaside>,
    scopes: BTreeMap<String, Lookaside>,
}

/// A file of registries.d, or a signature, can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LookasideError {
    /// The operating system refuses.
    #[error("read {}: {source}", Text::of_os(.path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what registries.d(5) allows, or more of YAML than mappings and plain or quoted
    /// words, which is all that is read here.
    #[error("{}, line {line}: {problem}", Text::of_os(.path))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: Text,
    },
    /// A signature is larger than any that is needed.
    #[error("{}: larger than {MAX_PAYLOAD} bytes", Text::of_os(.0))]
    TooLarge(PathBuf),
    /// Two files are for the same images.
    #[error("{}: '{scope}' is in another file, or in it, already", Text::of_os(.path))]
    Twice {
        /// The file.
        path: PathBuf,
        /// The images.
        scope: Text,
    },
}

impl Lookaside {
    /// Reads a URL of the scheme `file`, `https` or `http`.
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file://") {
            let is_plain = path.starts_with('/') && !path.contains(['%', '?', '#']);
            let path = PathBuf::from(path);
            return if is_plain {
                Ok(Self::Directory(path))
            } else {
                Err("it is not of the form file:///PATH".to_owned())
            };
        }
        text.parse().map(Self::Web).map_err(|problem: crate::http::UrlError| problem.to_string())
    }

    fn path(reference: &RegistryReference, manifest: &Digest, number: usize) -> String {
        let digest = manifest.to_string().replacen(':', "=", 1);
        format!("{}@{digest}/signature-{number}", reference.repository())
    }

    /// Where a signature is on a web server.
    pub(super) fn url(
        &self,
        reference: &RegistryReference,
        manifest: &Digest,
        number: usize,
    ) -> Option<Url> {
        let Self::Web(base) = self else { return None };
        let path = Self::path(reference, manifest, number);
        base.with_path(&format!("{}/{path}", base.path().trim_end_matches('/'))).ok()
    }

    /// Reads the signatures of an image from a directory; there are none on a web server.
    ///
    /// # Errors
    /// If one can't be read.
    pub fn read(
        &self,
        reference: &RegistryReference,
        manifests: &[Digest],
    ) -> Result<Vec<Signature>, LookasideError> {
        let mut signatures = Vec::new();
        let Self::Directory(directory) = self else { return Ok(signatures) };
        for manifest in manifests {
            for number in 1..=MAX_SIGNATURES {
                let path = directory.join(Self::path(reference, manifest, number));
                let Some(message) = read(&path, MAX_PAYLOAD)? else { break };
                signatures.push(Signature::SimpleSigning { message });
            }
        }
        Ok(signatures)
    }
}

impl Lookasides {
    /// Reads the files `*.yaml` in a directory; nothing if it does not exist.
    ///
    /// # Errors
    /// See [`LookasideError`].
    pub fn load(directory: &Path) -> Result<Self, LookasideError> {
        let failed = |source| LookasideError::Io { path: directory.into(), source };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            files.push(entry.map_err(failed)?.path());
        }
        files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        let mut lookasides = Self::default();
        for path in files {
            let bytes = read(&path, MAX_FILE)?.unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            lookasides.add(&path, &text)?;
        }
        Ok(lookasides)
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<(), LookasideError> {
        let malformed = |(line, problem): (usize, String)| LookasideError::Malformed {
            path: path.into(),
            line,
            problem: Text::new(problem),
        };
        let twice =
            |scope: &str| LookasideError::Twice { path: path.into(), scope: Text::new(scope) };
        for Entry { keys, value, line } in parse_mappings(text).map_err(malformed)? {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let (scope, option) = match keys.as_slice() {
                ["default-docker", option] => (None, *option),
                ["docker", scope, option] => (Some(*scope), *option),
                // An empty mapping.
                ["default-docker" | "docker"] | ["docker", _] if value.is_empty() => continue,
                _ => return Err(malformed((line, "this is not known here".to_owned()))),
            };
            match option {
                // `sigstore` is how it was called before.
                "lookaside" | "sigstore" => {
                    let place = Lookaside::parse(&value).map_err(|text| malformed((line, text)))?;
                    let old = match scope {
                        None => self.default.replace(place),
                        Some(scope) => self.scopes.insert(scope.to_ascii_lowercase(), place),
                    };
                    if old.is_some() {
                        return Err(twice(scope.unwrap_or("default-docker")));
                    }
                }
                // For writing, and for signatures that are looked for anyway.
                "lookaside-staging" | "sigstore-staging" | "use-sigstore-attachments" => {}
                _ => return Err(malformed((line, "this option is not known".to_owned()))),
            }
        }
        Ok(())
    }

    /// The one that is for an image: that of the most specific scope, by whole components.
    pub fn of(&self, reference: &RegistryReference) -> Option<&Lookaside> {
        let name = reference.name();
        let mut scope = name.as_str();
        loop {
            if let Some(found) = self.scopes.get(scope) {
                return Some(found);
            }
            match scope.rfind('/') {
                Some(slash) => scope = &scope[..slash],
                None => return self.default.as_ref(),
            }
        }
    }
}

const MAX_FILE: u64 = 256 << 10;

fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, LookasideError> {
    let failed = |source| LookasideError::Io { path: path.into(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        Err(LookasideError::TooLarge(path.into()))
    } else {
        Ok(Some(bytes))
    }
}

/// A value in nested mappings.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    keys: Vec<String>,
    value: String,
    line: usize,
}

/// A key whose mapping may follow.
struct Open {
    indentation: usize,
    key: String,
    /// The indentation of what is below it.
    below: Option<usize>,
    line: usize,
}

/// Reads the part of YAML that these files are written in: block mappings of words. A key without
/// a value and without a mapping below it has the value "".
fn parse_mappings(text: &str) -> Result<Vec<Entry>, (usize, String)> {
    let mut entries = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let close = |open: &mut Vec<Open>, entries: &mut Vec<Entry>| {
        let keys: Vec<String> = open.iter().map(|open| open.key.clone()).collect();
        if let Some(Open { below: None, line, .. }) = open.pop() {
            entries.push(Entry { keys, value: String::new(), line });
        }
    };
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let refused = |problem: &str| (number, problem.to_owned());
        let content = line.trim_start_matches(' ');
        let indentation = line.len() - content.len();
        let is_start = indentation == 0 && content.trim_end() == "---";
        if content.trim().is_empty() || content.starts_with('#') || is_start {
            continue;
        }
        while open.last().is_some_and(|above| above.indentation >= indentation) {
            close(&mut open, &mut entries);
        }
        let expected = match open.last_mut() {
            Some(above) => *above.below.get_or_insert(indentation),
            None => 0,
        };
        if indentation != expected {
            return Err(refused("its indentation fits no line above"));
        }
        let (key, rest) = word(content, true).map_err(refused)?;
        let rest = rest.strip_prefix(':').ok_or_else(|| refused("a colon is missing"))?;
        if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
            return Err(refused("a space is missing after the colon"));
        }
        let rest = rest.trim();
        let mut keys: Vec<String> = open.iter().map(|open| open.key.clone()).collect();
        if rest.is_empty() || rest.starts_with('#') {
            open.push(Open { indentation, key, below: None, line: number });
            continue;
        }
        let (value, rest) = word(rest, false).map_err(refused)?;
        if !rest.trim().is_empty() && !rest.starts_with(" #") {
            return Err(refused("only one word is expected after the colon"));
        }
        keys.push(key);
        entries.push(Entry { keys, value, line: number });
    }
    while !open.is_empty() {
        close(&mut open, &mut entries);
    }
    Ok(entries)
}

/// A word, plain or in quotes, and what follows it.
fn word(text: &str, is_key: bool) -> Result<(String, &str), &'static str> {
    if let Some(quote) = text.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        let (word, rest) = text[1..].split_once(quote).ok_or("a quote is missing")?;
        if word.contains('\\') || (quote == '\'' && rest.starts_with('\'')) {
            return Err("escapes in quotes are not supported");
        }
        return Ok((word.to_owned(), rest));
    }
    if text.starts_with(|first: char| "-?:,[]{}#&*!|>%@`".contains(first)) {
        return Err("only mappings and words are supported");
    }
    let end = if is_key {
        // A key may hold a port: it ends at a colon with nothing or a space after it.
        let colon = text.match_indices(':').map(|(place, _)| place);
        let ends =
            |place: &usize| matches!(text.as_bytes().get(place + 1), None | Some(b' ' | b'\t'));
        colon.into_iter().find(ends)
    } else {
        text.find([' ', '\t'])
    };
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    Ok((word.trim_end().to_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;

    // Debian's default.yaml, abridged, and one of a host.
    const DEFAULT: &str = "# Comment\n\ndefault-docker:\n#  lookaside: https://x.example\n  \
                           lookaside-staging: file:///var/lib/containers/sigstore\n";
    const OWN: &str = "docker:\n  registry.example:5000:\n    lookaside: https://sig.example/a/ # why\n  \
                       \"registry.example:5000/team\":\n    sigstore: 'file:///var/sig'\n  \
                       other.example:\n    use-sigstore-attachments: true\n";

    fn lookasides(texts: &[&str]) -> Result<Lookasides, LookasideError> {
        let mut lookasides = Lookasides::default();
        for text in texts {
            lookasides.add(Path::new("x.yaml"), text)?;
        }
        Ok(lookasides)
    }

    #[test]
    fn the_most_specific_scope_counts() {
        let found = lookasides(&[DEFAULT, OWN]).unwrap();
        let of = |name: &str| found.of(&RegistryReference::parse(name).unwrap()).cloned();
        let web = Lookaside::Web("https://sig.example/a/".parse().unwrap());
        assert_eq!(of("registry.example:5000/x"), Some(web));
        let directory = Some(Lookaside::Directory("/var/sig".into()));
        assert_eq!(of("registry.example:5000/team/x"), directory);
        assert_ne!(of("registry.example:5000/teams/x"), directory);
        assert_eq!(of("other.example/x"), None);
        assert_eq!(of("debian"), None);
        let all = lookasides(&["default-docker:\n  lookaside: https://all.example"]).unwrap();
        assert!(all.of(&RegistryReference::parse("debian").unwrap()).is_some());
    }

    #[test]
    fn malformed_files_are_refused_with_their_line() {
        for (text, line) in [
            ("docker:\n  a.example:\n    lookaside: ftp://x", 3),
            ("docker:\n  a.example:\n    lookaside: https://u:p@x.example", 3),
            ("docker:\n  a.example:\n    lookaside: file://x", 3),
            ("docker:\n  a.example:\n    lookasid: https://x.example", 3),
            ("docker:\n  - a.example", 2),
            ("docker: {a: b}", 1),
            ("docker:\n  a.example: &x\n", 2),
            ("docker:\n    a.example:\n   b.example:\n", 3),
            ("\tdocker:", 1),
            ("docker", 1),
            ("unknown:\n  x: y", 2),
            ("docker:\n  a.example:\n    lookaside: \"https://x", 3),
            ("docker:\n  a.example:\n    lookaside: https://x y", 3),
        ] {
            match lookasides(&[text]) {
                Err(LookasideError::Malformed { line: found, .. }) => {
                    assert_eq!(found, line, "{text}")
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        let twice = "docker:\n  a.example:\n    lookaside: https://x.example\n";
        assert!(matches!(lookasides(&[twice, twice]), Err(LookasideError::Twice { .. })));
    }

    #[test]
    fn signatures_are_numbered_from_one() {
        let directory = tempfile::tempdir().unwrap();
        let reference = RegistryReference::parse("registry.example/team/app:1").unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"manifest");
        let place = format!("team/app@sha256={}", digest.hex());
        let folder = directory.path().join(place);
        fs::create_dir_all(&folder).unwrap();
        for (number, content) in [(1, "one"), (2, "two"), (4, "four")] {
            fs::write(folder.join(format!("signature-{number}")), content).unwrap();
        }
        let lookaside = Lookaside::Directory(directory.path().into());
        let found = lookaside.read(&reference, std::slice::from_ref(&digest)).unwrap();
        let message = |text: &str| Signature::SimpleSigning { message: text.into() };
        assert_eq!(found, [message("one"), message("two")]);
        let web = Lookaside::Web("https://sig.example/a/".parse().unwrap());
        assert_eq!(
            web.url(&reference, &digest, 2).unwrap().expose(),
            format!("https://sig.example/a/team/app@sha256={}/signature-2", digest.hex())
        );
    }
}

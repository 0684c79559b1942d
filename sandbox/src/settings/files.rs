use super::{Problem, SettingsError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Most bytes of a configuration file.
const MOST: u64 = 1 << 20;

/// A configuration file of the right kind.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    content: Vec<u8>,
}

/// What every configuration file begins with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    rkt_version: String,
    rkt_kind: String,
}

/// The configuration files of a folder in the order of their names: regular files `*.json`, none
/// of folders below it. No folder is an empty one.
pub fn entries(folder: &Path, kind: &'static str) -> Result<Vec<Entry>, SettingsError> {
    Ok(entries_of(folder, &[kind])?.into_iter().map(|(_, entry)| entry).collect())
}

/// The same where there are several kinds, with the kind of each.
pub fn entries_of(
    folder: &Path,
    kinds: &[&'static str],
) -> Result<Vec<(&'static str, Entry)>, SettingsError> {
    let failed =
        |error: io::Error| SettingsError { path: folder.to_owned(), problem: error.into() };
    let listing = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for found in listing {
        let found = found.map_err(failed)?;
        let path = found.path();
        if found.file_type().map_err(failed)?.is_file()
            && path.extension().is_some_and(|extension| extension == "json")
        {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(|path| Entry::read(path, kinds)).collect()
}

impl Entry {
    fn read(path: PathBuf, kinds: &[&'static str]) -> Result<(&'static str, Self), SettingsError> {
        let mut content = Vec::new();
        let read = fs::File::open(&path)
            .and_then(|file| file.take(MOST + 1).read_to_end(&mut content))
            .and_then(|bytes| match bytes as u64 {
                ..=MOST => Ok(()),
                _ => Err(io::Error::other(format!("it has more than {MOST} bytes"))),
            });
        if let Err(error) = read {
            return Err(SettingsError { path, problem: error.into() });
        }
        let entry = Self { path, content };
        let head: Head = entry.parse()?;
        if head.rkt_version != "v1" {
            return Err(entry.wrong("rktVersion is not \"v1\""));
        }
        match kinds.iter().find(|kind| **kind == head.rkt_kind) {
            Some(kind) => Ok((kind, entry)),
            None => {
                let kinds = kinds.join(" or ");
                Err(entry.wrong(format!("rktKind is not {kinds}, as of files in this folder")))
            }
        }
    }

    /// The content, as far as it is of use here.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, SettingsError> {
        serde_json::from_slice(&self.content).map_err(|error| SettingsError {
            path: self.path.clone(),
            problem: Problem::Json { line: error.line(), column: error.column() },
        })
    }

    /// That something is wrong with it.
    pub fn wrong(&self, problem: impl Into<String>) -> SettingsError {
        SettingsError { path: self.path.clone(), problem: Problem::Value(problem.into()) }
    }
}

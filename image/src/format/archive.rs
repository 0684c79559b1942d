use crate::{
    Error, Limits, Text,
    layer::{Content, Data, EntryKind, TarReader},
};
use std::{collections::HashMap, fs::File, io::BufReader};

/// Where the files of a tar archive are in it. Nothing of it is unpacked.
#[derive(Debug)]
pub(super) struct Members(HashMap<Vec<u8>, Member>);

#[derive(Clone, Debug)]
enum Member {
    /// Position and size.
    File(u64, u64),
    /// Another member with this path. `docker save` wrote layers that come twice as links.
    Link(Vec<u8>),
}

impl Members {
    /// Reads through an uncompressed archive.
    pub(super) fn scan(
        archive: &File,
        path: &Text,
        expected: &'static str,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let refused = |problem: String| Error::NotAnImage {
            path: path.clone(),
            expected,
            problem: Text::new(problem),
        };
        let reader = TarReader::new(BufReader::new(archive), limits);
        let mut reader = reader.map_err(|error| refused(error.to_string()))?;
        let mut members = HashMap::new();
        let mut count = 0;
        while let Some(entry) = reader.next_entry().map_err(|error| refused(error.to_string()))? {
            count += 1;
            limits.check(crate::Limit::Files, count)?;
            let Some(path) = normal(&entry.path) else {
                return Err(refused(format!("its member '{}' is outside", Text::new(&entry.path))));
            };
            let member = match entry.kind {
                EntryKind::File(Content { size, data: Data::Whole { position } }) => {
                    Member::File(position, size)
                }
                EntryKind::HardLink(target) => match normal(&target) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                EntryKind::Symlink(target) => {
                    let directory = entry.path.rsplitn(2, |&byte| byte == b'/').nth(1);
                    match normal(&[directory.unwrap_or_default(), &target].join(&b'/')) {
                        Some(target) => Member::Link(target),
                        None => continue,
                    }
                }
                _ => continue,
            };
            if members.insert(path, member).is_some() {
                let name = Text::new(&entry.path);
                return Err(refused(format!("its member '{name}' is there twice")));
            }
        }
        Ok(Self(members))
    }

    /// Position and size of a file.
    pub(super) fn find(&self, path: &str) -> Option<(u64, u64)> {
        match self.0.get(&normal(path.as_bytes())?)? {
            &Member::File(position, size) => Some((position, size)),
            // One step: nobody writes links to links.
            Member::Link(target) => match self.0.get(target)? {
                &Member::File(position, size) => Some((position, size)),
                Member::Link(_) => None,
            },
        }
    }
}

/// A path without `.`, `..` and empty components; `None` if it leaves the archive.
fn normal(path: &[u8]) -> Option<Vec<u8>> {
    let mut components = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop()?;
            }
            _ => components.push(component),
        }
    }
    Some(components.join(&b'/'))
}

use super::{Channel, Files};
use crate::{
    Error, Limit, Limits, Text,
    layer::{Compression, Content, Data, EntryKind, Spool, Spooling, TarReader},
    progress::Reporter,
};
use std::{
    fs::File,
    io::{BufReader, Write as _},
    os::unix::fs::FileExt as _,
};

/// All compressions that a file may have that was named by its path.
pub(super) const ANY: &[Compression] =
    &[Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz];

/// Decompresses an ACI and takes its manifest out. It has to be decompressed to know what it is: its
/// ID is the digest of the whole.
pub(super) fn open(
    name: &str,
    mut files: Files,
    limits: &Limits,
    channel: &mut Channel,
) -> Result<(), Error> {
    let (shipped, archive, mut manifest) =
        (files.next_file()?, files.next_file()?, files.next_file()?);
    let archive = spool(name, shipped, archive, limits, &mut Reporter::new(channel))?;
    let document = read_manifest(name, &archive, limits)?;
    manifest.write_all(&document).map_err(|error| Error::io("write", "the manifest", error))
}

/// Decompresses a whole file.
pub(super) fn spool(
    name: &str,
    from: File,
    into: File,
    limits: &Limits,
    reporter: &mut Reporter<'_>,
) -> Result<Spool, Error> {
    let failed = |error| Error::io("read", name, error);
    let limit = limits.get(Limit::Size);
    let how = Spooling {
        compressions: ANY,
        algorithm: None,
        budget: limit,
        size_limit: limit,
        index: 0,
        count: 1,
        total: from.metadata().map_err(failed)?.len(),
        reporter,
    };
    let spooled = Spool::fill(into, from, how);
    spooled.map(|(spool, _)| spool).map_err(|error| error.into_error(|| Text::new(name)))
}

/// The file `manifest` of an ACI.
fn read_manifest(name: &str, aci: &Spool, limits: &Limits) -> Result<Vec<u8>, Error> {
    let not_one = |problem: String| Error::NotAnImage {
        path: Text::new(name),
        expected: "an App Container Image",
        problem: Text::new(problem),
    };
    let reader = TarReader::new(BufReader::new(aci.file()), limits);
    let mut reader = reader.map_err(|error| not_one(error.to_string()))?;
    let mut count = 0;
    while let Some(entry) = reader.next_entry().map_err(|error| not_one(error.to_string()))? {
        count += 1;
        limits.check(Limit::Files, count)?;
        let path = entry.path.as_slice();
        if path.strip_prefix(b"./").unwrap_or(path) != b"manifest" {
            continue;
        }
        let EntryKind::File(Content { size, data: Data::Whole { position } }) = entry.kind else {
            return Err(not_one("its manifest is not a file".to_owned()));
        };
        limits.check(Limit::Document, size)?;
        let mut document = vec![0; usize::try_from(size).unwrap_or_default()];
        aci.file()
            .read_exact_at(&mut document, position)
            .map_err(|error| Error::io("read", name, error))?;
        return Ok(document);
    }
    Err(not_one("it has no manifest".to_owned()))
}

use super::archive::Members;
use crate::{Digest, Error, Limit, Limits, Text};
use rustix::{
    fd::OwnedFd,
    fs::{FileType, Mode, OFlags, fstat, open, openat},
};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

/// What holds the files of an image: a directory or an archive.
#[derive(Debug)]
pub(crate) struct Container {
    path: Text,
    files: Files,
}

#[derive(Debug)]
enum Files {
    Directory(OwnedFd),
    Archive(Arc<File>, Members),
}

/// A file of a container. It has the size that it had when it was opened: of a file that grows
/// meanwhile the rest is not read.
#[derive(Debug)]
pub(crate) struct Section {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Container {
    /// Opens an OCI layout's directory.
    pub(crate) fn directory(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty());
        let directory = directory.map_err(|error| Error::io("open directory", path, error))?;
        Ok(Self { path: Text::of_os(path), files: Files::Directory(directory) })
    }

    /// Takes an uncompressed archive.
    pub(crate) fn archive(
        path: &Path,
        archive: File,
        expected: &'static str,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let path = Text::of_os(path);
        let members = Members::scan(&archive, &path, expected, limits)?;
        Ok(Self { path, files: Files::Archive(Arc::new(archive), members) })
    }

    /// The path of the directory or archive.
    pub(crate) fn path(&self) -> &Text {
        &self.path
    }

    /// Opens a file; `None` if there is none of this name.
    pub(crate) fn open(&self, name: &str) -> Result<Option<Section>, Error> {
        match &self.files {
            Files::Directory(directory) => {
                let failed = |error: io::Error| Error::Io {
                    action: "open",
                    path: Text::new(format!("{}/{name}", self.path)),
                    source: error,
                };
                match open_file(directory, name) {
                    Ok((file, end)) => Ok(Some(Section { file: Arc::new(file), position: 0, end })),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(failed(error)),
                }
            }
            Files::Archive(archive, members) => Ok(members.find(name).map(|(position, size)| {
                Section { file: archive.clone(), position, end: position.saturating_add(size) }
            })),
        }
    }

    /// Reads a document; `None` if there is none of this name.
    pub(crate) fn read(&self, name: &str, limits: &Limits) -> Result<Option<Vec<u8>>, Error> {
        let section = self.open(name)?;
        section.map(|section| self.read_section(name, section, limits)).transpose()
    }

    fn read_section(
        &self,
        name: &str,
        mut section: Section,
        limits: &Limits,
    ) -> Result<Vec<u8>, Error> {
        limits.check(Limit::Document, section.size())?;
        let mut document = Vec::new();
        section.read_to_end(&mut document).map_err(|source| Error::Io {
            action: "read",
            path: Text::new(format!("{}/{name}", self.path)),
            source,
        })?;
        Ok(document)
    }

    /// Opens a blob, of the size that it must have.
    pub(crate) fn blob(&self, digest: &Digest, size: u64) -> Result<Section, Error> {
        let refused = |problem| Error::Blob { digest: digest.clone(), problem };
        let Some(section) = self.open(&blob_path(digest))? else {
            return Err(refused(format!("{} does not have it", self.path)));
        };
        if section.size() != size {
            let found = section.size();
            return Err(refused(format!("it has {found} bytes instead of {size}")));
        }
        Ok(section)
    }

    /// Reads a document that is a blob, and checks it.
    pub(crate) fn document(
        &self,
        digest: &Digest,
        size: u64,
        limits: &Limits,
    ) -> Result<Vec<u8>, Error> {
        limits.check(Limit::Document, size)?;
        let section = self.blob(digest, size)?;
        let document = self.read_section(&blob_path(digest), section, limits)?;
        check_digest(digest, &Digest::of(digest.algorithm(), &document))?;
        Ok(document)
    }
}

/// Where an OCI layout has a blob (image-layout.md).
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}", digest.to_string().replace(':', "/"))
}

/// Refuses content that is not what its digest says.
pub(crate) fn check_digest(expected: &Digest, found: &Digest) -> Result<(), Error> {
    if expected == found {
        return Ok(());
    }
    let problem = format!("its digest is {found}");
    Err(Error::Blob { digest: expected.clone(), problem })
}

/// Opens a regular file and says its size. Does not wait for the writer of a named pipe.
pub(crate) fn open_file(
    directory: impl rustix::fd::AsFd,
    name: impl rustix::path::Arg,
) -> io::Result<(File, u64)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty())?;
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok((file.into(), u64::try_from(stat.st_size).unwrap_or_default()))
}

impl Section {
    /// Its size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.end - self.position
    }
}

impl Read for Section {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let most = most.min(into.len());
        let count = self.file.read_at(&mut into[..most], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

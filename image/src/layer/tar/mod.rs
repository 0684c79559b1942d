//! A strict tar reader: ustar, PAX (POSIX.1-2024 "pax Interchange Format"), GNU long names, and
//! sparse files in GNU's four formats.
//!
//! Two readers that understand an archive differently are a way past every check, so whatever is
//! ambiguous is refused: headers with a wrong checksum, numbers that are not numbers, a field said
//! twice, sizes where nothing can follow, an archive without its end marker, or with something
//! after it.

mod header;
mod pax;
mod sparse;

use crate::{Limit, LimitExceeded, Limits, Text};
use header::{BLOCK, Header};
use pax::Extended;
use std::io::{self, Read, Seek, SeekFrom};

/// Longest extended header, in bytes, beyond what the extended attributes in it may have. Holds
/// the longest paths and a sparse map, and bounds what is read into memory at once.
const MAX_EXTENDED: u64 = 1 << 20;

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path as it is written, without NUL and not empty. May hold `..`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, with set-user-ID, set-group-ID and sticky bit.
    pub mode: u16,
    /// Owner. Never `u32::MAX`, which system calls take for "none".
    pub uid: u32,
    /// Group. Never `u32::MAX`.
    pub gid: u32,
    /// Time of the last change.
    pub mtime: Timestamp,
    /// Extended attributes, each name once.
    pub xattrs: Vec<Xattr>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File(Content),
    /// A directory.
    Directory,
    /// A symbolic link, with its target, which is not empty and has no NUL.
    Symlink(Vec<u8>),
    /// Another name of the file that has this path in the archive.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character or block device.
    Device,
}

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after that, below 10^9.
    pub nanoseconds: u32,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Its full name: `user.note`. Not empty, no NUL.
    pub name: Vec<u8>,
    /// Any bytes.
    pub value: Vec<u8>,
}

/// Where a file's content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Size of the file in bytes; at most `i64::MAX`.
    pub size: u64,
    /// Its bytes.
    pub data: Data,
}

/// Where a file's bytes are in the uncompressed archive. Lies within the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// All of them from here on.
    Whole {
        /// Position in the archive.
        position: u64,
    },
    /// In pieces, in ascending order, none empty, none overlapping; between them are holes.
    Sparse(Vec<Extent>),
}

/// A piece of a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it is in the file.
    pub offset: u64,
    /// Bytes, at least 1.
    pub length: u64,
    /// Where it is in the archive.
    pub position: u64,
}

impl Content {
    /// The pieces that hold data: a whole file is one piece, unless it is empty.
    pub fn extents(&self) -> impl Iterator<Item = Extent> {
        let (whole, pieces) = match &self.data {
            Data::Whole { position } if self.size > 0 => {
                (Some(Extent { offset: 0, length: self.size, position: *position }), &[][..])
            }
            Data::Whole { .. } => (None, &[][..]),
            Data::Sparse(pieces) => (None, &pieces[..]),
        };
        whole.into_iter().chain(pieces.iter().copied())
    }
}

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// It can't be read.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// It is over a limit.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// It ends too early.
    #[error("the tar archive is truncated: it ends at byte {0}")]
    Truncated(u64),
    /// It is not a tar archive as it should be.
    #[error("the tar archive is malformed at byte {position}: {problem}")]
    Malformed {
        /// Where the entry's header begins.
        position: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// An entry of it is not as it should be.
    #[error("entry '{path}' of the tar archive is malformed: {problem}")]
    Entry {
        /// The entry's path.
        path: Text,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Reads the entries of an uncompressed tar archive one after the other.
#[derive(Debug)]
pub struct TarReader<'a, R> {
    archive: R,
    length: u64,
    /// Where the next byte is read.
    position: u64,
    /// Where the next header begins.
    next: u64,
    ended: bool,
    may_end_anywhere: bool,
    limits: &'a Limits,
}

/// What the headers before an entry's own say about it.
#[derive(Default)]
struct Before {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    extended: Option<Extended>,
}

impl Before {
    fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && self.extended.is_none()
    }
}

impl<'a, R: Read + Seek> TarReader<'a, R> {
    /// Reads `archive` from its beginning. Many small reads are made: buffer it.
    ///
    /// # Errors
    /// If the archive can't be read.
    pub fn new(mut archive: R, limits: &'a Limits) -> Result<Self, TarError> {
        let length = archive.seek(SeekFrom::End(0))?;
        archive.seek(SeekFrom::Start(0))?;
        Ok(Self {
            archive,
            length,
            position: 0,
            next: 0,
            ended: false,
            may_end_anywhere: false,
            limits,
        })
    }

    /// Takes the end of the file after an entry for the archive's end, too: some tools, umoci among
    /// them, leave the end marker out. Only for what a digest says to be whole.
    #[must_use]
    pub fn without_end_marker(mut self) -> Self {
        self.may_end_anywhere = true;
        self
    }

    /// The next entry; `None` at the archive's end, which was then checked.
    ///
    /// # Errors
    /// See [`TarError`]; after an error nothing more can be read.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut before = Before::default();
        while !self.ended {
            self.skip_to(self.next)?;
            let at = self.position;
            if self.may_end_anywhere && at == self.length && before.is_empty() {
                self.ended = true;
                break;
            }
            let block = self.block()?;
            self.next = self.position;
            if block == [0; BLOCK] {
                if !before.is_empty() {
                    return Err(malformed(at, "an extended header without an entry"));
                }
                self.check_end(at)?;
                self.ended = true;
                break;
            }
            let header = Header::parse(&block).map_err(|problem| malformed(at, problem))?;
            let stored = header.size().map_err(|problem| malformed(at, problem))?;
            match header.typeflag() {
                b'L' => {
                    let name = self.long_text(at, stored)?;
                    set_once(&mut before.long_name, name, at)?;
                }
                b'K' => {
                    let name = self.long_text(at, stored)?;
                    set_once(&mut before.long_link, name, at)?;
                }
                b'x' => {
                    let extended = self.extended(at, stored)?;
                    set_once(&mut before.extended, extended, at)?;
                }
                b'g' => {
                    // What it says would hold for all entries after it, in the eyes of some
                    // readers.
                    if !self.extended(at, stored)?.is_comment() {
                        return Err(malformed(at, "a global extended header"));
                    }
                }
                _ => return self.entry(at, &header, before).map(Some),
            }
        }
        Ok(None)
    }

    /// The entry whose header was just read.
    fn entry(&mut self, at: u64, header: &Header, before: Before) -> Result<Entry, TarError> {
        let Before { long_name, long_link, extended } = before;
        let mut extended = extended.unwrap_or_default();
        let sparse_name = extended.sparse.name.take();
        let path = match one_of(at, long_name, extended.path.take(), sparse_name)? {
            Some(path) => path,
            None => header.path(),
        };
        let link = match one_of(at, long_link, extended.link.take(), None)? {
            Some(link) => link,
            None => header.link(),
        };
        self.limits.check(Limit::Path, bytes(path.len()))?;
        self.limits.check(Limit::Path, bytes(link.len()))?;
        let xattrs = extended.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len());
        self.limits.check(Limit::Xattr, bytes(xattrs.sum()))?;

        let refused = |problem| TarError::Entry { path: Text::new(&path), problem };
        if path.is_empty() || path.contains(&0) || link.contains(&0) {
            return Err(refused("a path is empty or holds a NUL"));
        }
        let id = |number: Result<u64, _>| {
            let id = u32::try_from(number.map_err(refused)?).ok().filter(|&id| id != u32::MAX);
            id.ok_or(refused("an owner or group is not a number below 2^32 - 1"))
        };
        let mut entry = Entry {
            kind: EntryKind::Directory,
            mode: header.mode().map_err(refused)?,
            uid: id(extended.uid.map_or_else(|| header.uid(), Ok))?,
            gid: id(extended.gid.map_or_else(|| header.gid(), Ok))?,
            mtime: extended.mtime.map_or_else(|| header.mtime(), Ok).map_err(refused)?,
            xattrs: std::mem::take(&mut extended.xattrs),
            path: Vec::new(),
        };
        let stored = extended.size.map_or_else(|| header.size(), Ok).map_err(refused)?;
        let slash = path.ends_with(b"/");
        entry.kind = match header.typeflag() {
            // Version 7 had no type for directories: a slash at the end made one.
            0 if slash && stored == 0 => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' if slash => {
                return Err(refused("a file's name ends with a slash"));
            }
            b'S' if extended.sparse.is_used() => {
                return Err(refused("it is sparse in two ways"));
            }
            0 | b'0' | b'7' | b'S' => {
                let content = self.content(header, &extended, stored);
                EntryKind::File(content.map_err(|problem| problem.of(&path))?)
            }
            _ if stored != 0 || extended.sparse.is_used() => {
                return Err(refused("it has content, but is not a file"));
            }
            b'1' | b'2' if link.is_empty() => return Err(refused("a link without a target")),
            b'1' => EntryKind::HardLink(link),
            b'2' => EntryKind::Symlink(link),
            b'3' | b'4' => EntryKind::Device,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            _ => return Err(refused("an unknown type of entry")),
        };
        entry.path = path;
        Ok(entry)
    }

    /// The content of a file whose header was just read; the next header is after it.
    fn content(
        &mut self,
        header: &Header,
        extended: &Extended,
        stored: u64,
    ) -> Result<Content, Problem> {
        let mut map = None;
        if header.typeflag() == b'S' {
            map = Some(header.sparse_map(|| self.block())?);
        }
        let start = self.position;
        let end = start.checked_add(stored).ok_or(TarError::Truncated(self.length))?;
        let next = end.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX);
        if next > self.length {
            return Err(TarError::Truncated(self.length).into());
        }
        self.next = next;
        if extended.sparse.is_used() {
            map = Some(extended.sparse.map(|| {
                if self.position < end { self.block() } else { Err(TarError::Truncated(end)) }
            })?);
        }
        let Some(map) = map else {
            return Ok(Content {
                size: size_of_file(stored)?,
                data: Data::Whole { position: start },
            });
        };
        let size = size_of_file(map.size)?;
        Ok(Content { size, data: Data::Sparse(map.place(self.position, end)?) })
    }

    /// The text in the content of a GNU long name's header, which ends with a NUL.
    fn long_text(&mut self, at: u64, size: u64) -> Result<Vec<u8>, TarError> {
        self.limits.check(Limit::Path, size.saturating_sub(1))?;
        let mut text = self.header_content(size)?;
        if text.pop() != Some(0) || text.contains(&0) {
            return Err(malformed(at, "a long name does not end with one NUL"));
        }
        Ok(text)
    }

    fn extended(&mut self, at: u64, size: u64) -> Result<Extended, TarError> {
        if size > MAX_EXTENDED + self.limits.get(Limit::Xattr) {
            return Err(malformed(at, "an extended header of more than 1 MiB beside the xattrs"));
        }
        let content = self.header_content(size)?;
        Extended::parse(&content).map_err(|problem| malformed(at, problem))
    }

    /// The content of a header that describes another; `size` is bounded by the caller.
    fn header_content(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let end = self.position.checked_add(size).filter(|&end| end <= self.length);
        let end = end.ok_or(TarError::Truncated(self.length))?;
        let mut content = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.archive.read_exact(&mut content)?;
        self.position = end;
        self.next = end.next_multiple_of(BLOCK as u64);
        Ok(content)
    }

    /// After a block of zeros there is one more, and nothing but zeros after that.
    fn check_end(&mut self, at: u64) -> Result<(), TarError> {
        if self.block()? != [0; BLOCK] {
            return Err(malformed(at, "an empty header"));
        }
        let mut rest = [0; 16 * BLOCK];
        loop {
            let count = self.archive.read(&mut rest)?;
            if count == 0 {
                return Ok(());
            }
            if rest[..count].iter().any(|&byte| byte != 0) {
                return Err(malformed(at, "something comes after the archive's end"));
            }
        }
    }

    fn block(&mut self) -> Result<[u8; BLOCK], TarError> {
        let mut block = [0; BLOCK];
        if self.length - self.position < BLOCK as u64 {
            return Err(TarError::Truncated(self.length));
        }
        self.archive.read_exact(&mut block)?;
        self.position += BLOCK as u64;
        Ok(block)
    }

    fn skip_to(&mut self, position: u64) -> Result<(), TarError> {
        if position > self.length {
            return Err(TarError::Truncated(self.length));
        }
        let distance = position - self.position;
        if distance > 0 {
            self.archive.seek_relative(i64::try_from(distance).map_err(io::Error::other)?)?;
            self.position = position;
        }
        Ok(())
    }
}

/// What can be wrong with an entry's content, before the entry's name is put to it.
#[derive(Debug)]
enum Problem {
    Archive(TarError),
    Entry(&'static str),
}

impl Problem {
    fn of(self, path: &[u8]) -> TarError {
        match self {
            Self::Archive(error) => error,
            Self::Entry(problem) => TarError::Entry { path: Text::new(path), problem },
        }
    }
}

impl From<TarError> for Problem {
    fn from(error: TarError) -> Self {
        Self::Archive(error)
    }
}

impl From<&'static str> for Problem {
    fn from(problem: &'static str) -> Self {
        Self::Entry(problem)
    }
}

fn size_of_file(size: u64) -> Result<u64, &'static str> {
    i64::try_from(size).map_or(Err("its size is beyond any file system"), |_| Ok(size))
}

fn malformed(position: u64, problem: &'static str) -> TarError {
    TarError::Malformed { position, problem }
}

fn set_once<T>(place: &mut Option<T>, value: T, at: u64) -> Result<(), TarError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(malformed(at, "the same extended header twice")),
    }
}

/// A path that may be said in one of several ways, but only in one.
fn one_of(
    at: u64,
    gnu: Option<Vec<u8>>,
    pax: Option<Vec<u8>>,
    sparse: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>, TarError> {
    match (gnu, pax, sparse) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => Err(malformed(at, "a path is said twice")),
        // GNU tar puts a made-up path beside a sparse file's real one.
        (None, _, Some(path)) | (None, Some(path), None) | (Some(path), None, None) => {
            Ok(Some(path))
        }
        (None, None, None) => Ok(None),
    }
}

fn bytes(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

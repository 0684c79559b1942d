//! Writing a tree to disk.
//!
//! Every call names one component, relative to a directory that was made here, and makes something
//! new (`O_EXCL`, `O_NOFOLLOW`): so no path of the image is ever resolved by the kernel, and what
//! is made is what was meant.

use crate::{
    Error, Step, Text,
    layer::{Content, Spool, Timestamp},
    progress::Reporter,
    tree::{Metadata, NodeId, NodeKind, Tree},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
        chownat, copy_file_range, fchmod, fchown, fsetxattr, ftruncate, futimens, linkat, mkdirat,
        mknodat, openat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};
use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt as _};

/// Where files with several names are until all their names are made.
const LINKS: &str = "links";

/// Writes `tree` as the new directory `name` in `staging`, a directory that only this process
/// writes to. `layers` holds what the tree's contents refer to.
pub(crate) fn unpack(
    tree: &Tree,
    layers: &[&Spool],
    staging: BorrowedFd<'_>,
    name: &str,
    reporter: &mut Reporter<'_>,
) -> Result<(), Error> {
    let counts = tree.link_counts();
    let total = counts.values().map(|&count| u64::from(count)).sum();
    let wrap = |error: Errno| failed(b"/", error.into());
    let root = make_directory(staging, name.as_bytes()).map_err(wrap)?;
    let links = make_directory(staging, LINKS.as_bytes()).map_err(wrap)?;
    let mut unpacking = Unpacking { tree, layers, links, counts, linked: HashMap::new() };

    // Directories from the root to where we are. As many are open at once as the tree is deep,
    // which its limits bound.
    let mut open = vec![Open {
        id: tree.root(),
        directory: root,
        name: b"",
        rest: tree.children(tree.root()),
    }];
    let mut done = 0;
    while let Some(current) = open.last_mut() {
        if let Some((name, id)) = current.rest.next() {
            done += 1;
            reporter.report(Step::Unpack { done, total })?;
            let made = unpacking.make(current.directory.as_fd(), name, id);
            match made {
                Ok(None) => {}
                Ok(Some(directory)) => {
                    open.push(Open { id, directory, name, rest: tree.children(id) });
                }
                Err(error) => return Err(failed(&path_of(&open, name), error)),
            }
        } else {
            // After its children, which change a directory's time.
            let metadata = &tree.node(current.id).metadata;
            let complete = set_metadata(current.directory.as_fd(), metadata);
            complete.map_err(|error| failed(&path_of(&open, b""), error))?;
            open.pop();
        }
    }
    for (_, name) in unpacking.linked {
        unlinkat(&unpacking.links, name, AtFlags::empty()).map_err(wrap)?;
    }
    unlinkat(staging, LINKS, AtFlags::REMOVEDIR).map_err(wrap)?;
    Ok(())
}

/// A directory that is being filled.
struct Open<'a, I> {
    id: NodeId,
    directory: OwnedFd,
    name: &'a [u8],
    rest: I,
}

struct Unpacking<'a> {
    tree: &'a Tree,
    layers: &'a [&'a Spool],
    links: OwnedFd,
    counts: HashMap<NodeId, u32>,
    /// Files with several names that were made, and their names in `links`.
    linked: HashMap<NodeId, String>,
}

impl Unpacking<'_> {
    /// Makes one name of a file. A directory is returned, to be filled.
    fn make(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        id: NodeId,
    ) -> io::Result<Option<OwnedFd>> {
        if let NodeKind::Directory(_) = self.tree.node(id).kind {
            return Ok(Some(make_directory(parent, name)?));
        }
        if self.counts.get(&id).is_none_or(|&count| count == 1) {
            self.make_file(parent, name, id)?;
            return Ok(None);
        }
        if !self.linked.contains_key(&id) {
            let first = self.linked.len().to_string();
            self.make_file(self.links.as_fd(), first.as_bytes(), id)?;
            self.linked.insert(id, first);
        }
        linkat(&self.links, self.linked[&id].as_str(), parent, name, AtFlags::empty())?;
        Ok(None)
    }

    fn make_file(&self, parent: BorrowedFd<'_>, name: &[u8], id: NodeId) -> io::Result<()> {
        let node = self.tree.node(id);
        let metadata = &node.metadata;
        match &node.kind {
            NodeKind::File { layer, content } => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
                write_content(&file, content, self.layers[usize::from(*layer)].file())?;
                set_metadata(file.as_fd(), metadata)?;
            }
            NodeKind::Symlink(target) => {
                symlinkat(&**target, parent, name)?;
                set_metadata_at(parent, name, metadata)?;
            }
            NodeKind::Fifo => {
                let mode = Mode::from_raw_mode(u32::from(metadata.mode));
                mknodat(parent, name, FileType::Fifo, Mode::empty(), 0)?;
                set_metadata_at(parent, name, metadata)?;
                // Follows no link: what has this name was made just now, where nobody else writes.
                chmodat(parent, name, mode, AtFlags::empty())?;
            }
            NodeKind::Directory(_) => {}
        }
        Ok(())
    }
}

fn make_directory(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    mkdirat(parent, name, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Writes a file's pieces; what is between them stays a hole.
fn write_content(file: &File, content: &Content, layer: &File) -> io::Result<()> {
    let mut end = 0;
    for extent in content.extents() {
        copy(layer, extent.position, file, extent.offset, extent.length)?;
        end = extent.offset + extent.length;
    }
    if end < content.size {
        ftruncate(file, content.size)?;
    }
    Ok(())
}

/// Copies inside the kernel, which shares the bytes where the file system can.
fn copy(
    from: &File,
    mut position: u64,
    to: &File,
    mut offset: u64,
    mut length: u64,
) -> io::Result<()> {
    while length > 0 {
        let most = usize::try_from(length).unwrap_or(usize::MAX).min(1 << 30);
        match copy_file_range(from, Some(&mut position), to, Some(&mut offset), most) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => length -= count as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_by_hand(from, position, to, offset, length);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(
    from: &File,
    mut position: u64,
    to: &File,
    mut offset: u64,
    mut length: u64,
) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    while length > 0 {
        let most = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
        let part = &mut buffer[..most];
        from.read_exact_at(part, position)?;
        to.write_all_at(part, offset)?;
        let count = most as u64;
        (position, offset, length) = (position + count, offset + count, length - count);
    }
    Ok(())
}

/// Owner first: a change of it takes set-user-ID bits and capabilities away. Then attributes, which
/// an owner can only give to files that it may write to; access lists among them change the mode.
/// Time last.
fn set_metadata(file: BorrowedFd<'_>, metadata: &Metadata) -> io::Result<()> {
    fchown(file, Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)))?;
    for xattr in &metadata.xattrs {
        fsetxattr(file, xattr.name.as_slice(), &xattr.value, XattrFlags::CREATE)?;
    }
    fchmod(file, Mode::from_raw_mode(u32::from(metadata.mode)))?;
    futimens(file, &times(metadata.mtime))?;
    Ok(())
}

/// The same for what can't be opened. A symbolic link has no mode; neither it nor a named pipe can
/// have the attributes that an image may give.
fn set_metadata_at(parent: BorrowedFd<'_>, name: &[u8], metadata: &Metadata) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    utimensat(parent, name, &times(metadata.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn times(time: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

fn path_of<I>(open: &[Open<'_, I>], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::new();
    for component in open.iter().map(|directory| directory.name).chain([name]) {
        if !component.is_empty() {
            path.push(b'/');
            path.extend_from_slice(component);
        }
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

fn failed(path: &[u8], source: io::Error) -> Error {
    Error::Unpack { path: Text::new(path), source }
}

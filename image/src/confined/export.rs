//! An image's files as an uncompressed ACI: a tar archive in the pax format, the same one for the
//! same image on every machine.

use super::{Channel, Files, contents::merge};
use crate::{
    Error, Limits, Step,
    layer::{Content, Spool},
    progress::Reporter,
    protocol::Contents,
    tree::{Metadata, NodeId, NodeKind, Tree},
};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, Read as _, Seek as _, Write},
    os::unix::fs::FileExt as _,
};

/// Bytes in a block of a tar archive.
const BLOCK: usize = 512;
/// The largest number that a header's field of twelve octal digits has.
const MAX_SIZE: u64 = 0o77_777_777_777;
/// The same for fields of eight.
const MAX_ID: u32 = 0o7_777_777;

/// Writes an ACI: the manifest, then the files below `rootfs`.
pub(super) fn archive(
    contents: &Contents,
    mut files: Files,
    limits: &Limits,
    channel: &mut Channel,
) -> Result<(), Error> {
    let mut reporter = Reporter::new(channel);
    let (tree, layers) = merge(contents, &mut files, limits, &mut reporter)?;
    let (into, mut manifest) = (files.next_file()?, files.next_file()?);
    let failed = |error: io::Error| Error::io("write", "the archive", error);
    let mut document = Vec::new();
    manifest.rewind().and_then(|()| manifest.read_to_end(&mut document)).map_err(failed)?;

    let mut archive = Archive { out: BufWriter::with_capacity(256 << 10, into) };
    archive.entry(b"manifest", b'0', &plain(), b"", document.len() as u64).map_err(failed)?;
    archive.data(&document).map_err(failed)?;

    let total = tree.link_counts().values().map(|&count| u64::from(count)).sum();
    let mut done = 0;
    let mut written: HashMap<NodeId, Vec<u8>> = HashMap::new();
    // The names still to come, the next one last.
    let mut pending = vec![(b"rootfs".to_vec(), tree.root())];
    while let Some((path, id)) = pending.pop() {
        reporter.report(Step::Unpack { done, total })?;
        done = total.min(done + 1);
        if let Some(first) = written.get(&id) {
            let metadata = &tree.node(id).metadata;
            archive.entry(&path, b'1', metadata, first, 0).map_err(failed)?;
            continue;
        }
        archive.node(&tree, &layers, &path, id).map_err(failed)?;
        if matches!(tree.node(id).kind, NodeKind::Directory(_)) {
            let below = tree.children(id);
            let below: Vec<_> =
                below.map(|(name, child)| ([&path, &b"/"[..], name].concat(), child)).collect();
            pending.extend(below.into_iter().rev());
        } else {
            written.insert(id, path);
        }
    }
    archive.out.write_all(&[0; 2 * BLOCK]).and_then(|()| archive.out.flush()).map_err(failed)
}

/// A plain file of root's.
fn plain() -> Metadata {
    Metadata {
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: crate::layer::Timestamp::default(),
        xattrs: Box::default(),
    }
}

/// A tar archive that is being written.
struct Archive {
    out: BufWriter<File>,
}

impl Archive {
    /// Writes a file of any kind.
    fn node(&mut self, tree: &Tree, layers: &[Spool], path: &[u8], id: NodeId) -> io::Result<()> {
        let node = tree.node(id);
        match &node.kind {
            NodeKind::Directory(_) => {
                self.entry(&[path, b"/"].concat(), b'5', &node.metadata, b"", 0)
            }
            NodeKind::Symlink(target) => self.entry(path, b'2', &node.metadata, target, 0),
            NodeKind::Fifo => self.entry(path, b'6', &node.metadata, b"", 0),
            NodeKind::File { layer, content } => {
                self.entry(path, b'0', &node.metadata, b"", content.size)?;
                let missing = || io::Error::other("a file is of a layer that is not there");
                let layer = layers.get(usize::from(*layer)).ok_or_else(missing)?;
                self.content(content, layer.file())
            }
        }
    }

    /// Writes an entry's header, after one with what does not fit into it.
    fn entry(
        &mut self,
        path: &[u8],
        kind: u8,
        metadata: &Metadata,
        target: &[u8],
        size: u64,
    ) -> io::Result<()> {
        let mut records = Vec::new();
        let mut long = |key: &[u8], value: &[u8]| record(&mut records, key, value);
        if path.len() > 100 {
            long(b"path", path);
        }
        if target.len() > 100 {
            long(b"linkpath", target);
        }
        if size > MAX_SIZE {
            long(b"size", size.to_string().as_bytes());
        }
        for (key, id) in [(&b"uid"[..], metadata.uid), (b"gid", metadata.gid)] {
            if id > MAX_ID {
                long(key, id.to_string().as_bytes());
            }
        }
        let (seconds, nanoseconds) = (metadata.mtime.seconds, metadata.mtime.nanoseconds);
        let fits = u64::try_from(seconds).is_ok_and(|seconds| seconds <= MAX_SIZE);
        if nanoseconds != 0 || !fits {
            long(b"mtime", time(seconds, nanoseconds).as_bytes());
        }
        for xattr in &metadata.xattrs {
            let key = [b"SCHILY.xattr.", xattr.name.as_slice()].concat();
            long(&key, &xattr.value);
        }
        if !records.is_empty() {
            let header = header(b"pax", b'x', &plain(), b"", records.len() as u64);
            self.out.write_all(&header)?;
            self.data(&records)?;
        }
        self.out.write_all(&header(path, kind, metadata, target, size))
    }

    /// Writes bytes, filled up to a whole block.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.fill(bytes.len() as u64)
    }

    /// Writes a file's content; what is between its pieces as zeros.
    fn content(&mut self, content: &Content, layer: &File) -> io::Result<()> {
        let mut at = 0;
        let mut buffer = vec![0; 128 << 10];
        for extent in content.extents() {
            self.zeros(extent.offset - at)?;
            let (mut position, mut left) = (extent.position, extent.length);
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                layer.read_exact_at(&mut buffer[..most], position)?;
                self.out.write_all(&buffer[..most])?;
                (position, left) = (position + most as u64, left - most as u64);
            }
            at = extent.offset + extent.length;
        }
        self.zeros(content.size - at)?;
        self.fill(content.size)
    }

    fn zeros(&mut self, count: u64) -> io::Result<()> {
        io::copy(&mut io::repeat(0).take(count), &mut self.out).map(|_| ())
    }

    fn fill(&mut self, size: u64) -> io::Result<()> {
        let block = BLOCK as u64;
        self.zeros((block - size % block) % block)
    }
}

/// A header block. What does not fit is cut off: a header before it says it in full.
fn header(path: &[u8], kind: u8, metadata: &Metadata, target: &[u8], size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, width: usize, bytes: &[u8]| {
        let count = bytes.len().min(width);
        header[at..at + count].copy_from_slice(&bytes[..count]);
    };
    let fit = |value: u64, most: u64| if value > most { 0 } else { value };
    let octal = |value: u64, digits: usize| format!("{value:0digits$o}\0").into_bytes();
    let seconds = u64::try_from(metadata.mtime.seconds).unwrap_or_default();
    put(0, 100, path);
    put(100, 8, &octal(u64::from(metadata.mode), 7));
    put(108, 8, &octal(fit(u64::from(metadata.uid), u64::from(MAX_ID)), 7));
    put(116, 8, &octal(fit(u64::from(metadata.gid), u64::from(MAX_ID)), 7));
    put(124, 12, &octal(fit(size, MAX_SIZE), 11));
    put(136, 12, &octal(fit(seconds, MAX_SIZE), 11));
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, 100, target);
    put(257, 8, b"ustar\x0000");
    put(329, 8, &octal(0, 7));
    put(337, 8, &octal(0, 7));
    let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// Adds a record of an extended header: its length in decimal digits, which count themselves.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Seconds in decimal, with a fraction. A time before 1970 has the fraction counted from there, too.
fn time(seconds: i64, nanoseconds: u32) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let sign = if total < 0 { "-" } else { "" };
    let total = total.unsigned_abs();
    format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for length in [0, 1, 3, 80, 90, 93, 94, 95, 990, 993, 994, 9989, 9990] {
            let mut records = Vec::new();
            record(&mut records, b"path", &vec![b'x'; length]);
            let digits = records.split(|&byte| byte == b' ').next().map(<[u8]>::to_vec);
            let said = digits.and_then(|digits| String::from_utf8(digits).ok());
            assert_eq!(said, Some(records.len().to_string()));
        }
    }

    #[test]
    fn times_before_1970_are_whole() {
        assert_eq!(time(-1, 500_000_000), "-0.500000000");
        assert_eq!(time(1, 5), "1.000000005");
    }
}

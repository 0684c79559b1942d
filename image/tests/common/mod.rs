//! What several tests need: a tar writer that writes anything, and trees to compare.
#![allow(dead_code, reason = "each test uses a part")]

pub mod aci;
pub mod layout;
pub mod mount;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
};

/// Writes tar archives, also such as no sane tool would write.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

/// A header before its checksum.
#[derive(Clone)]
pub struct Header(pub [u8; 512]);

impl Header {
    pub fn new(typeflag: u8, name: &[u8], size: u64) -> Self {
        let mut header = Self([0; 512]);
        let length = name.len().min(100);
        header.0[..length].copy_from_slice(&name[..length]);
        header.mode(0o644).id(108, own_id().0).id(116, own_id().1);
        header.text(124, format!("{size:011o}").as_bytes());
        header.text(136, b"00000000000");
        header.0[156] = typeflag;
        header.text(257, b"ustar\x0000");
        header
    }

    pub fn text(&mut self, at: usize, text: &[u8]) -> &mut Self {
        self.0[at..at + text.len()].copy_from_slice(text);
        self
    }

    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.text(100, format!("{mode:07o}").as_bytes())
    }

    pub fn id(&mut self, at: usize, id: u32) -> &mut Self {
        self.text(at, format!("{id:07o}").as_bytes())
    }

    pub fn mtime(&mut self, seconds: u64) -> &mut Self {
        self.text(136, format!("{seconds:011o}").as_bytes())
    }

    pub fn link(&mut self, target: &[u8]) -> &mut Self {
        self.text(157, &target[..target.len().min(100)])
    }

    /// Puts the checksum in.
    pub fn finish(&self) -> [u8; 512] {
        let mut block = self.0;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

/// Owner and group that this process may give to files.
pub fn own_id() -> (u32, u32) {
    let own = fs::metadata("/proc/self").unwrap();
    (own.uid(), own.gid())
}

pub fn is_root() -> bool {
    own_id().0 == 0
}

/// Whether images can be unpacked here: directories that they don't speak of are root's. Says so if
/// not.
pub fn can_unpack() -> bool {
    if !is_root() {
        eprintln!("skip: only root can give files to root");
    }
    is_root()
}

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn entry(mut self, header: &Header, content: &[u8]) -> Self {
        self.0.extend_from_slice(&header.finish());
        self.content(content)
    }

    fn content(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, content: &[u8]) -> Self {
        let header = Header::new(b'0', name.as_bytes(), content.len() as u64);
        self.long_name(name.as_bytes()).entry(&header, content)
    }

    pub fn directory(self, name: &str) -> Self {
        let mut header = Header::new(b'5', name.as_bytes(), 0);
        self.long_name(name.as_bytes()).entry(header.mode(0o755), b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        let mut header = Header::new(b'2', name.as_bytes(), 0);
        self.long_name(name.as_bytes()).entry(header.link(target.as_bytes()), b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        let mut header = Header::new(b'1', name.as_bytes(), 0);
        self.long_name(name.as_bytes()).entry(header.link(target.as_bytes()), b"")
    }

    pub fn special(self, typeflag: u8, name: &str) -> Self {
        self.entry(&Header::new(typeflag, name.as_bytes(), 0), b"")
    }

    /// A GNU long name, if one is needed.
    fn long_name(self, name: &[u8]) -> Self {
        if name.len() <= 100 {
            return self;
        }
        let mut content = name.to_vec();
        content.push(0);
        let header = Header::new(b'L', b"././@LongLink", content.len() as u64);
        self.entry(&header, &content)
    }

    /// An extended header with these records.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            content.extend_from_slice(&pax_record(key, value));
        }
        self.entry(&Header::new(b'x', b"PaxHeaders/x", content.len() as u64), &content)
    }

    /// The archive with its end marker.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// `LENGTH KEY=VALUE\n`
pub fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// What a file is, as far as an image says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub kind: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, i64),
    pub content: Vec<u8>,
    /// The first path with the same inode, if it has several.
    pub same_as: Option<Vec<u8>>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// All that is below a directory, by path; the directory itself as the empty one.
pub fn walk(root: &Path) -> BTreeMap<Vec<u8>, Found> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let (name, content) = if kind.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            ("directory", Vec::new())
        } else if kind.is_symlink() {
            ("link", fs::read_link(&path).unwrap().into_os_string().into_vec())
        } else if kind.is_file() {
            ("file", fs::read(&path).unwrap())
        } else if kind.is_fifo() {
            ("fifo", Vec::new())
        } else {
            ("other", Vec::new())
        };
        let relative = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let inode = (metadata.nlink() > 1 && !kind.is_dir()).then(|| metadata.ino());
        let value = Found {
            kind: name.to_owned(),
            mode: if kind.is_symlink() { 0 } else { metadata.mode() & 0o7777 },
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            content,
            same_as: inode.map(|inode| inode.to_be_bytes().to_vec()),
            xattrs: if kind.is_file() || kind.is_dir() { xattrs(&path) } else { BTreeMap::new() },
        };
        found.insert(relative, value);
    }
    name_inodes(&mut found);
    found
}

/// Replaces the numbers of inodes, which differ between trees, by the first of their paths.
fn name_inodes(found: &mut BTreeMap<Vec<u8>, Found>) {
    let mut first: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (path, file) in found {
        if let Some(inode) = file.same_as.take() {
            file.same_as = Some(first.entry(inode).or_insert_with(|| path.clone()).clone());
        }
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    names[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}

/// Shows where two trees differ.
pub fn assert_same(ours: &BTreeMap<Vec<u8>, Found>, theirs: &BTreeMap<Vec<u8>, Found>) {
    let mut differences = Vec::new();
    for path in ours.keys().chain(theirs.keys()).collect::<std::collections::BTreeSet<_>>() {
        if ours.get(path) != theirs.get(path) {
            let brief = |found: Option<&Found>| {
                found.map(|found| {
                    let mut found = found.clone();
                    found.content.truncate(40);
                    found
                })
            };
            differences.push(format!(
                "{}: ours {:?}, theirs {:?}",
                String::from_utf8_lossy(path),
                brief(ours.get(path)),
                brief(theirs.get(path))
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

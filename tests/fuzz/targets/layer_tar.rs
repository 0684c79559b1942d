//! Layers of an image: two tar archives, merged into one tree. Contents stay inside the archives.
//!
//! The archives are made of blocks, so that most inputs get past checksums and end markers, which
//! a fuzzer does not guess.
#![no_main]

use libfuzzer_sys::{arbitrary, fuzz_target};
use sandbox_image::{
    Limits,
    tree::{LayerFormat, NodeKind, Tree},
};
use std::io::Cursor;

#[derive(Debug, arbitrary::Arbitrary)]
enum Block<'a> {
    /// A header with its content. The checksum is right.
    Entry(Header<'a>),
    /// Extended header records, each with its right length.
    Extended(Vec<(Key, &'a [u8])>),
    /// A long name or long link target.
    Long(bool, &'a [u8]),
    /// Anything.
    Raw(&'a [u8]),
}

#[derive(Debug, arbitrary::Arbitrary)]
struct Header<'a> {
    typeflag: Type,
    gnu: bool,
    name: Name<'a>,
    link: Name<'a>,
    content: &'a [u8],
    /// Says another size than the content has.
    size: Option<u64>,
    /// Any bytes at any place.
    patch: Option<(u16, &'a [u8])>,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Type {
    File,
    HardLink,
    Symlink,
    Directory,
    Sparse,
    Other(u8),
}

/// Names of which many are alike, so that entries meet.
#[derive(Debug, arbitrary::Arbitrary)]
enum Name<'a> {
    Path(Vec<Component>),
    Other(&'a [u8]),
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Component {
    A,
    B,
    Parent,
    Whiteout,
    Opaque,
    Empty,
    Dev,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Key {
    Path,
    Link,
    Size,
    Mtime,
    Xattr,
    SparseMajor,
    SparseMinor,
    SparseSize,
    SparseName,
    SparseOffset,
    SparseBytes,
    SparseMap,
}

impl Key {
    fn text(&self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Link => "linkpath",
            Self::Size => "size",
            Self::Mtime => "mtime",
            Self::Xattr => "SCHILY.xattr.user.a",
            Self::SparseMajor => "GNU.sparse.major",
            Self::SparseMinor => "GNU.sparse.minor",
            Self::SparseSize => "GNU.sparse.realsize",
            Self::SparseName => "GNU.sparse.name",
            Self::SparseOffset => "GNU.sparse.offset",
            Self::SparseBytes => "GNU.sparse.numbytes",
            Self::SparseMap => "GNU.sparse.map",
        }
    }
}

impl Name<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Other(bytes) => bytes.to_vec(),
            Self::Path(components) => {
                let components = components.iter().map(|component| match component {
                    Component::A => "a",
                    Component::B => "b",
                    Component::Parent => "..",
                    Component::Whiteout => ".wh.a",
                    Component::Opaque => ".wh..wh..opq",
                    Component::Empty => "",
                    Component::Dev => "dev",
                });
                components.collect::<Vec<_>>().join("/").into_bytes()
            }
        }
    }
}

fn header(typeflag: u8, gnu: bool, name: &[u8], link: &[u8], size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    let length = name.len().min(100);
    block[..length].copy_from_slice(&name[..length]);
    block[124..136].copy_from_slice(&[&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat());
    block[156] = typeflag;
    let length = link.len().min(100);
    block[157..157 + length].copy_from_slice(&link[..length]);
    block[257..265].copy_from_slice(if gnu { b"ustar  \0" } else { b"ustar\x0000" });
    block
}

fn finish(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn archive(blocks: &[Block<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    for block in blocks {
        match block {
            Block::Entry(entry) => {
                let typeflag = match entry.typeflag {
                    Type::File => b'0',
                    Type::HardLink => b'1',
                    Type::Symlink => b'2',
                    Type::Directory => b'5',
                    Type::Sparse => b'S',
                    Type::Other(other) => other,
                };
                let size = entry.size.unwrap_or(entry.content.len() as u64);
                let (name, link) = (entry.name.bytes(), entry.link.bytes());
                let mut block = header(typeflag, entry.gnu, &name, &link, size);
                if let Some((at, bytes)) = entry.patch {
                    let at = usize::from(at) % 512;
                    let length = bytes.len().min(512 - at);
                    block[at..at + length].copy_from_slice(&bytes[..length]);
                }
                archive.extend_from_slice(&finish(block));
                archive.extend_from_slice(entry.content);
            }
            Block::Extended(records) => {
                let mut content = Vec::new();
                for (key, value) in records {
                    let rest = key.text().len() + value.len() + 3;
                    let mut length = rest + 1;
                    while length != rest + length.to_string().len() {
                        length = rest + length.to_string().len();
                    }
                    content.extend_from_slice(format!("{length} {}=", key.text()).as_bytes());
                    content.extend_from_slice(value);
                    content.push(b'\n');
                }
                archive.extend_from_slice(&finish(header(
                    b'x',
                    false,
                    b"x",
                    b"",
                    content.len() as u64,
                )));
                archive.extend_from_slice(&content);
            }
            Block::Long(is_link, text) => {
                let typeflag = if *is_link { b'K' } else { b'L' };
                let size = text.len() as u64 + 1;
                archive.extend_from_slice(&finish(header(typeflag, true, b"L", b"", size)));
                archive.extend_from_slice(text);
                archive.push(0);
            }
            Block::Raw(bytes) => archive.extend_from_slice(bytes),
        }
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

fuzz_target!(|input: (Vec<Block<'_>>, Vec<Block<'_>>)| {
    let layers = [archive(&input.0), archive(&input.1)];
    let limits = Limits::default();
    let mut tree = Tree::new();
    for layer in &layers {
        if tree.apply(Cursor::new(layer), LayerFormat::Changeset, &limits).is_err() {
            return;
        }
    }
    for id in tree.link_counts().into_keys() {
        if let NodeKind::File { layer, content } = &tree.node(id).kind {
            let length = layers[usize::from(*layer)].len() as u64;
            for extent in content.extents() {
                assert!(extent.position + extent.length <= length);
                assert!(extent.offset + extent.length <= content.size);
            }
        }
        for (name, _) in tree.children(id) {
            assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&b'/'));
        }
    }
});

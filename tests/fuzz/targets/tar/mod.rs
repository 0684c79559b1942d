//! Tar archives made of blocks, so that most inputs get past checksums and end markers, which a
//! fuzzer does not guess.

use libfuzzer_sys::arbitrary;

#[derive(Debug, arbitrary::Arbitrary)]
pub enum Block<'a> {
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
pub struct Header<'a> {
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
pub enum Type {
    File,
    HardLink,
    Symlink,
    Directory,
    Fifo,
    Sparse,
    Other(u8),
}

/// Names of which many are alike, so that entries meet.
#[derive(Debug, arbitrary::Arbitrary)]
pub enum Name<'a> {
    Path(Vec<Component>),
    Other(&'a [u8]),
}

#[derive(Debug, arbitrary::Arbitrary)]
pub enum Component {
    A,
    B,
    Parent,
    Whiteout,
    Opaque,
    Empty,
    Dev,
}

#[derive(Debug, arbitrary::Arbitrary)]
pub enum Key {
    Path,
    Link,
    Size,
    Mtime,
    Xattr,
    Acl,
    Capability,
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
            Self::Acl => "SCHILY.xattr.system.posix_acl_access",
            Self::Capability => "SCHILY.xattr.security.capability",
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

/// The archive of these blocks, with its end marker.
pub fn archive(blocks: &[Block<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    for block in blocks {
        match block {
            Block::Entry(entry) => {
                let typeflag = match entry.typeflag {
                    Type::File => b'0',
                    Type::HardLink => b'1',
                    Type::Symlink => b'2',
                    Type::Directory => b'5',
                    Type::Fifo => b'6',
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

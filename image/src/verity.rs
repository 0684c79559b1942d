//! A dm-verity hash tree behind a file's data, and the check of one.
//!
//! The guest's kernel verifies every block it reads from the image's disk against such a tree and
//! the tree against one root hash, so the root hash stands for all of the file.
//!
//! ```text
//! block 0            data_blocks = hash_start
//! ├── data ──────────┼─ root ─┼─ … ─┼─ level 1 ──────┼─ level 0 ───────────────┤ end of the file
//!                     1 block        digests of        digests of the data,
//!                                    level 0           128 in a block
//! ```
//!
//! What the kernel expects (Linux, Documentation/admin-guide/device-mapper/verity.rst, "Construction
//! Parameters" and "Hash Tree"; `verity_ctr` in drivers/md/dm-verity-target.c for the number of
//! levels and their places):
//!
//! - Format 1 with SHA-256, no salt, blocks of 4096 bytes for data and hashes: a digest of 32 bytes
//!   is a power of two already, so 128 of them follow each other in a block, and the rest of a
//!   level's last block is zeros, which are hashed like everything else.
//! - Levels are stored from the root to the leaves. There are as many as it takes to come down to
//!   one block; the root hash is that block's digest. One block of data alone needs no level: the
//!   root hash is its digest.
//! - There is no superblock before the tree. `veritysetup format --no-superblock --salt=-
//!   --hash-offset=…` makes the same tree.

use crate::{
    Step, digest,
    progress::{Cancelled, Progress, Reporter},
};
use sandbox_hash::{DIGEST, hash_blocks};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

/// Bytes in a block, of data and of hashes.
pub const BLOCK: u64 = BLOCK_BYTES as u64;

pub(crate) const BLOCK_BYTES: usize = sandbox_hash::BLOCK;

/// Digests in a block.
const FANOUT: u64 = 128;

/// Most threads that hash. Each holds the blocks below one block of digests in memory: 512 KiB.
const THREADS: usize = 4;

/// What the guest needs to know of a file and its hash tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Verity {
    /// Blocks of data, from the file's start.
    pub data_blocks: u64,
    /// The block where the tree begins.
    pub hash_start: u64,
    /// The hash that stands for all of the data. In JSON, 64 lower-case hexadecimal digits.
    #[serde(with = "hex_text")]
    pub root_hash: [u8; DIGEST],
}

impl Verity {
    /// The root hash in lower-case hexadecimal digits.
    pub fn root_hash_hex(&self) -> String {
        digest::hex(&self.root_hash)
    }
}

/// Why a hash tree can't be made, or a file is not what its root hash says.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// The file can't be read or written.
    #[error("cannot read or write it: {0}")]
    Io(#[from] io::Error),
    /// The file is not as long as its data, or its data and hash tree, are.
    #[error("it has {found} bytes where {expected} are due, so it was cut off or added to")]
    Size {
        /// What its data, and its tree if it has one, take in bytes.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// What is said of the file can't be true: it has no data, more than any file, or its tree is
    /// not behind its data.
    #[error("{data_blocks} blocks of data with a hash tree at block {hash_start} are impossible")]
    Geometry {
        /// As it is said.
        data_blocks: u64,
        /// As it is said.
        hash_start: u64,
    },
    /// A block of data is not what the tree says. It is the first such.
    #[error("block {0} of its data was changed after its root hash was computed")]
    Data(u64),
    /// A block of the tree is not what the block above it, or the root hash, says. It is the first
    /// such.
    #[error("block {0}, which belongs to its hash tree, was changed, or this is not its root hash")]
    Tree(u64),
    /// [`Progress::report`] asked for it.
    #[error("cancelled")]
    Cancelled,
}

impl From<Cancelled> for VerityError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

/// Computes the hash tree of `file`, which has `data_blocks` blocks and nothing else, and writes it
/// behind the data. `file` is open for reading and writing.
///
/// # Errors
/// [`VerityError::Size`], [`VerityError::Geometry`], [`VerityError::Io`] or
/// [`VerityError::Cancelled`]; what is behind the data is then of no use.
pub fn append(
    file: &File,
    data_blocks: u64,
    progress: &mut dyn Progress,
) -> Result<Verity, VerityError> {
    let tree = Levels::new(data_blocks, data_blocks)?;
    check_size(file, data_blocks * BLOCK)?;
    let mut reporter = Reporter::new(progress);
    let mut below = Run { start: 0, count: data_blocks };
    for &level in &tree.levels {
        let write = |group: u64, digests: &[u8; BLOCK_BYTES]| {
            file.write_all_at(digests, (level.start + group) * BLOCK)?;
            Ok(())
        };
        each_group(file, below, &write, &mut meter(&mut reporter, below))?;
        below = level;
    }
    // What is left is one block: the root, or all of the data.
    let root_hash = digest_of_block(file, below.start)?;
    Ok(Verity { data_blocks, hash_start: data_blocks, root_hash })
}

/// Checks all of a file: the root hash against the tree, from its root down, and the tree against
/// the data.
///
/// # Errors
/// See [`VerityError`].
pub fn check(file: &File, verity: &Verity, progress: &mut dyn Progress) -> Result<(), VerityError> {
    let tree = Levels::new(verity.data_blocks, verity.hash_start)?;
    check_size(file, tree.end * BLOCK)?;
    let data = Run { start: 0, count: verity.data_blocks };
    let mut reporter = Reporter::new(progress);

    let top = tree.levels.last().copied().unwrap_or(data);
    if digest_of_block(file, top.start)? != verity.root_hash {
        let is_data = tree.levels.is_empty();
        return Err(if is_data { VerityError::Data(0) } else { VerityError::Tree(top.start) });
    }
    for (number, &level) in tree.levels.iter().enumerate().rev() {
        let below = if number == 0 { data } else { tree.levels[number - 1] };
        let compare = |group: u64, found: &[u8; BLOCK_BYTES]| {
            let mut expected = [0; BLOCK_BYTES];
            file.read_exact_at(&mut expected, (level.start + group) * BLOCK)?;
            let mut pairs = found.chunks_exact(DIGEST).zip(expected.chunks_exact(DIGEST));
            let Some(bad) = pairs.position(|(found, expected)| found != expected) else {
                return Ok(());
            };
            let bad = group * FANOUT + bad as u64;
            Err(match number {
                // Beyond the last digest are zeros, and were when this block was checked.
                _ if bad >= below.count => VerityError::Tree(level.start + group),
                0 => VerityError::Data(bad),
                _ => VerityError::Tree(below.start + bad),
            })
        };
        each_group(file, below, &compare, &mut meter(&mut reporter, below))?;
    }
    Ok(())
}

/// Blocks that follow each other.
#[derive(Clone, Copy)]
struct Run {
    start: u64,
    count: u64,
}

/// Where the levels of a tree are.
struct Levels {
    /// From the one over the data up to the root.
    levels: Vec<Run>,
    /// The block after the tree.
    end: u64,
}

impl Levels {
    fn new(data_blocks: u64, hash_start: u64) -> Result<Self, VerityError> {
        // The file's size in bytes, its tree of less than the data included, is a number then.
        if data_blocks == 0 || data_blocks > i64::MAX.unsigned_abs() / BLOCK / 2 {
            return Err(VerityError::Geometry { data_blocks, hash_start });
        }
        if hash_start != data_blocks {
            return Err(VerityError::Geometry { data_blocks, hash_start });
        }
        let mut levels = Vec::new();
        let mut count = data_blocks;
        while count > 1 {
            count = count.div_ceil(FANOUT);
            levels.push(Run { start: 0, count });
        }
        let mut end = hash_start;
        for level in levels.iter_mut().rev() {
            level.start = end;
            end += level.count;
        }
        Ok(Self { levels, end })
    }
}

fn check_size(file: &File, expected: u64) -> Result<(), VerityError> {
    let found = file.metadata()?.len();
    if found == expected { Ok(()) } else { Err(VerityError::Size { expected, found }) }
}

/// Reports how much of the data was hashed. The levels above it are less than a hundredth of it and
/// are passed over.
fn meter(reporter: &mut Reporter<'_>, run: Run) -> impl FnMut(u64) -> Result<(), Cancelled> {
    move |done| {
        if run.start != 0 {
            return Ok(());
        }
        reporter.report(Step::Verity { done: done * BLOCK, total: run.count * BLOCK })
    }
}

/// Hashes a run of blocks, and hands each group of [`FANOUT`] as the block of its digests to
/// `visit`, from several threads at once. Fails as the first group fails.
fn each_group<V>(
    file: &File,
    run: Run,
    visit: &V,
    report: &mut dyn FnMut(u64) -> Result<(), Cancelled>,
) -> Result<(), VerityError>
where
    V: Fn(u64, &[u8; BLOCK_BYTES]) -> Result<(), VerityError> + Sync,
{
    let groups = run.count.div_ceil(FANOUT);
    let work = Work { file, run, groups, next: 0.into(), done: 0.into(), stop: false.into() };
    let helpers = thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let helpers = u64::try_from(helpers).unwrap_or(1).min(groups) - 1;
    thread::scope(|scope| {
        // Where no thread can be had, this one does it all.
        let helpers: Vec<_> = (0..helpers)
            .map_while(|_| {
                let work = || work.hash(visit, &mut |_| Ok(()));
                thread::Builder::new().name("verity".to_owned()).spawn_scoped(scope, work).ok()
            })
            .collect();
        let mut first = work.hash(visit, report).err();
        for helper in helpers {
            let outcome = helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            if let Err(failed) = outcome
                && first.as_ref().is_none_or(|first| failed.0 < first.0)
            {
                first = Some(failed);
            }
        }
        first.map_or(Ok(()), |(_, error)| Err(error))
    })?;
    report(run.count)?;
    Ok(())
}

/// What the threads share.
struct Work<'a> {
    file: &'a File,
    run: Run,
    groups: u64,
    /// The group that nobody took yet.
    next: AtomicU64,
    /// Blocks hashed.
    done: AtomicU64,
    /// Whether no more groups are to be taken. Those before one that failed were taken before it,
    /// and are done nonetheless.
    stop: AtomicBool,
}

impl Work<'_> {
    /// Takes groups until there are no more. Fails with a group's number.
    fn hash<V>(
        &self,
        visit: &V,
        report: &mut dyn FnMut(u64) -> Result<(), Cancelled>,
    ) -> Result<(), (u64, VerityError)>
    where
        V: Fn(u64, &[u8; BLOCK_BYTES]) -> Result<(), VerityError>,
    {
        let mut buffer = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let group = self.next.fetch_add(1, Ordering::Relaxed);
            if group >= self.groups {
                break;
            }
            let outcome = self.group(group, visit, &mut buffer).and_then(|count| {
                let done = self.done.fetch_add(count, Ordering::Relaxed) + count;
                Ok(report(done)?)
            });
            if let Err(error) = outcome {
                self.stop.store(true, Ordering::Relaxed);
                return Err((group, error));
            }
        }
        Ok(())
    }

    /// Hashes one group and returns how many blocks it has.
    fn group<V>(&self, group: u64, visit: &V, buffer: &mut Vec<u8>) -> Result<u64, VerityError>
    where
        V: Fn(u64, &[u8; BLOCK_BYTES]) -> Result<(), VerityError>,
    {
        let first = group * FANOUT;
        let count = FANOUT.min(self.run.count - first);
        buffer.resize(usize::try_from(count).unwrap_or(0) * BLOCK_BYTES, 0);
        self.file.read_exact_at(buffer, (self.run.start + first) * BLOCK)?;
        let mut digests = [0; BLOCK_BYTES];
        let (blocks, _) = buffer.as_chunks();
        hash_blocks(blocks, &mut digests.as_chunks_mut().0[..blocks.len()]);
        visit(group, &digests)?;
        Ok(count)
    }
}

fn digest_of_block(file: &File, block: u64) -> io::Result<[u8; DIGEST]> {
    let mut content = [0; BLOCK_BYTES];
    file.read_exact_at(&mut content, block * BLOCK)?;
    let mut digest = [0; DIGEST];
    hash_blocks(&[content], std::slice::from_mut(&mut digest));
    Ok(digest)
}

/// A root hash in JSON.
mod hex_text {
    use super::DIGEST;
    use crate::digest;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; DIGEST], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&digest::hex(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<[u8; DIGEST], D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        parse(&text).ok_or_else(|| D::Error::custom("not 64 lower-case hexadecimal digits"))
    }

    fn parse(text: &str) -> Option<[u8; DIGEST]> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        if text.len() != 2 * DIGEST {
            return None;
        }
        let mut bytes = [0; DIGEST];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(bytes)
    }
}

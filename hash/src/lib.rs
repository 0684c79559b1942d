//! SHA-256 where much of it is needed, and not every processor has instructions for it.
//!
//! Those that have them use them. Of the others, most have vectors of eight words:
//!
//! - Each round of the function needs the one before. But the blocks of a hash tree do not depend
//!   on each other, so eight of them at once take about as long as two, one after the other.
//! - In one long message, the half of the work that does not need the round before is done for
//!   eight parts of it at once.
//!
//! This is a crate of its own since to call code for some processors only is unsafe, and what reads
//! images has no such code.

mod constants;
mod many;
mod one;
#[cfg(test)]
mod tests;
mod vector;

use one::Message;
use ring::digest::{Context, SHA256, digest};
use std::{arch::is_x86_feature_detected, fmt};

/// Bytes in a block of a hash tree.
pub const BLOCK: usize = 4096;
/// Bytes in a digest.
pub const DIGEST: usize = 32;

/// How it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// One word after the other, or with instructions made for it.
    Plain,
    /// With vectors: the processor has AVX2, BMI1 and BMI2. See [`Way::all`], which alone gives
    /// this.
    Vectors,
}

impl Way {
    /// Those that this processor has.
    fn all() -> impl Iterator<Item = Self> {
        let has_vectors = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2");
        [Self::Plain].into_iter().chain(has_vectors.then_some(Self::Vectors))
    }

    /// The fastest one: vectors do not reach instructions made for it.
    fn best() -> Self {
        let has_own = is_x86_feature_detected!("sha");
        Self::all().filter(|way| *way == Self::Plain || !has_own).last().unwrap_or(Self::Plain)
    }

    fn hash_blocks(self, blocks: &[[u8; BLOCK]], digests: &mut [[u8; DIGEST]]) {
        let (mut blocks, mut digests) = (blocks, digests);
        if self == Self::Vectors {
            let (groups, rest) = blocks.as_chunks();
            let (groups_of_digests, rest_of_digests) = digests.as_chunks_mut();
            for (group, digests) in groups.iter().zip(groups_of_digests) {
                // SAFETY: the processor has what this needs, or it would be another way.
                *digests = unsafe { many::hash(group) };
            }
            (blocks, digests) = (rest, rest_of_digests);
        }
        for (block, into) in blocks.iter().zip(digests) {
            into.copy_from_slice(digest(&SHA256, block).as_ref());
        }
    }
}

/// Computes the digest of each block.
///
/// # Panics
/// If there is not one digest for each block.
pub fn hash_blocks(blocks: &[[u8; BLOCK]], digests: &mut [[u8; DIGEST]]) {
    assert_eq!(blocks.len(), digests.len(), "each block has one digest");
    Way::best().hash_blocks(blocks, digests);
}

/// Computes the digest of bytes as they come by.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Plain(Box<Context>),
    /// See [`Way::Vectors`].
    Vectors(Box<Message>),
}

impl Hasher {
    /// Of no bytes yet.
    pub fn new() -> Self {
        Self::by(Way::best())
    }

    fn by(way: Way) -> Self {
        Self(match way {
            Way::Plain => State::Plain(Box::new(Context::new(&SHA256))),
            Way::Vectors => State::Vectors(Box::new(Message::new())),
        })
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Plain(context) => context.update(bytes),
            // SAFETY: the processor has what this needs, or it would be another way.
            State::Vectors(message) => unsafe { message.update(bytes) },
        }
    }

    /// The digest of all of them.
    pub fn finish(self) -> [u8; DIGEST] {
        match self.0 {
            State::Plain(context) => {
                let mut digest = [0; DIGEST];
                digest.copy_from_slice(context.finish().as_ref());
                digest
            }
            // SAFETY: as in `update`.
            State::Vectors(message) => unsafe { message.finish() },
        }
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Hasher").finish_non_exhaustive()
    }
}

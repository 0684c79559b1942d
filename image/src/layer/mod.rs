//! Layers: a tar stream, perhaps compressed.
//!
//! A layer is first decompressed into a temporary file without a name (a spool) and
//! checked against its digests, and only then parsed ([`TarReader`]). Contents of files stay in the
//! spool; the tree refers to them by position.

mod compression;
mod spool;
mod tar;

pub use compression::{Compression, Decoder};
pub(crate) use spool::{Spool, Spooling};
pub use tar::{Content, Data, Entry, EntryKind, Extent, TarError, TarReader, Timestamp, Xattr};

//! Images: what a reference on the command line means, what the image says about its program, and
//! its files as one tree on disk.
//!
//! ```text
//! Reference ──Store::image──▶ Image ──Store::tree──▶ StoredTree
//!            documents read,          layers decompressed, checked,
//!            digests checked          merged and unpacked, once
//! ```
//!
//! - [`Reference`] names an image: an OCI layout, an OCI or Docker archive, an ACI.
//! - [`Store::image`] opens it and reads its documents; every byte is checked against the digest
//!   it was named by before it is believed. The result, [`Image`], is the same for all formats.
//! - [`Store::tree`] merges the layers into one tree in memory ([`tree`]) from their tar streams
//!   ([`layer`]), writes it to a staging folder and renames that into place. What is there
//!   already is not unpacked again.
//!
//! Images are hostile. Nothing of an image is resolved on the host's file system: paths are walked
//! in the tree in memory, and the tree is written with calls relative to directories that were
//! just made. What an image may cost is bounded by [`Limits`]. Text from an image is shown only
//! through [`Text`], which escapes what could steer a terminal.
#![forbid(unsafe_code)]

mod config;
pub mod confined;
pub mod credentials;
mod digest;
pub mod discovery;
pub mod erofs;
mod error;
pub mod evidence;
mod fetch;
pub mod format;
pub mod http;
pub mod instant;
pub mod keys;
pub mod layer;
mod limits;
mod part;
mod progress;
mod reference;
pub mod registry;
mod store;
mod text;
pub mod tree;
mod unpack;
pub mod verity;

pub use config::{App, EventHandler, ImageConfig, Isolator, MountPoint, Port};
pub use digest::{Algorithm, Digest, DigestError};
pub use error::{Error, LayerProblem};
pub use fetch::{FetchOptions, Network, NetworkOf, PullPolicy, protocol};
pub use limits::{Limit, LimitExceeded, Limits, LimitsError};
pub use part::Part;
pub use progress::{Progress, Step};
pub use reference::{ImageIdPrefix, Reference, ReferenceError};
pub use store::{
    BlobRef, Collected, DependencyRef, Elsewhere, Images, Judged, Kind, Record, Rootfs,
    RootfsRecord, Staged, Stamp, Store, StoredImage, Summary,
};
pub use text::Text;

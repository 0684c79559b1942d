use super::Kind;
use crate::{Digest, Error};
use std::time::SystemTime;

/// All images of a store.
#[derive(Debug, Default)]
pub struct Images {
    /// Those that can be used, in no order.
    pub images: Vec<Summary>,
    /// Why others can't be.
    pub broken: Vec<Error>,
}

/// What `image list` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The image's ID.
    pub id: Digest,
    /// An ACI's own name, else the image's reference without its tag. Comes from the image: show it
    /// through [`crate::Text`].
    pub name: String,
    /// An ACI's label `version`, or the tag that was asked for.
    pub version: Option<String>,
    /// Which kind of image it is.
    pub kind: Kind,
    /// When it came into the store.
    pub imported: SystemTime,
    /// When it was last run.
    pub last_used: SystemTime,
    /// Bytes on disk: its blobs, which other images may share, and its root file system.
    pub size: u64,
}

/// What [`crate::Store::gc`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images that nobody used.
    pub images: Vec<Digest>,
    /// Unfinished work of processes that are gone.
    pub staging: usize,
    /// Blobs that no image has.
    pub blobs: usize,
    /// Whether blobs were left alone since an image is being fetched.
    pub busy: bool,
}

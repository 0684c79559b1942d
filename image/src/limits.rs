use serde::{Deserialize, Serialize};
use std::fmt;

/// What an image may cost. Every one can be raised with `--image-limit NAME=VALUE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Bytes of all layers together, uncompressed.
    Size,
    /// Entries of all layers together.
    Files,
    /// Number of layers.
    Layers,
    /// Bytes of a path, or of a symbolic link's target.
    Path,
    /// Components of a path.
    Depth,
    /// Bytes of the names and link targets of all entries together. They are held in memory.
    Names,
    /// Bytes of one entry's extended attributes.
    Xattr,
    /// Bytes of the extended attributes of all entries together. They are held in memory.
    Xattrs,
    /// Bytes of a manifest, an index or a configuration.
    Document,
}

impl Limit {
    /// All limits, in the order of the manual.
    pub const ALL: [Self; 9] = [
        Self::Size,
        Self::Files,
        Self::Layers,
        Self::Path,
        Self::Depth,
        Self::Names,
        Self::Xattr,
        Self::Xattrs,
        Self::Document,
    ];

    /// The limit's name in `--image-limit NAME=VALUE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Files => "files",
            Self::Layers => "layers",
            Self::Path => "path",
            Self::Depth => "depth",
            Self::Names => "names",
            Self::Xattr => "xattr",
            Self::Xattrs => "xattrs",
            Self::Document => "document",
        }
    }

    /// What is limited, in the words of an error and of the manual.
    pub fn description(self) -> &'static str {
        match self {
            Self::Size => "bytes in its uncompressed layers",
            Self::Files => "entries in its layers",
            Self::Layers => "layers",
            Self::Path => "bytes in a path",
            Self::Depth => "components in a path",
            Self::Names => "bytes in the names of its files",
            Self::Xattr => "bytes in the extended attributes of a file",
            Self::Xattrs => "bytes in the extended attributes of all files",
            Self::Document => "bytes in a manifest or configuration",
        }
    }

    /// The value if nothing else is said.
    pub fn default_value(self) -> u64 {
        match self {
            Self::Size => 64 << 30,
            // Some 200 bytes of memory each.
            Self::Files => 1_000_000,
            // Docker itself stops at 127.
            Self::Layers => 256,
            // PATH_MAX of Linux, without the NUL.
            Self::Path => 4095,
            Self::Depth => 256,
            Self::Names => 128 << 20,
            // XATTR_SIZE_MAX of Linux.
            Self::Xattr => 64 << 10,
            Self::Xattrs => 64 << 20,
            // What registries accept as a manifest.
            Self::Document => 4 << 20,
        }
    }

    /// The highest value that can be set: beyond it, what is limited can't work on Linux or here.
    fn highest_value(self) -> u64 {
        match self {
            Self::Size | Self::Names | Self::Xattrs => 1 << 50,
            Self::Files => 1 << 30,
            Self::Layers => 4096,
            Self::Path => 4095,
            Self::Depth => 512,
            Self::Xattr => 1 << 20,
            Self::Document => 64 << 20,
        }
    }
}

/// The image is over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error(
    "the image has more than {value} {}; if you trust it, raise this limit with \
     --image-limit {}=NUMBER",
    .limit.description(),
    .limit.name()
)]
pub struct LimitExceeded {
    /// Which one.
    pub limit: Limit,
    /// Its value.
    pub value: u64,
}

/// The value of every [`Limit`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits([u64; Limit::ALL.len()]);

/// An argument of `--image-limit` is wrong.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// It does not have the form.
    #[error("an image limit is NAME=NUMBER, with one of K, M, G, T after it for multiples of 1024")]
    Malformed,
    /// No limit has this name.
    #[error(
        "there is no image limit of this name; there are size, files, layers, path, depth, names, xattr, xattrs and document"
    )]
    Unknown,
    /// The number can't be used.
    #[error("the image limit {} can be at most {}", .0.name(), .0.highest_value())]
    TooHigh(Limit),
}

impl Limits {
    /// The value of a limit.
    pub fn get(&self, limit: Limit) -> u64 {
        self.0[limit as usize]
    }

    /// The highest value that a limit can be set to.
    pub(crate) fn highest(limit: Limit) -> u64 {
        limit.highest_value()
    }

    /// Sets a limit.
    ///
    /// # Errors
    /// [`LimitsError::TooHigh`]
    pub fn set(&mut self, limit: Limit, value: u64) -> Result<(), LimitsError> {
        if value > limit.highest_value() {
            return Err(LimitsError::TooHigh(limit));
        }
        self.0[limit as usize] = value;
        Ok(())
    }

    /// The same limits, with one that is no higher than this.
    pub(crate) fn at_most(&self, limit: Limit, value: u64) -> Self {
        let mut lower = self.clone();
        lower.0[limit as usize] = value.min(self.get(limit));
        lower
    }

    /// Sets a limit from an argument of `--image-limit`: `files=3000000`, `size=100G`.
    ///
    /// # Errors
    /// See [`LimitsError`]; nothing was set.
    pub fn set_argument(&mut self, argument: &str) -> Result<(), LimitsError> {
        let (name, number) = argument.split_once('=').ok_or(LimitsError::Malformed)?;
        let limit = Limit::ALL.into_iter().find(|limit| limit.name() == name);
        let limit = limit.ok_or(LimitsError::Unknown)?;
        let (digits, shift) = match number.as_bytes().last() {
            Some(b'K') => (&number[..number.len() - 1], 10),
            Some(b'M') => (&number[..number.len() - 1], 20),
            Some(b'G') => (&number[..number.len() - 1], 30),
            Some(b'T') => (&number[..number.len() - 1], 40),
            _ => (number, 0),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(LimitsError::Malformed);
        }
        let value = digits.parse::<u64>().map_err(|_| LimitsError::TooHigh(limit))?;
        self.set(limit, value.checked_mul(1 << shift).ok_or(LimitsError::TooHigh(limit))?)
    }

    /// Refuses a value over its limit.
    pub(crate) fn check(&self, limit: Limit, value: u64) -> Result<(), LimitExceeded> {
        if value > self.get(limit) {
            return Err(LimitExceeded { limit, value: self.get(limit) });
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self(Limit::ALL.map(Limit::default_value))
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_map().entries(Limit::ALL.map(|limit| (limit.name(), self.get(limit)))).finish()
    }
}

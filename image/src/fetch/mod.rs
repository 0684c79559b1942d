//! Fetching an image, as far as the trusted process does it.

mod child;
pub(crate) mod frame;
mod options;
pub mod protocol;

pub(crate) use child::{Child, borrow, malformed};
pub use options::{FetchOptions, Network, NetworkOf, PullPolicy};

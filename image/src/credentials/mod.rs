//! Who this host is to registries and web servers: files of container tools and of rkt, and
//! credential helpers. The parent reads them; the fetcher gets only what it needs for the image
//! that it is to fetch.
//!
//! Nothing here is shown: secrets are [`crate::http::Secret`], and errors about files with secrets
//! say where something is wrong, but not what is there.

mod containers;
mod files;
mod helper;
mod rkt;

pub use containers::{ContainersError, Places, Sources};
pub use helper::HelperError;
pub use rkt::{RktAuth, RktAuthError};

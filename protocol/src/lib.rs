//! What host and guest say to each other over vsock.
//!
//! The guest dials out as soon as it is up: guest-init connects to [`CONTROL_PORT`] on
//! [`HOST_CID`] and sends [`ToHost::Hello`]; the host answers with [`ToGuest::Setup`], which holds
//! everything the guest has to know. For each stream of an app's standard input and output the
//! guest opens one more connection, to the port that the host named in [`Stdio`]; those carry raw
//! bytes, so that a full terminal never holds up a signal or an exit status.
//!
//! Control messages are frames: a 32-bit little-endian length, then that many bytes of
//! [postcard](https://docs.rs/postcard). The receiver of a frame bounds its length before it
//! allocates, and refuses bytes that are left over. The guest is hostile: whatever the host reads
//! from it goes through [`read_to_host`] or [`evidence`], and text in it is only shown through [`Text`]'s
//! `Display`, which escapes what could steer a terminal.
#![forbid(unsafe_code)]

pub mod evidence;
mod frame;
mod message;
pub mod secret;
mod text;

#[cfg(test)]
mod tests;

pub use frame::{FrameError, read_to_guest, read_to_host, write_to_guest, write_to_host};
pub use message::{
    App, ExitStatus, ImageDisk, Level, MAX_CORRUPTED, Measured, Mount, Pod, Root, Secret, Stdio,
    TerminalSize, ToGuest, ToHost, Verity, Volume, VolumeSource,
};
pub use text::Text;

/// Version of this protocol. Host and guest must have the same one.
pub const VERSION: u16 = 3;

/// The context identifier of the host (virtio 1.3 §5.10.4).
pub const HOST_CID: u32 = 2;

/// The context identifier of the guest. Each microVM has a vsock device of its own, so all guests
/// can have the same one.
pub const GUEST_CID: u32 = 3;

/// The port on the host that guest-init dials for evidence, each time anew: see [`evidence`].
pub const EVIDENCE_PORT: u32 = 1023;

/// The port on the host that guest-init dials for the control connection.
pub const CONTROL_PORT: u32 = 1024;

/// The first port that the host may name for a stream in [`Stdio`].
pub const FIRST_STREAM_PORT: u32 = 1025;

/// Longest frame that the host accepts from the guest, in bytes.
///
/// Bounds what a hostile guest can make the supervisor allocate.
pub const MAX_TO_HOST: u32 = 4 << 10;

/// Longest frame that the guest accepts from the host, in bytes. It has to hold a whole [`Pod`]
/// with its arguments and environments, which Linux itself bounds to 2 MiB per program; and all
/// secrets of a pod.
pub const MAX_TO_GUEST: u32 = 5 << 20;

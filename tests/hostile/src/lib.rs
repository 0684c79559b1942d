//! What a monitor and a file server do once their guest has taken them over.
//!
//! Only the build with the feature `hostile` of `sandbox`, `sandbox-vmm` and `sandbox-fs` has this in
//! it; `cargo xtask dist` never builds it, and a test looks whether it is in the product
//! (`tests/security/hostile.rs`).
//!
//! - [`attack`]: the attempts, each a plain function with a name, and what it would change.
//! - [`server`]: forked when the process is jailed and before its filters are installed. For each
//!   request of the guest's it forks a child, which installs the filter of the thread asked for and
//!   makes the attempt.
//! - [`layers`]: which layers this run goes without.
//! - [`targets`]: where on the host the canaries are. An attacker knows all names and addresses.
//! - `guest.rs`: the program in the guest that passes requests on.
//! - `driver/`, a program of `sandbox-tests`: the victims, the canaries, the verdicts, the table.
//!
//! Whether an attempt has succeeded is decided outside, by what it did to a canary, not by what a
//! system call has returned here.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "numbers are made to fit the kernel's interfaces; no product has them"
)]

pub mod attack;
pub mod call;
pub mod layers;
pub mod server;
pub mod targets;

/// Port of the guest's virtual socket at which the monitor takes requests.
pub const PORT: u32 = 0x6a11;

/// Requests to the file server are the names of extended attributes that begin so.
pub const ATTRIBUTE: &str = "user.attack:";

//! The values of options, in rkt's syntax.

mod duration;
mod environment;
mod insecure;
mod name;
mod quantity;
mod secret;
mod size;
mod volume;

#[cfg(test)]
mod tests;

pub use duration::Duration;
pub use environment::{Environment, Layers, Variable};
pub use insecure::InsecureOptions;
pub use name::AcName;
pub use quantity::{Cpu, Memory};
pub use secret::{SecretOption, SecretSource};
pub use size::ScratchSize;
pub use volume::{Mount, Volume, VolumeKind, clean};

/// Reads a boolean as rkt's flags did (the words of Go's `strconv.ParseBool`).
///
/// # Errors
/// A line that says what was found.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

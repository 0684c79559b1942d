//! `sandbox-attest`, the one program that opens the TPM and writes the log of launches. Started by
//! `sandbox`, not by people.
//!
//! It hears one request on standard input, a socket, and answers it there; see
//! [`sandbox_attestation::session`] for what they say to each other, and [`device`] for what it does.

mod device;

fn main() -> std::process::ExitCode {
    device::main()
}

//! Compiles the system call filter.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(sandbox_seccomp::build("seccomp")?)
}

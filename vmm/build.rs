//! Compiles the system call filters.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(sandbox_seccomp::build("seccomp")?)
}

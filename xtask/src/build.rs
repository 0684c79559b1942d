//! The product: programs, guest kernel and initramfs as they are installed, in `target/dist`.

use crate::cache;
use crate::command;
use crate::initramfs;
use crate::kernel;
use crate::packages;
use crate::workspace;
use anyhow::Result;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Linked statically: they run where there is no C library, or where none should be reachable.
const STATIC: &[&str] = &["guest-init", "sandbox-fs", "sandbox-vmm"];

/// `cargo xtask dist`.
pub fn run() -> Result<ExitCode> {
    println!("{}", dist()?.display());
    Ok(ExitCode::SUCCESS)
}

/// The directory to install, whether it has been built or not.
pub fn directory() -> Result<PathBuf> {
    Ok(workspace::target()?.join("dist"))
}

/// Builds the product and returns the directory to install: its content goes to /usr.
pub fn dist() -> Result<PathBuf> {
    packages::ensure(packages::PRODUCT)?;
    let target = workspace::target()?;
    build_static()?;
    build_dynamic()?;

    // Others may be reading the same directory: every file is replaced in one step.
    let _lock = cache::lock(&target.join("dist.lock"))?;
    let dist = directory()?;
    let (bin, libexec) = (dist.join("bin"), dist.join("libexec/sandbox"));
    let library = dist.join("lib/sandbox");
    for directory in [&bin, &libexec, &library] {
        fs::create_dir_all(directory)?;
    }
    let linked = target.join(workspace::PLATFORM).join("release");
    install(&target.join("release/sandbox"), &bin.join("sandbox"))?;
    for name in ["sandbox-attest", "sandbox-fetch"] {
        install(&target.join("release").join(name), &libexec.join(name))?;
    }
    for name in ["sandbox-fs", "sandbox-vmm"] {
        install(&linked.join(name), &libexec.join(name))?;
    }
    if !bin.join("rkt").is_symlink() {
        symlink("sandbox", bin.join("rkt"))?;
    }
    let init = target.join("guest-init");
    install(&linked.join("guest-init"), &init)?;
    let initramfs = initramfs::archive(&fs::read(init)?)?;
    replace(&library.join("initramfs"), |path| Ok(fs::write(path, initramfs)?))?;
    kernel::install(&library)?;
    let policy = dist.join("share/sandbox/selinux");
    fs::create_dir_all(&policy)?;
    for name in ["sandbox.cil", "install"] {
        let from = workspace::root().join("selinux").join(name);
        replace(&policy.join(name), |path| Ok(fs::copy(from, path).map(drop)?))?;
    }
    Ok(dist)
}

/// Builds the product that attacks itself (`tests/hostile`) and returns the directory to install: the
/// product's, with its programs replaced.
pub fn hostile() -> Result<PathBuf> {
    let product = dist()?;
    let target = workspace::target()?;
    let mut cargo = workspace::cargo("build");
    cargo.args(["--release", "--target", workspace::PLATFORM, "--package", "sandbox-vmm"]);
    cargo.args(["--package", "sandbox-fs", "--features", "sandbox-vmm/hostile,sandbox-fs/hostile"]);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    command::announced("building the hostile monitor and file server", &mut cargo)?;
    let mut cargo = workspace::cargo("build");
    cargo.args(["--release", "--package", "sandbox", "--features", "sandbox/hostile"]);
    command::announced("building the supervisor that lets them be", &mut cargo)?;

    let parent = target.join("hostile");
    fs::create_dir_all(&parent)?;
    let dist = parent.join("dist");
    command::output(Command::new("rm").arg("-rf").arg(&dist))?;
    command::output(Command::new("cp").arg("-a").arg(&product).arg(&dist))?;
    install(&target.join("release/sandbox"), &dist.join("bin/sandbox"))?;
    for name in ["sandbox-fs", "sandbox-vmm"] {
        let from = target.join(workspace::PLATFORM).join("release").join(name);
        install(&from, &dist.join("libexec/sandbox").join(name))?;
    }
    Ok(dist)
}

fn build_static() -> Result<()> {
    let mut cargo = workspace::cargo("build");
    cargo.args(["--release", "--target", workspace::PLATFORM]);
    cargo.args(STATIC.iter().flat_map(|name| ["--package", name]));
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    command::announced(
        "building monitor, file server and guest-init (compiler, minutes)",
        &mut cargo,
    )
}

fn build_dynamic() -> Result<()> {
    let mut cargo = workspace::cargo("build");
    // Names of hosts are looked up with the C library, which can't do that in a static program.
    cargo.args(["--release", "--package", "sandbox", "--package", "sandbox-fetch"]);
    command::announced("building sandbox and the fetcher (compiler, minutes)", &mut cargo)?;
    // By itself, so that its feature reaches no other program: it alone has the TPM's libraries.
    let mut cargo = workspace::cargo("build");
    cargo.args(["--release", "--package", "sandbox-attestation", "--features", "tpm"]);
    command::announced("building the attestor (compiler, a minute)", &mut cargo)
}

/// Copies a program without symbols; the one with symbols stays where cargo put it.
fn install(from: &Path, to: &Path) -> Result<()> {
    replace(to, |path| {
        command::output(Command::new("strip").arg("-o").arg(path).arg(from))?;
        Ok(fs::set_permissions(path, Permissions::from_mode(0o755))?)
    })
}

/// Writes a new file and puts it in the place of the old one.
fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let new = path.with_extension("new");
    write(&new)?;
    Ok(fs::rename(&new, path)?)
}

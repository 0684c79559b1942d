//! The Debian packages that each command needs, and their installation where they are missing.

use crate::command;
use crate::step::step;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::process::Command;

/// To build the product: a C compiler to link with, the static libraries, and the libraries for TPMs.
pub const PRODUCT: &[&str] =
    &["binutils", "gcc", "libc6-dev", "libcap-ng-dev", "libtss2-dev", "pkg-config"];

/// To boot the test host and to build its root image.
pub const HOST: &[&str] =
    &["e2fsprogs", "mmdebstrap", "mount", "qemu-system-x86", "swtpm", "util-linux", "xz-utils"];

/// To build the fuzzer's own library, and what the virtio-fs worker is linked with.
pub const FUZZ: &[&str] = &["g++", "libcap-ng-dev", "pkg-config"];

/// To make the test images.
pub const IMAGES: &[&str] = &["mmdebstrap", "skopeo", "umoci"];

/// The tools that unit tests hold the product against. A test that lacks its tool says so and is
/// skipped, which libtest counts as passed: so they are never lacking here.
pub const ORACLES: &[&str] = &[
    "bzip2",
    "checkpolicy",
    "cpio",
    "cryptsetup-bin",
    "erofs-utils",
    "mount",
    "policycoreutils",
    "secilc",
    "selinux-policy-default",
    "semodule-utils",
    "skopeo",
    "swtpm",
    "tar",
    "tpm2-tools",
    "umoci",
    "xz-utils",
];

/// Installs those of `names` that are missing.
pub fn ensure(names: &[&str]) -> Result<()> {
    let missing = missing(names)?;
    if missing.is_empty() {
        return Ok(());
    }
    step(format!("installing Debian packages: {}", missing.join(" ")), || install(&missing))
}

/// Installs the newest version of a package that is there in an older one.
pub fn upgrade(name: &str) -> Result<()> {
    step(format!("upgrading the Debian package {name}"), || install(&[name]))
}

fn install(names: &[&str]) -> Result<()> {
    command::watched(command::as_root("apt-get").arg("update"))?;
    command::watched(
        command::as_root("env")
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes"])
            .arg("--no-install-recommends")
            .args(names),
    )
}

/// Those of `names` that aren't installed.
fn missing<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    // dpkg-query fails if it doesn't know one of the names, and still lists the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(names)
        .output()
        .context("dpkg-query could not be started: these commands need Debian 12 or 13")?;
    let listed = String::from_utf8_lossy(&output.stdout);
    let installed: BTreeSet<&str> =
        listed.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    if installed.is_empty() && !output.status.success() && output.stderr.is_empty() {
        bail!("dpkg-query ended with {}", output.status);
    }
    Ok(names.iter().copied().filter(|name| !installed.contains(name)).collect())
}

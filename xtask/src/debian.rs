//! Debian 13 from the mirror that this machine's own apt uses: the root file systems of the test
//! host and of the test images.

use crate::command;
use crate::packages;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The release of the test host and of the test images.
const RELEASE: &str = "trixie";

/// Runs `RECIPE/build RELEASE MIRROR APT_OPTIONS OUT` as root. The recipe names its packages in
/// `RECIPE/packages`.
pub fn build(recipe: &Path, out: &Path) -> Result<()> {
    packages::ensure(&["debian-archive-keyring", "mmdebstrap"])?;
    ensure_keyring()?;
    let options = tempfile::NamedTempFile::new()?;
    write_apt_options(options.path())?;
    let mut build = command::as_root("sh");
    build.arg(recipe.join("build")).args([RELEASE, &mirror()?]).arg(options.path()).arg(out);
    command::watched(&mut build)
}

/// The address of the Debian mirror in this machine's apt configuration.
fn mirror() -> Result<String> {
    let own = own_release()?;
    let targets = command::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(RELEASE) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let mirror = targets.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [release, "main", address] if release == own => Some(address.to_owned()),
        _ => None,
    });
    mirror.with_context(|| {
        format!("apt's sources have no component main of {own}, so there is no mirror to use")
    })
}

/// Writes a file with this machine's settings for downloads (proxies, checks), for mmdebstrap's
/// `--aptopt`.
fn write_apt_options(path: &Path) -> Result<()> {
    let all = command::output(Command::new("apt-config").args(["dump", "Acquire"]))?;
    let download = |line: &&str| {
        let name = line.split([' ', '"']).next().unwrap_or_default();
        ["Acquire::Check-", "Acquire::http", "Acquire::ftp", "Acquire::Retries"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let options: String = all.lines().filter(download).map(|line| format!("{line}\n")).collect();
    fs::write(path, options).with_context(|| path.display().to_string())
}

/// An old keyring package doesn't know the keys of our release yet.
fn ensure_keyring() -> Result<()> {
    let key = format!("/usr/share/keyrings/debian-archive-{RELEASE}-automatic");
    let known = || ["gpg", "pgp"].iter().any(|end| Path::new(&format!("{key}.{end}")).exists());
    if !known() {
        packages::upgrade("debian-archive-keyring")?;
    }
    if !known() {
        bail!("debian-archive-keyring, even upgraded, has no key for Debian {RELEASE}");
    }
    Ok(())
}

/// This machine's release: `bookworm`, `trixie`.
fn own_release() -> Result<String> {
    let file = "/etc/os-release";
    let text = fs::read_to_string(file).context(file)?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.with_context(|| format!("{file} has no VERSION_CODENAME"))?.trim_matches('"').into())
}

//! The guest kernel, from Debian's kernel source, the patches in `kernels/patches` and the
//! fragments in `kernels/config`.
//!
//! The cache entry holds `vmlinux` (see [`elf`]), `System.map` (the symbols, to read a panic's
//! addresses), `kernel.config` and `kernel.json` (digests and versions). The same source, patches,
//! fragments and compiler give the same bytes, wherever and whenever they are built.

mod elf;

use crate::cache::{self, Key};
use crate::command;
use crate::packages;
use crate::step::{note, step};
use crate::workspace;
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Debian package with the kernel's source.
const SOURCE: &str = "linux-source-6.12";

/// To build it, besides the source.
const TOOLS: &[&str] = &[
    "bc",
    "binutils",
    "bison",
    "flex",
    "gcc",
    "libc6-dev",
    "libelf-dev",
    "make",
    "patch",
    "xz-utils",
];

/// What the kernel would otherwise take from the clock, the user, the machine and the locale.
const FIXED: &[(&str, &str)] = &[
    ("KBUILD_BUILD_TIMESTAMP", "1970-01-01"),
    ("KBUILD_BUILD_USER", "sandbox"),
    ("KBUILD_BUILD_HOST", "sandbox"),
    ("KBUILD_BUILD_VERSION", "1"),
    ("LC_ALL", "C"),
];

/// To be raised when the steps of [`make`] change: entries made by others are then not reused.
const RECIPE: &str = "1";

/// What is installed beside `vmlinux`.
const INSTALLED: &[&str] = &["vmlinux", "kernel.config", "kernel.json"];

/// Build the guest kernel and put it into `target/dist`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Build it a second time, in another directory, and compare what comes out.
    #[arg(long)]
    check_reproducible: bool,
}

/// `cargo xtask kernel`.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.check_reproducible {
        return check_reproducible();
    }
    let library = workspace::target()?.join("dist/lib/sandbox");
    fs::create_dir_all(&library)?;
    install(&library)?;
    println!("{}", library.join("vmlinux").display());
    Ok(())
}

/// Builds the kernel if the cache doesn't have it, and copies it into `library`.
pub fn install(library: &Path) -> Result<()> {
    let entry = build()?;
    for name in INSTALLED {
        let (from, to) = (entry.join(name), library.join(name));
        // A sandbox may be reading the old one.
        let new = to.with_extension("new");
        fs::copy(&from, &new).with_context(|| format!("copying {from:?} to {new:?}"))?;
        fs::rename(&new, &to).with_context(|| format!("replacing {to:?}"))?;
    }
    Ok(())
}

/// The cache entry with the kernel; builds it if it isn't there.
pub fn build() -> Result<PathBuf> {
    let source = Source::find()?;
    let options = options(&kernels().join("config"))?;
    let options = options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let key = FIXED
        .iter()
        .copied()
        .chain(options)
        .fold(Key::default().text(RECIPE), |key, (name, value)| key.text(name).text(value))
        .text(&source.version)
        .text(&source.compiler)
        .path(&kernels().join("patches"))?;
    cache::entry("kernel", &key, |directory| {
        step("building the guest kernel (compiler; 5 to 15 minutes, once)", || {
            make(&source, directory)
        })
    })
}

/// `cargo xtask kernel --check-reproducible`: the cache's kernel against a second one, which is
/// built elsewhere.
fn check_reproducible() -> Result<()> {
    let first = build()?;
    let source = Source::find()?;
    let second = tempfile::Builder::new().prefix("kernel-again-").tempdir_in(cache::root()?)?;
    step("building the guest kernel once more (compiler; 5 to 15 minutes)", || {
        make(&source, second.path())
    })?;
    for name in ["vmlinux", "System.map", "kernel.config", "kernel.json"] {
        let read = |directory: &Path| Ok::<_, anyhow::Error>(fs::read(directory.join(name))?);
        let (one, other) = (digest(&read(&first)?), digest(&read(second.path())?));
        if one != other {
            let second = second.keep();
            bail!("{name} is not reproducible: {one} in {first:?}, {other} in {second:?}");
        }
        println!("{one} {name}");
    }
    Ok(())
}

/// The directory of fragments and patches.
fn kernels() -> PathBuf {
    workspace::root().join("kernels")
}

/// The files of a directory, in the order of their names.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(directory)
        .with_context(|| directory.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// What the kernel is made from and with.
struct Source {
    /// The archive with the source.
    archive: PathBuf,
    /// The package's version.
    version: String,
    /// The compiler's first line of `--version`: another compiler makes another kernel.
    compiler: String,
}

impl Source {
    /// Installs what is missing, and looks at what is there.
    fn find() -> Result<Self> {
        packages::ensure(&[TOOLS, &[SOURCE]].concat())?;
        let archive = PathBuf::from(format!("/usr/src/{SOURCE}.tar.xz"));
        ensure!(archive.is_file(), "the package {SOURCE} should have brought {archive:?}");
        let version = command::output(Command::new("dpkg-query").args([
            "--show",
            "--showformat",
            "${Version}",
            SOURCE,
        ]))?;
        let compiler = command::output(Command::new("gcc").arg("--version"))?;
        let compiler = compiler.lines().next().unwrap_or_default().to_owned();
        Ok(Source { archive, version, compiler })
    }
}

/// Builds the kernel in `directory` and leaves there what the entry consists of.
fn make(source: &Source, directory: &Path) -> Result<()> {
    let work = directory.join("work");
    let (tree, objects) = (work.join("source"), work.join("objects"));
    fs::create_dir_all(&tree)?;
    fs::create_dir_all(&objects)?;
    note("unpacking the source");
    let mut tar = Command::new("tar");
    tar.current_dir(&tree).args(["--extract", "--strip-components=1", "--file"]);
    command::watched(tar.arg(&source.archive))?;
    for file in files(&kernels().join("patches"))? {
        let mut patch = Command::new("patch");
        patch.current_dir(&tree).args(["--strip=1", "--fuzz=0", "--input"]);
        command::output(patch.arg(&file))?;
    }

    let options = options(&kernels().join("config"))?;
    let requested: String =
        options.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let all = work.join("requested.config");
    fs::write(&all, requested)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let kbuild = || {
        let mut make = Command::new("make");
        make.arg("--silent").arg("-C").arg(&tree).arg(format!("O={}", objects.display()));
        // Nothing else of the environment steers the build.
        make.env_clear().env("PATH", &path).envs(FIXED.iter().copied());
        make
    };
    command::watched(kbuild().arg("allnoconfig").env("KCONFIG_ALLCONFIG", &all))?;
    let config = fs::read_to_string(objects.join(".config"))?;
    check(&options, &config)?;

    let jobs = std::thread::available_parallelism()?;
    command::watched(kbuild().arg(format!("--jobs={jobs}")).arg("vmlinux"))?;
    let release = fs::read_to_string(objects.join("include/config/kernel.release"))?;
    let image = elf::pack(&fs::read(objects.join("vmlinux"))?)?;
    fs::write(directory.join("vmlinux"), &image)?;
    fs::copy(objects.join("System.map"), directory.join("System.map"))?;
    fs::write(directory.join("kernel.config"), &config)?;
    let loaded = elf::loaded(&image)?;
    let description = serde_json::json!({
        "release": release.trim(),
        "source": { "package": SOURCE, "version": source.version },
        "compiler": source.compiler,
        "vmlinux": { "sha256": digest(&image), "bytes": image.len(), "loaded": loaded },
        "config": { "sha256": digest(config.as_bytes()) },
    });
    fs::write(directory.join("kernel.json"), format!("{description:#}\n"))?;
    note(format!("{}: {loaded} bytes to load", release.trim()));
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// The options that the fragments set.
fn options(fragments: &Path) -> Result<BTreeMap<String, String>> {
    let mut options = BTreeMap::new();
    for path in files(fragments)? {
        let fragment = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for line in fragment.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = line
                .split_once('=')
                .filter(|(name, _)| name.starts_with("CONFIG_"))
                .with_context(|| format!("{}: not CONFIG_…=…: {line}", path.display()))?;
            let before = options.insert(name.to_owned(), value.to_owned());
            ensure!(before.is_none(), "{}: {name} is set a second time", path.display());
        }
    }
    Ok(options)
}

/// Whether every option got its value: Kconfig drops without a word what it doesn't know and what
/// lacks a dependency.
fn check(options: &BTreeMap<String, String>, config: &str) -> Result<()> {
    let got: BTreeMap<&str, &str> =
        config.lines().filter_map(|line| line.split_once('=')).collect();
    let wrong: Vec<String> = options
        .iter()
        .filter_map(|(name, wanted)| {
            let value = got.get(name.as_str()).copied().unwrap_or("n");
            (value != wanted).then(|| format!("{name} is {value}, not {wanted}"))
        })
        .collect();
    if !wrong.is_empty() {
        bail!(
            "the kernel's configuration does not follow kernels/config: {} (is a dependency \
             missing, or the option gone from this version?)",
            wrong.join(", ")
        );
    }
    ensure!(!got.contains_key("CONFIG_MODULES"), "the kernel must not have modules");
    Ok(())
}

/// SHA-256 in hexadecimal.
fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

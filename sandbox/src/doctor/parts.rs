//! What the installation has.

use super::{Check, State};
use crate::images::{Gate, ImageSettings};
use crate::installation::Installation;
use sandbox_image::{Algorithm, Digest};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The installation's parts, all of them required.
pub fn parts(installation: &Installation) -> Vec<Check> {
    installation
        .parts()
        .into_iter()
        .map(|(what, path, advice)| match what {
            "guest kernel" => kernel(path, &installation.kernel_record, advice),
            "initramfs" => file("initramfs", path, advice, false),
            what => file(what, path, advice, true),
        })
        .map(Check::required)
        .collect()
}

/// The program that makes the file system of `--scratch`.
pub fn mke2fs() -> Check {
    const NAME: &str = "mke2fs";
    match crate::pod::scratch::program() {
        Some(program) => Check::new(NAME, State::Ok, program.display().to_string(), ""),
        None => Check::new(
            NAME,
            State::Warning,
            "not there, so --scratch can't be used",
            "install e2fsprogs",
        ),
    }
}

/// Whether the policy can be read, and whether there is one.
pub fn policy(settings: &ImageSettings) -> Check {
    const NAME: &str = "policy";
    let path = settings.policy.display();
    match Gate::load(settings) {
        Ok(_) if settings.policy.exists() => Check::new(NAME, State::Ok, path.to_string(), ""),
        Ok(_) => Check::new(
            NAME,
            State::Warning,
            format!("there is no {path}, so no image of Docker or OCI may run"),
            "write one (containers-policy.json(5)); ACIs only need 'sandbox trust'",
        ),
        Err(error) => Check::new(
            NAME,
            State::Missing,
            error.to_string(),
            "correct it: until then no image may run",
        )
        .required(),
    }
}

fn file(name: &'static str, path: &Path, advice: &str, program: bool) -> Check {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            Check::new(name, State::Missing, format!("{shown}: not a file"), advice)
        }
        Ok(found) if program && found.permissions().mode() & 0o111 == 0 => {
            Check::new(name, State::Missing, format!("{shown}: not executable"), advice)
        }
        Ok(_) => Check::new(name, State::Ok, shown.to_string(), ""),
        Err(error) => Check::new(name, State::Missing, format!("{shown}: {error}"), advice),
    }
}

/// The guest kernel, its digest, and whether that is the recorded one.
pub(super) fn kernel(path: &Path, record: &Path, advice: &str) -> Check {
    const NAME: &str = "kernel";
    let digest = match digest(path) {
        Ok(digest) => digest,
        Err(error) => {
            return Check::new(
                NAME,
                State::Missing,
                format!("{}: {error}", path.display()),
                advice,
            );
        }
    };
    let found = format!("{} sha256:{digest}", path.display());
    match recorded(record) {
        Ok(recorded) if recorded == digest => {
            Check::new(NAME, State::Ok, format!("{found}, as recorded"), "")
        }
        Ok(recorded) => Check::new(
            NAME,
            State::Warning,
            format!("{found}, but {} has sha256:{recorded}", record.display()),
            "use the recorded kernel unless you know why it is another one",
        ),
        Err(error) => Check::new(
            NAME,
            State::Warning,
            format!("{found}; {}: {error}", record.display()),
            "install the kernel together with its kernel.json",
        ),
    }
}

fn digest(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    Ok(Digest::of(Algorithm::Sha256, &fs::read(path)?).hex().to_owned())
}

/// The digest of `vmlinux` in `kernel.json`.
fn recorded(record: &Path) -> io::Result<String> {
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record)?)?;
    let digest = record.pointer("/vmlinux/sha256").and_then(|digest| digest.as_str());
    let digest = digest.ok_or_else(|| io::Error::other("no digest of vmlinux in it"))?;
    Ok(digest.trim_start_matches("sha256:").to_owned())
}

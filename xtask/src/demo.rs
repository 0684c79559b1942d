//! `cargo xtask demo`: from a fresh machine to a real image in its own microVM.

use crate::build;
use crate::command;
use crate::host::{Host, Streams};
use crate::images;
use crate::step::note;
use anyhow::{Context, Result};
use serde_json::Value;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// What the image shows of itself, and of the kernel that it runs on.
const SHOW: &str = "cat /etc/os-release; uname -r";

/// Builds, makes the image and runs it: on this machine if it can, else on the test host.
pub fn run() -> Result<ExitCode> {
    let dist = build::dist()?;
    let images = images::images()?;
    let status = match unusable_kvm(&dist.join("bin/sandbox"))? {
        None => {
            note("using this machine's own /dev/kvm, which is hardware");
            let command = sandbox_run(dist.join("bin/sandbox").into(), &images);
            let mut own = command::as_root("env");
            let status = own.args(&command).status().context("starting sandbox")?;
            status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
        }
        Some(found) => {
            note(format!("using the test host, because this machine's KVM can't be used: {found}"));
            let host = Host { share: Some(images), no_build: true, ..Host::default() };
            let command = sandbox_run("sandbox".into(), Path::new("/mnt/share"));
            host.run(&command, Streams::own())?
        }
    };
    Ok(ExitCode::from(status))
}

/// The command line of the run, which it also shows.
fn sandbox_run(sandbox: OsString, images: &Path) -> Vec<OsString> {
    let image = format!("oci:{}:debian", images.join("debian").display());
    let rest = ["run", "--insecure-options=image", &image, "--exec", "/bin/sh", "--", "-c", SHOW];
    let words: Vec<String> = rest.iter().map(|word| command::quoted(word)).collect();
    note(format!("sandbox {}", words.join(" ")));
    std::iter::once(sandbox).chain(rest.map(OsString::from)).collect()
}

/// What keeps this machine's KVM from being used, as `sandbox doctor` measured it.
fn unusable_kvm(sandbox: &Path) -> Result<Option<String>> {
    // It fails where anything is missing, and prints all the same.
    let mut doctor = command::as_root("env");
    let output = doctor.arg(sandbox).args(["doctor", "--format", "json"]).output()?;
    let checks: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}: its output", command::line(&doctor)))?;
    let kvm = checks.as_array().into_iter().flatten().find(|check| check["name"] == "kvm");
    let kvm = kvm.with_context(|| format!("{}: no check of KVM", command::line(&doctor)))?;
    let found = kvm["detail"].as_str().unwrap_or("no reason given");
    Ok((kvm["state"] != "ok").then(|| found.to_owned()))
}

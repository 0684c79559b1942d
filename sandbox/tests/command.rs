//! The program as it is called, as far as that takes no virtual machine.
#![allow(clippy::unwrap_used, reason = "a test may end with a panic")]

use std::process::{Command, Output};

fn sandbox(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sandbox")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// rkt: `version` has five lines, and any unique prefix of a command works.
#[test]
fn version_has_five_lines_under_any_prefix_of_its_name() {
    let output = sandbox(&["ver"]);
    assert_eq!(output.status.code(), Some(0));
    let lines = stdout(&output);
    assert_eq!(lines.lines().count(), 5, "{lines}");
    assert!(lines.starts_with(&format!("sandbox Version: {}\n", env!("CARGO_PKG_VERSION"))));
    assert!(lines.contains("\nappc Version: 0.8.11\n"), "{lines}");
}

/// rkt: 2 without a command, 254 for bad usage.
#[test]
fn wrong_usage_is_told_on_standard_error() {
    for (arguments, status, line) in [
        (&[][..], 2, "Usage: sandbox"),
        (&["frobnicate"], 254, "sandbox: unrecognized subcommand 'frobnicate'\n"),
        (&["run", "--exec", "x", "image"], 254, "run: --exec must follow an image\n"),
        (&["run", "--", "x"], 254, "run: an image is required before any app arguments\n"),
        (&["run"], 254, "run: must provide at least one image\n"),
        (
            &["run", "--interactive", "a", "b"],
            254,
            "run: interactive option only supports one image\n",
        ),
        (&["gc", "--dir=x"], 254, "must be an absolute path"),
    ] {
        let output = sandbox(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        assert!(stderr(&output).contains(line), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn help_shows_the_grammar_and_examples() {
    let help = stdout(&sandbox(&["run", "--help"]));
    for line in ["IMAGE [APP OPTIONS] [-- ARGS", "Examples:", "--insecure-options <LIST>"] {
        assert!(help.contains(line), "{line}: {help}");
    }
}

/// The guest kernel and the other programs are looked for beside this one.
#[test]
fn an_incomplete_installation_is_told_before_anything_is_done() {
    let data = tempfile::tempdir().unwrap();
    let directory = data.path().join("data");
    let output = sandbox(&["--dir", directory.to_str().unwrap(), "run", "image.aci"]);
    assert_eq!(output.status.code(), Some(254));
    let line = stderr(&output);
    assert_eq!(line.lines().count(), 1, "{line}");
    if rustix::process::geteuid().is_root() {
        assert!(line.starts_with("run: monitor /"), "{line}");
        assert!(line.contains("libexec/sandbox/sandbox-vmm: No such file"), "{line}");
    } else {
        assert_eq!(line, "run: cannot run as unprivileged user\n");
    }
    assert!(!directory.exists());
}

#[test]
fn doctor_tells_what_is_missing_and_its_exit_status_too() {
    let output = sandbox(&["doctor", "--format", "json"]);
    // The parts of the installation are not there.
    assert_eq!(output.status.code(), Some(1));
    let checks: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    for name in
        ["kvm", "kernel", "initramfs", "monitor", "worker", "tpm", "selinux", "cgroup", "cni"]
    {
        let check = checks.iter().find(|check| check["name"] == name).unwrap();
        assert!(["ok", "warning", "missing"].iter().any(|state| check["state"] == *state));
        assert!(check["detail"].is_string() && check["advice"].is_string(), "{check}");
    }
    let text = stdout(&sandbox(&["doctor"]));
    assert_eq!(text.lines().count(), checks.len(), "{text}");
}

#[test]
fn completion_and_manual_pages_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&sandbox(&["completion", shell]));
        assert!(script.contains("insecure-options"), "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    let output = sandbox(&["man", directory.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    for page in ["sandbox.1", "sandbox-run.1", "sandbox-gc.1", "sandbox-doctor.1"] {
        assert!(directory.path().join(page).is_file(), "{page}");
    }
}

#[test]
fn gc_removes_what_has_no_lock() {
    let data = tempfile::tempdir().unwrap();
    let uuid = "2b47f797-d600-463a-b9ed-1a80a325355b";
    let pod = data.path().join("pods/run").join(uuid);
    std::fs::create_dir_all(&pod).unwrap();
    let output = sandbox(&["gc", "--dir", data.path().to_str().unwrap()]);
    if rustix::process::geteuid().is_root() {
        assert_eq!(stdout(&output), format!("Garbage collecting pod \"{uuid}\"\n"));
        assert_eq!(output.status.code(), Some(0));
        assert!(!pod.exists());
    } else {
        assert_eq!(stderr(&output), "gc: cannot run as unprivileged user\n");
    }
}

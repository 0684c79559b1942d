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
    for name in [
        "kvm",
        "kernel",
        "initramfs",
        "monitor",
        "worker",
        "fetcher",
        "mke2fs",
        "policy",
        "tpm",
        "selinux",
        "cgroup",
        "cni",
    ] {
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
    for page in [
        "sandbox",
        "sandbox-run",
        "sandbox-gc",
        "sandbox-doctor",
        "sandbox-fetch",
        "sandbox-image-list",
        "sandbox-image-push",
        "sandbox-image-verity",
        "sandbox-trust-rm",
        "sandbox-policy-check",
        "sandbox-config",
    ] {
        let page = directory.path().join(format!("{page}.1"));
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(text.contains("\n.SH EXAMPLES AND EXIT STATUS\n"), "{}: {text}", page.display());
    }
    for verb in ["cat-manifest", "verity", "trust", "policy"] {
        assert!(stdout(&sandbox(&["completion", "bash"])).contains(verb), "{verb}");
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

/// rkt `config`: what the files come to, `{"stage0": [...]}`, members in the order of the files.
#[test]
fn config_prints_what_is_in_force_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &str| {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write(
        "system/paths.d/paths.json",
        r#"{"rktKind": "paths", "rktVersion": "v1", "data": "/srv/rkt"}"#,
    );
    write(
        "local/auth.d/auth.json",
        r#"{"rktKind": "auth", "rktVersion": "v1", "domains": ["example.com"], "type": "oauth",
            "credentials": {"token": "geheim"}}"#,
    );
    let place = |name| directory.path().join(name).to_str().unwrap().to_owned();
    let (system, local) = (place("system"), place("local"));
    let arguments = ["--system-config", &system, "--local-config", &local, "config"];
    let with = |more: &[&str]| sandbox(&[&arguments[..], more].concat());

    let output = with(&["--pretty-print=false"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("\"token\":\"***\"") && !text.contains("geheim"), "{text}");
    let paths = "{\"rktVersion\":\"v1\",\"rktKind\":\"paths\",\"data\":\"/srv/rkt\",\
                 \"stage1-images\":\"\"}";
    assert!(text.starts_with("{\"stage0\":[{") && text.contains(paths), "{text}");
    assert!(stdout(&with(&["--show-secrets"])).contains("geheim"));

    write(
        "local/auth.d/twice.json",
        &std::fs::read_to_string(place("local/auth.d/auth.json")).unwrap(),
    );
    let output = with(&[]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(254), ""));
    let line = stderr(&output);
    assert!(line.starts_with("config: configuration file "), "{line}");
    assert!(line.contains("twice.json: auth for domain \"example.com\" is already"), "{line}");
}

/// rkt: any unique prefix of a command will do, also of a command of a command.
#[test]
fn commands_of_commands_can_be_cut_short() {
    for arguments in
        [&["im", "li", "--help"][..], &["trust", "l", "--help"], &["pol", "c", "--help"]]
    {
        let output = sandbox(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(stdout(&output).contains("Example"), "{arguments:?}");
    }
}

#[test]
fn trust_says_what_it_needs() {
    for (arguments, line) in [
        (&["trust"][..], "trust: must provide a --prefix, or --root and a key\n"),
        (&["trust", "key.asc"], "trust: --root required for non-prefixed (root) keys\n"),
        (&["trust", "--root"], "trust: --root needs the file or URL of a key"),
        (
            &["trust", "--prefix=https://example.com", "key.asc"],
            "trust: --prefix: the name of images has no scheme",
        ),
        (
            &["trust", "--prefix=example.com", "/nowhere/key.asc"],
            "trust: error accessing the key /nowhere/key.asc: No such file",
        ),
        (&["trust", "--root", "http://example.com/key.asc"], "--insecure-allow-http allows it"),
        (&["trust", "rm", "88182190"], "rm: \"88182190\" is not a fingerprint of 40 digits"),
    ] {
        let output = sandbox(arguments);
        assert_eq!(output.status.code(), Some(254), "{arguments:?}");
        assert!(stderr(&output).contains(line), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

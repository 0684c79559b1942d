//! The SELinux module, `selinux/sandbox.cil`, held against the policy of this distribution with the
//! compiler that a host uses: no kernel with SELinux is needed.
//!
//! What the kernel would decide is computed by `checkpolicy`, which has the kernel's own rules for
//! types, categories and constraints.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail their test")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use tempfile::TempDir;

/// Where Debian has the modules of its policy, and what makes CIL of one.
const MODULES: &str = "/usr/share/selinux/default";
const TO_CIL: [&str; 2] = ["/usr/libexec/selinux/hll/pp", "/usr/lib/selinux/hll/pp"];

/// The base policy as CIL, or nothing if this machine has no such tools.
static BASE: LazyLock<Option<TempDir>> = LazyLock::new(base);

fn base() -> Option<TempDir> {
    let to_cil = TO_CIL.into_iter().find(|path| Path::new(path).exists())?;
    let has = |program: &str| Command::new(program).arg("--help").output().is_ok();
    if !has("secilc") || !has("checkpolicy") || !Path::new(MODULES).exists() {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut roles = BTreeSet::new();
    for name in ["base", "unconfined"] {
        let module = directory.path().join("module.pp");
        let unpacked =
            Command::new("bzip2").args(["-dc", &format!("{MODULES}/{name}.pp.bz2")]).output();
        fs::write(&module, unpacked.unwrap().stdout).unwrap();
        let made = Command::new(to_cil).arg(&module).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // The base policy maps a user to a role that a module of its own declares, and two modules
        // declare one role: `semodule` puts up with both.
        let text = String::from_utf8(made.stdout).unwrap();
        let lines = text.lines().filter(|line| {
            !line.starts_with("(selinuxuser ")
                && (!line.starts_with("(role ") || roles.insert((*line).to_owned()))
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        fs::write(directory.path().join(name).with_extension("cil"), text).unwrap();
    }
    Some(directory)
}

/// Compiles the policy with our module and these rules.
fn compile(base: &TempDir, rules: &str, out: &TempDir) -> Output {
    let more = out.path().join("more.cil");
    fs::write(&more, rules).unwrap();
    Command::new("secilc")
        .args(["-m", "-M", "true", "-c", "33", "-o"])
        .arg(out.path().join("policy"))
        .arg("-f")
        .arg(out.path().join("contexts"))
        .args(["base.cil", "unconfined.cil"].map(|name| base.path().join(name)))
        .arg(module())
        .arg(more)
        .output()
        .unwrap()
}

fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../selinux/sandbox.cil")
}

/// The policy of a host with our module.
struct Policy(TempDir);

impl Policy {
    /// `None` where there are no tools; `cargo xtask test` installs them.
    fn new() -> Option<Self> {
        let Some(base) = BASE.as_ref() else {
            eprintln!("no selinux-policy-default, secilc and checkpolicy here");
            return None;
        };
        let out = tempfile::tempdir().unwrap();
        let compiled = compile(base, "", &out);
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{said}");
        Some(Self(out))
    }

    /// What a source may do to targets of a class.
    fn allowed(&self, source: &str, targets: &[&str], class: &str) -> Vec<BTreeSet<String>> {
        let mut child = Command::new("checkpolicy")
            .args(["-M", "-b", "-d"])
            .arg(self.0.path().join("policy"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Labels get numbers one after the other, from the one that the first got.
        let mut asked = String::new();
        for label in [source].iter().chain(targets) {
            asked.push_str(&format!("2\n{label}\n"));
        }
        let first = self.first_number();
        for number in 1..=targets.len() {
            asked.push_str(&format!("0\n{first}\n{}\n{class}\n", first + number));
        }
        asked.push_str("q\n");
        child.stdin.take().unwrap().write_all(asked.as_bytes()).unwrap();
        let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let answers: Vec<BTreeSet<String>> = said
            .lines()
            .filter_map(|line| line.split_once("allowed {")?.1.split_once('}'))
            .map(|(words, _)| words.split_whitespace().map(str::to_owned).collect())
            .collect();
        // A class of which nothing is allowed has an answer without words.
        assert_eq!(
            said.matches("allowed").count(),
            targets.len(),
            "{source} {targets:?} {class}\n{said}"
        );
        assert_eq!(answers.len(), targets.len(), "{said}");
        answers
    }

    fn first_number(&self) -> usize {
        let output = Command::new("sh")
            .arg("-c")
            .arg("printf '2\\nsystem_u:system_r:sandbox_vmm_t:s0:c9,c10\\nq\\n' | checkpolicy -M -b -d \"$0\" 2>/dev/null")
            .arg(self.0.path().join("policy"))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let number = said.split("sid ").nth(1).and_then(|rest| rest.split_whitespace().next());
        number.unwrap_or_else(|| panic!("{said}")).parse().unwrap()
    }
}

fn words(list: &str) -> BTreeSet<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

const MONITOR: &str = "system_u:system_r:sandbox_vmm_t:s0:c1,c2";
const WORKER: &str = "system_u:system_r:sandbox_fs_t:s0:c1,c2";

/// The rules of `neverallow` hold for our own rules, and those of the base policy, too.
#[test]
fn the_module_fits_the_distributions_policy() {
    let Some(policy) = Policy::new() else { return };
    let contexts = fs::read_to_string(policy.0.path().join("contexts")).unwrap();
    for (path, label) in [
        ("/usr/bin/sandbox", "sandbox_exec_t:s0"),
        ("/usr/libexec/sandbox/sandbox-vmm", "sandbox_vmm_exec_t:s0"),
        ("/usr/libexec/sandbox/sandbox-fs", "sandbox_fs_exec_t:s0"),
        ("/var/lib/rkt/cas(/.*)?", "sandbox_image_t:s0"),
        ("/var/lib/rkt/pods/[^/]+/.+", "<<none>>"),
        ("/var/lib/sandbox/attest(/.*)?", "sandbox_log_t:s0"),
    ] {
        let line = contexts.lines().find(|line| line.split_whitespace().next() == Some(path));
        assert!(line.is_some_and(|line| line.ends_with(label)), "{path}: {line:?}");
    }
}

/// A module that gave a pod one of these would not be loaded where neverallow is checked, and this test
/// would fail if a rule of ours, or an attribute of one, came to the same.
#[test]
fn what_must_never_be_allowed_is_refused_by_the_compiler() {
    let Some(base) = BASE.as_ref() else { return };
    for rule in [
        "sandbox_vmm_t tpm_device_t (chr_file (read))",
        "sandbox_fs_t tpm_device_t (chr_file (open))",
        "sandbox_vmm_t sandbox_log_t (file (read))",
        "sandbox_fs_t sandbox_log_t (dir (search))",
        "sandbox_vmm_t sandbox_state_t (file (getattr))",
        "sandbox_vmm_t sandbox_image_t (file (write))",
        "sandbox_fs_t sandbox_image_t (dir (add_name))",
        "sandbox_vmm_t sandbox_file_t (file (open))",
        "sandbox_vmm_t sandbox_image_t (file (open))",
        "sandbox_vmm_t var_t (file (create))",
        "sandbox_vmm_t self (process (execmem))",
        "sandbox_fs_t self (process (execmem))",
        "sandbox_vmm_t self (process (ptrace))",
        "sandbox_vmm_t sandbox_fs_t (process (ptrace))",
        "sandbox_vmm_t sandbox_t (process (sigkill))",
        "sandbox_fs_t unconfined_t (process (ptrace))",
        "sandbox_vmm_t sandbox_t (process (transition))",
        "sandbox_vmm_t self (process (setexec))",
        "sandbox_vmm_t self (capability (chown))",
        "sandbox_vmm_t self (capability2 (syslog))",
        "sandbox_fs_t self (capability (sys_ptrace))",
        "sandbox_fs_t self (capability (net_admin))",
        "sandbox_vmm_t self (capability (sys_module))",
        "sandbox_vmm_t kernel_t (system (module_request))",
        "sandbox_fs_t kernel_t (system (module_load))",
        "sandbox_vmm_t security_t (security (setenforce))",
        "sandbox_vmm_t self (tcp_socket (create))",
        "sandbox_vmm_t bin_t (file (execute_no_trans))",
        "sandbox_vmm_t sandbox_exec_t (file (execute))",
    ] {
        let out = tempfile::tempdir().unwrap();
        let refused = compile(base, &format!("(allow {rule})\n"), &out);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned()
            + &String::from_utf8_lossy(&refused.stdout);
        assert!(!refused.status.success(), "{rule}");
        assert!(said.contains("neverallow check failed"), "{rule}: {said}");
    }
}

/// One pod and the files of another: nothing but that there is one. Of its own: what it is handed.
#[test]
fn the_access_vectors_between_two_pods_are_empty() {
    let Some(policy) = Policy::new() else { return };
    let file = |level: &str| format!("system_u:object_r:sandbox_file_t:{level}");
    let memory = |level: &str| format!("system_u:object_r:sandbox_tmpfs_t:{level}");
    let process = |kind: &str, level: &str| format!("system_u:system_r:{kind}:{level}");
    // Three relations to another pod: none of the categories, one of them, and both and more.
    let others = ["s0:c3,c4", "s0:c1,c3", "s0:c1,c2,c3"];
    // A directory that is moved needs "reparent" besides what is asked of the two that it is moved
    // between, which categories keep apart.
    let nothing = words("getattr map reparent");
    for source in [MONITOR, WORKER] {
        for class in ["file", "dir", "lnk_file", "fifo_file", "sock_file"] {
            for target in others.map(file).iter().chain(&others.map(memory)) {
                let allowed = policy.allowed(source, &[target], class).remove(0);
                assert!(allowed.is_subset(&nothing), "{source} {target} {class}: {allowed:?}");
            }
        }
        for kind in ["sandbox_vmm_t", "sandbox_fs_t"] {
            for target in others.map(|level| process(kind, level)) {
                for class in
                    ["process", "unix_stream_socket", "unix_dgram_socket", "shm", "sem", "msgq"]
                {
                    let allowed = policy.allowed(source, &[&target], class).remove(0);
                    // What the kernel asks for a process that starts a thread, and what it says to its
                    // parent: neither is anything that one could do to another.
                    let harmless = words("fork sigchld getsched signull getcap getattr getopt");
                    assert!(allowed.is_subset(&harmless), "{source} {target} {class}: {allowed:?}");
                }
            }
        }
    }
    let own = policy.allowed(MONITOR, &[&file("s0:c1,c2"), &file("s0:c3,c4")], "file");
    assert_eq!(own[0], words("read write append getattr lock"));
    let own = policy.allowed(WORKER, &[&file("s0:c1,c2"), &file("s0")], "file");
    for allowed in own {
        assert!(allowed.is_superset(&words("open read write create unlink")), "{allowed:?}");
    }
}

/// What belongs to the host: nothing, and images only to read.
#[test]
fn the_access_vectors_to_the_host_are_empty() {
    let Some(policy) = Policy::new() else { return };
    let object = |kind: &str| format!("system_u:object_r:{kind}:s0");
    for source in [MONITOR, WORKER] {
        for (kind, class) in [
            ("tpm_device_t", "chr_file"),
            ("memory_device_t", "chr_file"),
            ("tun_tap_device_t", "chr_file"),
            ("fixed_disk_device_t", "blk_file"),
            ("sandbox_log_t", "file"),
            ("sandbox_state_t", "file"),
            ("shadow_t", "file"),
            ("etc_t", "file"),
            ("user_home_t", "file"),
            ("var_lib_t", "file"),
        ] {
            let target = object(kind);
            let allowed = policy.allowed(source, &[&target], class).remove(0);
            assert!(allowed.is_empty(), "{source} {target}: {allowed:?}");
        }
        for target in ["system_u:system_r:init_t:s0", "system_u:system_r:sandbox_t:s0"] {
            let allowed = policy.allowed(source, &[target], "process").remove(0);
            assert!(allowed.is_subset(&words("sigchld")), "{source} {target}: {allowed:?}");
        }
    }
    let image = object("sandbox_image_t");
    let allowed = policy.allowed(MONITOR, &[&image], "file").remove(0);
    assert_eq!(allowed, words("read getattr map lock"));
    let allowed = policy.allowed(WORKER, &[&image], "file").remove(0);
    assert!(allowed.is_empty(), "{allowed:?}");
}

use super::*;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

const USER: u32 = 1_900_000_007;

/// The user that a child of a test can be: of root any, of others only they themselves.
fn user() -> User {
    let own = User::own();
    if own.uid == 0 { User { uid: USER, gid: USER } } else { own }
}

fn shell(script: &str, namespaces: Namespaces, inherited: &[BorrowedFd<'_>]) -> Started {
    let program = open(Path::new("/bin/sh")).unwrap();
    let arguments = ["sh", "-c", script].map(|word| CString::new(word).unwrap()).into();
    let spawn = Spawn {
        program: program.as_fd(),
        arguments,
        environment: Vec::new(),
        inherited,
        namespaces,
        cgroup: None,
        label: None,
    };
    spawn.start().unwrap()
}

/// What a script writes to standard error.
fn said(script: &str, namespaces: Namespaces) -> String {
    let started = shell(script, namespaces, &[]);
    let mut text = String::new();
    let status = started.wait().unwrap();
    File::from(started.stderr).read_to_string(&mut text).unwrap();
    assert_eq!(status.code(), Some(0), "{text}");
    text
}

/// The namespaces of a process, by kind.
fn namespaces(process: &str) -> Vec<(String, std::path::PathBuf)> {
    ["user", "mnt", "pid", "ipc", "net", "uts", "cgroup"]
        .map(|kind| (kind.into(), fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap()))
        .into()
}

fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{field}:"))).unwrap();
    line[field.len() + 1..].split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_namespace_is_another_one_and_root_there_is_somebody_else_here() {
    let user = user();
    let child = shell("exec sleep 100", Namespaces::All(user), &[]);
    for ((kind, own), (_, its)) in
        namespaces("self").into_iter().zip(namespaces(&child.id().to_string()))
    {
        assert_ne!(own, its, "{kind}");
    }
    assert_eq!(status(child.id(), "Uid"), vec![user.uid.to_string(); 4].join(" "));
    assert_eq!(status(child.id(), "Gid"), vec![user.gid.to_string(); 4].join(" "));
    assert_eq!(status(child.id(), "NSpid").split(' ').next_back(), Some("1"));
    if User::own().uid == 0 {
        assert_eq!(status(child.id(), "Groups"), "");
    }
    let map = fs::read_to_string(format!("/proc/{}/uid_map", child.id())).unwrap();
    let words: Vec<_> = map.split_whitespace().collect();
    assert_eq!(words, ["0", &user.uid.to_string(), "1"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_pid_namespace_alone_leaves_the_rest_as_it_is() {
    let child = shell("exec sleep 100", Namespaces::Pid, &[]);
    let differ: Vec<String> = namespaces("self")
        .into_iter()
        .zip(namespaces(&child.id().to_string()))
        .filter(|(own, its)| own != its)
        .map(|((kind, _), _)| kind)
        .collect();
    assert_eq!(differ, ["pid"]);
    assert_eq!(status(child.id(), "Uid").split(' ').next(), Some(&*User::own().uid.to_string()));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn root_of_the_namespace_is_nobody_to_the_hosts_files() {
    let script = "cat /etc/shadow 2>&1 >/dev/null | grep -c denied >&2";
    assert_eq!(said(script, Namespaces::All(user())), "1\n");
}

#[test]
fn the_cgroup_namespace_begins_at_the_cgroup() {
    assert_eq!(said("sed -n 's/^0:://p' /proc/self/cgroup >&2", Namespaces::All(user())), "/\n");
}

#[test]
fn what_cannot_be_executed_is_told_with_the_step() {
    let directory = tempfile::tempdir().unwrap();
    let program = open(directory.path()).unwrap();
    let spawn = Spawn {
        program: program.as_fd(),
        arguments: vec![c"nothing".into()],
        environment: Vec::new(),
        inherited: &[],
        namespaces: Namespaces::All(user()),
        cgroup: None,
        label: None,
    };
    let error = spawn.start().unwrap_err();
    assert!(error.to_string().starts_with("cannot execute the program: "), "{error}");
}

#[test]
fn a_label_that_the_kernel_does_not_take_is_told_with_the_step() {
    let program = open(Path::new("/bin/true")).unwrap();
    let spawn = Spawn {
        program: program.as_fd(),
        arguments: vec![c"true".into()],
        environment: Vec::new(),
        inherited: &[],
        namespaces: Namespaces::Pid,
        cgroup: None,
        label: Some(c"no context"),
    };
    let error = spawn.start().unwrap_err();
    assert!(error.to_string().contains("SELinux context"), "{error}");
}

#[test]
fn a_child_whose_supervisor_is_killed_dies_with_it() {
    const SUPERVISOR: &str = "SANDBOX_SPAWN_SUPERVISOR";
    if std::env::var_os(SUPERVISOR).is_some() {
        for namespaces in [Namespaces::All(user()), Namespaces::Pid] {
            let child = shell("exec sleep 1000", namespaces, &[]);
            println!("child {}", child.id());
        }
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .unwrap();
    }
    let test = "tests::a_child_whose_supervisor_is_killed_dies_with_it";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(SUPERVISOR, "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let children: Vec<&str> = text.lines().filter_map(|line| line.split("child ").nth(1)).collect();
    assert_eq!(children.len(), 2, "{text}");
    for child in children {
        let gone = || {
            // What nobody has waited for yet is a zombie.
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        let since = std::time::Instant::now();
        while !gone() {
            assert!(since.elapsed().as_secs() < 10, "{child} lives on");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

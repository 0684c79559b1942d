//! Another back end in the place of ours.

use sandbox_protocol::{App, ExitStatus, Pod, Root, Stdio, ToHost};
use sandbox_tests::image::tiny_layer;
use sandbox_tests::machine::{Machine, installed, spawn_with};
use sandbox_tests::temporary;
use sandbox_vmm::exit::Exit;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};

/// The monitor's side is a plain vhost-user front end, so Debian's virtiofsd serves a pod as well.
#[test]
fn debians_virtiofsd_serves_a_pod() {
    let directory = temporary();
    let root = directory.path().join("share/root-app");
    std::fs::create_dir_all(&root).unwrap();
    let mut unpack = Command::new("tar");
    unpack.arg("--extract").arg("--file").arg(tiny_layer()).arg("--directory").arg(&root);
    assert!(unpack.status().unwrap().success());

    let (mut daemon, connection) = virtiofsd(directory.path(), &directory.path().join("share"));

    let (kernel, initramfs) = installed();
    let mut machine = Machine::with_share(&kernel, &initramfs, Some(connection.into()));
    let (output, said) = machine.run(&pod("cat /etc/passwd; uname -n; exit 3"));
    assert_eq!(machine.ends(), Some(Exit::Reset), "{}", machine.console());
    assert!(output.contains("alice:x:1000:1000:") && output.contains("\nother\n"), "{output}");
    let exited = ToHost::Exited { app: 0, status: ExitStatus::Code(3), out_of_memory: false };
    assert!(said.contains(&exited), "{said:?}");
    assert!(daemon.wait().unwrap().success(), "it ends when the monitor hangs up");
}

/// Starts virtiofsd for this directory, with a socket in another one, and connects to it.
pub fn virtiofsd(directory: &Path, shared: &Path) -> (Child, UnixStream) {
    let socket = directory.join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut daemon = Command::new("/usr/libexec/virtiofsd");
    daemon.arg(format!("--fd={}", listener.as_raw_fd())).arg("--announce-submounts");
    daemon.arg("--shared-dir").arg(shared);
    let daemon = spawn_with(&mut daemon, &[listener.into()]);
    (daemon, UnixStream::connect(&socket).unwrap())
}

fn pod(script: &str) -> Pod {
    let app = App {
        name: "app".into(),
        root: Root::Share("root-app".into()),
        root_read_only: false,
        argv: ["/bin/sh", "-c", script].map(|word| word.as_bytes().to_vec()).into(),
        environment: vec![b"PATH=/bin".to_vec()],
        working_directory: b"/".to_vec(),
        user: "0".into(),
        group: String::new(),
        supplementary_groups: Vec::new(),
        mounts: Vec::new(),
        memory: None,
        cpu_millis: None,
        stdio: Stdio::Streams { stdin: None, stdout: 2000, stderr: 2001 },
    };
    Pod {
        hostname: "other".into(),
        share_tag: Some("pod".into()),
        images: Vec::new(),
        scratch: None,
        volumes: Vec::new(),
        apps: vec![app],
        measured: None,
    }
}

//! A guest doesn't get out of its volumes.

use sandbox_tests::{run, temporary, tiny};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

/// A symbolic link is the guest's to resolve, in the guest's own files.
#[test]
fn a_link_in_a_volume_never_leads_to_the_hosts_files() {
    let (volume, outside) = (temporary(), temporary());
    fs::write(outside.path().join("secret"), "of the host").unwrap();
    symlink("/etc/shadow", volume.path().join("absolute")).unwrap();
    symlink("../../../../../../etc/shadow", volume.path().join("relative")).unwrap();
    symlink(outside.path().join("secret"), volume.path().join("outside")).unwrap();
    symlink("/proc/1/root/etc/shadow", volume.path().join("magic")).unwrap();
    symlink("/etc/passwd", volume.path().join("inside")).unwrap();
    let script = "cd /v; for link in absolute relative outside magic; do \
                  cat $link 2>/dev/null; done; cat ../etc/shadow ../../etc/shadow 2>/dev/null; \
                  head -n 1 inside; echo x >absolute; cat relative; rm *; ls -A";
    let pod = run(tiny()).volume("v", volume.path(), "", "/v");
    // The guest's own passwd, and the shadow file that it made itself.
    pod.sh(script).exits(0).prints("root:x:0:0:root:/root:/bin/sh\nx\n").says("");
    assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "of the host");
    let shadow = fs::read_to_string("/etc/shadow").unwrap();
    assert!(shadow.contains("root:") && !shadow.starts_with('x'));
}

/// A directory that the host replaces by a link while the guest is in it leads nowhere either.
#[test]
fn a_directory_that_becomes_a_link_on_the_host_does_not_lead_out() {
    let (volume, outside) = (temporary(), temporary());
    fs::write(outside.path().join("secret"), "of the host\n").unwrap();
    fs::create_dir(volume.path().join("d")).unwrap();
    fs::write(volume.path().join("d/secret"), "of the volume\n").unwrap();
    let script = "cat /v/d/secret; echo x >/v/ready; while [ ! -e /v/swapped ]; do sleep 0.1; done; \
                  cat /v/d/secret; echo end";
    let mut pod = run(tiny()).volume("v", volume.path(), "", "/v").script(script).start();
    pod.wait_for("of the volume\n");
    fs::rename(volume.path().join("d"), volume.path().join("old")).unwrap();
    symlink(outside.path(), volume.path().join("d")).unwrap();
    fs::write(volume.path().join("swapped"), "").unwrap();
    pod.end().exits(0).check("should not read the host's file", |it| {
        !it.text().contains("of the host") && it.text().ends_with("end\n")
    });
}

/// A device node in a volume is a name of nothing: the guest's devices are not the host's, and a
/// guest can't open, or make for the host, what it must not have.
#[test]
fn device_nodes_in_a_volume_are_of_no_use() {
    let volume = temporary();
    let node = volume.path().join("disk");
    let made = Command::new("mknod").arg(&node).args(["b", "254", "0"]).status().unwrap();
    assert!(made.success());
    let kmsg = volume.path().join("kmsg");
    assert!(Command::new("mknod").arg(&kmsg).args(["c", "1", "11"]).status().unwrap().success());
    let script = "cd /v; head -c 16 disk && echo read the disk; head -c 1 kmsg && echo read kmsg; \
                  mknod mine c 1 3 && echo x >mine && echo wrote; echo end";
    run(tiny())
        .volume("v", volume.path(), "", "/v")
        .sh(script)
        .exits(0)
        .check("should open none of them", |it| it.text() == "end\n");
}

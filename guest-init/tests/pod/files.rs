//! Files: what apps see of the image, of volumes and of the kernel, and what they cannot reach.

use crate::harness::{Guest, app, exited, shell, started, stderr, stdout};
use crate::{Test, tests};
use sandbox_protocol::{Mount, Pod, Volume, VolumeSource};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

pub const TESTS: &[Test] = tests![
    what_an_app_writes_to_its_root_stays_in_the_guest,
    a_read_only_root_is_read_only,
    devices_are_those_of_appc,
    device_nodes_of_the_image_and_of_the_app_are_of_no_use,
    the_kernel_is_out_of_reach,
    an_image_cannot_put_proc_sys_or_dev_elsewhere,
    an_image_cannot_redirect_what_is_written_for_it,
    names_are_those_of_the_pod,
    what_is_written_to_a_volume_is_there_afterwards,
    a_read_only_volume_is_read_only,
    a_file_is_mounted_on_a_file,
    symbolic_links_of_an_image_cannot_lead_a_volume_out,
    volumes_cannot_cover_the_root_or_what_belongs_to_the_kernel,
    an_empty_volume_is_shared_by_the_apps_that_mount_it,
    a_working_directory_is_made_if_it_is_missing,
    apps_cannot_leave_their_root,
];

fn run(pod: Pod, shares: &[(&str, &Path)]) -> (String, String, u8) {
    let mut guest = Guest::start(pod, shares);
    let (output, errors) = (guest.output(stdout(0)), guest.output(stderr(0)));
    guest.hears(&started(0));
    let sandbox_protocol::ToHost::Exited { status, .. } = guest.hear() else { panic!() };
    guest.finish();
    (output, errors, status.shell_code())
}

/// Runs a script in this machine's files and returns what it says, after status 0.
fn says(pod: Pod, shares: &[(&str, &Path)]) -> String {
    let mut all = vec![("root", Path::new("/"))];
    all.extend(shares);
    let (output, errors, status) = run(pod, &all);
    assert_eq!((errors.as_str(), status), ("", 0), "{output}");
    output
}

fn volume(pod: &mut Pod, name: &str, target: &str, read_only: bool) {
    let volume = u16::try_from(pod.volumes.len()).unwrap();
    pod.volumes.push(Volume { name: name.into(), source: VolumeSource::Share(name.into()) });
    pod.apps[0].mounts.push(Mount { volume, target: target.into(), read_only });
}

/// An image with some of this machine's programs.
fn image_with(programs: &[&str]) -> tempfile::TempDir {
    let image = bare_image();
    for program in programs {
        let program = format!("/bin/{program}");
        let libraries = std::process::Command::new("ldd").arg(&program).output().unwrap().stdout;
        let libraries = String::from_utf8(libraries).unwrap();
        let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        for file in libraries.chain([program.as_str()]) {
            let copy = image.path().join(&file[1..]);
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(file, copy).unwrap();
        }
    }
    image
}

/// An image that has nothing.
fn bare_image() -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    fs::set_permissions(image.path(), fs::Permissions::from_mode(0o755)).unwrap();
    image
}

fn what_an_app_writes_to_its_root_stays_in_the_guest() {
    let mark = format!("/var/tmp/mark-{}", std::process::id());
    let script = format!("echo x > {mark} && cat {mark} && mkdir {mark}.d && mv /var/tmp /var/t2");
    assert_eq!(says(shell(&script), &[]), "x\n");
    assert!(!Path::new(&mark).exists());
    assert!(Path::new("/var/tmp").exists());
}

fn a_read_only_root_is_read_only() {
    let mut pod = shell("touch /x 2>/dev/null || echo no; touch /dev/shm/x && cat /etc/hostname");
    pod.apps[0].root_read_only = true;
    // Places to mount on are made nevertheless.
    volume(&mut pod, "data", "/new/place", false);
    let data = tempfile::tempdir().unwrap();
    assert_eq!(says(pod, &[("data", data.path())]), "no\nthe-pod\n");
}

/// appc `OS-SPEC.md`, "Devices and File Systems", and `/dev/net/tun` as in rkt.
fn devices_are_those_of_appc() {
    let script = "cd /dev; for f in * net/*; do [ -c $f ] && [ ! -L $f ] && echo $f; done; \
                  find . -type l -printf '%p %l\\n' | sort; stat -c %a null; stat -c '%t:%T' null zero full random urandom tty net/tun; \
                  head -c 3 /dev/zero | od -An -tx1; echo x >/dev/full 2>/dev/null || echo full; \
                  stat -f -c %T /dev/pts /dev/mqueue; stat -c %a /dev/shm; ls /dev/pts";
    assert_eq!(
        says(shell(script), &[]),
        "full\nnull\nrandom\ntty\nurandom\nzero\nnet/tun\n\
         ./fd /proc/self/fd\n./ptmx pts/ptmx\n./stderr /proc/self/fd/2\n./stdin /proc/self/fd/0\n\
         ./stdout /proc/self/fd/1\n666\n1:3\n1:5\n1:7\n1:8\n1:9\n5:0\na:c8\n 00 00 00\nfull\n\
         devpts\nmqueue\n1777\nptmx\n"
    );
}

fn device_nodes_of_the_image_and_of_the_app_are_of_no_use() {
    let script =
        "for d in / /dev /dev/shm /tmp /data; do mknod $d/n c 1 3 && cat $d/n; done; exit 0";
    let mut pod = shell(script);
    volume(&mut pod, "data", "/data", false);
    let data = tempfile::tempdir().unwrap();
    let (output, errors, status) = run(pod, &[("root", Path::new("/")), ("data", data.path())]);
    assert_eq!((output.as_str(), status), ("", 0));
    assert_eq!(errors.matches("Permission denied").count(), 5, "{errors}");
}

fn the_kernel_is_out_of_reach() {
    let script = "for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe \
                    /proc/sysrq-trigger /sys/kernel/mm/x /proc/sys/vm/panic_on_oom; do \
                    (echo x >$f) 2>/dev/null && echo \"$f can be written\"; done; \
                  for f in kallsyms kcore keys timer_list config.gz; do \
                    [ -e /proc/$f ] && cat /proc/$f; done; \
                  ls /sys/firmware /sys/module /sys/power /sys/fs | grep .; \
                  grep -c . /sys/fs/cgroup/cgroup.procs; \
                  mount -t tmpfs x /mnt 2>/dev/null && echo mounted; \
                  umount /proc/kcore 2>/dev/null && echo unmounted; \
                  grep MemTotal /proc/meminfo | wc -l";
    assert_eq!(
        says(shell(script), &[]),
        "/sys/firmware:\n/sys/fs:\ncgroup\n/sys/module:\n/sys/power:\n2\n1\n"
    );
}

fn an_image_cannot_put_proc_sys_or_dev_elsewhere() {
    for name in ["proc", "sys", "dev"] {
        let image = bare_image();
        fs::create_dir(image.path().join("elsewhere")).unwrap();
        symlink("elsewhere", image.path().join(name)).unwrap();
        let mut guest = Guest::start(shell(""), &[("root", image.path())]);
        let failure = guest.failure();
        assert!(failure.contains("has to be a directory or missing"), "{failure}");
        guest.finish();
    }
}

fn an_image_cannot_redirect_what_is_written_for_it() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("hostname");
    fs::write(&victim, "before").unwrap();
    // An absolute link, one with many "..", and one through the directory.
    for (link, target) in [
        ("etc/hostname", victim.to_str().unwrap().to_owned()),
        ("etc/hostname", format!("../../../../../..{}", victim.display())),
        ("etc", outside.path().to_str().unwrap().to_owned()),
    ] {
        let image = bare_image();
        if link != "etc" {
            fs::create_dir(image.path().join("etc")).unwrap();
        }
        symlink(target, image.path().join(link)).unwrap();
        let mut guest = Guest::start(shell(""), &[("root", image.path())]);
        // There is no shell in it, so it does not get further than that, or not even there.
        guest.failure();
        guest.finish();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "before");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}

/// rkt's default: an `/etc/hosts` of the image stays. One that is empty is what images have that
/// were made from containers.
fn names_are_those_of_the_pod() {
    let hosts = "127.0.0.1\tlocalhost the-pod\n::1\tlocalhost the-pod\n";
    for (own, expected) in [(None, hosts), (Some(""), hosts), (Some("own\n"), "own\n")] {
        let image = image_with(&["sh", "cat", "readlink"]);
        fs::create_dir(image.path().join("etc")).unwrap();
        if let Some(own) = own {
            fs::write(image.path().join("etc/hosts"), own).unwrap();
        }
        fs::write(image.path().join("etc/hostname"), "builder\n").unwrap();
        let script = "cat /etc/hostname; readlink /etc/mtab; cat /etc/hosts";
        let (output, errors, _) = run(shell(script), &[("root", image.path())]);
        assert_eq!(errors, "");
        assert_eq!(output, format!("the-pod\n/proc/self/mounts\n{expected}"));
    }
}

fn what_is_written_to_a_volume_is_there_afterwards() {
    let data = tempfile::tempdir().unwrap();
    let mut pod = shell("cd /srv/data && echo hello > file && chown 1234:5678 file && mkdir d");
    volume(&mut pod, "data", "/srv/data", false);
    assert_eq!(says(pod, &[("data", data.path())]), "");
    assert_eq!(fs::read_to_string(data.path().join("file")).unwrap(), "hello\n");
    let owner = fs::metadata(data.path().join("file")).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (1234, 5678));
}

fn a_read_only_volume_is_read_only() {
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("file"), "content").unwrap();
    let mut pod = shell("cat /data/file; touch /data/new 2>/dev/null || echo -no");
    volume(&mut pod, "data", "/data", true);
    assert_eq!(says(pod, &[("data", data.path())]), "content-no\n");
}

fn a_file_is_mounted_on_a_file() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("file");
    fs::write(&file, "content").unwrap();
    let mut pod = shell("cat /etc/hosts /a/new/file; echo more >>/a/new/file");
    volume(&mut pod, "one", "/etc/hosts", true);
    volume(&mut pod, "two", "/a/new/file", false);
    assert_eq!(says(pod, &[("one", &file), ("two", &file)]), "contentcontent");
    assert_eq!(fs::read_to_string(&file).unwrap(), "contentmore\n");
}

fn symbolic_links_of_an_image_cannot_lead_a_volume_out() {
    let outside = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    for target in [
        outside.path().to_str().unwrap().to_owned(),
        format!("../../../../../../..{}", outside.path().display()),
        "/proc/self/root".into(),
    ] {
        let image = bare_image();
        symlink(&target, image.path().join("link")).unwrap();
        let mut pod = shell("");
        volume(&mut pod, "data", "/link/below", false);
        let mut guest = Guest::start(pod, &[("root", image.path()), ("data", data.path())]);
        guest.failure();
        guest.finish();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{target}");
        assert_eq!(fs::read_dir(image.path()).unwrap().count(), 1, "{target}");
    }
}

fn volumes_cannot_cover_the_root_or_what_belongs_to_the_kernel() {
    let data = tempfile::tempdir().unwrap();
    for target in
        ["/", "/proc", "/proc/sys", "/proc/self/attr", "/sys/kernel", "/x/../proc", "proc"]
    {
        let mut pod = shell("");
        volume(&mut pod, "data", target, false);
        let mut guest = Guest::start(pod, &[("root", Path::new("/")), ("data", data.path())]);
        let failure = guest.failure();
        assert!(failure.starts_with("mounting volume data at "), "{failure}");
        guest.finish();
    }
}

/// appc `pods.md`: a volume of kind "empty" is a directory that lives as long as the pod.
fn an_empty_volume_is_shared_by_the_apps_that_mount_it() {
    let mut pod = shell("stat -c '%a %u %g' /a; echo hello > /a/file; sleep 0.2");
    let script = "while ! [ -s /b/file ]; do sleep 0.1; done; cat /b/file; touch /b/x || echo no";
    pod.apps.push(app("other", script, 1));
    let source = VolumeSource::Empty { mode: 0o1770, uid: 7, gid: 8 };
    pod.volumes.push(Volume { name: "scratch".into(), source });
    let mount = |target: &str, read_only| Mount { volume: 0, target: target.into(), read_only };
    pod.apps[0].mounts.push(mount("/a", false));
    pod.apps[1].mounts.push(mount("/b", true));
    let mut guest = Guest::start(pod, &[("root", Path::new("/"))]);
    assert_eq!(guest.output(stdout(0)), "1770 7 8\n");
    assert_eq!(guest.output(stdout(1)), "hello\nno\n");
    let mut reports = [guest.hear(), guest.hear(), guest.hear(), guest.hear()];
    reports.sort_by_key(|report| format!("{report:?}"));
    assert_eq!(reports, [exited(0, 0), exited(1, 0), started(0), started(1)]);
    guest.finish();
}

fn a_working_directory_is_made_if_it_is_missing() {
    let mut pod = shell("pwd");
    pod.apps[0].working_directory = b"/a/b/c".to_vec();
    assert_eq!(says(pod, &[]), "/a/b/c\n");
}

/// The classic way out of a chroot, which appc's default capabilities would allow.
fn apps_cannot_leave_their_root() {
    let script = "mkdir /jail; python3 -c '
import os
os.chroot(\"/jail\")
for i in range(64): os.chdir(\"..\")
os.chroot(\".\")
print(sorted(set(os.listdir(\"/\")) & {\"share\", \"app\", \"volume\", \"void\", \"jail\"}))
'; cat /proc/self/mountinfo | cut -d' ' -f5 | sort | uniq -d";
    assert_eq!(says(shell(script), &[]), "['jail']\n");
}

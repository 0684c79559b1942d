//! Code of the attacker's own.

use super::{Attack, Attempt, Class, Effect, attack};
use crate::call::{Path, Result, open, write};
use crate::{call, path};
use std::ffi::CStr;

const C: Class = Class::Code;
const WRITABLE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// `mov eax, 90; ret`
const PROGRAM: [u8; 6] = [0xb8, 90, 0, 0, 0, 0xc3];

/// An executable that does nothing but `exit(42)`: ELF header, one program header, the code.
const ELF: [u8; 132] = elf();

pub(super) const LIST: &[Attack] = &[
    attack("shell_run", C, Effect::Written("shared"), "execute the host's shell", |it| {
        let command = path!("echo {} >>{}", it.name, it.str("shared"));
        execute(c"/bin/sh", c"-c", &command)
    }),
    attack("memory_executable", C, Effect::Power, "mmap of memory for new code", |it| {
        let page = call!(SYS_mmap, 0, 4096, WRITABLE | libc::PROT_EXEC, PRIVATE, -1, 0)?;
        run(it, page)
    }),
    attack("memory_made_executable", C, Effect::Power, "mprotect of memory with new code", |it| {
        let page = call!(SYS_mmap, 0, 4096, WRITABLE, PRIVATE, -1, 0)?;
        fill(page);
        call!(SYS_mprotect, page, 4096, libc::PROT_READ | libc::PROT_EXEC)?;
        enter(it, page)
    }),
    attack(
        "memory_made_executable_by_key",
        C,
        Effect::Power,
        "the same with pkey_mprotect",
        |it| {
            let page = call!(SYS_mmap, 0, 4096, WRITABLE, PRIVATE, -1, 0)?;
            fill(page);
            call!(SYS_pkey_mprotect, page, 4096, libc::PROT_READ | libc::PROT_EXEC, -1)?;
            enter(it, page)
        },
    ),
    attack(
        "all_memory_executable",
        C,
        Effect::Power,
        "personality(READ_IMPLIES_EXEC), then mmap",
        |it| {
            call!(SYS_personality, 0x040_0000)?;
            let page = call!(SYS_mmap, 0, 4096, WRITABLE, PRIVATE, -1, 0)?;
            run(it, page)
        },
    ),
    attack(
        "shared_memory_executable",
        C,
        Effect::Power,
        "shmat of a segment with new code",
        |it| {
            let segment = call!(SYS_shmget, libc::IPC_PRIVATE, 4096, 0o700)?;
            let page = call!(SYS_shmat, segment, 0, libc::SHM_EXEC);
            call!(SYS_shmctl, segment, libc::IPC_RMID, 0)?;
            run(it, page?)
        },
    ),
    attack(
        "memory_file_mapped_executable",
        C,
        Effect::Power,
        "mmap of a memfd with new code",
        |it| {
            let file = call!(SYS_memfd_create, c"code", 0)? as i32;
            write(file, &PROGRAM)?;
            let access = libc::PROT_READ | libc::PROT_EXEC;
            let page = call!(SYS_mmap, 0, 4096, access, libc::MAP_PRIVATE, file, 0)?;
            enter(it, page)
        },
    ),
    attack("memory_file_executed", C, Effect::Power, "execveat of a memfd", |it| {
        let _ = it;
        let file = call!(SYS_memfd_create, c"program", 0)? as i32;
        write(file, &ELF)?;
        let none = [0_usize];
        call!(SYS_execveat, file, c"", &none[..], &none[..], libc::AT_EMPTY_PATH).map(drop)
    }),
    attack(
        "own_code_overwritten",
        C,
        Effect::Power,
        "write to its own code by /proc/self/mem",
        |it| {
            let memory = open(c"/proc/self/mem", libc::O_RDWR)?;
            let function: extern "C" fn() -> u64 = placeholder;
            call!(SYS_pwrite64, memory, &PROGRAM[..], PROGRAM.len(), function as usize)?;
            enter(it, function as usize)
        },
    ),
    attack(
        "program_executed_again",
        C,
        Effect::Power,
        "execute the own program anew, without what was closed to it",
        |it| {
            let _ = it;
            execute(c"/proc/self/exe", c"--version", &path!(""))
        },
    ),
];

/// Executes a program with two arguments. Its exit status is what is seen of it.
fn execute(program: &CStr, first: &CStr, second: &Path) -> Result {
    let second = second.as_c_str().as_ptr() as usize;
    let words = [program.as_ptr() as usize, first.as_ptr() as usize, second, 0];
    let none = [0_usize];
    call!(SYS_execve, program, &words[..], &none[..]).map(drop)
}

/// What is overwritten.
#[inline(never)]
extern "C" fn placeholder() -> u64 {
    std::hint::black_box(7)
}

fn run(it: &mut Attempt<'_>, page: usize) -> Result {
    fill(page);
    enter(it, page)
}

fn fill(page: usize) {
    // SAFETY: the page was just mapped writable, and nobody else knows it.
    unsafe { std::ptr::copy_nonoverlapping(PROGRAM.as_ptr(), page as *mut u8, PROGRAM.len()) };
}

/// Runs the code; if it can't be run, the process ends here.
fn enter(it: &mut Attempt<'_>, code: usize) -> Result {
    // SAFETY: PROGRAM is at this address, a function of this type.
    let function = unsafe { std::mem::transmute::<usize, extern "C" fn() -> u64>(code) };
    let answer = function();
    it.prove(answer);
    if answer == 90 { Ok(()) } else { Err(libc::ENOEXEC) }
}

const fn elf() -> [u8; 132] {
    const BASE: u64 = 0x40_0000;
    const CODE: u64 = 120;
    let mut file = [0; 132];
    let header: [u8; 20] =
        [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0];
    // mov edi, 42; mov eax, 60; syscall
    let code: [u8; 12] = [0xbf, 42, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    file = put(file, 0, &header);
    file = put(file, 20, &1_u32.to_le_bytes());
    file = put(file, 24, &(BASE + CODE).to_le_bytes());
    file = put(file, 32, &64_u64.to_le_bytes());
    file = put(file, 52, &64_u16.to_le_bytes());
    file = put(file, 54, &56_u16.to_le_bytes());
    file = put(file, 56, &1_u16.to_le_bytes());
    // A segment to load, to read and to execute: the whole file.
    file = put(file, 64, &1_u32.to_le_bytes());
    file = put(file, 68, &5_u32.to_le_bytes());
    file = put(file, 80, &BASE.to_le_bytes());
    file = put(file, 88, &BASE.to_le_bytes());
    file = put(file, 96, &132_u64.to_le_bytes());
    file = put(file, 104, &132_u64.to_le_bytes());
    file = put(file, 112, &4096_u64.to_le_bytes());
    put(file, 120, &code)
}

const fn put(mut file: [u8; 132], at: usize, bytes: &[u8]) -> [u8; 132] {
    let mut index = 0;
    while index < bytes.len() {
        file[at + index] = bytes[index];
        index += 1;
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    #[test]
    fn the_program_is_one() {
        let file = std::env::temp_dir().join(format!("hostile-elf-{}", std::process::id()));
        fs::write(&file, ELF).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
        let status = Command::new(&file).status();
        fs::remove_file(&file).unwrap();
        assert_eq!(status.unwrap().code(), Some(42));
    }
}

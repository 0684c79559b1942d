//! System calls by number, with errors as values.

use std::ffi::{CStr, c_long};
use std::fmt::{self, Write as _};

/// The number of an error.
pub type Errno = i32;

/// What a system call or an attempt came to.
pub type Result<T = ()> = std::result::Result<T, Errno>;

/// An argument of a system call.
#[derive(Clone, Copy, Debug)]
pub struct Argument(usize);

macro_rules! numbers {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Argument {
            fn from(number: $kind) -> Self {
                // The kernel takes as much of the register as the argument has.
                Self(number as usize)
            }
        })*
    };
}

numbers!(i32, u32, i64, u64, usize);

impl From<&CStr> for Argument {
    fn from(text: &CStr) -> Self {
        Self(text.as_ptr() as usize)
    }
}

impl From<&Path> for Argument {
    fn from(path: &Path) -> Self {
        path.as_c_str().into()
    }
}

impl<T> From<&[T]> for Argument {
    fn from(values: &[T]) -> Self {
        Self(values.as_ptr() as usize)
    }
}

impl<T> From<&mut [T]> for Argument {
    fn from(values: &mut [T]) -> Self {
        Self(values.as_mut_ptr() as usize)
    }
}

/// The address of a structure that the kernel reads.
pub fn read<T>(value: &T) -> usize {
    std::ptr::from_ref(value) as usize
}

/// The address of a structure that the kernel writes.
pub fn written<T>(value: &mut T) -> usize {
    std::ptr::from_mut(value) as usize
}

/// Makes a system call; `call!(SYS_openat, …)` is shorter.
///
/// # Errors
/// The kernel's.
pub fn call(number: c_long, arguments: &[Argument]) -> Result<usize> {
    let mut words = [0; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = argument.0;
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: pointers among the arguments were made from references that live as long as the call.
    // Attempts whose calls do more than read and write those run in a process that ends with them.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(errno()) } else { Ok(result as usize) }
}

/// The error of the last call.
pub fn errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// A system call: its constant's name and its arguments.
#[macro_export]
macro_rules! call {
    ($name:ident $(, $argument:expr)* $(,)?) => {
        $crate::call::call(libc::$name, &[$($crate::call::Argument::from($argument)),*])
    };
}

/// Opens a file.
///
/// # Errors
/// The kernel's.
pub fn open(path: &CStr, flags: i32) -> Result<i32> {
    open_at(libc::AT_FDCWD, path, flags)
}

/// Opens a file, from an open directory.
///
/// # Errors
/// The kernel's.
pub fn open_at(directory: i32, path: &CStr, flags: i32) -> Result<i32> {
    Ok(call!(SYS_openat, directory, path, flags, 0o666)? as i32)
}

/// Writes bytes with one call.
///
/// # Errors
/// The kernel's.
pub fn write(descriptor: i32, bytes: &[u8]) -> Result {
    call!(SYS_write, descriptor, bytes, bytes.len()).map(drop)
}

/// Opens an existing file and appends to it.
///
/// # Errors
/// The kernel's.
pub fn append(path: &CStr, bytes: &[u8]) -> Result {
    let file = open(path, libc::O_WRONLY | libc::O_APPEND)?;
    write(file, bytes)
}

/// Opens an existing file and writes to it.
///
/// # Errors
/// The kernel's.
pub fn put(path: &CStr, bytes: &[u8]) -> Result {
    let file = open(path, libc::O_WRONLY)?;
    write(file, bytes)
}

/// A path, made without allocating: an allocator may want a system call.
#[derive(Clone, Copy)]
pub struct Path {
    bytes: [u8; 512],
    length: usize,
}

impl fmt::Debug for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_c_str().fmt(out)
    }
}

impl fmt::Write for Path {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        if end >= self.bytes.len() {
            return Err(fmt::Error);
        }
        self.bytes[self.length..end].copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl Path {
    /// A path of these pieces; `path!("/proc/{pid}/mem")` is shorter.
    pub fn of(pieces: fmt::Arguments<'_>) -> Self {
        let mut path = Self { bytes: [0; 512], length: 0 };
        // One that is too long is cut, and leads nowhere.
        let _ = path.write_fmt(pieces);
        path
    }

    /// As the kernel takes it.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

/// A [`Path`] by `format!`'s rules.
#[macro_export]
macro_rules! path {
    ($($piece:tt)*) => { $crate::call::Path::of(format_args!($($piece)*)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_gives_its_result_or_its_error() {
        assert_eq!(call!(SYS_getpid), Ok(std::process::id() as usize));
        assert_eq!(open(c"/nowhere", libc::O_RDONLY), Err(libc::ENOENT));
        let file = open(c"/dev/null", libc::O_WRONLY).unwrap();
        assert_eq!(write(file, b"x"), Ok(()));
    }

    #[test]
    fn a_path_is_what_was_written_and_never_longer_than_there_is_room() {
        assert_eq!(path!("/proc/{}/mem", 7).as_c_str(), c"/proc/7/mem");
        let long = "x".repeat(600);
        assert!(path!("{long}").as_c_str().to_bytes().len() < 512);
    }
}

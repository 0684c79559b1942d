//! The guest's program: passes requests on to the monitor and the file server, and their answers
//! back.
//!
//! A request is a line on standard input: `monitor NAME THREAD` or `worker NAME`. Each is answered by
//! one line on standard output. The file server is reached through the volume at /v.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "numbers are made to fit the kernel's interfaces; no product has them"
)]

use sandbox_hostile::call::{Errno, written};
use sandbox_hostile::{ATTRIBUTE, PORT, call};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::FromRawFd;

fn main() -> io::Result<()> {
    let mut monitor = None;
    println!("ready");
    for line in io::stdin().lines() {
        let line = line?;
        let answer = match line.split_once(' ') {
            Some(("monitor", request)) => {
                if monitor.is_none() {
                    monitor = connect().ok().map(BufReader::new);
                }
                ask(monitor.as_mut(), request)
            }
            Some(("worker", request)) => attribute(request),
            _ => None,
        };
        if answer.is_none() {
            monitor = None;
        }
        println!("{}", answer.unwrap_or_else(|| "unanswered".into()));
    }
    Ok(())
}

/// Connects to the monitor's server of attempts.
fn connect() -> Result<File, Errno> {
    let socket = call!(SYS_socket, libc::AF_VSOCK, libc::SOCK_STREAM, 0)?;
    // Family, port, the host's number.
    let mut address = [0_u32; 4];
    address[0] = libc::AF_VSOCK as u32;
    address[1] = PORT;
    address[2] = libc::VMADDR_CID_HOST;
    call!(SYS_connect, socket, written(&mut address), size_of_val(&address))?;
    // SAFETY: a new descriptor, which nobody else owns.
    Ok(unsafe { File::from_raw_fd(socket as i32) })
}

fn ask(monitor: Option<&mut BufReader<File>>, request: &str) -> Option<String> {
    let monitor = monitor?;
    monitor.get_mut().write_all(format!("{request}\n").as_bytes()).ok()?;
    let mut answer = String::new();
    monitor.read_line(&mut answer).ok()?;
    Some(answer.trim_end().to_owned()).filter(|answer| !answer.is_empty())
}

fn attribute(request: &str) -> Option<String> {
    let name = CString::new(format!("{ATTRIBUTE}{request}")).ok()?;
    let mut value = vec![0_u8; 4096];
    let length = call!(SYS_getxattr, c"/v", name.as_c_str(), &mut value[..], value.len()).ok()?;
    value.truncate(length);
    String::from_utf8(value).ok()
}

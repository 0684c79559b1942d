//! Sockets, networks and memory that processes share.

use super::{Attack, Attempt, Class, Effect, PROOF, attack};
use crate::call;
use crate::call::{Result, write};
use std::ffi::CStr;

const S: Class = Class::Sockets;

pub(super) const LIST: &[Attack] = &[
    attack(
        "unix_socket_reached",
        S,
        Effect::Heard,
        "connect to a Unix socket of the host's",
        |it| {
            let socket = socket(libc::AF_UNIX, libc::SOCK_STREAM)?;
            let (address, length) = unix(it.text("unix").to_bytes(), false);
            call!(SYS_connect, socket, &address[..], length)?;
            write(socket, it.name.as_bytes())
        },
    ),
    attack(
        "abstract_socket_reached",
        S,
        Effect::Heard,
        "connect to an abstract Unix socket",
        |it| {
            let socket = socket(libc::AF_UNIX, libc::SOCK_STREAM)?;
            let (address, length) = unix(it.text("abstract").to_bytes(), true);
            call!(SYS_connect, socket, &address[..], length)?;
            write(socket, it.name.as_bytes())
        },
    ),
    attack(
        "abstract_datagram_sent",
        S,
        Effect::Heard,
        "send to an abstract socket without connecting",
        |it| {
            let socket = socket(libc::AF_UNIX, libc::SOCK_DGRAM)?;
            let (address, length) = unix(it.text("abstract_datagram").to_bytes(), true);
            let name = it.name.as_bytes();
            call!(SYS_sendto, socket, name, name.len(), 0, &address[..], length).map(drop)
        },
    ),
    attack("loopback_reached", S, Effect::Heard, "connect to a TCP port of the host's", |it| {
        let socket = socket(libc::AF_INET, libc::SOCK_STREAM)?;
        let address = loopback(it.number("tcp"));
        call!(SYS_connect, socket, &address[..], address.len())?;
        write(socket, it.name.as_bytes())
    }),
    attack("datagram_sent", S, Effect::Heard, "send to a UDP port of the host's", |it| {
        let socket = socket(libc::AF_INET, libc::SOCK_DGRAM)?;
        let address = loopback(it.number("udp"));
        let name = it.name.as_bytes();
        call!(SYS_sendto, socket, name, name.len(), 0, &address[..], address.len()).map(drop)
    }),
    attack("port_taken", S, Effect::Secret, "listen at a TCP port that others connect to", |it| {
        let socket = socket(libc::AF_INET, libc::SOCK_STREAM)?;
        call!(SYS_setsockopt, socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &[1_i32][..], 4)?;
        let address = loopback(it.number("callback"));
        call!(SYS_bind, socket, &address[..], address.len())?;
        call!(SYS_listen, socket, 4)?;
        wait(socket)?;
        let stream = call!(SYS_accept4, socket, 0, 0, 0)? as i32;
        wait(stream)?;
        it.take(stream)
    }),
    attack("packets_seen", S, Effect::Secret, "see the host's packets with a packet socket", sniff),
    attack(
        "interface_changed",
        S,
        Effect::Shows("/sys/class/net/lo/mtu", "60007"),
        "change one of the host's network interfaces",
        |it| {
            const SIOCSIFMTU: i32 = 0x8922;
            let _ = it;
            let socket = socket(libc::AF_INET, libc::SOCK_DGRAM)?;
            let mut request = [0_u8; 40];
            request[..2].copy_from_slice(b"lo");
            request[16..20].copy_from_slice(&60007_i32.to_ne_bytes());
            call!(SYS_ioctl, socket, SIOCSIFMTU, &request[..]).map(drop)
        },
    ),
    attack("shared_memory_read", S, Effect::Secret, "read a System V memory segment", |it| {
        let at = call!(SYS_shmat, it.number("shm"), 0, libc::SHM_RDONLY)?;
        copy(it, at);
        Ok(())
    }),
    attack("message_taken", S, Effect::Secret, "take a message from a System V queue", |it| {
        let queue = it.number("queue");
        let flags = libc::IPC_NOWAIT | libc::MSG_NOERROR;
        let length = call!(SYS_msgrcv, queue, &mut it.proof[..], PROOF - 8, 0, flags)?;
        it.length = length + 8;
        Ok(())
    }),
];

fn socket(family: i32, kind: i32) -> Result<i32> {
    Ok(call!(SYS_socket, family, kind | libc::SOCK_CLOEXEC, 0)? as i32)
}

/// An address of a Unix socket, and its length.
fn unix(name: &[u8], is_abstract: bool) -> ([u8; 110], usize) {
    let mut address = [0; 110];
    address[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
    let start = 2 + usize::from(is_abstract);
    let name = &name[..name.len().min(106)];
    address[start..start + name.len()].copy_from_slice(name);
    (address, start + name.len() + usize::from(!is_abstract))
}

/// 127.0.0.1 and a port.
fn loopback(port: i64) -> [u8; 16] {
    let mut address = [0; 16];
    address[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    address[2..4].copy_from_slice(&(port as u16).to_be_bytes());
    address[4..8].copy_from_slice(&[127, 0, 0, 1]);
    address
}

/// Waits until there is something to read, two seconds at most.
fn wait(descriptor: i32) -> Result {
    let mut poll = [libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 }];
    match call!(SYS_poll, &mut poll[..], 1, 2000)? {
        0 => Err(libc::ETIMEDOUT),
        _ => Ok(()),
    }
}

/// Others say the secret over loopback all the time.
fn sniff(it: &mut Attempt<'_>) -> Result {
    const ETH_P_ALL: u16 = 3;
    let all = ETH_P_ALL.to_be();
    let socket = call!(SYS_socket, libc::AF_PACKET, libc::SOCK_RAW, u32::from(all))? as i32;
    for _ in 0..200 {
        wait(socket)?;
        it.take(socket)?;
        if contains(&it.proof[..it.length], it.text("marker")) {
            return Ok(());
        }
    }
    Err(libc::ETIMEDOUT)
}

fn contains(bytes: &[u8], text: &CStr) -> bool {
    let text = text.to_bytes();
    !text.is_empty() && bytes.windows(text.len()).any(|window| window == text)
}

/// Copies 64 bytes of a segment that has just been attached.
fn copy(it: &mut Attempt<'_>, at: usize) {
    // SAFETY: shmat has returned the address of a segment of at least a page, which stays attached
    // as long as the process lives; what others write meanwhile are bytes, too.
    let bytes = unsafe { std::slice::from_raw_parts(at as *const u8, 64) };
    it.proof[..64].copy_from_slice(bytes);
    it.length = 64;
}

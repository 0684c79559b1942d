//! Between the machine's ports and our streams.

use anyhow::Result;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

/// Copies what comes from a port until the machine ends.
pub fn relay(port: UnixStream, to: Box<dyn Write + Send>) -> JoinHandle<()> {
    std::thread::spawn(move || copy(port, to))
}

/// Copies what goes to a port until it ends, and then ends it for the machine too. Nobody waits
/// for this: our standard input may never end. The port is to be kept open, because QEMU drops what
/// the machine hasn't read yet when it is closed.
pub fn feed(from: Box<dyn Read + Send>, port: &UnixStream) -> Result<()> {
    let port = port.try_clone()?;
    std::thread::spawn(move || {
        copy(from, &port);
        let _ = port.shutdown(Shutdown::Write);
    });
    Ok(())
}

/// Each piece as it comes. If the receiver is gone, the rest is read and dropped, so that the
/// sender isn't held up.
fn copy(mut from: impl Read, to: impl Write) {
    let mut to = Some(to);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let piece = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if let Some(receiver) = &mut to
            && receiver.write_all(piece).and_then(|()| receiver.flush()).is_err()
        {
            to = None;
        }
    }
}

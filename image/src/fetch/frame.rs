//! Messages with open files over a Unix stream socket: how many bytes, how many files, the files,
//! the bytes.

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::{IoSlice, IoSliceMut},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use std::{
    io::{self, Read as _, Write as _},
    mem::MaybeUninit,
    os::unix::net::UnixStream,
};

/// The longest message in bytes: registries' certificates and credentials are in it.
const MAX_BYTES: usize = 64 << 20;
/// Most files of a message.
const MAX_FILES: usize = 16 << 10;
/// Files that go with one byte; the kernel takes at most 253.
const BATCH: usize = 64;

/// Sends a message.
pub(crate) fn send(
    mut socket: &UnixStream,
    bytes: &[u8],
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut header = [0; 8];
    header[..4].copy_from_slice(&u32::try_from(bytes.len()).map_err(too_long)?.to_be_bytes());
    header[4..].copy_from_slice(&u32::try_from(files.len()).map_err(too_long)?.to_be_bytes());
    socket.write_all(&header)?;
    for batch in files.chunks(BATCH) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(batch)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        rustix::io::retry_on_intr(|| {
            sendmsg(socket.as_fd(), &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)
        })?;
    }
    socket.write_all(bytes)
}

/// Receives a message.
pub(crate) fn receive(mut socket: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let mut header = [0; 8];
    socket.read_exact(&mut header)?;
    let number = |at: usize| {
        let bytes = header[at..at + 4].iter();
        bytes.fold(0, |number, &byte| number << 8 | usize::from(byte))
    };
    let (length, count) = (number(0), number(4));
    if length > MAX_BYTES || count > MAX_FILES {
        return Err(malformed());
    }
    let mut files = Vec::with_capacity(count);
    while files.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = rustix::io::retry_on_intr(|| {
            let mut into = [IoSliceMut::new(&mut byte)];
            recvmsg(socket.as_fd(), &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })?;
        let before = files.len();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                files.extend(rights);
            }
        }
        if received.bytes != 1 || received.flags.contains(ReturnFlags::CTRUNC) {
            // Of more files than may be open the rest is dropped.
            return Err(io::Error::other("files that came with a message are missing"));
        }
        if files.len() == before {
            return Err(malformed());
        }
    }
    let mut bytes = vec![0; length];
    socket.read_exact(&mut bytes)?;
    Ok((bytes, files))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on stops")]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn messages_arrive_with_all_their_files() {
        let (one, two) = UnixStream::pair().unwrap();
        for count in [0, 1, 64, 65, 200] {
            let files: Vec<File> = (0..count).map(|_| tempfile::tempfile().unwrap()).collect();
            for (number, mut file) in files.iter().enumerate() {
                writeln!(file, "{number}").unwrap();
            }
            let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            send(&one, b"words", &borrowed).unwrap();
            let (bytes, received) = receive(&two).unwrap();
            assert_eq!(bytes, b"words");
            assert_eq!(received.len(), count);
            for (number, file) in received.into_iter().enumerate() {
                let mut text = [0; 4];
                let length = std::os::unix::fs::FileExt::read_at(&File::from(file), &mut text, 0);
                assert_eq!(&text[..length.unwrap()], format!("{number}\n").as_bytes());
            }
        }
    }

    #[test]
    fn a_message_that_ends_early_is_an_error() {
        let (mut one, two) = UnixStream::pair().unwrap();
        one.write_all(&[0, 0, 0, 9, 0, 0, 0, 0, 1]).unwrap();
        drop(one);
        assert_eq!(receive(&two).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (mut one, two) = UnixStream::pair().unwrap();
        one.write_all(&[0xff; 8]).unwrap();
        assert_eq!(receive(&two).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

use crate::{MAX_TO_GUEST, MAX_TO_HOST, ToGuest, ToHost};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, ErrorKind, Read, Write};

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed, or ended inside a frame.
    #[error("control connection: {0}")]
    Io(#[from] io::Error),
    /// The frame is longer than its receiver accepts.
    #[error("control message of {length} bytes, at most {limit} are accepted")]
    TooLong {
        /// Length of the frame.
        length: u64,
        /// What the receiver accepts.
        limit: u32,
    },
    /// The bytes are not a message of this version, or more than one.
    #[error("malformed control message")]
    Malformed,
}

/// Reads a message of the guest. `None` is an orderly end of the connection.
///
/// # Errors
/// See [`FrameError`]; after an error nothing more can be read from the connection.
pub fn read_to_host(from: &mut impl Read) -> Result<Option<ToHost>, FrameError> {
    read(from, MAX_TO_HOST)
}

/// Reads a message of the host. `None` is an orderly end of the connection.
///
/// # Errors
/// See [`FrameError`]; after an error nothing more can be read from the connection.
pub fn read_to_guest(from: &mut impl Read) -> Result<Option<ToGuest>, FrameError> {
    read(from, MAX_TO_GUEST)
}

/// Sends a message to the host, in one write.
///
/// # Errors
/// [`FrameError::Io`] if the connection fails, [`FrameError::TooLong`] before anything is sent.
pub fn write_to_host(to: &mut impl Write, message: &ToHost) -> Result<(), FrameError> {
    write(to, message, MAX_TO_HOST)
}

/// Sends a message to the guest, in one write.
///
/// # Errors
/// [`FrameError::Io`] if the connection fails, [`FrameError::TooLong`] before anything is sent.
pub fn write_to_guest(to: &mut impl Write, message: &ToGuest) -> Result<(), FrameError> {
    write(to, message, MAX_TO_GUEST)
}

fn read<T: DeserializeOwned>(from: &mut impl Read, limit: u32) -> Result<Option<T>, FrameError> {
    let mut length = [0; 4];
    if !read_unless_ended(from, &mut length)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length);
    if length > limit {
        return Err(FrameError::TooLong { length: length.into(), limit });
    }
    let mut payload = Vec::new();
    // Grows with what arrives, so that a length alone costs nothing.
    let received = from.take(length.into()).read_to_end(&mut payload)?;
    if received as u64 != u64::from(length) {
        return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
    }
    match postcard::take_from_bytes(&payload) {
        Ok((message, [])) => Ok(Some(message)),
        _ => Err(FrameError::Malformed),
    }
}

/// Fills `buffer`; false if the stream ended before its first byte.
fn read_unless_ended(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    let first = loop {
        match from.read(buffer) {
            Ok(count) => break count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    if first == 0 {
        return Ok(false);
    }
    from.read_exact(&mut buffer[first..])?;
    Ok(true)
}

fn write<T: Serialize>(to: &mut impl Write, message: &T, limit: u32) -> Result<(), FrameError> {
    let mut frame = postcard::to_extend(message, vec![0; 4]).map_err(|_| FrameError::Malformed)?;
    let length = (frame.len() - 4) as u64;
    match u32::try_from(length) {
        Ok(length) if length <= limit => frame[..4].copy_from_slice(&length.to_le_bytes()),
        _ => return Err(FrameError::TooLong { length, limit }),
    }
    to.write_all(&frame)?;
    Ok(())
}

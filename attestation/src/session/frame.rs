//! Frames: a length in four bytes, most significant first, and so many bytes of JSON.

use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};

/// The most bytes of what `sandbox` says: a record of a pod with many apps is far below it.
pub const MAX_REQUEST: usize = 4 << 20;

/// The most bytes of an answer: a quote comes with the records of all launches since the boot, some
/// 600 bytes each, and with the firmware's log.
pub const MAX_ANSWER: usize = 256 << 20;

/// Writes one value as a frame, with one system call where that is possible.
pub fn write(out: &mut impl Write, value: &impl Serialize, most: usize) -> io::Result<()> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value)?;
    let length = frame.len() - 4;
    let Some(length) = u32::try_from(length).ok().filter(|_| length <= most) else {
        return Err(invalid(format!("a message of {length} bytes, more than {most}")));
    };
    frame[..4].copy_from_slice(&length.to_be_bytes());
    out.write_all(&frame)?;
    out.flush()
}

/// Reads one value; `None` where the other side has closed before it began one.
pub fn read<T: DeserializeOwned>(from: &mut impl Read, most: usize) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < length.len() {
        match from.read(&mut length[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_be_bytes(length);
    if usize::try_from(length).is_ok_and(|length| length > most) {
        return Err(invalid(format!("a message of {length} bytes, more than {most}")));
    }
    // Grows as bytes come, not by what the length promises.
    let mut document = Vec::new();
    from.take(length.into()).read_to_end(&mut document)?;
    if document.len() as u64 != u64::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(serde_json::from_slice(&document)?))
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_written_is_read() {
        let mut stream = Vec::new();
        write(&mut stream, &"one", 100).unwrap();
        write(&mut stream, &[2], 100).unwrap();
        let mut stream = stream.as_slice();
        assert_eq!(read::<String>(&mut stream, 100).unwrap().unwrap(), "one");
        assert_eq!(read::<Vec<u8>>(&mut stream, 100).unwrap().unwrap(), [2]);
        assert!(read::<String>(&mut stream, 100).unwrap().is_none());
    }

    #[test]
    fn what_is_too_long_is_neither_written_nor_read() {
        assert!(write(&mut Vec::new(), &"12345", 6).is_err());
        let mut stream = Vec::new();
        write(&mut stream, &"12345", 7).unwrap();
        assert!(read::<String>(&mut stream.as_slice(), 6).is_err());
    }

    #[test]
    fn a_frame_that_ends_early_is_an_error() {
        let mut stream = Vec::new();
        write(&mut stream, &"12345", 100).unwrap();
        for end in 1..stream.len() {
            let error = read::<String>(&mut &stream[..end], 100).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut after {end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(stream in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read::<serde_json::Value>(&mut stream.as_slice(), 1000);
        }
    }
}

use super::{Compression, Decoder};
use crate::{
    Algorithm, Digest, Limit, LimitExceeded, Step,
    digest::Hasher,
    progress::{Cancelled, Reporter},
};
use std::{
    fs::File,
    io::{self, Read, Write as _},
    os::fd::{AsFd, BorrowedFd},
};

/// A layer, decompressed, in a temporary file that has no name.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    size: u64,
    digest: Digest,
}

/// Why a file could not be spooled.
#[derive(Debug)]
pub(crate) enum SpoolError {
    /// It can't be read, or not decompressed.
    Read(io::Error),
    /// It can't be written to the temporary file.
    Write(io::Error),
    /// It is compressed in a way that its format doesn't have.
    Compression(Compression),
    /// It is over the limit for the size of an image.
    Limit(LimitExceeded),
    Cancelled,
}

/// How to spool a file.
pub(crate) struct Spooling<'a, 'b> {
    /// Compressions that the file may have; [`Compression::None`] is always one.
    pub(crate) compressions: &'a [Compression],
    /// The hash function for the file as it is.
    pub(crate) file_algorithm: Algorithm,
    /// The hash function for its decompressed bytes.
    pub(crate) algorithm: Algorithm,
    /// Bytes that it may decompress to before `size_limit` is exceeded.
    pub(crate) budget: u64,
    /// The limit for the size of an image, for the error.
    pub(crate) size_limit: u64,
    /// Which file it is of how many, and how many bytes it has.
    pub(crate) index: usize,
    pub(crate) count: usize,
    pub(crate) total: u64,
    pub(crate) reporter: &'a mut Reporter<'b>,
}

impl Spool {
    /// Decompresses `from` into `into`, which is new and empty. Also gives the digest of the file as
    /// it is.
    pub(crate) fn fill(
        mut into: File,
        from: impl Read,
        how: Spooling<'_, '_>,
    ) -> Result<(Self, Digest), SpoolError> {
        let mut meter = Meter {
            from,
            hasher: Hasher::new(how.file_algorithm),
            done: 0,
            step: (how.index, how.count, how.total),
            reporter: how.reporter,
            cancelled: false,
        };
        let outcome =
            decompress(&mut into, &mut meter, how.compressions, how.algorithm, how.budget)
                .and_then(|spooled| {
                    // What decoders leave unread is part of the file nonetheless.
                    io::copy(&mut meter, &mut io::sink()).map_err(SpoolError::Read)?;
                    Ok(spooled)
                });
        match outcome {
            _ if meter.cancelled => Err(SpoolError::Cancelled),
            Ok(Some((size, digest))) => {
                Ok((Self { file: into, size, digest }, meter.hasher.finish()))
            }
            Ok(None) => {
                Err(SpoolError::Limit(LimitExceeded { limit: Limit::Size, value: how.size_limit }))
            }
            Err(error) => Err(error),
        }
    }

    /// The temporary file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The same, where only that is needed.
    pub(crate) fn into_file(self) -> File {
        self.file
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The digest of its bytes.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl AsFd for Spool {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Size and digest of what was written; `None` if it would be more than `budget`.
fn decompress(
    into: &mut File,
    from: impl Read,
    compressions: &[Compression],
    algorithm: Algorithm,
    budget: u64,
) -> Result<Option<(u64, Digest)>, SpoolError> {
    let mut decoder = Decoder::new(from).map_err(SpoolError::Read)?;
    let compression = decoder.compression();
    if compression != Compression::None && !compressions.contains(&compression) {
        return Err(SpoolError::Compression(compression));
    }
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 128 << 10];
    let mut size = 0_u64;
    loop {
        let count = match decoder.read(&mut buffer) {
            Ok(0) => return Ok(Some((size, hasher.finish()))),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(SpoolError::Read(error)),
        };
        size += u64::try_from(count).unwrap_or(u64::MAX);
        if size > budget {
            return Ok(None);
        }
        hasher.update(&buffer[..count]);
        into.write_all(&buffer[..count]).map_err(SpoolError::Write)?;
    }
}

/// Counts and hashes what is read, and reports it.
struct Meter<'a, 'b, R> {
    from: R,
    hasher: Hasher,
    done: u64,
    /// Index, count, total.
    step: (usize, usize, u64),
    reporter: &'a mut Reporter<'b>,
    cancelled: bool,
}

impl<R: Read> Read for Meter<'_, '_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        self.hasher.update(&into[..count]);
        self.done += u64::try_from(count).unwrap_or(u64::MAX);
        let (index, layers, total) = self.step;
        let step = Step::Layer { index, count: layers, done: self.done, total };
        if let Err(Cancelled) = self.reporter.report(step) {
            self.cancelled = true;
            return Err(io::Error::other("cancelled"));
        }
        Ok(count)
    }
}

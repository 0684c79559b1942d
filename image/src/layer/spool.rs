use super::{Compression, Decoder};
use crate::{
    Algorithm, Digest, Error, Limit, LimitExceeded, Step, Text,
    digest::Hasher,
    error::LayerProblem,
    progress::{Cancelled, Reporter},
};
use std::{
    fs::File,
    io::{self, Read, Write as _},
    os::fd::{AsFd, BorrowedFd},
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
};

/// An uncompressed layer in a file.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    size: u64,
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
    /// The hash function for its decompressed bytes, if their digest is wanted.
    pub(crate) algorithm: Option<Algorithm>,
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
    /// A layer that is uncompressed in its file already.
    pub(crate) fn new(file: File, size: u64) -> Self {
        Self { file, size }
    }

    /// Decompresses `from` into `into`, which is new and empty.
    pub(crate) fn fill(
        into: File,
        from: impl Read,
        how: Spooling<'_, '_>,
    ) -> Result<(Self, Option<Digest>), SpoolError> {
        let mut meter = Meter {
            from,
            done: 0,
            step: (how.index, how.count, how.total),
            reporter: how.reporter,
            cancelled: false,
        };
        let sink = Sink { into: &into, hasher: how.algorithm.map(Hasher::new), size: 0 };
        let outcome =
            decompress(sink, &mut meter, how.compressions, how.budget).and_then(|outcome| {
                // What decoders leave unread is part of the file nonetheless.
                io::copy(&mut meter, &mut io::sink()).map_err(SpoolError::Read)?;
                Ok(outcome)
            });
        match outcome {
            _ if meter.cancelled => Err(SpoolError::Cancelled),
            Ok(Some((size, digest))) => Ok((Self { file: into, size }, digest)),
            Ok(None) => {
                Err(SpoolError::Limit(LimitExceeded { limit: Limit::Size, value: how.size_limit }))
            }
            Err(error) => Err(error),
        }
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

/// Bytes of a piece that goes from the decoder to the sink.
const PIECE: usize = 256 << 10;
/// Pieces that are on their way at the same time.
const PIECES: usize = 4;

impl AsFd for Spool {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Size and digest of what was written; `None` if it would be more than `budget`.
///
/// Decoding takes about as long as hashing and writing together, so each has a thread.
fn decompress(
    sink: Sink<'_>,
    from: impl Read,
    compressions: &[Compression],
    budget: u64,
) -> Result<Option<(u64, Option<Digest>)>, SpoolError> {
    let decoder = Decoder::new(from).map_err(SpoolError::Read)?;
    let compression = decoder.compression();
    if compression != Compression::None && !compressions.contains(&compression) {
        return Err(SpoolError::Compression(compression));
    }
    let (filled, to_write) = mpsc::sync_channel(PIECES);
    let (emptied, empty) = mpsc::sync_channel(PIECES);
    for _ in 0..PIECES {
        let _ = emptied.send(Vec::with_capacity(PIECE));
    }
    thread::scope(|scope| {
        let sink = scope.spawn(move || sink.run(&to_write, &emptied));
        let decoded = decode(decoder, &filled, &empty, budget);
        drop(filled);
        let sunk = sink.join().unwrap_or_else(|_| Err(io::Error::other("a thread has failed")));
        // The first of the two errors is the sink's: the decoder only learns that it has ended.
        let sunk = sunk.map_err(SpoolError::Write)?;
        Ok(decoded?.then_some(sunk))
    })
}

/// Decodes piece by piece; false if that is more than `budget`.
fn decode(
    mut decoder: impl Read,
    filled: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
    budget: u64,
) -> Result<bool, SpoolError> {
    let mut size = 0;
    loop {
        let Ok(mut piece) = empty.recv() else {
            return Ok(true);
        };
        piece.clear();
        let mut part = decoder.by_ref().take(PIECE as u64);
        let count = part.read_to_end(&mut piece).map_err(SpoolError::Read)?;
        if count == 0 {
            return Ok(true);
        }
        size += count as u64;
        if size > budget {
            return Ok(false);
        }
        if filled.send(piece).is_err() {
            return Ok(true);
        }
    }
}

/// Takes decoded bytes.
struct Sink<'a> {
    into: &'a File,
    hasher: Option<Hasher>,
    size: u64,
}

impl Sink<'_> {
    fn run(
        mut self,
        pieces: &Receiver<Vec<u8>>,
        emptied: &SyncSender<Vec<u8>>,
    ) -> io::Result<(u64, Option<Digest>)> {
        for piece in pieces {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&piece);
            }
            self.into.write_all(&piece)?;
            self.size += piece.len() as u64;
            // The decoder may have ended.
            let _ = emptied.send(piece);
        }
        Ok((self.size, self.hasher.map(Hasher::finish)))
    }
}

/// Counts what is read, and reports it.
struct Meter<'a, 'b, R> {
    from: R,
    done: u64,
    /// Index, count, total.
    step: (usize, usize, u64),
    reporter: &'a mut Reporter<'b>,
    cancelled: bool,
}

impl<R: Read> Read for Meter<'_, '_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
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

impl SpoolError {
    /// The error for the layer or archive that `name` gives.
    pub(crate) fn into_error(self, name: impl FnOnce() -> Text) -> Error {
        let problem = match self {
            Self::Read(error) => LayerProblem::Read(error),
            Self::Compression(compression) => LayerProblem::Compression(compression.name()),
            Self::Write(source) => {
                let path = Text::new("the image store");
                return Error::Io { action: "write a layer to", path, source };
            }
            Self::Limit(limit) => return limit.into(),
            Self::Cancelled => return Error::Cancelled,
        };
        Error::Layer { layer: name(), problem }
    }
}

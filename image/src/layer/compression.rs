use std::io::{self, BufRead, BufReader, Read};

/// How a file is compressed, as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all, or in a way that is not known here.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// bzip2.
    Bzip2,
    /// The .xz format.
    Xz,
}

/// Most memory that a decoder may take for its window, in KiB: what zstd's and xz's highest levels
/// need, with some to spare. The file names its window, so without a bound a few bytes of it could
/// claim gigabytes.
const MAX_WINDOW_KIB: u32 = 132 << 10;

impl Compression {
    /// The longest of the marks below, in bytes.
    const MARK: usize = 6;

    /// Tells by a file's first bytes.
    pub fn detect(beginning: &[u8]) -> Self {
        match beginning {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame, which zstd's seekable format begins with.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }

    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        }
    }
}

/// Decompresses a file, whatever it is compressed with.
pub struct Decoder<R: Read> {
    kind: Kind<BufReader<Beginning<R>>>,
}

/// A file of which some bytes were read already.
type Beginning<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

enum Kind<R: Read> {
    None(R),
    Gzip(Box<flate2::bufread::MultiGzDecoder<R>>),
    Zstd(Box<Zstd<R>>),
    Bzip2(Box<bzip2::bufread::MultiBzDecoder<R>>),
    Xz(Box<lzma_rust2::XzReader<R>>),
}

impl<R: Read> Decoder<R> {
    /// Looks at the first bytes of `file` and chooses.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn new(mut file: R) -> io::Result<Self> {
        let mut beginning = Vec::new();
        file.by_ref().take(Compression::MARK as u64).read_to_end(&mut beginning)?;
        let compression = Compression::detect(&beginning);
        let file = BufReader::with_capacity(128 << 10, io::Cursor::new(beginning).chain(file));
        let kind = match compression {
            Compression::None => Kind::None(file),
            Compression::Gzip => Kind::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(file))),
            Compression::Zstd => Kind::Zstd(Box::new(Zstd::new(file))),
            Compression::Bzip2 => Kind::Bzip2(Box::new(bzip2::bufread::MultiBzDecoder::new(file))),
            Compression::Xz => {
                let xz = lzma_rust2::XzReader::new_mem_limit(file, true, MAX_WINDOW_KIB);
                Kind::Xz(Box::new(xz))
            }
        };
        Ok(Self { kind })
    }

    /// What was found.
    pub fn compression(&self) -> Compression {
        match &self.kind {
            Kind::None(_) => Compression::None,
            Kind::Gzip(_) => Compression::Gzip,
            Kind::Zstd(_) => Compression::Zstd,
            Kind::Bzip2(_) => Compression::Bzip2,
            Kind::Xz(_) => Compression::Xz,
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::None(file) => file.read(into),
            Kind::Gzip(decoder) => decoder.read(into),
            Kind::Zstd(decoder) => decoder.read(into),
            Kind::Bzip2(decoder) => decoder.read(into),
            Kind::Xz(decoder) => decoder.read(into),
        }
    }
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("Decoder").field(&self.compression()).finish()
    }
}

/// Decodes zstd frames one after the other; the library's own reader stops after the first.
struct Zstd<R> {
    file: R,
    frame: ruzstd::decoding::FrameDecoder,
    started: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(file: R) -> Self {
        let mut frame = ruzstd::decoding::FrameDecoder::new();
        frame.set_max_window_size(u64::from(MAX_WINDOW_KIB) << 10);
        Self { file, frame, started: false }
    }

    /// Begins the next frame, if there is one.
    fn next_frame(&mut self) -> io::Result<bool> {
        use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
        loop {
            if self.file.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.frame.reset(&mut self.file) {
                Ok(()) => {
                    self.started = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut self.file.by_ref().take(length), &mut io::sink())?;
                    if skipped != length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::BlockDecodingStrategy::UptoBlocks;
        loop {
            if self.started {
                while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                    // A block is at most 128 KiB, decompressed.
                    self.frame
                        .decode_blocks(&mut self.file, UptoBlocks(1))
                        .map_err(io::Error::other)?;
                }
                let count = self.frame.read(into)?;
                if count > 0 || into.is_empty() {
                    return Ok(count);
                }
                let said = self.frame.get_checksum_from_data();
                if said.is_some() && said != self.frame.get_calculated_checksum() {
                    return Err(io::Error::other("the checksum of a zstd frame is wrong"));
                }
                self.started = false;
            }
            if !self.next_frame()? {
                return Ok(0);
            }
        }
    }
}

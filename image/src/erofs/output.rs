//! Writing a file from its beginning to its end.

use super::Problem;
use crate::{Step, progress::Reporter};
use rustix::io::{Errno, pread};
use std::{fs::File, io, os::fd::BorrowedFd, os::unix::fs::FileExt as _};

/// Bytes that are written at once.
const BUFFER: usize = 1 << 20;

pub(super) struct Output<'a, 'b> {
    file: &'a File,
    buffer: Box<[u8]>,
    /// Bytes of the buffer that are used.
    used: usize,
    /// Where in the file the buffer begins.
    at: u64,
    total: u64,
    reporter: &'a mut Reporter<'b>,
}

impl<'a, 'b> Output<'a, 'b> {
    /// Empties `file`, which will have `total` bytes.
    pub(super) fn new(
        file: &'a File,
        total: u64,
        reporter: &'a mut Reporter<'b>,
    ) -> Result<Self, Problem> {
        file.set_len(0)?;
        file.set_len(total)?;
        reporter.report(Step::Write { done: 0, total })?;
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Ok(Self { file, buffer, used: 0, at: 0, total, reporter })
    }

    /// Where the next byte will be.
    pub(super) fn position(&self) -> u64 {
        self.at + self.used as u64
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Problem> {
        while !bytes.is_empty() {
            let free = self.free()?;
            let count = bytes.len().min(free.len());
            let (now, later) = bytes.split_at(count);
            free[..count].copy_from_slice(now);
            self.used += count;
            bytes = later;
        }
        Ok(())
    }

    /// Writes zeros up to `position`. More than the buffer holds are not written: the file is zeros
    /// there already.
    pub(super) fn skip_to(&mut self, position: u64) -> Result<(), Problem> {
        let count = position.saturating_sub(self.position());
        if count < BUFFER as u64 {
            return self.fill(0, count);
        }
        self.flush()?;
        self.at = position;
        Ok(())
    }

    /// Writes a byte so many times.
    pub(super) fn fill(&mut self, byte: u8, mut count: u64) -> Result<(), Problem> {
        while count > 0 {
            let free = self.free()?;
            let now = usize::try_from(count).unwrap_or(usize::MAX).min(free.len());
            free[..now].fill(byte);
            self.used += now;
            count -= now as u64;
        }
        Ok(())
    }

    /// Writes `length` bytes that are at `position` in `from`.
    pub(super) fn copy(
        &mut self,
        from: BorrowedFd<'_>,
        mut position: u64,
        mut length: u64,
    ) -> Result<(), Problem> {
        while length > 0 {
            let free = self.free()?;
            let most = usize::try_from(length).unwrap_or(usize::MAX).min(free.len());
            let count = match pread(from, &mut free[..most], position) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(io::Error::from(error).into()),
            };
            self.used += count;
            position += count as u64;
            length -= count as u64;
        }
        Ok(())
    }

    /// Writes what is left, and zeros to the file's end.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        self.flush()?;
        self.at = self.total;
        self.reporter.report(Step::Write { done: self.total, total: self.total })?;
        Ok(())
    }

    /// The free part of the buffer, which is not empty.
    fn free(&mut self) -> Result<&mut [u8], Problem> {
        if self.used == self.buffer.len() {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.used..])
    }

    fn flush(&mut self) -> Result<(), Problem> {
        self.file.write_all_at(&self.buffer[..self.used], self.at)?;
        self.at += self.used as u64;
        self.used = 0;
        if self.at < self.total {
            self.reporter.report(Step::Write { done: self.at, total: self.total })?;
        }
        Ok(())
    }
}

//! The kernel's ELF file as the monitor reads it at every start: only what a loader needs.
//!
//! The linker leaves sections and symbols in the file, aligns segments in it to 2 MiB, and writes
//! out tables that are all zeros until the kernel fills them. A guest's memory is zero when it
//! starts, so [`pack`] leaves zero pages to it: fewer bytes are read and copied.

use anyhow::{Context, Result, ensure};

/// Positions and sizes of the ELF specification ("64-bit object file format").
mod layout {
    pub const HEADER: usize = 64;
    pub const PROGRAM_HEADER: usize = 56;
    /// In the header: file offset of the program headers, and their number.
    pub const PHOFF: usize = 32;
    pub const PHNUM: usize = 56;
    /// In the header: file offset, entry size, number and names of the section headers.
    pub const SHOFF: usize = 40;
    pub const SHENTSIZE: usize = 58;
}

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

const PAGE: usize = 4096;

/// A run of zero pages is left out from this length on: a segment more costs a read more.
const HOLE: usize = 4 * PAGE;

/// A program header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: usize,
    virtual_address: u64,
    physical_address: u64,
    file_size: usize,
    memory_size: usize,
}

impl Segment {
    fn parse(header: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(*header.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u64::from_le_bytes(*header.get(at..)?.first_chunk()?));
        let size = |at: usize| usize::try_from(long(at)?).ok();
        Some(Segment {
            kind: word(0)?,
            flags: word(4)?,
            offset: size(8)?,
            virtual_address: long(16)?,
            physical_address: long(24)?,
            file_size: size(32)?,
            memory_size: size(40)?,
        })
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.extend(self.kind.to_le_bytes());
        to.extend(self.flags.to_le_bytes());
        to.extend((self.offset as u64).to_le_bytes());
        to.extend(self.virtual_address.to_le_bytes());
        to.extend(self.physical_address.to_le_bytes());
        to.extend((self.file_size as u64).to_le_bytes());
        to.extend((self.memory_size as u64).to_le_bytes());
        let alignment: u64 = if self.kind == PT_LOAD { PAGE as u64 } else { 4 };
        to.extend(alignment.to_le_bytes());
    }

    /// The part of this segment from `start` on, which has `file_size` bytes in the file and
    /// `memory_size` bytes in memory.
    fn part(&self, start: usize, file_size: usize, memory_size: usize) -> Self {
        Segment {
            offset: self.offset + start,
            virtual_address: self.virtual_address.wrapping_add(start as u64),
            physical_address: self.physical_address.wrapping_add(start as u64),
            file_size,
            memory_size,
            ..*self
        }
    }

    /// The segment in parts, between which the file holds only zeros.
    fn split(&self, content: &[u8]) -> Vec<Self> {
        let mut kept: Vec<(usize, usize)> = Vec::new();
        for (index, page) in content.chunks(PAGE).enumerate() {
            let start = index * PAGE;
            // The first page stays in any case, so that the parts begin where the segment does.
            if index > 0 && page.iter().all(|byte| *byte == 0) {
                continue;
            }
            match kept.last_mut() {
                Some((_, end)) if start - *end < HOLE => *end = start + page.len(),
                _ => kept.push((start, start + page.len())),
            }
        }
        let ends = kept.iter().skip(1).map(|(start, _)| *start).chain([self.memory_size]);
        kept.iter()
            .zip(ends)
            .map(|((start, end), next)| self.part(*start, end - start, next - start))
            .collect()
    }
}

/// The same program without sections, padding and zero pages.
pub fn pack(image: &[u8]) -> Result<Vec<u8>> {
    let segments = segments(image).context("the ELF file's program headers are damaged")?;
    let mut parts = Vec::new();
    for segment in segments.iter().filter(|segment| segment.kind == PT_LOAD) {
        parts.extend(segment.split(content(image, segment)?));
    }
    let notes: Vec<Segment> =
        segments.iter().filter(|segment| segment.kind == PT_NOTE).copied().collect();

    let count = u16::try_from(parts.len() + notes.len())?;
    let mut data = layout::HEADER + usize::from(count) * layout::PROGRAM_HEADER;
    let mut moved = Vec::new();
    for part in &parts {
        data = data.next_multiple_of(PAGE);
        moved.push(Segment { offset: data, ..*part });
        data += part.file_size;
    }
    for note in &notes {
        // Notes are inside of a loaded part: they move with it.
        let inside = |part: &Segment| {
            part.offset <= note.offset
                && note.offset + note.file_size <= part.offset + part.file_size
        };
        let index = parts.iter().position(inside).context("a note that isn't loaded")?;
        let offset = moved[index].offset + (note.offset - parts[index].offset);
        moved.push(Segment { offset, ..*note });
    }

    let mut packed = image.get(..layout::HEADER).context("shorter than an ELF header")?.to_vec();
    packed[layout::PHOFF..][..8].copy_from_slice(&(layout::HEADER as u64).to_le_bytes());
    packed[layout::PHNUM..][..2].copy_from_slice(&count.to_le_bytes());
    packed[layout::SHOFF..][..8].fill(0);
    packed[layout::SHENTSIZE..].fill(0);
    for segment in &moved {
        segment.write(&mut packed);
    }
    for (part, at) in parts.iter().zip(&moved) {
        packed.resize(at.offset, 0);
        packed.extend_from_slice(content(image, part)?);
    }
    Ok(packed)
}

/// How many bytes a loader reads.
pub fn loaded(image: &[u8]) -> Result<usize> {
    let segments = segments(image).context("the ELF file's program headers are damaged")?;
    Ok(segments.iter().filter(|it| it.kind == PT_LOAD).map(|it| it.file_size).sum())
}

fn segments(image: &[u8]) -> Option<Vec<Segment>> {
    let table = u64::from_le_bytes(*image.get(layout::PHOFF..)?.first_chunk()?);
    let count = u16::from_le_bytes(*image.get(layout::PHNUM..)?.first_chunk()?);
    let size = usize::from(count) * layout::PROGRAM_HEADER;
    let table = image.get(usize::try_from(table).ok()?..)?.get(..size)?;
    table.chunks_exact(layout::PROGRAM_HEADER).map(Segment::parse).collect()
}

fn content<'a>(image: &'a [u8], segment: &Segment) -> Result<&'a [u8]> {
    let content = image.get(segment.offset..).and_then(|rest| rest.get(..segment.file_size));
    ensure!(segment.file_size <= segment.memory_size, "a segment larger than its memory");
    content.context("a segment that isn't in the file")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with these segments' contents, each followed by `bss` bytes of memory.
    fn image(contents: &[Vec<u8>], bss: usize) -> Vec<u8> {
        let mut image = vec![0x7f; layout::HEADER];
        image[layout::PHOFF..][..8].copy_from_slice(&(layout::HEADER as u64).to_le_bytes());
        image[layout::PHNUM..][..2]
            .copy_from_slice(&u16::try_from(contents.len() + 1).unwrap().to_le_bytes());
        let mut offset = 2 << 20;
        let mut address = 16 << 20;
        for content in contents {
            let segment = Segment {
                kind: PT_LOAD,
                flags: 5,
                offset,
                virtual_address: 0xffff_ffff_8000_0000 + address,
                physical_address: address,
                file_size: content.len(),
                memory_size: content.len() + bss,
            };
            segment.write(&mut image);
            offset += 2 << 20;
            address += 4 << 20;
        }
        let note = Segment {
            kind: PT_NOTE,
            flags: 4,
            offset: (2 << 20) + 8,
            virtual_address: 0,
            physical_address: 0,
            file_size: 16,
            memory_size: 16,
        };
        note.write(&mut image);
        for (index, content) in contents.iter().enumerate() {
            image.resize((index + 1) << 21, 0);
            image.extend(content);
        }
        image
    }

    /// Memory from 16 MiB on after a loader has read the file into zeros.
    fn memory(image: &[u8]) -> Vec<u8> {
        let mut memory = vec![0; 16 << 20];
        for segment in segments(image).unwrap().iter().filter(|it| it.kind == PT_LOAD) {
            let at = usize::try_from(segment.physical_address).unwrap() - (16 << 20);
            let content = content(image, segment).unwrap();
            memory[at..at + content.len()].copy_from_slice(content);
        }
        memory
    }

    fn pages(pattern: &[u8]) -> Vec<u8> {
        pattern.iter().flat_map(|byte| vec![*byte; PAGE]).collect()
    }

    #[test]
    fn a_packed_kernel_fills_memory_as_the_original_does() {
        let first = pages(&[1, 0, 0, 0, 0, 0, 2, 0, 3]);
        let mut second = pages(&[0, 0, 0, 0, 0, 4]);
        second.extend([5; 100]);
        let third = pages(&[0; 8]);
        let image = image(&[first, second, third], 10_000);
        let packed = pack(&image).unwrap();
        assert_eq!(memory(&packed), memory(&image));
        assert_eq!(loaded(&packed).unwrap(), (1 + 3) * PAGE + PAGE + PAGE + 100 + PAGE);
        assert!(packed.len() < 16 * PAGE, "{} bytes", packed.len());
    }

    #[test]
    fn a_packed_kernel_takes_the_same_memory_and_keeps_its_notes() {
        let image = image(&[pages(&[1, 0, 0, 0, 0, 0, 2]), pages(&[3])], 5_000);
        let packed = pack(&image).unwrap();
        let end = |image: &[u8]| {
            segments(image)
                .unwrap()
                .iter()
                .map(|it| it.physical_address + it.memory_size as u64)
                .max()
        };
        assert_eq!(end(&packed), end(&image));
        let note = |image: &[u8]| {
            let note = *segments(image).unwrap().iter().find(|it| it.kind == PT_NOTE).unwrap();
            image[note.offset..][..note.file_size].to_vec()
        };
        assert_eq!(note(&packed), note(&image));
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let image = image(&[pages(&[1])], 0);
        assert!(pack(&image[..100]).is_err());
        assert!(pack(&image[..image.len() - 1]).is_err());
        assert!(pack(&[]).is_err());
    }
}

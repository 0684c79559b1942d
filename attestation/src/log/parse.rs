//! Reading a log.

use super::{Bank, EXTENSION, Entry, REDACTED};
use crate::{
    canonical,
    record::{Event, RecordError, Uuid, from_hex},
};
use std::collections::BTreeMap;

/// The most that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in a log.
    pub log: u64,
    /// Bytes in one record of it.
    pub record: usize,
}

impl Default for Limits {
    /// Enough for a million entries of usual pods, or an entry of a pod with a hundred apps.
    fn default() -> Self {
        Self { log: 2 << 30, record: 1 << 20 }
    }
}

/// A log that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// What is in it.
    pub entries: Vec<Entry>,
    /// Where a last record begins that was not written to its end.
    pub torn: Option<usize>,
}

/// A text is not a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// It is too long.
    #[error("the log has {found} bytes, and at most {limit} are read")]
    Length {
        /// Its length.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// One record is too long.
    #[error("entry {recnum} of the log is longer than the {limit} bytes that are read of one")]
    RecordLength {
        /// The place where it is.
        recnum: u64,
        /// The limit.
        limit: usize,
    },
    /// A record is not written as records are.
    #[error("entry {recnum} of the log is malformed at its byte {at}")]
    Malformed {
        /// The place where it is.
        recnum: u64,
        /// Where in its line.
        at: usize,
    },
    /// A record has another number than its place.
    #[error("entry {recnum} of the log has the number {found}: entries are missing or were moved")]
    Number {
        /// The place where it is.
        recnum: u64,
        /// What it says.
        found: u64,
    },
    /// A record is of another PCR, or has other banks, than the first one.
    #[error("entry {recnum} of the log is of another PCR or of other banks than the first one")]
    Register {
        /// The entry.
        recnum: u64,
    },
    /// The content of a record is not what its digest is of.
    #[error(
        "entry {recnum} of the log: its content was changed, the digest of bank {bank} is another"
    )]
    Content {
        /// The entry.
        recnum: u64,
        /// The bank.
        bank: Bank,
    },
    /// The content of a record is not an event.
    #[error("entry {recnum} of the log: {problem}")]
    Event {
        /// The entry.
        recnum: u64,
        /// Why not.
        problem: RecordError,
    },
    /// An event can't be at this place.
    #[error("entry {recnum} of the log: {problem}")]
    Order {
        /// The entry.
        recnum: u64,
        /// Why not.
        problem: &'static str,
    },
}

/// Reads a log. Digests of contents are checked, in every bank; that they lead to what a PCR holds
/// is for [`super::replay`].
///
/// # Errors
/// See [`LogError`].
pub fn parse(text: &[u8], limits: &Limits) -> Result<Parsed, LogError> {
    let found = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let mut reader = Reader::new(found, *limits)?;
    let mut rest = text;
    while !rest.is_empty() {
        let line = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |end| end + 1);
        let (line, after) = rest.split_at(line);
        reader.read(line, after.is_empty())?;
        rest = after;
    }
    Ok(reader.finish())
}

/// Reads a log line by line.
pub(super) struct Reader {
    limits: Limits,
    entries: Vec<Entry>,
    torn: Option<usize>,
    /// Bytes that were read.
    at: usize,
}

impl Reader {
    /// For a log of `length` bytes.
    pub(super) fn new(length: u64, limits: Limits) -> Result<Self, LogError> {
        if length > limits.log {
            return Err(LogError::Length { found: length, limit: limits.log });
        }
        Ok(Self { limits, entries: Vec::new(), torn: None, at: 0 })
    }

    /// Takes one line with the byte that ends it. Only the last one may be torn: what was never
    /// synced to the disk may be there in part, or with other bytes where a block was not written.
    pub(super) fn read(&mut self, line: &[u8], last: bool) -> Result<(), LogError> {
        let recnum = self.entries.len() as u64;
        if line.len() > self.limits.record {
            return Err(LogError::RecordLength { recnum, limit: self.limits.record });
        }
        let mut cursor = Cursor { line, at: 0 };
        let entry = match cursor.record() {
            None => Err(LogError::Malformed { recnum, at: cursor.at }),
            Some((entry, content)) => self.entry(recnum, entry, content).map_err(|error| {
                // Bytes that are not JSON at all were torn rather than changed.
                let problem = content.and_then(|content| canonical::check(content).err());
                problem.map_or(error, |it| LogError::Malformed { recnum, at: cursor.at + it.at })
            }),
        };
        match entry {
            Ok(entry) => self.entries.push(entry),
            Err(LogError::Malformed { .. }) if last => self.torn = Some(self.at),
            Err(error) => return Err(error),
        }
        self.at += line.len();
        Ok(())
    }

    pub(super) fn finish(self) -> Parsed {
        Parsed { entries: self.entries, torn: self.torn }
    }

    fn entry(
        &self,
        recnum: u64,
        mut entry: Entry,
        content: Option<&[u8]>,
    ) -> Result<Entry, LogError> {
        if entry.recnum != recnum {
            return Err(LogError::Number { recnum, found: entry.recnum });
        }
        if self.entries.first().is_some_and(|first| {
            first.pcr != entry.pcr || !first.digests.keys().eq(entry.digests.keys())
        }) {
            return Err(LogError::Register { recnum });
        }
        if let Some(content) = content {
            for (&bank, digest) in &entry.digests {
                if bank.digest(content) != *digest {
                    return Err(LogError::Content { recnum, bank });
                }
            }
            let event =
                Event::parse(content).map_err(|problem| LogError::Event { recnum, problem })?;
            entry.content = Some(event);
        }
        match self.misplaced(&entry) {
            Some(problem) => Err(LogError::Order { recnum, problem }),
            None => Ok(entry),
        }
    }

    /// Why an entry can't be the next one.
    fn misplaced(&self, entry: &Entry) -> Option<&'static str> {
        let Some(first) = self.entries.first() else {
            let Some(Event::Start(start)) = &entry.content else {
                return Some("a log begins with what the PCR held before it");
            };
            let same = start.pcr_before.keys().eq(entry.digests.keys());
            return (!same).then_some("what the PCR held is of other banks than the log");
        };
        let content = entry.content.as_ref()?;
        if first.content.as_ref().is_some_and(|first| first.boot_id() != content.boot_id()) {
            return Some("it is of another boot");
        }
        match content {
            Event::Start(_) => Some("a log begins only once"),
            Event::Launch(launch) if launch.number != entry.recnum => {
                Some("it is a launch of another number")
            }
            Event::Exit(exit) if exit.launch >= entry.recnum => {
                Some("it ends a launch that is not before it")
            }
            Event::Launch(_) | Event::Exit(_) => None,
        }
    }
}

/// Takes lines of a log that is known to be in order, and leaves out what is not about one pod.
pub(super) struct Redacting<'p> {
    pod: &'p Uuid,
    count: u64,
    /// What is left.
    pub(super) text: String,
}

impl<'p> Redacting<'p> {
    pub(super) fn new(pod: &'p Uuid) -> Self {
        Self { pod, count: 0, text: String::new() }
    }

    pub(super) fn read(&mut self, line: &[u8]) -> Result<(), LogError> {
        let recnum = self.count;
        let mut cursor = Cursor { line, at: 0 };
        let malformed = |at| LogError::Malformed { recnum, at };
        let (entry, content) = cursor.record().ok_or_else(|| malformed(cursor.at))?;
        if entry.recnum != recnum {
            return Err(LogError::Number { recnum, found: entry.recnum });
        }
        self.count += 1;
        let text = std::str::from_utf8(line).map_err(|error| malformed(error.valid_up_to()))?;
        match content {
            Some(content) if recnum > 0 && !self.is_own(recnum, content)? => {
                let rest = content.len() + "\",\"content\":}\n".len();
                let head = text.len().checked_sub(rest).and_then(|end| text.get(..end));
                let head = head.and_then(|head| head.strip_suffix(EXTENSION));
                self.text.push_str(head.ok_or_else(|| malformed(0))?);
                self.text.push_str(REDACTED);
                self.text.push_str("\"}\n");
            }
            _ => self.text.push_str(text),
        }
        Ok(())
    }

    /// Whether an event is about the pod. Most don't even have its name.
    fn is_own(&self, recnum: u64, content: &[u8]) -> Result<bool, LogError> {
        let name = self.pod.as_str();
        // The end of it does, and is so short that it is looked for quickly.
        let end = name.get(12..).unwrap_or(name);
        if std::str::from_utf8(content).is_ok_and(|content| !content.contains(end)) {
            return Ok(false);
        }
        let event = Event::parse(content).map_err(|problem| LogError::Event { recnum, problem })?;
        Ok(event.pod() == Some(self.pod))
    }
}

/// A line, as far as it was read.
struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A whole line, with its content as it is there. Nothing if it is written in another way than
    /// [`Entry::to_json_seq`] does.
    fn record(&mut self) -> Option<(Entry, Option<&'a [u8]>)> {
        self.text("\x1e{\"recnum\":")?;
        let recnum = self.number(canonical::MAX_NUMBER)?;
        self.text(",\"pcr\":")?;
        // Wide enough for every number of a PCR.
        let pcr = u32::try_from(self.number(u64::from(u32::MAX))?).ok()?;
        self.text(",\"digests\":[")?;
        let mut digests = BTreeMap::new();
        loop {
            let (bank, digest) = self.digest()?;
            if digests.last_key_value().is_some_and(|(&last, _)| last >= bank) {
                return None;
            }
            digests.insert(bank, digest);
            if self.text(",").is_none() {
                break;
            }
        }
        self.text("],\"content_type\":\"")?;
        let content = match self.text(REDACTED) {
            Some(()) => {
                self.text("\"}\n")?;
                (self.at == self.line.len()).then_some(None)?
            }
            None => {
                self.text(EXTENSION)?;
                self.text("\",\"content\":")?;
                Some(self.line[self.at..].strip_suffix(b"}\n")?)
            }
        };
        Some((Entry { recnum, pcr, digests, content: None }, content))
    }

    fn text(&mut self, text: &str) -> Option<()> {
        let found = self.line[self.at..].starts_with(text.as_bytes());
        self.at += if found { text.len() } else { 0 };
        found.then_some(())
    }

    fn number(&mut self, most: u64) -> Option<u64> {
        let digits = &self.line[self.at..];
        let count = digits.iter().take_while(|digit| digit.is_ascii_digit()).count();
        if count == 0 || count > 16 || (count > 1 && digits[0] == b'0') {
            return None;
        }
        let add = |number, digit: &u8| number * 10 + u64::from(digit - b'0');
        let number = digits[..count].iter().fold(0, add);
        self.at += count;
        (number <= most).then_some(number)
    }

    fn digest(&mut self) -> Option<(Bank, Vec<u8>)> {
        self.text("{\"hashAlg\":\"")?;
        let rest = &self.line[self.at..];
        let is = |bank: &Bank| {
            rest.starts_with(bank.name().as_bytes()) && rest.get(bank.name().len()) == Some(&b'"')
        };
        let bank = Bank::ALL.into_iter().find(is)?;
        self.at += bank.name().len();
        self.text("\",\"digest\":\"")?;
        let mut digest = vec![0; bank.size()];
        let digits = self.line.get(self.at..self.at + 2 * bank.size())?;
        if !from_hex(digits, &mut digest) {
            return None;
        }
        self.at += digits.len();
        self.text("\"}")?;
        Some((bank, digest))
    }
}

//! Walking through a text in canonical form: what comes next, and whether it is written as it has
//! to be.

use super::MAX_NUMBER;
use std::{borrow::Cow, cmp::Ordering};

/// Most objects and lists within each other: more than any event has, and few enough for the stack.
const MAX_DEPTH: usize = 64;

/// What is wrong with a text. Small, as it is a part of every result here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    Utf8,
    Rest,
    Depth,
    Value,
    Object,
    Name,
    Colon,
    List,
    Number,
    Digits,
    Fraction,
    String,
    Control,
    End,
    Escape,
}

impl Problem {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Utf8 => "bytes that are not UTF-8",
            Self::Rest => "more than one value",
            Self::Depth => "too many values within each other",
            Self::Value => "no value, or white space before it",
            Self::Object => "neither a comma nor the end of an object",
            Self::Name => "a name that is there twice, or not in its place",
            Self::Colon => "no colon",
            Self::List => "neither a comma nor the end of a list",
            Self::Number => "a number above 2^53",
            Self::Digits => "a number that is written in another way",
            Self::Fraction => "a fraction",
            Self::String => "no string",
            Self::Control => "a control character",
            Self::End => "a string without end",
            Self::Escape => "an escape that is not needed",
        }
    }
}

/// A place in a text.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Whether the last string is ASCII and has no escapes.
    simple: bool,
}

/// A place in an object or a list.
#[derive(Default)]
pub(super) struct Progress<'a> {
    /// Whether there was an element of a list.
    begun: bool,
    /// The name of the last member.
    last: Option<Written<'a>>,
}

impl<'a> Scanner<'a> {
    /// At the beginning of a text.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, simple: true }
    }

    /// Where that is.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// At its end.
    pub(super) fn finish(&self) -> Result<(), Problem> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(Problem::Rest),
        }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Whether the next byte is `byte`; it is passed then.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Whether a word is next; it is passed then.
    pub(super) fn word(&mut self, word: &str) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// Passes any value.
    pub(super) fn value(&mut self) -> Result<(), Problem> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => {
                self.enter()?;
                let mut progress = Progress::default();
                while self.member(&mut progress)?.is_some() {
                    self.value()?;
                }
                Ok(())
            }
            Some(b'[') => {
                self.enter()?;
                let mut progress = Progress::default();
                while self.element(&mut progress)? {
                    self.value()?;
                }
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            _ if self.word("null") || self.word("true") || self.word("false") => Ok(()),
            _ => Err(Problem::Value),
        }
    }

    /// Passes the bracket that an object or a list begins with.
    pub(super) fn enter(&mut self) -> Result<(), Problem> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Problem::Depth);
        }
        Ok(())
    }

    /// Passes the name of the next member of an object and its colon, or the object's end.
    pub(super) fn member(
        &mut self,
        progress: &mut Progress<'a>,
    ) -> Result<Option<&'a str>, Problem> {
        if self.take(b'}') {
            self.depth -= 1;
            return Ok(None);
        }
        if progress.last.is_some() && !self.take(b',') {
            return Err(Problem::Object);
        }
        let text = self.string()?;
        let name = Written { text, simple: self.simple };
        if progress.last.is_some_and(|last| last.compare(name) != Ordering::Less) {
            return Err(Problem::Name);
        }
        progress.last = Some(name);
        if !self.take(b':') {
            return Err(Problem::Colon);
        }
        Ok(Some(text))
    }

    /// Whether a list goes on; passes its comma or its end.
    pub(super) fn element(&mut self, progress: &mut Progress<'a>) -> Result<bool, Problem> {
        if self.take(b']') {
            self.depth -= 1;
            return Ok(false);
        }
        if std::mem::replace(&mut progress.begun, true) && !self.take(b',') {
            return Err(Problem::List);
        }
        Ok(true)
    }

    /// Passes a number: whether it is negative, and its size.
    pub(super) fn number(&mut self) -> Result<(bool, u64), Problem> {
        let negative = self.take(b'-');
        let mut size = 0_u64;
        let start = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            size = size * 10 + u64::from(digit - b'0');
            self.at += 1;
            if size > MAX_NUMBER {
                return Err(Problem::Number);
            }
        }
        let digits = &self.text[start..self.at];
        if digits.is_empty()
            || (digits.len() > 1 && digits.starts_with('0'))
            || (negative && size == 0)
        {
            return Err(Problem::Digits);
        }
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return Err(Problem::Fraction);
        }
        Ok((negative, size))
    }

    /// Passes a string: what is between its quotation marks, as it is written.
    pub(super) fn string(&mut self) -> Result<&'a str, Problem> {
        if !self.take(b'"') {
            return Err(Problem::String);
        }
        let start = self.at;
        self.simple = self.plain();
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(Problem::Control),
                None => return Err(Problem::End),
            }
            self.plain();
            self.simple = false;
        }
        self.at += 1;
        Ok(&self.text[start..self.at - 1])
    }

    /// Passes what means itself in a string, eight bytes at a time; whether all of it is ASCII.
    fn plain(&mut self) -> bool {
        const ONES: u64 = u64::from_ne_bytes([1; 8]);
        const HIGH: u64 = ONES << 7;
        // The high bit of each byte that is below `n`, which is at most 128. Above the first of
        // them there may be others, by the borrow.
        const fn below(word: u64, n: u64) -> u64 {
            word.wrapping_sub(ONES * n) & !word & HIGH
        }
        let mut seen = 0;
        let mut rest = &self.text.as_bytes()[self.at..];
        while let Some((&chunk, after)) = rest.split_first_chunk() {
            let word = u64::from_le_bytes(chunk);
            let quotes = below(word ^ (ONES * 0x22), 1);
            let ends = below(word, 0x20) | quotes | below(word ^ (ONES * 0x5c), 1);
            if ends != 0 {
                let count = ends.trailing_zeros() / 8;
                seen |= word & ((1 << (8 * count)) - 1);
                self.at += count as usize;
                return seen & HIGH == 0;
            }
            seen |= word;
            self.at += 8;
            rest = after;
        }
        for &byte in rest {
            if byte < 0x20 || matches!(byte, b'"' | b'\\') {
                break;
            }
            seen |= u64::from(byte);
            self.at += 1;
        }
        seen & HIGH == 0
    }

    /// Passes one of the escapes that RFC 8785, §3.2.2.2 asks for.
    fn escape(&mut self) -> Result<(), Problem> {
        let length = match &self.text.as_bytes()[self.at + 1..] {
            [b'"' | b'\\' | b'b' | b't' | b'n' | b'f' | b'r', ..] => 2,
            // Of 08, 09, 0a, 0c and 0d there are shorter ones.
            [b'u', b'0', b'0', b'0', b'0'..=b'7' | b'b' | b'e' | b'f', ..]
            | [b'u', b'0', b'0', b'1', b'0'..=b'9' | b'a'..=b'f', ..] => 6,
            _ => return Err(Problem::Escape),
        };
        self.at += length;
        Ok(())
    }
}

/// A name, as it is written.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    text: &'a str,
    /// Whether it is ASCII and has no escapes: what it means is what is written then, and its UTF-16
    /// code units are its bytes.
    simple: bool,
}

impl<'a> Written<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, simple: text.bytes().all(|byte| byte.is_ascii() && byte != b'\\') }
    }

    /// Compares by UTF-16 code units (§3.2.3).
    pub(super) fn compare(self, other: Self) -> Ordering {
        if self.simple && other.simple {
            // Names in a row differ early; not worth a call.
            return self.text.bytes().cmp(other.text.bytes());
        }
        meaning(self.text).encode_utf16().cmp(meaning(other.text).encode_utf16())
    }
}

/// What a string means that was found to be well-formed.
pub(super) fn meaning(written: &str) -> Cow<'_, str> {
    if written.contains('\\') { Cow::Owned(unescape(written)) } else { Cow::Borrowed(written) }
}

fn unescape(written: &str) -> String {
    let mut text = String::with_capacity(written.len());
    let mut characters = written.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        text.push(match characters.next() {
            Some('b') => '\u{8}',
            Some('t') => '\t',
            Some('n') => '\n',
            Some('f') => '\u{c}',
            Some('r') => '\r',
            Some('u') => {
                let digits = characters.by_ref().take(4).filter_map(|digit| digit.to_digit(16));
                char::from_u32(digits.fold(0, |value, digit| value << 4 | digit))
                    .unwrap_or_default()
            }
            // A quotation mark or a backslash.
            other => other.unwrap_or_default(),
        });
    }
    text
}

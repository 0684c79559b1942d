use super::{Timestamp, Xattr, sparse::PaxSparse};
use std::collections::HashSet;

/// What an extended header says (POSIX.1-2024, pax, "pax Extended Header").
#[derive(Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: PaxSparse,
    has_more_than_comments: bool,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Extended {
    pub(super) fn parse(mut records: &[u8]) -> Result<Self, &'static str> {
        let mut extended = Self::default();
        let mut seen = HashSet::new();
        while !records.is_empty() {
            let (key, value, rest) = record(records).ok_or("an extended header's record")?;
            records = rest;
            // Only the pieces of a sparse map are repeated.
            let repeatable = matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes");
            if !repeatable && !seen.insert(key) {
                return Err("an extended header says the same twice");
            }
            extended.has_more_than_comments |= key != b"comment";
            match key {
                b"path" => extended.path = Some(value.to_vec()),
                b"linkpath" => extended.link = Some(value.to_vec()),
                b"size" => extended.size = Some(number(value)?),
                b"uid" => extended.uid = Some(number(value)?),
                b"gid" => extended.gid = Some(number(value)?),
                b"mtime" => extended.mtime = Some(time(value)?),
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        if name.is_empty() {
                            return Err("an extended attribute without a name");
                        }
                        extended.xattrs.push(Xattr { name: name.to_vec(), value: value.to_vec() });
                    } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                        extended.sparse.set(key, value)?;
                    }
                    // Anything else is not part of an image: names of owners, times of access.
                }
            }
        }
        Ok(extended)
    }

    pub(super) fn is_comment(&self) -> bool {
        !self.has_more_than_comments
    }
}

/// Takes a record `LENGTH KEY=VALUE\n` off, where the length counts the whole record.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(number(&records[..space]).ok()?).ok()?;
    if length <= space || length > records.len() {
        return None;
    }
    let (record, rest) = records.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, rest))
}

/// A number in decimal digits.
pub(super) fn number(digits: &[u8]) -> Result<u64, &'static str> {
    const ERROR: &str = "a number in an extended header is not one";
    if digits.is_empty() {
        return Err(ERROR);
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then_some(u64::from(digit.wrapping_sub(b'0')));
        let next = digit.and_then(|digit| number.checked_mul(10)?.checked_add(digit));
        next.ok_or(ERROR)
    })
}

/// Seconds with a fraction: `-1.5` is half a second before -1.
fn time(text: &[u8]) -> Result<Timestamp, &'static str> {
    const ERROR: &str = "a time in an extended header is not one";
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &[][..]),
    };
    let seconds = i64::try_from(number(whole)?).map_err(|_| ERROR)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(ERROR);
    }
    let nanoseconds = fraction
        .iter()
        .chain(std::iter::repeat(&b'0'))
        .take(9)
        .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    Ok(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

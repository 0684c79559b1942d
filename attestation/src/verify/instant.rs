//! Points in time of a log, as RFC 3339 writes them in UTC.

pub(crate) use sandbox_image::instant::{format, seconds};

/// Seconds since 1970 of `2026-01-01T00:00:00Z`, fractions left out. An offset is not read: what
/// writes logs and evidence has none.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let whole = text.get(..19)?;
    let rest = text.get(19..)?;
    let fraction = rest.strip_suffix('Z')?;
    let digits = fraction.strip_prefix('.').filter(|digits| !digits.is_empty());
    if !fraction.is_empty() && !digits?.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut fields = [0_i64; 6];
    let shape = b"0000-00-00T00:00:00";
    let mut field = 0;
    for (byte, kind) in whole.bytes().zip(shape) {
        if *kind == b'0' {
            let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
            fields[field] = fields[field] * 10 + digit;
        } else if byte == *kind {
            field += 1;
        } else {
            return None;
        }
    }
    let [year, month, day, hour, minute, second] = fields;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let months = usize::try_from(month).ok()?.checked_sub(1)?;
    let length = *lengths.get(months)?;
    if !(1..=length).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Leap days of all years before this one, in the proleptic Gregorian calendar.
    let before = year - 1;
    let leaps = before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    let days = 365 * year + leaps + lengths[..months].iter().sum::<i64>() + day - 1;
    // Day 0 of 1970 in that count.
    const EPOCH: i64 = 365 * 1970 + 1969 / 4 - 1969 / 100 + 1969 / 400;
    Some((days - EPOCH) * 86_400 + hour * 3600 + minute * 60 + second)
}

//! Points in time of a log, as RFC 3339 writes them in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970; a time before that is 1970.
pub(crate) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A time of 1970 or later, in UTC. Years that have more than four digits are written with them.
pub(crate) fn format(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01: a year that begins in March has its leap day at its end, and months
    // follow each other in the same way all along.
    let days = days.saturating_add(719_468);
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * era + year + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

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

//! Times for people and for programs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, as rkt's JSON has them; 0 for what can't be one.
pub fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or_default()
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
const MONTH: u64 = 30 * DAY;
const YEAR: u64 = 12 * MONTH;
const TWO_MINUTES: u64 = 2 * MINUTE;
const TWO_HOURS: u64 = 2 * HOUR;
const TWO_DAYS: u64 = 2 * DAY;
const TWO_WEEKS: u64 = 2 * WEEK;
const TWO_MONTHS: u64 = 2 * MONTH;

/// How long ago a time was, in one number and word: `now`, `1 minute ago`, `3 weeks ago`.
pub fn elapsed(then: SystemTime, now: SystemTime) -> String {
    let (difference, direction) = match now.duration_since(then) {
        Ok(past) => (past, "ago"),
        Err(future) => (future.duration(), "from now"),
    };
    let seconds = difference.as_secs();
    let one = |unit| format!("1 {unit} {direction}");
    let many = |unit: u64, name| format!("{} {name} {direction}", seconds / unit);
    match seconds {
        0 => "now".to_owned(),
        1 => one("second"),
        2..MINUTE => many(1, "seconds"),
        MINUTE..TWO_MINUTES => one("minute"),
        TWO_MINUTES..HOUR => many(MINUTE, "minutes"),
        HOUR..TWO_HOURS => one("hour"),
        TWO_HOURS..DAY => many(HOUR, "hours"),
        DAY..TWO_DAYS => one("day"),
        TWO_DAYS..WEEK => many(DAY, "days"),
        WEEK..TWO_WEEKS => one("week"),
        TWO_WEEKS..MONTH => many(WEEK, "weeks"),
        MONTH..TWO_MONTHS => one("month"),
        TWO_MONTHS..YEAR => many(MONTH, "months"),
        _ if seconds < 18 * MONTH => one("year"),
        _ if seconds < 2 * YEAR => format!("2 years {direction}"),
        _ if seconds < 37 * YEAR => many(YEAR, "years"),
        _ => format!("a long while {direction}"),
    }
}

/// A time in this machine's zone, to milliseconds: `2015-10-03 12:04:06.12 +0200 CEST`.
pub fn local_time(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let Some(local) = broken_down(since) else { return format!("{}", since.as_secs()) };
    let mut fraction = format!(".{:03}", since.subsec_millis());
    fraction.truncate(fraction.trim_end_matches('0').len());
    let fraction = if fraction == "." { "" } else { &fraction };
    let minutes = local.offset.unsigned_abs() / 60;
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{fraction} {}{:02}{:02} {}",
        local.year,
        local.month,
        local.day,
        local.hour,
        local.minute,
        local.second,
        if local.offset < 0 { '-' } else { '+' },
        minutes / 60,
        minutes % 60,
        local.zone
    )
}

struct Local {
    year: i64,
    month: i32,
    day: i32,
    hour: i32,
    minute: i32,
    second: i32,
    /// Seconds east of UTC.
    offset: i64,
    zone: String,
}

fn broken_down(since: Duration) -> Option<Local> {
    let seconds = libc::time_t::try_from(since.as_secs()).ok()?;
    // SAFETY: all fields of `tm` are numbers, and a pointer that may be null.
    let mut found: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to values of ours that outlive the call; the function writes to `found`
    // alone.
    if unsafe { libc::localtime_r(&raw const seconds, &raw mut found) }.is_null() {
        return None;
    }
    let zone = if found.tm_zone.is_null() {
        String::new()
    } else {
        // SAFETY: the C library let it point to the name of a zone, with a NUL at its end, which
        // it keeps for the life of the process.
        unsafe { std::ffi::CStr::from_ptr(found.tm_zone) }.to_string_lossy().into_owned()
    };
    Some(Local {
        year: i64::from(found.tm_year) + 1900,
        month: found.tm_mon + 1,
        day: found.tm_mday,
        hour: found.tm_hour,
        minute: found.tm_min,
        second: found.tm_sec,
        offset: found.tm_gmtoff,
        zone,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_and_the_future_are_told_in_one_number() {
        let now = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        for (seconds, text) in [
            (0, "now"),
            (1, "1 second ago"),
            (59, "59 seconds ago"),
            (60, "1 minute ago"),
            (119, "1 minute ago"),
            (120, "2 minutes ago"),
            (HOUR, "1 hour ago"),
            (23 * HOUR, "23 hours ago"),
            (DAY, "1 day ago"),
            (6 * DAY, "6 days ago"),
            (WEEK, "1 week ago"),
            (29 * DAY, "4 weeks ago"),
            (MONTH, "1 month ago"),
            (YEAR - 1, "11 months ago"),
            (YEAR, "1 year ago"),
            (18 * MONTH, "2 years ago"),
            (3 * YEAR, "3 years ago"),
            (40 * YEAR, "a long while ago"),
        ] {
            assert_eq!(elapsed(now - Duration::from_secs(seconds), now), text, "{seconds}");
        }
        assert_eq!(elapsed(now + Duration::from_secs(5), now), "5 seconds from now");
    }

    /// The form is rkt's `2006-01-02 15:04:05.999 -0700 MST`.
    #[test]
    fn a_time_has_the_form_of_rkts_long_listings() {
        let time = UNIX_EPOCH + Duration::from_millis(1_444_000_000_120);
        let text = local_time(time);
        let parts: Vec<&str> = text.split(' ').collect();
        assert_eq!(parts.len(), 4, "{text}");
        assert!(parts[1].ends_with(".12"), "{text}");
        assert_eq!(parts[2].len(), 5, "{text}");
        let whole = local_time(UNIX_EPOCH + Duration::from_secs(1_444_000_000));
        assert!(!whole.contains('.'), "{whole}");
        assert_eq!(nanoseconds(time), 1_444_000_000_120_000_000);
    }
}

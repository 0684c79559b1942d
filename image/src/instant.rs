//! Points in time, as RFC 3339 writes them in UTC. What is read is not the same everywhere, since
//! documents differ in what they may say; what is written is.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970; a time before that is 1970.
pub fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// `2026-01-01T00:00:00Z`. Years that have more than four digits are written with them.
pub fn format(seconds: i64) -> String {
    let (day, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(day);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day since 1970-01-01. A year that begins in March has its leap day at its
/// end, and months follow each other in the same way all along; 719,468 days lie between 0000-03-01
/// and 1970-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::time::parse_rfc3339;
    use proptest::prelude::*;

    #[test]
    fn known_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(format(seconds), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(seconds in -62_135_596_800_i64..253_402_300_799) {
            prop_assert_eq!(parse_rfc3339(&format(seconds)), Some(seconds));
        }

        #[test]
        fn any_number_is_written(seconds: i64) {
            let _ = format(seconds);
        }
    }
}

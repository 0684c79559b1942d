use std::str::FromStr;

/// A length of time in Go's syntax, as rkt's options have it: `24h`, `1h30m`, `1.5s`, `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration(std::time::Duration);

/// Units and how many nanoseconds each has.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Most digits of a number; more can't change a value below 2^63 nanoseconds.
const MOST_DIGITS: usize = 19;

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a duration, such as 24h, 1h30m or 0s");
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Self(std::time::Duration::ZERO));
        }
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut nanoseconds: u64 = 0;
        while !rest.is_empty() {
            let number_end = rest
                .find(|character: char| !character.is_ascii_digit() && character != '.')
                .ok_or_else(wrong)?;
            let (number, after) = rest.split_at(number_end);
            let unit_end = after
                .find(|character: char| character.is_ascii_digit() || character == '.')
                .unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_end);
            let (_, factor) =
                UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            let part = part(number, factor).ok_or_else(wrong)?;
            nanoseconds = nanoseconds.checked_add(part).ok_or_else(wrong)?;
            rest = after;
        }
        if nanoseconds > i64::MAX.unsigned_abs() {
            return Err(wrong());
        }
        Ok(Self(std::time::Duration::from_nanos(nanoseconds)))
    }
}

/// A decimal number of units of `factor` nanoseconds.
fn part(number: &str, factor: u64) -> Option<u64> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && decimals.is_empty()
        || whole.len() > MOST_DIGITS
        || decimals.len() > MOST_DIGITS
        || decimals.contains('.')
    {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    let fraction = u128::from(digits(decimals)?) * u128::from(factor)
        / 10_u128.pow(u32::try_from(decimals.len()).ok()?);
    digits(whole)?.checked_mul(factor)?.checked_add(u64::try_from(fraction).ok()?)
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<u128, String> {
        text.parse::<Duration>().map(|duration| duration.0.as_nanos())
    }

    #[test]
    fn durations_are_read_as_go_does() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("0s", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("30m0s", 1_800_000_000_000),
            ("24h", 86_400_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("3ms2ns", 3_000_002),
        ] {
            assert_eq!(parse(text), Ok(nanoseconds), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in
            ["", "+", "24", "h", "1d", "-1s", "1h 2m", ".s", "1..5s", "1.5.5s", "9999999999h", "s1"]
        {
            let error = parse(text).unwrap_err();
            assert!(error.contains("is not a duration"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn hours_minutes_and_seconds_add_up(hours in 0_u64..100, minutes in 0_u64..100, seconds in 0_u64..100) {
            let text = format!("{hours}h{minutes}m{seconds}s");
            let total = (hours * 3600 + minutes * 60 + seconds) * 1_000_000_000;
            prop_assert_eq!(parse(&text), Ok(u128::from(total)));
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}

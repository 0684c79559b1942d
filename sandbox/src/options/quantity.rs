use std::fmt;
use std::str::FromStr;

/// An amount in the Kubernetes resource model: `500m`, `1.5`, `64M`, `16Mi`, `12e6`.
///
/// It is not negative, below 2^63, and exact to thousandths, rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    thousandths: u128,
}

/// Most digits of a number; more can't change a value below 2^63 with three decimal places.
const MAX_DIGITS: usize = 24;

impl Quantity {
    /// The amount in whole units, rounded up.
    pub fn units(self) -> u64 {
        u64::try_from(self.thousandths.div_ceil(1000)).unwrap_or(u64::MAX)
    }

    /// The amount in thousandths of a unit.
    pub fn thousandths(self) -> u128 {
        self.thousandths
    }
}

/// The factor of a suffix as a fraction.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let whole = |factor: u128| Some((factor, 1));
    match suffix {
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "" => whole(1),
        "k" | "K" => whole(1000),
        "M" => whole(1_000_000),
        "G" => whole(1_000_000_000),
        "T" => whole(1_000_000_000_000),
        "P" => whole(1_000_000_000_000_000),
        "E" => whole(1_000_000_000_000_000_000),
        "Ki" => whole(1 << 10),
        "Mi" => whole(1 << 20),
        "Gi" => whole(1 << 30),
        "Ti" => whole(1 << 40),
        "Pi" => whole(1 << 50),
        "Ei" => whole(1 << 60),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_u128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

impl FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a quantity (a number with one of the suffixes m, k, M, G, T, P, E, \
                 Ki, Mi, Gi, Ti, Pi, Ei)"
            )
        };
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        let end = unsigned
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{decimals}");
        if digits.is_empty() || digits.len() > MAX_DIGITS || decimals.contains('.') {
            return Err(wrong());
        }
        let mantissa: u128 = digits.parse().map_err(|_| wrong())?;
        let decimals = u32::try_from(decimals.len()).map_err(|_| wrong())?;
        let (factor, divisor) = scale(suffix).ok_or_else(wrong)?;
        let divisor = 10_u128.checked_pow(decimals).and_then(|power| divisor.checked_mul(power));
        let thousandths = mantissa
            .checked_mul(factor)
            .and_then(|product| product.checked_mul(1000))
            .zip(divisor)
            .map(|(product, divisor)| product.div_ceil(divisor))
            .filter(|thousandths| *thousandths < (1 << 63) * 1000)
            .ok_or_else(|| format!("{text:?} is too large"))?;
        Ok(Self { thousandths })
    }
}

/// An app's memory limit in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory(u64);

impl Memory {
    /// Less is most likely a mistake such as `16m`, which is thousandths of a byte, for `16M`.
    const MIN: u64 = 4096;

    /// A limit that is in force.
    pub fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The limit in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = text.parse::<Quantity>()?.units();
        if bytes < Self::MIN {
            return Err(format!(
                "memory limit of {bytes} bytes too low. Try a reasonable value, such as --memory=16M"
            ));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("Gi", 30), ("Mi", 20), ("Ki", 10)] {
            if self.0.is_multiple_of(1 << shift) {
                return write!(out, "{}{unit}", self.0 >> shift);
            }
        }
        self.0.fmt(out)
    }
}

/// An app's limit of CPU time, in thousandths of one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu(u32);

impl Cpu {
    /// The limit in thousandths of one CPU, at least 1.
    pub fn millis(self) -> u32 {
        self.0
    }
}

impl FromStr for Cpu {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match u32::try_from(text.parse::<Quantity>()?.thousandths()) {
            Ok(0) => Err("a CPU limit of 0 leaves no time. Try a value such as --cpu=500m".into()),
            Ok(millis) => Ok(Self(millis)),
            Err(_) => Err(format!("{text:?} CPUs are too many")),
        }
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}m", self.0)
    }
}

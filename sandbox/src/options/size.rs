use super::quantity::Quantity;
use std::str::FromStr;

/// The size of a scratch disk in bytes (`--scratch`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScratchSize(u64);

impl ScratchSize {
    /// A file system of less has no room for files.
    const MIN: u64 = 4 << 20;
    /// The largest file of ext4.
    const MAX: u64 = 16 << 40;
    /// Sizes are multiples of a block of the file system.
    const BLOCK: u64 = 4096;

    /// The size, a multiple of 4096.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ScratchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = text.parse::<Quantity>()?.units();
        if !(Self::MIN..=Self::MAX).contains(&bytes) {
            return Err(format!(
                "a scratch disk of {bytes} bytes is not possible, only one of 4Mi to 16Ti, such as \
                 --scratch=2Gi"
            ));
        }
        Ok(Self(bytes.next_multiple_of(Self::BLOCK)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_quantity_of_whole_blocks_within_bounds() {
        for (text, bytes) in
            [("4Mi", 4 << 20), ("2Gi", 2 << 30), ("5M", 5_001_216), ("16Ti", 16 << 40)]
        {
            assert_eq!(text.parse::<ScratchSize>().map(ScratchSize::bytes), Ok(bytes), "{text}");
        }
        for text in ["0", "16m", "4095Ki", "17Ti", "x", ""] {
            assert!(text.parse::<ScratchSize>().is_err(), "{text}");
        }
    }
}

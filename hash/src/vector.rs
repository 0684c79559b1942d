//! Vectors of eight words (FIPS 180-4, section 3.2), and the message schedule in them.
//!
//! A vector holds the same word of eight parts of messages: of eight messages ([`crate::many`]), or
//! of eight parts that follow each other in one ([`crate::one`]).

use crate::constants::{PART, PART_WORDS};
use std::arch::x86_64::{
    _mm256_add_epi32, _mm256_and_si256, _mm256_extract_epi32, _mm256_set_epi32, _mm256_set_epi64x,
    _mm256_set1_epi32, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32,
    _mm256_srli_epi32, _mm256_xor_si256,
};

pub(crate) use std::arch::x86_64::__m256i as Words;

/// Words in a vector.
pub(crate) const LANES: usize = 8;

/// Calls a macro with the numbers of sixteen rounds. Each is then compiled by itself, so that
/// nothing moves from variable to variable.
macro_rules! sixteen {
    ($each:ident) => {
        $each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
}
pub(crate) use sixteen;

/// The last sixteen words of the message schedules (section 6.2.2, step 1).
pub(crate) struct Schedule([Words; PART_WORDS]);

impl Schedule {
    /// The first sixteen: the parts themselves. In words the most significant byte comes first.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn new(parts: [&[u8; PART]; LANES]) -> Self {
        let (high, low) = (0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let reversed = _mm256_set_epi64x(high, low, high, low);
        let mut schedule = [_mm256_setzero_si256(); PART_WORDS];
        for (index, words) in schedule.iter_mut().enumerate() {
            let [a, b, c, d, e, f, g, h] = reversed_words(parts, index);
            *words = _mm256_shuffle_epi8(_mm256_set_epi32(h, g, f, e, d, c, b, a), reversed);
        }
        Self(schedule)
    }

    /// The words of a round whose number is `ROUND` and a multiple of sixteen.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn of<const ROUND: usize>(&self) -> Words {
        self.0[ROUND]
    }

    /// Computes the words of that round from the sixteen before.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn extend<const ROUND: usize>(&mut self) {
        let [before_15, before_7, before_2] =
            [self.0[(ROUND + 1) % 16], self.0[(ROUND + 9) % 16], self.0[(ROUND + 14) % 16]];
        let sigmas = add(sigma_0(before_15), sigma_1(before_2));
        self.0[ROUND] = add(add(self.0[ROUND], before_7), sigmas);
    }
}

/// A word of each part, with its bytes in the wrong order.
#[inline]
fn reversed_words(parts: [&[u8; PART]; LANES], index: usize) -> [i32; LANES] {
    // By a loop: that closures are inlined everywhere is not certain.
    let mut words = [0; LANES];
    for (word, part) in words.iter_mut().zip(parts) {
        *word = i32::from_le_bytes(part.as_chunks().0[index]);
    }
    words
}

// Section 4.1.2. A vector has no rotations, only shifts in both directions. Those of one direction
// are done one within the other: (x >> 2) ^ (x >> 13) is (x ^ (x >> 11)) >> 2.

#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn sum_0(x: Words) -> Words {
    let to_right = right::<2>(xor(right::<11>(xor(right::<9>(x), x)), x));
    let to_left = left::<10>(xor(left::<9>(xor(left::<11>(x), x)), x));
    xor(to_right, to_left)
}

#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn sum_1(x: Words) -> Words {
    let to_right = right::<6>(xor(right::<5>(xor(right::<14>(x), x)), x));
    let to_left = left::<7>(xor(left::<14>(xor(left::<5>(x), x)), x));
    xor(to_right, to_left)
}

#[target_feature(enable = "avx2")]
#[inline]
fn sigma_0(x: Words) -> Words {
    let to_right = right::<3>(xor(right::<4>(xor(right::<11>(x), x)), x));
    let to_left = left::<14>(xor(left::<11>(x), x));
    xor(to_right, to_left)
}

#[target_feature(enable = "avx2")]
#[inline]
fn sigma_1(x: Words) -> Words {
    let to_right = right::<10>(xor(right::<7>(xor(right::<2>(x), x)), x));
    let to_left = left::<13>(xor(left::<2>(x), x));
    xor(to_right, to_left)
}

#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn add(a: Words, b: Words) -> Words {
    _mm256_add_epi32(a, b)
}

#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn and(a: Words, b: Words) -> Words {
    _mm256_and_si256(a, b)
}

#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn xor(a: Words, b: Words) -> Words {
    _mm256_xor_si256(a, b)
}

#[target_feature(enable = "avx2")]
#[inline]
fn left<const BITS: i32>(x: Words) -> Words {
    _mm256_slli_epi32::<BITS>(x)
}

#[target_feature(enable = "avx2")]
#[inline]
fn right<const BITS: i32>(x: Words) -> Words {
    _mm256_srli_epi32::<BITS>(x)
}

/// The same word for each part.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn same(word: u32) -> Words {
    _mm256_set1_epi32(word.cast_signed())
}

/// The words of each part.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn lanes(x: Words) -> [u32; LANES] {
    [
        _mm256_extract_epi32::<0>(x).cast_unsigned(),
        _mm256_extract_epi32::<1>(x).cast_unsigned(),
        _mm256_extract_epi32::<2>(x).cast_unsigned(),
        _mm256_extract_epi32::<3>(x).cast_unsigned(),
        _mm256_extract_epi32::<4>(x).cast_unsigned(),
        _mm256_extract_epi32::<5>(x).cast_unsigned(),
        _mm256_extract_epi32::<6>(x).cast_unsigned(),
        _mm256_extract_epi32::<7>(x).cast_unsigned(),
    ]
}

//! Eight messages at once.

use crate::{
    BLOCK, DIGEST,
    constants::{K, LENGTH, PART, PART_WORDS, START},
    vector::{LANES, Schedule, Words, add, and, lanes, same, sixteen, sum_0, sum_1, xor},
};

/// The end of a block's padding: its bit, zeros, and the length in bits.
const PADDING: [u8; PART] = {
    let mut padding = [0; PART];
    padding[0] = 0x80;
    let (_, length) = padding.split_at_mut(PART - LENGTH);
    length.copy_from_slice(&(BLOCK as u64 * 8).to_be_bytes());
    padding
};

/// The digests of eight blocks.
#[target_feature(enable = "avx2")]
pub(crate) fn hash(blocks: &[[u8; BLOCK]; LANES]) -> [[u8; DIGEST]; LANES] {
    let mut state = [same(0); 8];
    for (state, start) in state.iter_mut().zip(START) {
        *state = same(start);
    }
    for index in 0..BLOCK / PART {
        add_part(&mut state, Schedule::new(parts(blocks, index)));
    }
    add_part(&mut state, Schedule::new([&PADDING; LANES]));

    let mut digests = [[0; DIGEST]; LANES];
    for (index, words) in state.into_iter().enumerate() {
        for (digest, word) in digests.iter_mut().zip(lanes(words)) {
            digest.as_chunks_mut().0[index] = word.to_be_bytes();
        }
    }
    digests
}

/// A part of each block.
#[inline]
fn parts(blocks: &[[u8; BLOCK]; LANES], index: usize) -> [&[u8; PART]; LANES] {
    let mut parts = [&[0; PART]; LANES];
    for (part, block) in parts.iter_mut().zip(blocks) {
        *part = &block.as_chunks().0[index];
    }
    parts
}

/// Section 6.2.2.
#[target_feature(enable = "avx2")]
fn add_part(state: &mut [Words; 8], schedule: Schedule) {
    let b_or_c = xor(state[1], state[2]);
    let mut rounds = Rounds { variables: *state, b_or_c, schedule };
    macro_rules! first {
        ($($round:literal)*) => { $(rounds.next::<$round>(K[$round]);)* };
    }
    sixteen!(first);
    for k in K.as_chunks::<PART_WORDS>().0.iter().skip(1) {
        macro_rules! later {
            ($($round:literal)*) => {
                $(rounds.schedule.extend::<$round>(); rounds.next::<$round>(k[$round]);)*
            };
        }
        sixteen!(later);
    }
    for (state, variable) in state.iter_mut().zip(rounds.variables) {
        *state = add(*state, variable);
    }
}

struct Rounds {
    /// `a` to `h`. They move by one place with each round, or rather their numbers do.
    variables: [Words; 8],
    /// The exclusive or of `b` and `c`, which was that of `a` and `b` one round before.
    b_or_c: Words,
    schedule: Schedule,
}

impl Rounds {
    /// One round; its number is `ROUND` and a multiple of sixteen.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn next<const ROUND: usize>(&mut self, k: u32) {
        const fn place(variable: usize, round: usize) -> usize {
            (variable + PART_WORDS - round) % 8
        }
        let variables = &mut self.variables;
        let [a, b] = [variables[place(0, ROUND)], variables[place(1, ROUND)]];
        let [d, e] = [variables[place(3, ROUND)], variables[place(4, ROUND)]];
        let [f, g] = [variables[place(5, ROUND)], variables[place(6, ROUND)]];
        let h = variables[place(7, ROUND)];
        let choice = xor(and(xor(f, g), e), g);
        let word = self.schedule.of::<ROUND>();
        let first = add(add(add(h, word), add(same(k), choice)), sum_1(e));
        let a_or_b = xor(a, b);
        let majority = xor(and(a_or_b, self.b_or_c), b);
        variables[place(3, ROUND)] = add(d, first);
        variables[place(7, ROUND)] = add(add(first, majority), sum_0(a));
        self.b_or_c = a_or_b;
    }
}

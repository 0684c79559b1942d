//! One message. The rounds need the ones before, but the message schedules of eight parts do not
//! depend on each other, so they are computed at once.

use crate::{
    DIGEST,
    constants::{K, LENGTH, PART, PART_WORDS, ROUNDS, START},
    vector::{LANES, Schedule, add, lanes, same, sixteen},
};

/// Bytes in eight parts.
const GROUP: usize = LANES * PART;

/// Hashes bytes as they come by, on a processor with AVX2, BMI1 and BMI2.
#[derive(Clone)]
pub(crate) struct Message {
    state: [u32; 8],
    /// Bytes that are no whole group yet.
    buffer: [u8; GROUP],
    used: usize,
    /// Bytes of all of it.
    length: u64,
}

impl Message {
    pub(crate) fn new() -> Self {
        Self { state: START, buffer: [0; GROUP], used: 0, length: 0 }
    }

    #[target_feature(enable = "avx2,bmi1,bmi2")]
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.used > 0 {
            let (now, later) = bytes.split_at(bytes.len().min(GROUP - self.used));
            self.keep(now);
            bytes = later;
            if self.used < GROUP {
                return;
            }
            add_parts(&mut self.state, &self.buffer, LANES);
            self.used = 0;
        }
        let (groups, rest) = bytes.as_chunks();
        for group in groups {
            add_parts(&mut self.state, group, LANES);
        }
        self.keep(rest);
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.buffer[self.used..][..bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
    }

    #[target_feature(enable = "avx2,bmi1,bmi2")]
    pub(crate) fn finish(mut self) -> [u8; DIGEST] {
        // Section 5.1.1: a bit, zeros, and the length in bits, for which there may be no more
        // place in this group.
        let mut last = [0; 2 * GROUP];
        last[..self.used].copy_from_slice(&self.buffer[..self.used]);
        last[self.used] = 0x80;
        let parts = (self.used + 1 + LENGTH).div_ceil(PART);
        last[parts * PART - LENGTH..][..LENGTH].copy_from_slice(&(self.length * 8).to_be_bytes());
        let (groups, _) = last.as_chunks();
        add_parts(&mut self.state, &groups[0], parts.min(LANES));
        add_parts(&mut self.state, &groups[1], parts.saturating_sub(LANES));

        let mut digest = [0; DIGEST];
        for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        digest
    }
}

/// Hashes so many parts of a group.
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn add_parts(state: &mut [u32; 8], group: &[u8; GROUP], count: usize) {
    let mut schedules = [[0; LANES]; ROUNDS];
    fill(&mut schedules, group);
    for part in 0..count {
        add_part(state, &schedules, part);
    }
}

/// The words for each round, and each part in it, with what is added to them anyway.
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn fill(schedules: &mut [[u32; LANES]; ROUNDS], group: &[u8; GROUP]) {
    let mut schedule = Schedule::new(parts(group));
    let of_words = schedules.as_chunks_mut::<PART_WORDS>().0.iter_mut();
    for (index, (words, k)) in of_words.zip(K.as_chunks::<PART_WORDS>().0).enumerate() {
        macro_rules! each {
            ($($round:literal)*) => {
                $(
                    if index > 0 {
                        schedule.extend::<$round>();
                    }
                    words[$round] = lanes(add(schedule.of::<$round>(), same(k[$round])));
                )*
            };
        }
        sixteen!(each);
    }
}

fn parts(group: &[u8; GROUP]) -> [&[u8; PART]; LANES] {
    let (parts, _) = group.as_chunks();
    std::array::from_fn(|index| &parts[index])
}

/// Section 6.2.2, steps 2 to 4.
#[expect(unused_assignments, reason = "the last round does for a next one what each does")]
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn add_part(state: &mut [u32; 8], schedules: &[[u32; LANES]; ROUNDS], part: usize) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    // That of `a` and `b` is that of `b` and `c` in the next round.
    let mut b_or_c = b ^ c;
    macro_rules! round {
        ($word:expr, $a:ident $b:ident $d:ident $e:ident $f:ident $g:ident $h:ident) => {
            // By 6, 11 and 25, and by 2, 13 and 22, one within the other.
            let sum_1 = (($e.rotate_right(14) ^ $e).rotate_right(5) ^ $e).rotate_right(6);
            let sum_0 = (($a.rotate_right(9) ^ $a).rotate_right(11) ^ $a).rotate_right(2);
            // Both have no bit in common: they can be added like the rest.
            $h = $h.wrapping_add($word).wrapping_add($e & $f).wrapping_add(!$e & $g);
            $h = $h.wrapping_add(sum_1);
            $d = $d.wrapping_add($h);
            let a_or_b = $a ^ $b;
            $h = $h.wrapping_add(a_or_b & b_or_c ^ $b).wrapping_add(sum_0);
            b_or_c = a_or_b;
        };
    }
    macro_rules! eight {
        ($($first:literal)*) => {
            $(
                round!(schedules[$first][part], a b d e f g h);
                round!(schedules[$first + 1][part], h a c d e f g);
                round!(schedules[$first + 2][part], g h b c d e f);
                round!(schedules[$first + 3][part], f g a b c d e);
                round!(schedules[$first + 4][part], e f h a b c d);
                round!(schedules[$first + 5][part], d e g h a b c);
                round!(schedules[$first + 6][part], c d f g h a b);
                round!(schedules[$first + 7][part], b c e f g h a);
            )*
        };
    }
    eight!(0 8 16 24 32 40 48 56);
    for (state, variable) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *state = state.wrapping_add(variable);
    }
}

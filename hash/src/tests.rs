use super::{BLOCK, DIGEST, Hasher, Way, hash_blocks};
use proptest::prelude::*;
use ring::digest::{SHA256, digest};

/// Blocks that depend on their place and a seed.
fn blocks(count: usize, seed: u64) -> Vec<[u8; BLOCK]> {
    let mut state = seed | 1;
    let byte = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    let bytes: Vec<u8> = (0..count * BLOCK).map(byte).collect();
    bytes.as_chunks().0.to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_way_gives_the_digest_of_a_message(
        message in prop::collection::vec(any::<u8>(), 0..3000),
        mut cuts in prop::collection::vec(0_usize..3000, 0..6),
    ) {
        cuts.sort_unstable();
        let hashers = Way::all().map(Hasher::by).chain([Hasher::new()]);
        for mut hasher in hashers {
            let mut rest = &message[..];
            let mut at = 0;
            for cut in &cuts {
                let (now, later) = rest.split_at((cut - at).min(rest.len()));
                hasher.update(now);
                (rest, at) = (later, *cut);
            }
            hasher.update(rest);
            let expected = digest(&SHA256, &message);
            prop_assert_eq!(&hasher.finish()[..], expected.as_ref());
        }
    }

    #[test]
    fn every_way_gives_the_digests_of_the_blocks(count in 0_usize..40, seed: u64) {
        let blocks = blocks(count, seed);
        let digests = blocks.iter().map(|block| digest(&SHA256, block));
        let expected: Vec<[u8; DIGEST]> =
            digests.map(|digest| digest.as_ref().try_into().unwrap()).collect();
        for way in Way::all() {
            let mut found = vec![[0; DIGEST]; count];
            way.hash_blocks(&blocks, &mut found);
            prop_assert_eq!(&found, &expected, "{:?}", way);
        }
        let mut found = vec![[0; DIGEST]; count];
        hash_blocks(&blocks, &mut found);
        prop_assert_eq!(found, expected);
    }
}

/// `head -c 4096 /dev/zero | sha256sum`
#[test]
fn a_known_digest() {
    let known = "ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7";
    let mut found = [[0; DIGEST]; 9];
    hash_blocks(&[[0; BLOCK]; 9], &mut found);
    for found in found {
        let hex: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, known);
    }
}

#[test]
#[should_panic(expected = "one digest")]
fn digests_are_not_left_out() {
    hash_blocks(&[[0; BLOCK]; 2], &mut [[0; DIGEST]; 1]);
}

/// Each place where the padding can begin.
#[test]
fn messages_of_every_length() {
    let message = [0xa5; 1100];
    for length in 0..message.len() {
        let message = &message[..length];
        for way in Way::all() {
            let mut hasher = Hasher::by(way);
            hasher.update(message);
            assert_eq!(&hasher.finish()[..], digest(&SHA256, message).as_ref(), "{length} {way:?}");
        }
    }
}

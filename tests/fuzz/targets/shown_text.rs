//! Text of a guest or an image, where it is shown: nothing in it can steer a terminal.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let texts = [
        sandbox_protocol::Text::new(bytes).to_string(),
        sandbox_image::Text::new(bytes).to_string(),
    ];
    for text in &texts {
        // C0, DEL, C1, and what changes the direction of what follows (Unicode bidi controls).
        let steers = |character: char| {
            character.is_control()
                || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert!(!text.chars().any(steers), "{text:?}");
    }
});

//! Decompression of layers: whatever the format, a bounded part of the result.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_image::layer::Decoder;
use std::io::Read as _;

fuzz_target!(|file: &[u8]| {
    if let Ok(decoder) = Decoder::new(file) {
        let _ = std::io::copy(&mut decoder.take(1 << 20), &mut std::io::sink());
    }
});

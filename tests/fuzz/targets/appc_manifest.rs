//! The manifest of an ACI, as `sandbox image cat-manifest` prints it again.
#![no_main]

use image::ImageManifest;
use libfuzzer_sys::fuzz_target;

#[path = "../../../sandbox/src/appc/image.rs"]
#[allow(dead_code, reason = "the command makes manifests, too")]
mod image;

fuzz_target!(|document: &[u8]| {
    let Ok(manifest) = serde_json::from_slice::<ImageManifest>(document) else { return };
    let written = serde_json::to_vec(&manifest).expect("it can be written");
    let again: ImageManifest = serde_json::from_slice(&written).expect("and read again");
    // Empty lists and none are the same.
    assert_eq!(serde_json::to_vec(&again).expect("JSON"), written);
});

//! Index, manifest and configuration of an OCI image, and manifest.json of a Docker archive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_image::format::{oci, parse_saved_images};

fuzz_target!(|document: &[u8]| {
    let _ = oci::parse_index(document, None);
    let _ = oci::parse_manifest(document, None);
    let _ = parse_saved_images(document);
    if let Ok(configuration) = oci::parse_config(document) {
        let app = configuration.said.app.unwrap_or_default();
        assert!(app.exec().all(|argument| !argument.contains('\0')));
        assert!(app.working_directory.starts_with('/'));
        assert!(app.ports.iter().all(|port| port.port > 0 && port.count > 0));
    }
});

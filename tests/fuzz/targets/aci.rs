//! An ACI's manifest, and its archive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_image::{
    Limits,
    format::aci::parse_manifest,
    tree::{LayerFormat, Tree},
};
use std::io::Cursor;

fuzz_target!(|input: &[u8]| {
    if let Ok(manifest) = parse_manifest(input) {
        let app = manifest.config.app.unwrap_or_default();
        assert!(app.exec().all(|argument| !argument.contains('\0')));
        assert!(app.mount_points.iter().all(|mount| mount.path.starts_with('/')));
        assert!(app.ports.iter().all(|port| port.port.checked_add(port.count - 1).is_some()));
    }
    let _ = Tree::new().apply(Cursor::new(input), LayerFormat::Aci, &Limits::default());
});

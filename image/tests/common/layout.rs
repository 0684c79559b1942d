//! OCI layouts, Docker archives and ACIs written by hand, so that every part of them can lie.

use super::Tar;
use flate2::{Compression, write::GzEncoder};
use sandbox_image::{Algorithm, Digest};
use std::{fs, io::Write as _, path::Path};

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Writes a layout without any image.
pub fn new_layout(directory: &Path) {
    fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// Writes a blob and returns its descriptor.
pub fn blob(directory: &Path, media_type: &str, content: &[u8]) -> String {
    let digest = sha256(content);
    fs::write(directory.join("blobs/sha256").join(digest.hex()), content).unwrap();
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#, content.len())
}

/// A descriptor with more in it.
pub fn with(descriptor: &str, more: &str) -> String {
    format!("{},{more}}}", descriptor.strip_suffix('}').unwrap())
}

pub fn config(layers: &[Vec<u8>]) -> String {
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("\"{}\"", sha256(layer))).collect();
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    )
}

pub fn manifest(config: &str, layers: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers.join(","))
}

pub fn index(directory: &Path, manifests: &[String]) {
    fs::write(directory.join("index.json"), index_document(manifests)).unwrap();
}

pub fn index_document(manifests: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, manifests.join(","))
}

/// Writes an image of these layers and returns the descriptor of its manifest.
pub fn image(directory: &Path, layers: &[Vec<u8>]) -> String {
    let config = blob(directory, CONFIG, config(layers).as_bytes());
    let layers: Vec<_> = layers.iter().map(|layer| blob(directory, LAYER, &gzip(layer))).collect();
    blob(directory, MANIFEST, manifest(&config, &layers).as_bytes())
}

/// Writes a layout with one image that has one file.
pub fn layout(directory: &Path, file: &str) {
    new_layout(directory);
    let image = image(directory, &[Tar::new().file(file, file.as_bytes()).finish()]);
    index(directory, &[image]);
}

pub fn aci_manifest(more: &str) -> String {
    format!(
        r#"{{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/test",
            "labels":[{{"name":"os","value":"linux"}},{{"name":"arch","value":"amd64"}}]{more}}}"#
    )
}

//! What the store knows about an image: `record.json` in its folder.

use super::Stamp;
use crate::{Digest, Limit, Limits, Reference, Text, evidence::Signature, verity::Verity};
use serde::{Deserialize, Serialize};
use std::io;

/// Of how many places besides the first one the signatures are kept.
const MOST_PLACES: usize = 16;

/// What the store knows about an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Record {
    /// The version of this form: [`Record::VERSION`].
    pub version: u32,
    /// What names the image and no other.
    pub id: Digest,
    /// Which kind of image it is.
    pub kind: Kind,
    /// See [`crate::Part::name`].
    pub name: String,
    /// How it was fetched first.
    pub reference: Reference,
    /// When that was, in seconds since 1970.
    pub fetched: i64,
    /// When it came into the store, in seconds since 1970.
    pub imported: i64,
    /// The indexes that the manifest was reached through, the outermost first.
    pub indexes: Vec<BlobRef>,
    /// The manifest of an OCI image.
    pub manifest: Option<BlobRef>,
    /// The configuration of an OCI or Docker image, or the manifest of an ACI.
    pub config: BlobRef,
    /// The layers from the lowest one, or the tar of an ACI.
    pub layers: Vec<BlobRef>,
    /// The images that an ACI depends on, in the order of its manifest.
    pub dependencies: Vec<DependencyRef>,
    /// Signatures that came with it when it was fetched last as `reference`.
    pub signatures: Vec<Signature>,
    /// Those that came with it from other places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<Elsewhere>,
    /// What was decided when it was fetched last.
    pub judged: Option<Judged>,
    /// Its files.
    pub rootfs: RootfsRecord,
}

/// Which kind of image it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Of a registry, an OCI layout or an OCI archive: OCI, or Docker's schema 2.
    Oci,
    /// Of a file as `docker save` writes it.
    DockerArchive,
    /// An App Container Image.
    Aci,
}

/// A blob of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BlobRef {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

/// An image that another depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DependencyRef {
    /// Its ID.
    pub id: Digest,
    /// Its folder in the store.
    pub folder: String,
}

/// The signatures that came with an image from another place than the one that it was fetched from
/// first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Elsewhere {
    /// How it was asked for.
    pub reference: Reference,
    /// What came with it when it was fetched last so.
    pub signatures: Vec<Signature>,
}

/// What was decided when an image was fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Judged {
    /// When, in seconds since 1970.
    pub at: i64,
    /// The verdict in one line, in the words of who judged.
    pub verdict: String,
}

/// The file that holds an image's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RootfsRecord {
    /// Its size in bytes, with the hash tree.
    pub size: u64,
    /// Where the hash tree is in it, and its root.
    pub verity: Verity,
    /// How the file looked when it was known to be whole.
    pub checked: Stamp,
}

impl Record {
    /// The version that is written here.
    pub const VERSION: u32 = 1;
    /// The longest record in bytes; signatures take most of it.
    pub const MAX: u64 = 64 << 20;

    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        /// Read first, so that a record of a later version is called that.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let json = |error: serde_json::Error| Text::new(error.to_string()).to_string();
        let Version { version } = serde_json::from_slice(bytes).map_err(json)?;
        if version != Self::VERSION {
            return Err(format!("it has version {version}, only {} is known", Self::VERSION));
        }
        let record: Self = serde_json::from_slice(bytes).map_err(json)?;
        let most = usize::try_from(Limits::highest(Limit::Layers)).unwrap_or(usize::MAX);
        if record.layers.len() > most || record.dependencies.len() > most {
            return Err("it has too many layers or dependencies".to_owned());
        }
        let is_oci = record.kind == Kind::Oci;
        if is_oci != record.manifest.is_some() || !is_oci && !record.indexes.is_empty() {
            return Err("an OCI image has a manifest, and no other has".to_owned());
        }
        if record.kind == Kind::Aci && record.layers.len() != 1 {
            return Err("an ACI has one archive".to_owned());
        }
        if record.dependencies.iter().any(|dependency| !is_folder_name(&dependency.folder)) {
            return Err("it names a folder outside of the store".to_owned());
        }
        Ok(record)
    }

    /// All signatures that the store knows, each once.
    pub fn all_signatures(&self) -> Vec<Signature> {
        let mut all = self.signatures.clone();
        for signature in self.elsewhere.iter().flat_map(|place| &place.signatures) {
            if !all.contains(signature) {
                all.push(signature.clone());
            }
        }
        all
    }

    /// The signatures that came with the image when it was fetched last so.
    pub(super) fn signatures_from(&self, reference: &Reference) -> &[Signature] {
        if self.reference == *reference {
            return &self.signatures;
        }
        let place = self.elsewhere.iter().find(|place| place.reference == *reference);
        place.map_or(&[], |place| &place.signatures)
    }

    /// Takes over the signatures that came with the image now, in place of those that came with it
    /// from there before: a server may have taken some back. What came from elsewhere stays.
    pub(super) fn take_signatures(&mut self, reference: &Reference, found: Vec<Signature>) {
        if self.reference == *reference {
            self.signatures = found;
            return;
        }
        self.elsewhere.retain(|place| place.reference != *reference);
        if !found.is_empty() {
            if self.elsewhere.len() == MOST_PLACES {
                self.elsewhere.remove(0);
            }
            self.elsewhere.push(Elsewhere { reference: reference.clone(), signatures: found });
        }
    }

    /// The record as it is written. Too long a one could not be read again: what came from
    /// elsewhere longest ago is left out of it then.
    pub(super) fn encode(&mut self) -> io::Result<Vec<u8>> {
        self.encode_within(Self::MAX)
    }

    fn encode_within(&mut self, most: u64) -> io::Result<Vec<u8>> {
        loop {
            let bytes = serde_json::to_vec_pretty(self)?;
            if bytes.len() as u64 <= most {
                return Ok(bytes);
            }
            if self.elsewhere.is_empty() {
                let problem = format!("with the image's signatures it has more than {most} bytes");
                return Err(io::Error::other(problem));
            }
            self.elsewhere.remove(0);
        }
    }

    /// The blobs of the image, apart from an ACI's manifest, which is kept elsewhere.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        let config = (self.kind != Kind::Aci).then_some(&self.config);
        self.indexes.iter().chain(&self.manifest).chain(config).chain(&self.layers)
    }
}

/// The name of an image's folder: its ID; for an ACI with dependencies with a mark of these.
pub(super) fn folder_name(id: &Digest, dependencies: &[DependencyRef]) -> String {
    if dependencies.is_empty() {
        return id.file_name();
    }
    let folders: Vec<_> = dependencies.iter().map(|dependency| &*dependency.folder).collect();
    let mark = Digest::of(crate::Algorithm::Sha256, folders.join("\n").as_bytes());
    format!("{}+{}", id.file_name(), &mark.hex()[..32])
}

/// The ID that a folder's name begins with.
pub(super) fn id_of_folder(name: &str) -> Option<Digest> {
    let id = name.split('+').next().unwrap_or_default();
    id.replacen('-', ":", 1).parse().ok()
}

fn is_folder_name(name: &str) -> bool {
    let is_word = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'+');
    name.bytes().all(is_word) && id_of_folder(name).is_some()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on stops")]
mod tests {
    use super::*;
    use crate::Algorithm;

    fn record() -> Record {
        let id = Digest::of(Algorithm::Sha256, b"");
        let blob = BlobRef { digest: id.clone(), size: 1, media_type: None };
        let checked = Stamp::of(&tempfile::tempfile().unwrap()).unwrap();
        let verity = Verity { data_blocks: 1, hash_start: 1, root_hash: [0; 32] };
        Record {
            version: Record::VERSION,
            id,
            kind: Kind::Oci,
            name: "x".to_owned(),
            reference: from("/first"),
            fetched: 0,
            imported: 0,
            indexes: Vec::new(),
            manifest: Some(blob.clone()),
            config: blob,
            layers: Vec::new(),
            dependencies: Vec::new(),
            signatures: Vec::new(),
            elsewhere: Vec::new(),
            judged: None,
            rootfs: RootfsRecord { size: 1, verity, checked },
        }
    }

    fn from(path: &str) -> Reference {
        Reference::Aci { file: path.into() }
    }

    fn signature(length: usize) -> Vec<Signature> {
        vec![Signature::Bundle { bundle: vec![0; length] }]
    }

    #[test]
    fn what_the_last_fetch_from_a_place_found_counts() {
        let mut record = record();
        record.take_signatures(&from("/first"), signature(1));
        record.take_signatures(&from("/second"), signature(2));
        record.take_signatures(&from("/third"), signature(2));
        // The same one is told once.
        assert_eq!(record.all_signatures(), [signature(1), signature(2)].concat());
        record.take_signatures(&from("/second"), signature(3));
        record.take_signatures(&from("/third"), Vec::new());
        record.take_signatures(&from("/first"), Vec::new());
        assert_eq!(record.all_signatures(), signature(3));
        assert_eq!(record.signatures_from(&from("/second")), signature(3));
        assert_eq!(record.signatures_from(&from("/first")), []);
        for place in 0..100 {
            record.take_signatures(&from(&format!("/{place}")), signature(place));
        }
        assert_eq!(record.elsewhere.len(), MOST_PLACES);
        assert_eq!(record.elsewhere[MOST_PLACES - 1].signatures, signature(99));
    }

    #[test]
    fn what_is_written_can_be_read_again() {
        let mut record = record();
        record.take_signatures(&from("/first"), signature(1));
        record.take_signatures(&from("/long"), signature(50 << 10));
        record.take_signatures(&from("/short"), signature(2));
        let bytes = record.encode_within(64 << 10).unwrap();
        assert_eq!(Record::parse(&bytes).unwrap(), record);
        assert_eq!(record.all_signatures(), [signature(1), signature(2)].concat());
        record.take_signatures(&from("/first"), signature(50 << 10));
        let error = record.encode_within(64 << 10).unwrap_err();
        assert!(error.to_string().contains("more than 65536 bytes"), "{error}");
    }
}

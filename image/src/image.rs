use crate::{
    Digest, ImageConfig, Text,
    format::{Container, to_ac_name},
    layer::Spool,
};

/// An image that was opened: its documents are read and checked, its layers are not yet (only an
/// ACI's, which is all in one).
#[derive(Debug)]
pub struct Image {
    pub(crate) id: Digest,
    pub(crate) name: String,
    pub(crate) config: ImageConfig,
    pub(crate) layers: Layers,
}

/// Where an image's files are.
#[derive(Debug)]
pub(crate) enum Layers {
    /// In layers, from the lowest one.
    InContainer(Container, Vec<Layer>),
    /// In an ACI, decompressed already.
    Aci(Spool),
}

/// A layer that was not read yet.
#[derive(Debug)]
pub(crate) struct Layer {
    /// What errors call it.
    pub(crate) name: Text,
    pub(crate) place: LayerPlace,
    /// Digest of its decompressed bytes.
    pub(crate) diff_id: Digest,
}

#[derive(Debug)]
pub(crate) enum LayerPlace {
    /// A blob with this digest and size.
    Blob { digest: Digest, size: u64 },
    /// A file in an archive.
    Member(String),
}

impl Image {
    /// What names this image and no other: the digest of an OCI image's manifest (of the one for
    /// this machine's architecture, if there are several), of a Docker archive's configuration, or
    /// of an uncompressed ACI.
    pub fn id(&self) -> &Digest {
        &self.id
    }

    /// The image's name: an ACI's own; that of a Docker archive's first tag; else the name of the
    /// file or directory it came from. Comes from the image: show it through [`crate::Text`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the image says about its program.
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// The app's name if none is given: the last component of the image's name as an ACName, as
    /// rkt makes it; `app` if nothing is left of it.
    pub fn app_name(&self) -> String {
        let last = self.name.rsplit('/').next().unwrap_or_default();
        to_ac_name(last).unwrap_or_else(|| "app".to_owned())
    }
}

use crate::{Digest, ImageConfig};

/// An image that was opened: its documents are read and checked, its layers are not yet.
#[derive(Debug)]
pub struct Image {
    pub(crate) id: Digest,
    pub(crate) name: String,
    pub(crate) config: ImageConfig,
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
        todo!()
    }
}

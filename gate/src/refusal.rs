//! That a pod may not be launched, and everything that speaks against it.

use crate::reason::Reason;
use sandbox_image::Text;
use std::fmt;

/// A pod may not be launched.
#[derive(Debug, Default)]
pub struct Refusal {
    /// The images that may not be.
    pub images: Vec<RefusedImage>,
    /// What speaks against the pod as a whole.
    pub pod: Vec<Reason>,
}

/// An image that may not be launched.
#[derive(Debug)]
pub struct RefusedImage {
    /// The app that would be made of it.
    pub app: Text,
    /// What policies call the image, and its ID.
    pub image: String,
    /// Why; at least one.
    pub reasons: Vec<Reason>,
}

impl Refusal {
    pub(crate) fn of_pod(pod: Vec<Reason>) -> Self {
        Self { images: Vec::new(), pod }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.images.is_empty() && self.pod.is_empty()
    }

    /// Every reason, whatever it is about.
    pub fn reasons(&self) -> impl Iterator<Item = &Reason> {
        self.images.iter().flat_map(|image| &image.reasons).chain(&self.pod)
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for RefusedImage { app, image, reasons } in &self.images {
            let reasons = Reason::list(reasons);
            write!(out, "{separator}image {image} of app '{app}' is refused by {reasons}")?;
            separator = "; ";
        }
        if !self.pod.is_empty() {
            write!(out, "{separator}the pod is refused by {}", Reason::list(&self.pod))?;
        }
        out.write_str("; 'sandbox gate explain IMAGE' says more")
    }
}

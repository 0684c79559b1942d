use crate::options::InsecureOptions;
use sandbox_image::{Image, Text};

/// Says that the images of a pod may be launched. Only [`decide`] makes one.
#[derive(Debug)]
pub struct LaunchPermit(());

/// Why a pod may not be launched.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nothing was verified.
    #[error(
        "image {image} is not verified: this version cannot check signatures, and runs no image \
         unchecked; use --insecure-options=image if you trust where it came from"
    )]
    NotVerified {
        /// The image's name.
        image: Text,
    },
}

/// The launch decision.
///
/// # Errors
/// See [`Refusal`].
pub fn decide<'a>(
    images: impl IntoIterator<Item = &'a Image>,
    insecure: InsecureOptions,
) -> Result<LaunchPermit, Refusal> {
    match images.into_iter().next() {
        Some(image) if !insecure.skip_image_check() => {
            Err(Refusal::NotVerified { image: Text::new(image.name()) })
        }
        _ => Ok(LaunchPermit(())),
    }
}

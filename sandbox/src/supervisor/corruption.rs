//! What is said when an image was changed while a pod runs from it.

use crate::images;
use crate::pod::PodImage;
use sandbox_image::Text;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

/// The file that an image's disk is, for those who have to look after it.
#[derive(Clone, Debug)]
pub struct ImageFile {
    /// The image's name.
    pub name: Text,
    /// Its ID, as rkt writes it.
    pub id: String,
    /// Where the file is.
    pub path: PathBuf,
}

impl ImageFile {
    /// The file of an image of a pod.
    pub fn of(image: &PodImage) -> Self {
        let link = format!("/proc/self/fd/{}", image.rootfs.file.as_raw_fd());
        Self {
            name: Text::new(image.image.name()),
            id: images::short(image.image.id(), 12),
            // Where there is no /proc, the descriptor's name has to do.
            path: std::fs::read_link(&link).unwrap_or_else(|_| link.into()),
        }
    }

    /// That the guest has found a block of it changed.
    fn corrupted(&self, block: u64) -> String {
        format!(
            "image {} ({}): block {block} of {} is not what was verified, so the file was changed or \
             its disk fails; the guest's read of it was refused. 'sandbox image verify {}' checks all \
             of the image",
            self.name,
            self.id,
            self.path.display(),
            self.id
        )
    }
}

/// What was said about the images of a pod.
#[derive(Debug)]
pub struct Corruption {
    images: Vec<(ImageFile, bool)>,
}

/// How much a line is worth.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Everybody has to see it.
    Say(String),
    /// It adds nothing to what was said.
    Debug(String),
}

impl Corruption {
    /// Nothing was said yet.
    pub fn new(images: Vec<ImageFile>) -> Self {
        Self { images: images.into_iter().map(|image| (image, false)).collect() }
    }

    /// The line about a block: one for each image, whatever else the guest finds in it.
    pub fn line(&mut self, image: usize, block: u64) -> Option<Line> {
        let (image, said) = self.images.get_mut(image)?;
        if std::mem::replace(said, true) {
            return Some(Line::Debug(format!("image {}: block {block}, too", image.name)));
        }
        Some(Line::Say(image.corrupted(block)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_is_told_of_once_and_what_to_do() {
        let image = |name: &str| ImageFile {
            name: Text::new(name),
            id: "sha256-ba7816bf8f01".to_owned(),
            path: "/var/lib/rkt/cas/image/x/rootfs.erofs".into(),
        };
        let mut corruption = Corruption::new(vec![image("a\x1b[2J"), image("b")]);
        let Some(Line::Say(line)) = corruption.line(0, 7) else { panic!() };
        for part in [
            "image a\\u{1b}[2J (sha256-ba7816bf8f01): block 7 of /var/lib/rkt/cas/image/x/rootfs.erofs",
            "'sandbox image verify sha256-ba7816bf8f01'",
        ] {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(line.lines().count(), 1);
        assert!(matches!(corruption.line(0, 8), Some(Line::Debug(_))));
        assert!(matches!(corruption.line(1, 8), Some(Line::Say(_))));
        assert_eq!(corruption.line(2, 8), None);
    }
}

use super::{Channel, Files, aci::spool};
use crate::Step;
use crate::{
    Error, Limit, Limits, Text,
    error::LayerProblem,
    format::{
        Container, DocumentError, MAX_DEPTH, OciImage, Section, choose_saved_image, find_in_layout,
        oci::parse_config, parse_saved_images,
    },
    layer::Compression,
    progress::Reporter,
    protocol::{Answer, Event},
};
use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    path::Path,
};

const OCI_ARCHIVE: &str = "an OCI archive";
const DOCKER_ARCHIVE: &str = "a Docker archive";

/// Takes an image out of an OCI archive.
pub(super) fn oci(
    path: &Path,
    name: Option<&str>,
    mut files: Files,
    limits: &Limits,
    channel: &mut Channel,
) -> Result<(), Error> {
    let container = archive(path, OCI_ARCHIVE, &mut files, limits, channel)?;
    let mut documents = Vec::new();
    for _ in 0..2 + MAX_DEPTH {
        documents.push(files.next_file()?);
    }
    let image = find_in_layout(&container, OCI_ARCHIVE, name, limits)?;
    let (answer, into) = channel.ask(&write_documents(&image, &documents)?)?;
    let layers = image.layers.iter();
    let layers: Vec<_> =
        layers.map(|layer| container.blob(&layer.digest, layer.size)).collect::<Result<_, _>>()?;
    copy(layers, &answer, into, &mut Reporter::new(channel))
}

/// Writes the documents that lead to an image to their files.
pub(super) fn write_documents(image: &OciImage, files: &[File]) -> Result<Event, Error> {
    let documents = [&image.manifest, &image.config].into_iter().chain(&image.indexes);
    for (document, mut file) in documents.zip(files) {
        let written = file.write_all(&document.bytes);
        written.map_err(|error| Error::io("write", "a document", error))?;
    }
    let indexes = image.indexes.iter().map(|index| index.descriptor.media_type.clone());
    Ok(Event::Documents {
        manifest: image.manifest.descriptor.media_type.clone(),
        indexes: indexes.collect(),
    })
}

/// Takes an image out of a Docker archive.
pub(super) fn docker(
    path: &Path,
    name: Option<&str>,
    mut files: Files,
    limits: &Limits,
    channel: &mut Channel,
) -> Result<(), Error> {
    let container = archive(path, DOCKER_ARCHIVE, &mut files, limits, channel)?;
    let mut config = files.next_file()?;
    let not_one = |problem: String| Error::NotAnImage {
        path: container.path().clone(),
        expected: DOCKER_ARCHIVE,
        problem: Text::new(problem),
    };
    let missing = |file: &str| not_one(format!("the file {} is missing", Text::new(file)));
    let malformed = |document, problem| Error::Document { document: Text::new(document), problem };

    let document = container.read("manifest.json", limits)?;
    let document = document.ok_or_else(|| missing("manifest.json"))?;
    let images =
        parse_saved_images(&document).map_err(|problem| malformed("manifest.json", problem))?;
    let image = choose_saved_image(container.path().clone(), &images, name)?;
    limits.check(Limit::Layers, image.layers.len() as u64)?;

    let document = container.read(&image.config, limits)?;
    let document = document.ok_or_else(|| missing(&image.config))?;
    let configuration =
        parse_config(&document).map_err(|problem| malformed(&image.config, problem))?;
    if configuration.diff_ids.len() != image.layers.len() {
        let count = configuration.diff_ids.len().to_string();
        let problem = "manifest.json has another number of layers";
        let problem = DocumentError::value("rootfs.diff_ids.length", count, problem);
        return Err(malformed(&image.config, problem));
    }
    let mut layers = Vec::new();
    for layer in &image.layers {
        layers.push(container.open(layer)?.ok_or_else(|| Error::Layer {
            layer: Text::new(layer),
            problem: LayerProblem::Missing,
        })?);
    }
    config.write_all(&document).map_err(|error| Error::io("write", "a document", error))?;
    let (answer, into) = channel.ask(&Event::Saved {
        tags: image.tags().to_vec(),
        layers: layers.iter().map(Section::size).collect(),
    })?;
    copy(layers, &answer, into, &mut Reporter::new(channel))
}

/// Opens an archive; one that is compressed as a whole is decompressed first.
fn archive(
    path: &Path,
    expected: &'static str,
    files: &mut Files,
    limits: &Limits,
    channel: &mut Channel,
) -> Result<Container, Error> {
    let (mut file, empty) = (files.next_file()?, files.next_file()?);
    let mut beginning = Vec::new();
    let failed = |error| Error::io("read", path, error);
    (&file).take(8).read_to_end(&mut beginning).map_err(failed)?;
    file.rewind().map_err(failed)?;
    if Compression::detect(&beginning) != Compression::None {
        let name = Text::of_os(path).to_string();
        spool(
            &name,
            file,
            empty.try_clone().map_err(failed)?,
            limits,
            &mut Reporter::new(channel),
        )?;
        file = empty;
    }
    Container::archive(path, file, expected, limits)
}

/// Copies the layers that are wanted.
fn copy(
    layers: Vec<Section>,
    answer: &Answer,
    into: Vec<File>,
    reporter: &mut Reporter<'_>,
) -> Result<(), Error> {
    let count = answer.wanted.len();
    let mut layers: Vec<_> = layers.into_iter().map(Some).collect();
    let mut buffer = vec![0; 256 << 10];
    for (index, (wanted, mut file)) in answer.wanted.iter().zip(into).enumerate() {
        let Some(mut layer) = layers.get_mut(wanted.layer).and_then(Option::take) else {
            continue;
        };
        let (mut done, total) = (0, layer.size());
        file.rewind().map_err(|error| Error::io("write", "a layer", error))?;
        loop {
            reporter.report(Step::Download { index, count, done, total })?;
            let read =
                layer.read(&mut buffer).map_err(|error| Error::io("read", "a layer", error))?;
            if read == 0 {
                break;
            }
            let written = file.write_all(&buffer[..read]);
            written.map_err(|error| Error::io("write a layer to", "the image store", error))?;
            done += read as u64;
        }
    }
    Ok(())
}

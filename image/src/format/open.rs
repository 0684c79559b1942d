use super::{
    Container, DocumentError, aci, container::open_file, docker, layout, oci::parse_config,
};
use crate::{
    Algorithm, Digest, Error, Image, Limit, Limits, Reference, Text,
    error::LayerProblem,
    image::{Layer, LayerPlace, Layers},
    layer::{Compression, Content, Data, EntryKind, Spool, SpoolError, Spooling, TarReader},
    progress::Reporter,
};
use rustix::fs::CWD;
use std::{
    fs::File,
    io::{BufReader, Read as _, Seek as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// Where to put what has to be decompressed: gives temporary files without a name.
pub(crate) type Temporary<'a> = &'a dyn Fn() -> Result<File, Error>;

const OCI_LAYOUT: &str = "an OCI layout";
const OCI_ARCHIVE: &str = "an OCI archive";
const DOCKER_ARCHIVE: &str = "a Docker archive";
const ACI: &str = "an App Container Image";

/// All compressions that a file that was named by its path may have.
const ANY: &[Compression] =
    &[Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz];

/// Opens an image and reads its documents.
pub(crate) fn open(
    reference: &Reference,
    temporary: Temporary<'_>,
    limits: &Limits,
    reporter: &mut Reporter<'_>,
) -> Result<Image, Error> {
    match reference {
        Reference::OciLayout { directory, name } => {
            let container = Container::directory(directory)?;
            oci(reference.path(), container, OCI_LAYOUT, name.as_deref(), limits)
        }
        Reference::OciArchive { file, name } => {
            let container = archive(file, OCI_ARCHIVE, temporary, limits, reporter)?;
            oci(reference.path(), container, OCI_ARCHIVE, name.as_deref(), limits)
        }
        Reference::DockerArchive { file, name } => {
            let container = archive(file, DOCKER_ARCHIVE, temporary, limits, reporter)?;
            docker_archive(reference.path(), container, name.as_deref(), limits)
        }
        Reference::Aci { file } => app_container(file, temporary, limits, reporter),
    }
}

fn oci(
    path: &Path,
    container: Container,
    expected: &'static str,
    name: Option<&str>,
    limits: &Limits,
) -> Result<Image, Error> {
    let found = layout::find(&container, expected, name, limits)?;
    Ok(Image {
        id: found.digest,
        name: stem(path),
        config: found.config,
        layers: Layers::InContainer(container, found.layers),
    })
}

fn docker_archive(
    path: &Path,
    container: Container,
    name: Option<&str>,
    limits: &Limits,
) -> Result<Image, Error> {
    let not_one = |problem: String| Error::NotAnImage {
        path: container.path().clone(),
        expected: DOCKER_ARCHIVE,
        problem: Text::new(problem),
    };
    let missing = |file: &str| not_one(format!("the file {} is missing", Text::new(file)));
    let malformed = |document, problem| Error::Document { document: Text::new(document), problem };

    let document = container.read("manifest.json", limits)?;
    let document = document.ok_or_else(|| missing("manifest.json"))?;
    let images = docker::parse_saved_images(&document)
        .map_err(|problem| malformed("manifest.json", problem))?;
    let image = docker::choose(container.path().clone(), &images, name)?;
    limits.check(Limit::Layers, image.layers.len() as u64)?;

    let document = container.read(&image.config, limits)?;
    let document = document.ok_or_else(|| missing(&image.config))?;
    let (config, diff_ids) =
        parse_config(&document).map_err(|problem| malformed(&image.config, problem))?;
    if diff_ids.len() != image.layers.len() {
        let count = diff_ids.len().to_string();
        let problem = "manifest.json has another number of layers";
        let problem = DocumentError::value("rootfs.diff_ids.length", count, problem);
        return Err(malformed(&image.config, problem));
    }
    let layers = image.layers.iter().zip(diff_ids).map(|(file, diff_id)| Layer {
        name: Text::new(file),
        place: LayerPlace::Member(file.clone()),
        diff_id,
    });
    let layers = layers.collect();
    let name = image.tags().first().map(|tag| docker::split_tag(tag).0.to_owned());
    Ok(Image {
        id: Digest::of(Algorithm::Sha256, &document),
        name: name.unwrap_or_else(|| stem(path)),
        config,
        layers: Layers::InContainer(container, layers),
    })
}

/// An ACI has to be decompressed to know what it is: its ID is the digest of the whole.
fn app_container(
    path: &Path,
    temporary: Temporary<'_>,
    limits: &Limits,
    reporter: &mut Reporter<'_>,
) -> Result<Image, Error> {
    let (file, size) = open_image_file(path)?;
    let spool = spool(path, file, size, Algorithm::Sha512, temporary, limits, reporter)?;
    let document = read_manifest(path, &spool, limits)?;
    let aci::Manifest { name, config } =
        aci::parse_manifest(&document).map_err(|problem| Error::Document {
            document: Text::new(format!("manifest of {}", Text::of_os(path))),
            problem,
        })?;
    Ok(Image { id: spool.digest().clone(), name, config, layers: Layers::Aci(spool) })
}

/// The file `manifest` of an ACI.
fn read_manifest(path: &Path, aci: &Spool, limits: &Limits) -> Result<Vec<u8>, Error> {
    let not_one = |problem: String| Error::NotAnImage {
        path: Text::of_os(path),
        expected: ACI,
        problem: Text::new(problem),
    };
    let reader = TarReader::new(BufReader::new(aci.file()), limits);
    let mut reader = reader.map_err(|error| not_one(error.to_string()))?;
    let mut count = 0;
    while let Some(entry) = reader.next_entry().map_err(|error| not_one(error.to_string()))? {
        count += 1;
        limits.check(Limit::Files, count)?;
        let name = entry.path.as_slice();
        if name.strip_prefix(b"./").unwrap_or(name) != b"manifest" {
            continue;
        }
        let EntryKind::File(Content { size, data: Data::Whole { position } }) = entry.kind else {
            return Err(not_one("its manifest is not a file".to_owned()));
        };
        limits.check(Limit::Document, size)?;
        let mut document = vec![0; usize::try_from(size).unwrap_or_default()];
        aci.file()
            .read_exact_at(&mut document, position)
            .map_err(|error| Error::io("read", path, error))?;
        return Ok(document);
    }
    Err(not_one("it has no manifest".to_owned()))
}

/// Opens an archive; one that is compressed as a whole is decompressed first.
fn archive(
    path: &Path,
    expected: &'static str,
    temporary: Temporary<'_>,
    limits: &Limits,
    reporter: &mut Reporter<'_>,
) -> Result<Container, Error> {
    let (mut file, size) = open_image_file(path)?;
    let mut beginning = Vec::new();
    let failed = |error| Error::io("read", path, error);
    (&file).take(8).read_to_end(&mut beginning).map_err(failed)?;
    file.rewind().map_err(failed)?;
    if Compression::detect(&beginning) != Compression::None {
        file = spool(path, file, size, Algorithm::Sha256, temporary, limits, reporter)?.into_file();
    }
    Container::archive(path, file, expected, limits)
}

fn spool(
    path: &Path,
    file: File,
    size: u64,
    algorithm: Algorithm,
    temporary: Temporary<'_>,
    limits: &Limits,
    reporter: &mut Reporter<'_>,
) -> Result<Spool, Error> {
    let limit = limits.get(Limit::Size);
    let how = Spooling {
        compressions: ANY,
        file_algorithm: Algorithm::Sha256,
        algorithm,
        budget: limit,
        size_limit: limit,
        index: 0,
        count: 1,
        total: size,
        reporter,
    };
    let layer = || Text::of_os(path);
    match Spool::fill(temporary()?, file, how) {
        Ok((spool, _)) => Ok(spool),
        Err(error) => Err(error.into_error(layer)),
    }
}

impl SpoolError {
    /// The error for the layer or archive that `name` gives.
    pub(crate) fn into_error(self, name: impl FnOnce() -> Text) -> Error {
        let problem = match self {
            Self::Read(error) => LayerProblem::Read(error),
            Self::Compression(compression) => LayerProblem::Compression(compression.name()),
            Self::Write(source) => {
                let path = Text::new("the image store");
                return Error::Io { action: "write a layer to", path, source };
            }
            Self::Limit(limit) => return limit.into(),
            Self::Cancelled => return Error::Cancelled,
        };
        Error::Layer { layer: name(), problem }
    }
}

fn open_image_file(path: &Path) -> Result<(File, u64), Error> {
    open_file(CWD, path).map_err(|error| Error::io("open image", path, error))
}

/// The name of a file or directory without its ending.
fn stem(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

//! An image's files as one tree.

use super::Files;
use crate::{
    Error, Limit, Limits, Text,
    error::LayerProblem,
    layer::{Compression, Spool, Spooling},
    progress::Reporter,
    protocol::{AciContents, Contents, LayerContents},
    tree::{self, Aci, LayerError, LayerFormat, RenderError, Tree},
};
use std::{
    fs::File,
    io::{self, BufReader},
};

/// Compressions that a layer may have, besides none.
const OF_LAYERS: &[Compression] = &[Compression::Gzip, Compression::Zstd];

/// Reads layers, checks them, and merges them into a tree, whose contents are in what comes with it.
pub(super) fn merge(
    contents: &Contents,
    files: &mut Files,
    limits: &Limits,
    reporter: &mut Reporter<'_>,
) -> Result<(Tree, Vec<Spool>), Error> {
    let count = contents.count();
    let mut shipped = Vec::with_capacity(count);
    let mut empty = Vec::with_capacity(count);
    for list in [&mut shipped, &mut empty] {
        for _ in 0..count {
            list.push(files.next_file()?);
        }
    }
    match contents {
        Contents::Layers { layers } => merge_layers(layers, shipped, empty, limits, reporter),
        Contents::Acis { acis } => merge_acis(acis, shipped, limits),
    }
}

fn merge_layers(
    layers: &[LayerContents],
    shipped: Vec<File>,
    empty: Vec<File>,
    limits: &Limits,
    reporter: &mut Reporter<'_>,
) -> Result<(Tree, Vec<Spool>), Error> {
    let mut tree = Tree::new();
    let mut spools: Vec<Spool> = Vec::with_capacity(layers.len());
    for (index, ((layer, from), into)) in layers.iter().zip(shipped).zip(empty).enumerate() {
        let name = || Text::new(&layer.name);
        let size = size(&from, &layer.name)?;
        let limit = limits.get(Limit::Size);
        let how = Spooling {
            compressions: OF_LAYERS,
            algorithm: Some(layer.diff_id.algorithm()),
            budget: limit.saturating_sub(spools.iter().map(Spool::size).sum()),
            size_limit: limit,
            index,
            count: layers.len(),
            total: size,
            reporter,
        };
        let (spool, found) =
            Spool::fill(into, from, how).map_err(|error| error.into_error(name))?;
        if let Some(found) = found.filter(|found| *found != layer.diff_id) {
            let problem = LayerProblem::DiffId { expected: layer.diff_id.clone(), found };
            return Err(Error::Layer { layer: name(), problem });
        }
        tree.apply(reader(&spool), LayerFormat::Changeset, limits)
            .map_err(|problem| refused(&layer.name, problem))?;
        spools.push(spool);
    }
    Ok((tree, spools))
}

/// Lays ACIs down over what they depend on.
fn merge_acis(
    acis: &[AciContents],
    shipped: Vec<File>,
    limits: &Limits,
) -> Result<(Tree, Vec<Spool>), Error> {
    let mut spools = Vec::with_capacity(acis.len());
    for (aci, file) in acis.iter().zip(shipped) {
        let size = size(&file, &aci.name)?;
        spools.push(Spool::new(file, size));
    }
    limits.check(Limit::Size, spools.iter().map(Spool::size).sum())?;
    let images = acis.iter().zip(&spools).map(|(aci, spool)| Aci {
        archive: reader(spool),
        dependencies: &aci.dependencies,
        path_whitelist: &aci.path_whitelist,
    });
    let tree = tree::render(images.collect(), limits).map_err(|error| match error {
        RenderError::Image { image, problem } => {
            refused(acis.get(image).map_or("", |aci| &aci.name), problem)
        }
        RenderError::Order => Error::io("use", "the request", io::Error::other(error)),
    })?;
    Ok((tree, spools))
}

fn size(file: &File, name: &str) -> Result<u64, Error> {
    Ok(file.metadata().map_err(|error| Error::io("read", name, error))?.len())
}

fn reader(spool: &Spool) -> BufReader<&File> {
    BufReader::with_capacity(64 << 10, spool.file())
}

fn refused(name: &str, problem: LayerError) -> Error {
    match problem {
        LayerError::Limit(limit) => limit.into(),
        problem => Error::Layer { layer: Text::new(name), problem: LayerProblem::Archive(problem) },
    }
}

//! The suite of fuzz targets: each for a fixed number of inputs from a fixed seed.

use super::counts::Counts;
use crate::command;
use crate::fuzz;
use crate::programs::Program;
use crate::step::step;
use anyhow::Result;

/// So many inputs are tried.
const RUNS: u32 = 100_000;

/// Fewer of targets whose inputs take long, so that the whole suite stays below five minutes.
const FEWER: &[(&str, u32)] = &[
    ("compression", 50_000),
    ("discovery_html", 50_000),
    ("fs_queues", 20_000),
    ("fuse_requests", 20_000),
    ("openpgp", 50_000),
    ("pod_secrets", 20_000),
    ("vhost_user", 20_000),
    ("virtio_blk", 50_000),
    ("virtio_fs", 30_000),
    ("virtio_rng", 50_000),
    ("virtio_vsock", 10_000),
];

/// Builds the targets and runs each; its exit status tells whether it found something.
pub fn run(arguments: &[String]) -> Result<Counts> {
    let mut counts = Counts::default();
    for target in fuzz::build(None)? {
        let fewer = FEWER.iter().find(|(name, _)| *name == target.name);
        let runs = fewer.map_or(RUNS, |(_, runs)| *runs);
        let what = format!("fuzzing {}, {runs} inputs", target.name);
        let found = step(what, || search(&target, runs, arguments));
        if let Err(error) = &found {
            eprintln!("{error:#}");
        }
        counts += Counts::of(found.is_ok());
    }
    Ok(counts)
}

/// New inputs of interest go to a directory that is thrown away.
fn search(target: &Program, runs: u32, arguments: &[String]) -> Result<()> {
    let new = tempfile::tempdir()?;
    let mut fuzzer = fuzz::fuzzer(target, Some(new.path()))?;
    fuzzer.args([format!("-runs={runs}"), "-seed=1".into()]).args(arguments);
    command::watched(&mut fuzzer)
}

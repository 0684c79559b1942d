use super::super::apps::AppWords;
use super::super::run::Run;
use super::{read, settings, write};
use crate::cli::{Global, Outcome};
use clap::Args;
use sandbox_attestation::record::{Record, Volume};
use sandbox_attestation::verify::{
    ContentDemand, Document, ImageRule, MAX_POLICY, Policy, VolumeRule,
};
use serde_json::json;
use std::collections::BTreeSet;
use std::error::Error;
use std::path::PathBuf;

const USAGE: &str =
    "sandbox attest reference [OPTIONS] IMAGE [APP OPTIONS] [-- ARGS… [---]] [IMAGE …]…";

/// Write a verifier's policy that one pod passes, and no other.
///
/// What would be measured of the pod is computed from its images and from what is installed here.
/// Nothing is started, and no TPM is needed, so that this can be done on a machine that is trusted,
/// for pods that run elsewhere.
#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = "\
Example, with the options that 'sandbox run' gets on the other host:
  sandbox attest reference --base=keys.json --out=worker.json \\
    docker://registry.example.com/worker@sha256:… --exec /bin/worker -- --verbose
  sandbox attest verify evidence.json --nonce=$nonce --policy=worker.json

The policy names the digests of kernel, guest-init, monitor, file server and supervisor, the kernel's
command line, the images with the roots of their hash trees, the volumes, and the digest of the pod's
manifest, which has programs, arguments, environment, users, mounts and limits in it. What is
installed here has to be what is installed there.

Whose TPM is believed is for --base to say; without it no key is, and 'attestationKeys' has to be
filled in. How an image's signature was judged, and the host's own policy, are demanded only where the
base demands them.", args_override_self = true)]
pub struct Reference {
    /// A verifier's policy to add to: its keys and registers are kept, and what else it demands.
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// A new file to write to; if it is not given, standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    run: Run,
}

impl Reference {
    /// See [`Run::take_apps`].
    ///
    /// # Errors
    /// What clap has to complain about.
    pub fn take_apps(&mut self, words: Vec<AppWords>) -> Result<(), clap::Error> {
        self.run.take_apps(words)
    }

    /// Computes the record, and writes what it demands.
    pub fn execute(&self, global: &Global) -> Outcome {
        let base = self.base()?;
        let record = self.run.expected_record(global)?;
        let document = demanding(base, &record);
        // What can't be used as a policy is not written.
        Policy::new(document.clone())?;
        let mut written = serde_json::to_vec_pretty(&document)?;
        written.push(b'\n');
        write(self.out.as_ref(), &written)?;
        Ok(0)
    }

    fn base(&self) -> Result<Document, Box<dyn Error>> {
        let Some(path) = &self.base else {
            let pcr = settings()?.pcr;
            return Ok(serde_json::from_value(json!({
                "version": 1,
                "attestationKeys": {},
                "pcrs": {"select": {"sha256": [pcr]}, "log": pcr},
            }))?);
        };
        let policy = Policy::parse(&read(path, MAX_POLICY)?)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(policy.document().clone())
    }
}

/// A policy that demands, besides what it did, exactly this.
fn demanding(base: Document, record: &Record) -> Document {
    let images = record.apps.iter().map(|app| ImageRule {
        digest: Some(app.image.id.clone()),
        verity_root: app.image.verity_root.clone(),
        identity: None,
    });
    let rule = |volume: &Volume| {
        let (name, path) = (volume.name.clone(), volume.path.clone()?);
        Some(VolumeRule { name, path, writable: !volume.read_only })
    };
    Document {
        kernels: one(&record.kernel.digest),
        guest_inits: one(&record.guest_init),
        monitors: one(&record.monitor),
        file_servers: record.file_server.as_ref().and_then(one),
        filters: record.seccomp.as_ref().and_then(one),
        supervisors: one(&record.supervisor),
        command_lines: one(&record.command_line),
        images: Some(images.collect()),
        content: Some(ContentDemand::Verified),
        volumes: Some(record.volumes.iter().filter_map(rule).collect()),
        pod_manifests: one(&record.pod_manifest),
        ..base
    }
}

fn one<T: Ord + Clone>(value: &T) -> Option<BTreeSet<T>> {
    Some(BTreeSet::from([value.clone()]))
}

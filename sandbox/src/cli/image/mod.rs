//! `sandbox image`: the verbs about images in the store.

mod cat_manifest;
mod export;
mod extract;
mod gc;
mod list;
mod push;
mod render;
mod rm;
mod unpack;
mod verify;
mod verity;

use super::apps::AppWords;
use super::complaint::ComplaintKind;
use super::fetch::Fetch;
use super::{Global, Outcome};
use clap::{Args, Subcommand};

/// Operate on images in the local store.
///
/// IMAGE is an ID as 'image list' shows it, or the beginning of one, a name with or without a
/// version, such as example.com/app:1.0, or what the image was fetched as, such as
/// docker://registry.example.com/team/app:1.2.
#[derive(Debug, Args)]
pub struct Image {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(list::List),
    CatManifest(cat_manifest::CatManifest),
    Export(export::Export),
    Extract(extract::Extract),
    Render(render::Render),
    Rm(rm::Rm),
    Gc(gc::Gc),
    Verify(verify::Verify),
    Verity(verity::Verity),
    Push(push::Push),
    #[command(hide = true)]
    Fetch(Fetch),
}

impl Image {
    /// `image fetch` gets its images.
    ///
    /// # Errors
    /// See [`Fetch::take_apps`].
    pub fn take_apps(&mut self, words: Vec<AppWords>) -> Result<(), ComplaintKind> {
        match &mut self.verb {
            Verb::Fetch(fetch) => fetch.take_apps(words),
            _ => Ok(()),
        }
    }

    /// `image fetch`, if it is that.
    #[cfg(test)]
    pub fn as_fetch(&self) -> Option<&Fetch> {
        match &self.verb {
            Verb::Fetch(fetch) => Some(fetch),
            _ => None,
        }
    }

    /// The name that messages begin with.
    pub fn name(&self) -> &'static str {
        match self.verb {
            Verb::List(_) => "list",
            Verb::CatManifest(_) => "cat-manifest",
            Verb::Export(_) => "export",
            Verb::Extract(_) => "extract",
            Verb::Render(_) => "render",
            Verb::Rm(_) => "rm",
            Verb::Gc(_) => "gc",
            Verb::Verify(_) => "verify",
            Verb::Verity(_) => "verity",
            Verb::Push(_) => "push",
            Verb::Fetch(_) => "fetch",
        }
    }

    /// Does what the verb says.
    pub fn execute(&self, global: &Global) -> Outcome {
        match &self.verb {
            Verb::List(list) => list.execute(global),
            Verb::CatManifest(cat) => cat.execute(global),
            Verb::Export(export) => export.execute(global),
            Verb::Extract(extract) => extract.execute(global),
            Verb::Render(render) => render.execute(global),
            Verb::Rm(rm) => rm.execute(global),
            Verb::Gc(gc) => gc.execute(global),
            Verb::Verify(verify) => verify.execute(global),
            Verb::Verity(verity) => verity.execute(global),
            Verb::Push(push) => push.execute(global),
            Verb::Fetch(fetch) => fetch.execute(global),
        }
    }
}

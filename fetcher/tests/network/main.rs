//! The store with the real confined process and servers, good ones and such that lie.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

#[path = "../../../image/tests/common/mod.rs"]
mod common;
#[path = "../../../image/tests/network/server.rs"]
#[allow(dead_code, reason = "the tests of the clients use the rest")]
mod server;

mod aci;
mod dependencies;
mod push;
mod registry;
mod web;

use sandbox_image::{Error, FetchOptions, Network, Reference, Staged, Store};
use server::{Asked, Server, answer};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
};
use tempfile::TempDir;

/// A directory with a store, and how it fetches.
struct Place {
    directory: TempDir,
    store: Store,
    options: FetchOptions,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("data")).unwrap();
        let mut options = FetchOptions::new(env!("CARGO_BIN_EXE_sandbox-fetch").into());
        let http = server::options();
        options.network = Network {
            registry: sandbox_image::registry::Options { http: http.clone(), ..Default::default() },
            http,
            lookaside: None,
        };
        Self { directory, store, options }
    }

    fn fetch(&self, reference: &str) -> Result<Staged, Error> {
        let reference = Reference::parse(reference.as_ref()).unwrap();
        self.store.fetch(&reference, &self.options, &mut ())
    }

    /// It is refused for this reason, and nothing is left behind.
    #[track_caller]
    fn check_refused(&self, reference: &str, problem: &str) {
        let error = self.fetch(reference).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
        assert!(!error.chars().any(char::is_control), "{error:?}");
        assert_eq!(self.left("tmp"), [""; 0]);
        assert_eq!(self.left("part"), [""; 0]);
    }

    /// Names in a folder of the store.
    fn left(&self, folder: &str) -> Vec<String> {
        let folder = self.directory.path().join("data/cas").join(folder);
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }
}

/// What a server has, by path: media type and content.
#[derive(Clone, Default)]
struct Content(BTreeMap<String, (String, Vec<u8>)>);

impl Content {
    fn with(mut self, path: &str, media_type: &str, bytes: &[u8]) -> Self {
        self.0.insert(path.to_owned(), (media_type.to_owned(), bytes.to_vec()));
        self
    }

    fn answer(&self, asked: &Asked, to: &mut dyn Write) -> io::Result<()> {
        match self.0.get(&asked.path) {
            Some((media_type, bytes)) => answer(to, 200, &[("Content-Type", media_type)], bytes),
            None => answer(to, 404, &[], b""),
        }
    }

    fn serve(self) -> Server {
        Server::https(move |asked, to| self.answer(asked, to))
    }
}

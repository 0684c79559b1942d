//! How many files are open while an ACI comes with many others. In a process of its own, since that
//! is what is limited.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

#[path = "../../image/tests/common/mod.rs"]
mod common;
#[path = "../../image/tests/network/server.rs"]
#[allow(dead_code, reason = "the tests of the clients use the rest")]
mod server;
#[path = "network/web.rs"]
#[allow(dead_code, reason = "the tests of dependencies use the rest")]
mod web;

use rustix::process::{Resource, getrlimit, setrlimit};
use sandbox_image::{FetchOptions, Limit, Network, Reference, Store};
use web::{Aci, Web};

/// By default a process may have 1024 open files, and an image 256 others below it: there are three
/// for each.
#[test]
fn many_images_need_few_open_files() {
    const IMAGES: usize = 90;
    /// What a test has besides: its servers, what a child is spoken to with.
    const OTHERS: u64 = 30;
    let Some(web) = Web::new(40) else { return };
    let name = |number: usize| format!("l{number}");
    for number in 0..IMAGES {
        let aci = Aci::new(&name(number));
        // Half of them are below each other, and all of them below the first.
        let aci = if (1..IMAGES / 2).contains(&number) { aci.on(&name(number + 1)) } else { aci };
        let first = |aci: Aci| (1..IMAGES).fold(aci, |aci, below| aci.on(&name(below)));
        web.put(&name(number), "latest", &if number == 0 { first(aci) } else { aci });
    }
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("data")).unwrap();
    let mut options = FetchOptions::new(env!("CARGO_BIN_EXE_sandbox-fetch").into());
    options.network = Network { http: server::options(), ..Network::default() };
    options.limits.set(Limit::Layers, IMAGES as u64).unwrap();
    let limit = getrlimit(Resource::Nofile);
    let most = IMAGES as u64 * 3 + OTHERS;
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(most), ..limit }).unwrap();

    let reference = Reference::parse(format!("{}/l0", web.host).as_ref()).unwrap();
    let staged = store.fetch(&reference, &options, &mut ()).unwrap();
    assert_eq!(staged.parts().len(), IMAGES);
    let image = staged.commit(&mut ()).unwrap();
    assert_eq!(image.parts().len(), IMAGES);
    drop(image);
    assert!(store.fetch(&reference, &options, &mut ()).unwrap().is_stored());
}

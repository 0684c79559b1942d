//! ACIs and keys on web servers.

use super::{
    Content, Place,
    common::{Tar, layout::aci_manifest},
    server::{Server, answer},
};
use sandbox_image::{
    Error, Limit, PullPolicy, Reference, discovery::AppcName, evidence::Signature, keys,
};
use std::{
    fs,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

fn aci() -> Vec<u8> {
    let manifest = aci_manifest("");
    let tar = Tar::new().file("manifest", manifest.as_bytes()).directory("rootfs");
    super::common::layout::gzip(&tar.file("rootfs/file", b"content").finish())
}

fn detached(signature: &[u8]) -> Signature {
    Signature::Detached { signature: signature.to_vec(), facts: None }
}

#[test]
fn an_aci_comes_with_the_signature_beside_it() {
    let content = Content::default().with("/x.aci", "x/y", &aci());
    let server = content.clone().with("/x.aci.asc", "x/y", b"signature").serve();
    let mut place = Place::new();
    let url = server.url("https", "/x.aci");
    let staged = place.fetch(&url).unwrap();
    assert_eq!(staged.name(), "example.com/test");
    assert_eq!(staged.parts()[0].signatures, [detached(b"signature")]);
    let mut shipped = staged.shipped_aci(0).unwrap().unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut shipped, &mut bytes).unwrap();
    assert_eq!(bytes, aci());
    staged.commit(&mut ()).unwrap();
    server.asked();
    assert!(place.fetch(&url).unwrap().is_stored());
    assert!(server.asked().is_empty());

    // One that was given is the one that counts, and no other is asked for.
    let file = place.directory.path().join("x.asc");
    fs::write(&file, "given").unwrap();
    place.options.signature = Some(file);
    assert_eq!(place.fetch(&url).unwrap().parts()[0].signatures, [detached(b"given")]);
    assert!(server.asked().iter().all(|asked| asked.path == "/x.aci"));

    let server = content.serve();
    let staged = Place::new().fetch(&server.url("https", "/x.aci?a=b"));
    assert!(staged.is_err(), "the path with its query is not there");
    assert_eq!(server.asked()[0].path, "/x.aci?a=b");
    let staged = Place::new().fetch(&server.url("https", "/x.aci")).unwrap();
    assert_eq!(staged.parts()[0].signatures, []);
}

#[test]
fn an_aci_is_sent_again_only_if_it_has_changed() {
    let answers = AtomicUsize::new(0);
    let server = Server::https(move |asked, to| {
        if asked.path != "/x.aci" {
            return answer(to, 200, &[], b"signature");
        }
        let headers = match answers.fetch_add(1, Ordering::Relaxed) {
            // Nothing is said the second time about how long it may be kept.
            0 | 1 => &[("ETag", "\"one\"")][..],
            _ => &[("ETag", "\"two\""), ("Cache-Control", "max-age=1000")],
        };
        let is_known = asked.header("if-none-match") == Some(headers[0].1);
        if is_known { answer(to, 304, headers, b"") } else { answer(to, 200, headers, &aci()) }
    });
    let url = server.url("https", "/x.aci");
    let mut place = Place::new();
    let first = place.fetch(&url).unwrap().commit(&mut ()).unwrap();
    // That it is used does not change what the server said.
    place.fetch(&url).unwrap().commit(&mut ()).unwrap();
    place.options.pull_policy = PullPolicy::Update;
    server.asked();
    let staged = place.fetch(&url).unwrap();
    assert!(staged.is_stored());
    assert_eq!(staged.commit(&mut ()).unwrap().id(), first.id());
    let [asked] = &server.asked()[..] else { panic!("more than the image is asked for") };
    assert_eq!(asked.header("if-none-match"), Some("\"one\""));
    // It has changed, and may be kept for a while then.
    let staged = place.fetch(&url).unwrap();
    assert!(!staged.is_stored());
    staged.commit(&mut ()).unwrap();
    server.asked();
    assert!(place.fetch(&url).unwrap().is_stored());
    assert!(server.asked().is_empty());
}

#[test]
fn an_aci_without_the_signature_that_is_needed_now_is_fetched_again() {
    let server = Server::https(move |_, to| answer(to, 200, &[("ETag", "\"one\"")], &aci()));
    let url = server.url("https", "/x.aci");
    let mut place = Place::new();
    // There is none where this server says that the ACI is its signature.
    let unsigned = Server::https(move |asked, to| match asked.path.as_str() {
        "/x.aci" => answer(to, 200, &[("ETag", "\"one\""), ("Cache-Control", "max-age=9")], &aci()),
        _ => answer(to, 404, &[], b""),
    });
    place.fetch(&unsigned.url("https", "/x.aci")).unwrap().commit(&mut ()).unwrap();
    place.options.pull_policy = PullPolicy::Update;
    assert!(!place.fetch(&unsigned.url("https", "/x.aci")).unwrap().is_stored());
    place.options.insecure_image = true;
    assert!(place.fetch(&unsigned.url("https", "/x.aci")).unwrap().is_stored());
    // Another place of the same image is another reference.
    assert!(!place.fetch(&url).unwrap().is_stored());
}

#[test]
fn a_signature_that_is_not_ready_is_waited_for() {
    let asked_for = AtomicUsize::new(0);
    let server = Server::https(move |asked, to| match asked.path.as_str() {
        "/x.aci" => answer(to, 200, &[], &aci()),
        _ if asked_for.fetch_add(1, Ordering::Relaxed) == 0 => answer(to, 202, &[], b""),
        _ => answer(to, 200, &[], b"signature"),
    });
    let staged = Place::new().fetch(&server.url("https", "/x.aci")).unwrap();
    assert_eq!(staged.parts()[0].signatures, [detached(b"signature")]);

    let server = Server::https(|asked, to| match asked.path.as_str() {
        "/x.aci" => answer(to, 200, &[], &aci()),
        _ => answer(to, 202, &[], b""),
    });
    let mut place = Place::new();
    place.check_refused(&server.url("https", "/x.aci"), "status 202");
    place.options.insecure_image = true;
    assert_eq!(place.fetch(&server.url("https", "/x.aci")).unwrap().parts()[0].signatures, []);
}

#[test]
fn what_is_no_aci_or_not_allowed_is_refused() {
    let content = Content::default().with("/x.aci", "x/y", &aci());
    let server = content.clone().with("/text.aci", "text/html", b"<html>").serve();
    let mut place = Place::new();
    place.check_refused(&server.url("https", "/text.aci"), "is not an App Container Image");
    place.check_refused(&server.url("https", "/none.aci"), "status 404");
    place.options.limits.set(Limit::Size, 1 << 20).unwrap();
    let large = Content::default().with("/x.aci", "x/y", &vec![b'x'; 2 << 20]).serve();
    let error = place.fetch(&large.url("https", "/x.aci")).unwrap_err();
    assert!(matches!(error, Error::Limit(_)), "{error}");

    let server = Server::http(move |asked, to| content.answer(asked, to));
    let mut place = Place::new();
    place.check_refused(&server.url("http", "/x.aci"), "refused");
    assert!(server.asked().is_empty());
    place.options.network.http.insecure_http = true;
    place.fetch(&server.url("http", "/x.aci")).unwrap();
}

#[test]
fn keys_are_fetched() {
    let server = Content::default().with("/keys", "x/y", b"a key").serve();
    let place = Place::new();
    let get = |path: &str| {
        let url = server.url("https", path).parse().unwrap();
        keys::get(&url, &place.options)
    };
    assert_eq!(get("/keys").unwrap(), b"a key");
    let error = get("/none").unwrap_err().to_string();
    assert!(error.contains("status 404"), "{error}");
    let large = Content::default().with("/keys", "x/y", &vec![0; (1 << 20) + 1]).serve();
    let url = large.url("https", "/keys").parse().unwrap();
    let error = keys::get(&url, &place.options).unwrap_err().to_string();
    assert!(error.contains("longer than 1048576 bytes"), "{error}");
}

#[test]
fn an_aci_is_found_by_its_name_and_has_that_name() {
    let page = b"<meta name='ac-discovery' content='localhost https://localhost/{name}.{ext}'>\
        <meta name='ac-discovery-pubkeys' content='localhost https://localhost/keys'>";
    let manifest = aci_manifest("").replace("example.com/test", "localhost/app");
    let tar = Tar::new().file("manifest", manifest.as_bytes()).directory("rootfs").finish();
    let content = Content::default()
        .with("/app?ac-discovery=1", "text/html", page)
        .with("/other?ac-discovery=1", "text/html", page)
        .with("/localhost/app.aci", "x/y", &tar)
        .with("/localhost/app.aci.asc", "x/y", b"signature")
        .with("/localhost/other.aci", "x/y", &tar);
    // Names hold no port.
    let Ok(listener) = TcpListener::bind("127.0.0.1:443") else {
        eprintln!("skip: only root can be https://localhost, if nobody else is");
        return;
    };
    Server::start(listener, true, Arc::new(move |asked, to| content.answer(asked, to)));
    let place = Place::new();
    let fetch = |name: &str| {
        let reference = Reference::Appc { name: AppcName::parse(name).unwrap() };
        place.store.fetch(&reference, &place.options, &mut ())
    };
    let staged = fetch("localhost/app").unwrap();
    assert_eq!(staged.name(), "localhost/app");
    assert_eq!(staged.parts()[0].signatures, [detached(b"signature")]);
    staged.commit(&mut ()).unwrap();
    assert!(fetch("localhost/app").unwrap().is_stored());
    let error = fetch("localhost/other").unwrap_err().to_string();
    assert!(error.contains("its name is 'localhost/app' instead of 'localhost/other'"), "{error}");
    let keys = keys::discover(&AppcName::parse("localhost/app").unwrap(), &place.options).unwrap();
    assert_eq!(keys, ["https://localhost/keys".parse().unwrap()]);
}

#[test]
fn names_are_looked_up_by_the_confined_process() {
    // A name that no resolver has (RFC 6761).
    let mut place = Place::new();
    place.options.network.http.retry.attempts = 1;
    let name = "host.invalid/app";
    let error = place.fetch(name).unwrap_err().to_string();
    assert!(error.contains("discovery: https://host.invalid/app"), "{error}");
    let error = keys::discover(&AppcName::parse(name).unwrap(), &place.options);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("discovery: https://host.invalid/app"), "{error}");
}

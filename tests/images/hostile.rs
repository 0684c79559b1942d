//! Registries that lie, e2e: what only one of the parts has to catch is tested there.

use crate::{Secure, small};
use sandbox_tests::http::{Answer, End, Proxy, Request};
use sandbox_tests::image::{Image, sha256};
use sandbox_tests::registry::Access;
use sandbox_tests::tar::Tar;
use sandbox_tests::{Host, temporary};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A registry with one image, of which every answer can be changed.
struct Liar {
    server: Secure,
    front: Proxy,
}

impl Liar {
    fn new(change: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static) -> Self {
        let server = Secure::new(Access::Anybody);
        let directory = temporary();
        server.registry.push(small("honest").layout(directory.path()), "app:1");
        let identity = server.authority.certify(&["localhost"]);
        let front = Proxy::tls(&identity, server.registry.port(), change);
        Self { server, front }
    }

    fn host(&self) -> Host {
        let host = Host::trusting();
        host.believes(&self.front.server().name(), &self.server.authority);
        host
    }

    fn name(&self) -> String {
        format!("{}/app:1", self.front.server().name())
    }
}

fn is_manifest(request: &Request) -> bool {
    request.path() == "/v2/app/manifests/1"
}

fn is_blob(request: &Request) -> bool {
    request.path().contains("/blobs/") && request.method == "GET"
}

/// Only what a registry answers to this is changed.
fn only(
    which: fn(&Request) -> bool,
    change: impl Fn(Answer) -> Answer + Send + Sync + 'static,
) -> impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static {
    move |request, answer| if which(request) { change(answer) } else { answer }
}

#[test]
fn a_registry_that_lies_is_found_out_and_nothing_is_imported() {
    type Change = Box<dyn Fn(&Request, Answer) -> Answer + Send + Sync>;
    let manifest = |change: fn(&mut Value)| -> Change {
        Box::new(only(is_manifest, move |mut answer| {
            let mut document: Value = serde_json::from_slice(&answer.body).unwrap();
            change(&mut document);
            answer.body = document.to_string().into();
            answer.headers.retain(|(name, _)| name != "docker-content-digest");
            answer
        }))
    };
    let cases: Vec<(&str, Change, &[&str])> = vec![
        (
            "a blob of other bytes",
            Box::new(only(is_blob, |mut answer| {
                let middle = answer.body.len() / 2;
                answer.body[middle] ^= 1;
                answer
            })),
            &["digest"],
        ),
        (
            "a blob that is cut short",
            Box::new(only(is_blob, |mut answer| {
                answer.body.pop();
                answer
            })),
            &[],
        ),
        (
            "a blob with more bytes than it has",
            Box::new(only(is_blob, |mut answer| {
                answer.body.extend_from_slice(&[0; 5000]);
                answer
            })),
            &[],
        ),
        (
            "a connection that ends too early, each time",
            Box::new(only(is_blob, |answer| answer.ending(End::CutAfter(10)))),
            &[],
        ),
        (
            "a length that promises more",
            Box::new(only(is_blob, |answer| {
                let length = answer.body.len() + 7;
                answer.with("Content-Length", length.to_string()).ending(End::CutAfter(usize::MAX))
            })),
            &[],
        ),
        (
            "a blob without end",
            Box::new(only(is_blob, |mut answer| {
                answer.body = vec![0; 64 << 20];
                answer
            })),
            &[],
        ),
        (
            "a manifest of 100 MB",
            Box::new(only(is_manifest, |mut answer| {
                answer.body.resize(100 << 20, b' ');
                answer
            })),
            &["bytes"],
        ),
        (
            "a manifest that is none",
            Box::new(only(is_manifest, |mut answer| {
                answer.body = b"<html>welcome</html>".to_vec();
                answer
            })),
            &[],
        ),
        (
            "a manifest of another digest than its header says",
            Box::new(only(is_manifest, |answer| {
                answer.with("Docker-Content-Digest", format!("sha256:{}", "0".repeat(64)))
            })),
            &["digest"],
        ),
        (
            "a layer's digest that is a path",
            manifest(|document| {
                document["layers"][0]["digest"] = "sha256:../../../../etc/shadow".into();
            }),
            &["digest"],
        ),
        (
            "a layer's size that is another",
            manifest(|document| {
                document["layers"][0]["size"] = 7.into();
            }),
            &[],
        ),
        ("a negative size", manifest(|document| document["layers"][0]["size"] = (-1).into()), &[]),
        (
            "more layers than any image has",
            manifest(|document| {
                let layer = document["layers"][0].clone();
                document["layers"] = vec![layer; 5000].into();
            }),
            &["layers"],
        ),
        (
            "layers of a type that nobody knows",
            manifest(|document| {
                document["layers"][0]["mediaType"] = "application/x-unknown".into();
            }),
            &["application/x-unknown"],
        ),
        (
            "a redirect that goes round",
            Box::new(|request: &Request, answer| match is_blob(request) {
                true => Answer::redirect(request.target.clone()),
                false => answer,
            }),
            &["redirects"],
        ),
        (
            "a redirect to a file of this host",
            Box::new(only(is_blob, |_| Answer::redirect("file:///etc/shadow"))),
            &[],
        ),
        (
            "a server that always fails",
            Box::new(only(is_manifest, |_| Answer::status(500))),
            &["500"],
        ),
        (
            "control characters in a message",
            Box::new(only(is_manifest, |_| {
                let errors =
                    json!({"errors": [{"code": "DENIED", "message": "\u{1b}]0;owned\u{7}\n2"}]});
                let mut answer = Answer::status(403);
                answer.body = errors.to_string().into();
                answer.with("Content-Type", "application/json")
            })),
            &["403"],
        ),
    ];
    let mut failed = Vec::new();
    for (what, change, words) in cases {
        let liar = Liar::new(change);
        let host = liar.host();
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let ended = host.refuses(liar.name(), words);
            let said = ended.stderr.trim_end();
            assert!(!said.chars().any(char::is_control), "{said:?}");
        }));
        println!("case {what} ... {}", if tried.is_ok() { "ok" } else { "FAILED" });
        failed.extend(tried.is_err().then_some(what));
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// A manifest that is asked for by digest has that digest, whatever the server says.
#[test]
fn what_is_asked_for_by_digest_has_it() {
    let liar = Liar::new(|request, mut answer| {
        if request.path().contains("/manifests/") && answer.status == 200 {
            answer.body.push(b' ');
        }
        answer
    });
    let digest = sha256(&liar.server.registry.manifest("app:1"));
    let name = format!("{}/app@sha256:{digest}", liar.front.server().name());
    liar.host().refuses(name, &["digest"]);
}

/// Networks fail: a download goes on where it was cut off.
#[test]
fn a_download_that_was_cut_off_goes_on() {
    let cuts = AtomicUsize::new(0);
    let liar = Liar::new(move |request, answer| {
        let is_layer = is_blob(request) && answer.body.len() > 100_000;
        match is_layer && cuts.fetch_add(1, Ordering::Relaxed) == 0 {
            true => answer.ending(End::CutAfter(100_000)),
            false => answer,
        }
    });
    // No compression makes it smaller.
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    let bytes: Vec<u8> = std::iter::repeat_with(&mut random).take(300_000).collect();
    let layer = Tar::new().file("data", 0o644, bytes).finish();
    let directory = temporary();
    liar.server.registry.push(Image::of([layer]).layout(directory.path()), "app:1");
    let host = liar.host();
    let id = host.fetch(liar.name());
    host.sandbox(["image", "verify", &id]).exits(0);
    let asked = liar.front.server().requests();
    let resumed = asked
        .iter()
        .any(|it| it.header("range").is_some_and(|range| range.starts_with("bytes=1000")));
    assert!(
        resumed,
        "{:?}",
        asked.iter().map(|it| (&it.target, it.header("range"))).collect::<Vec<_>>()
    );
}

/// A layer that is small and unpacks to more than this host wants to have.
#[test]
fn a_bomb_in_a_layer_goes_off_nowhere() {
    let server = Secure::new(Access::Anybody);
    let directory = temporary();
    let zeros = Tar::new().file("zeros", 0o644, vec![0; 100 << 20]).finish();
    server.registry.push(Image::of([zeros]).layout(directory.path()), "app:bomb");
    let host = server.host();
    let name = server.door.image("app:bomb");
    let words = ["fetch", "--image-limit=size=50M", &name];
    host.sandbox(words).fails_saying(&["--image-limit size="]);
    host.has_nothing();
}

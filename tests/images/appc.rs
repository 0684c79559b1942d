//! App Container Images by URL and by name: appc's discovery, as rkt does it.

use sandbox_tests::aci::Aci;
use sandbox_tests::certificates::Authority;
use sandbox_tests::http::{Answer, Request, Server};
use sandbox_tests::signatures::Keyring;
use sandbox_tests::tar::Tar;
use sandbox_tests::{Host, temporary};
use serde_json::json;
use std::fs;

fn files(text: &str) -> Vec<u8> {
    Tar::new().directory("etc", 0o755).file("etc/text", 0o644, text).finish()
}

/// A web server at port 443 of an address of its own.
struct Web {
    server: Server,
    authority: Authority,
    address: String,
}

impl Web {
    fn new(number: u8, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let authority = Authority::new();
        let address = format!("127.0.3.{number}");
        let names = ["example.com", "images.example.com"];
        let identity = authority.certify(&names);
        let server = Server::tls(&format!("{address}:443"), &identity, answer);
        Self { server, authority, address }
    }

    fn introduce(&self, host: &Host) {
        for name in ["example.com", "images.example.com"] {
            host.knows(name, &self.address);
            host.believes(name, &self.authority);
        }
    }

    fn paths(&self) -> Vec<String> {
        self.server.requests().into_iter().map(|request| request.target).collect()
    }
}

/// appc's discovery.md: "Meta Discovery", templates, and walking up the name.
#[test]
fn an_image_is_discovered_by_its_name_with_its_signature() {
    let directory = temporary();
    let gpg = Keyring::new();
    let alice = gpg.key("alice");
    let file = directory.path().join("app.aci");
    Aci::new("example.com/team/app", files("found\n")).version("1.0").write(&file);
    let signature = fs::read(gpg.sign(&alice, &file)).unwrap();
    let key = gpg.export(&alice);
    let image = fs::read(&file).unwrap();
    let web = Web::new(1, move |request| match request.path() {
        "/team" => Answer::found(
            "<html><head>\
             <meta name=\"ac-discovery\" content=\"example.com/team \
              https://images.example.com/{name}-{version}-{os}-{arch}.{ext}\">\
             <meta name=ac-discovery-pubkeys content='example.com/team https://example.com/keys.asc'>\
             </head></html>",
        ),
        "/example.com/team/app-1.0-linux-amd64.aci" => Answer::found(image.clone()),
        "/example.com/team/app-1.0-linux-amd64.aci.asc" => Answer::found(signature.clone()),
        "/keys.asc" => Answer::found(key.clone()),
        _ => Answer::status(404),
    });
    let host = Host::new();
    web.introduce(&host);
    let name = "example.com/team/app:1.0";
    host.refuses(name, &["trust"]);
    let trust = ["trust", "--skip-fingerprint-review", "--prefix=example.com/team"];
    host.sandbox(trust).exits(0).check("should name the key", |it| {
        let said = it.text() + &it.stderr;
        said.to_lowercase().replace(' ', "").contains(&alice.fingerprint.to_lowercase())
    });
    let id = host.fetch(name);
    assert!(id.starts_with("sha512-"), "{id}");
    assert!(web.paths().contains(&"/team/app?ac-discovery=1".to_owned()), "{:?}", web.paths());
    // It is in the store, so nobody is asked.
    let before = web.paths().len();
    host.sandbox(["fetch", "--pull-policy=new", name]).exits(0);
    assert_eq!(web.paths().len(), before);
    host.sandbox(["image", "cat-manifest", name]).exits(0).mentions("example.com/team/app");
    // A name that leads nowhere.
    host.sandbox(["fetch", "example.com/other:1.0"]).fails_saying(&["example.com/other"]);
}

/// "--trust-keys-from-https: Trust keys that are found by discovery and come over https".
#[test]
fn keys_that_come_over_https_are_trusted_if_the_user_says_so() {
    let directory = temporary();
    let gpg = Keyring::new();
    let alice = gpg.key("alice");
    let file = directory.path().join("app.aci");
    Aci::new("example.com/app", files("x")).version("1.0").write(&file);
    let signature = fs::read(gpg.sign(&alice, &file)).unwrap();
    let (key, image) = (gpg.export(&alice), fs::read(&file).unwrap());
    let web = Web::new(2, move |request| match request.path() {
        "/app" => Answer::found(
            "<meta name=\"ac-discovery\" content=\"example.com https://example.com/a.{ext}\">\
             <meta name=\"ac-discovery-pubkeys\" content=\"example.com https://example.com/keys\">",
        ),
        "/a.aci" => Answer::found(image.clone()),
        "/a.aci.asc" => Answer::found(signature.clone()),
        "/keys" => Answer::found(key.clone()),
        _ => Answer::status(404),
    });
    let host = Host::new();
    web.introduce(&host);
    host.refuses("example.com/app:1.0", &[]);
    host.sandbox(["fetch", "--trust-keys-from-https", "example.com/app:1.0"]).exits(0);
    host.sandbox(["trust", "list"]).exits(0).mentions(&alice.fingerprint.to_lowercase());
}

/// What is served under a name has to have that name.
#[test]
fn an_image_of_another_name_than_was_asked_for_is_refused() {
    let directory = temporary();
    let file = directory.path().join("app.aci");
    Aci::new("example.com/other", files("x")).version("1.0").write(&file);
    let image = fs::read(&file).unwrap();
    let web = Web::new(3, move |request| match request.path() {
        "/app" => Answer::found(
            "<meta name=\"ac-discovery\" content=\"example.com https://example.com/a.{ext}\">",
        ),
        "/a.aci" => Answer::found(image.clone()),
        _ => Answer::status(404),
    });
    let host = Host::trusting();
    web.introduce(&host);
    host.refuses("example.com/app:1.0", &["example.com/other"]);
}

/// As rkt: ETag and Cache-Control are heeded, credentials are for their domain.
#[test]
fn an_image_by_url_is_asked_for_again_only_if_it_may_have_changed() {
    let directory = temporary();
    let file = directory.path().join("app.aci");
    Aci::new("example.com/app", files("x")).version("1.0").write(&file);
    let image = fs::read(&file).unwrap();
    let secret = "for-example.com-only";
    let expected = format!("Basic {}", sandbox_tests::base64(format!("bob:{secret}").as_bytes()));
    let web = Web::new(4, move |request| {
        if request.header("authorization") != Some(expected.as_str()) {
            return Answer::status(401);
        }
        match (request.path(), request.header("if-none-match")) {
            ("/a.aci", Some("\"1\"")) => Answer::status(304).with("ETag", "\"1\""),
            ("/a.aci", _) => Answer::found(image.clone()).with("ETag", "\"1\""),
            ("/fresh.aci", _) => Answer::found(image.clone()).with("Cache-Control", "max-age=3600"),
            _ => Answer::status(404),
        }
    });
    let host = Host::trusting();
    web.introduce(&host);
    host.refuses("https://example.com/a.aci", &["401"]);
    let auth = json!({"rktKind": "auth", "rktVersion": "v1", "domains": ["example.com"],
        "type": "basic", "credentials": {"user": "bob", "password": secret}});
    host.put("/etc/rkt/auth.d/tests.json", auth.to_string());
    let asked = |image: &str| {
        let before = web.paths().len();
        host.sandbox(["fetch", "--debug", image]).exits(0).never_shows(secret);
        let paths = web.paths();
        paths[before..].iter().filter(|path| !path.ends_with(".asc")).count()
    };
    assert_eq!(asked("https://example.com/a.aci"), 1);
    assert_eq!(asked("https://example.com/a.aci"), 1);
    let last = web.server.requests();
    let conditional = last.iter().any(|request| request.header("if-none-match").is_some());
    assert!(conditional, "the second request is conditional");
    assert_eq!(asked("https://example.com/fresh.aci"), 1);
    assert_eq!(asked("https://example.com/fresh.aci"), 0, "it is still fresh");
    host.sandbox(["fetch", "http://example.com/a.aci"]).fails_saying(&["http"]);
}

/// appc's spec, "Dependency Matching" and "pathWhitelist": lower ones first, the image itself on
/// top, and of all that only what is whitelisted.
#[test]
fn dependencies_are_below_the_image_that_has_them() {
    let directory = temporary();
    let write = |aci: &Aci, name: &str| {
        let file = directory.path().join(name);
        aci.write(&file);
        fs::read(&file).unwrap()
    };
    let base = Tar::new()
        .directory("etc", 0o755)
        .file("etc/both", 0o644, "base\n")
        .file("etc/base", 0o644, "base\n")
        .file("etc/hidden", 0o644, "base\n")
        .finish();
    let base = write(&Aci::new("example.com/base", base).version("2"), "base.aci");
    let web = Web::new(5, move |request| match request.path() {
        "/base" => Answer::found(
            "<meta name=\"ac-discovery\" content=\"example.com https://example.com/{name}.{ext}\">",
        ),
        "/example.com/base.aci" => Answer::found(base.clone()),
        _ => Answer::status(404),
    });
    let own = Tar::new()
        .directory("etc", 0o755)
        .file("etc/both", 0o644, "own\n")
        .file("etc/own", 0o644, "own\n")
        .finish();
    let dependency = json!([{"imageName": "example.com/base",
        "labels": [{"name": "version", "value": "2"}]}]);
    let app =
        Aci::new("example.com/app", own.clone()).version("1").with("dependencies", dependency);
    write(&app, "app.aci");
    let listed = app.with("pathWhitelist", json!(["/etc", "/etc/both", "/etc/own", "/etc/base"]));
    write(&listed, "listed.aci");
    let host = Host::trusting();
    web.introduce(&host);
    let tree = |file: &str| -> Vec<(String, String)> {
        let image = directory.path().join(file);
        let out = host.at(&format!("/root/{file}"));
        host.fetch(&image);
        let words = ["image", "render", "--rootfs-only"].map(std::ffi::OsString::from);
        let words = words.into_iter().chain([image.into(), out.clone().into()]);
        host.sandbox(words).exits(0);
        let mut files: Vec<_> = fs::read_dir(out.join("etc"))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    };
    let pairs = |files: &[(&str, &str)]| -> Vec<(String, String)> {
        files.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    };
    let all = [("base", "base\n"), ("both", "own\n"), ("hidden", "base\n"), ("own", "own\n")];
    assert_eq!(tree("app.aci"), pairs(&all));
    let some = [("base", "base\n"), ("both", "own\n"), ("own", "own\n")];
    assert_eq!(tree("listed.aci"), pairs(&some));
}

/// rkt: dependencies are fetched the same way as the image, one signature each.
#[test]
fn what_an_image_depends_on_is_signed_by_itself() {
    let directory = temporary();
    let gpg = Keyring::new();
    let (alice, bob) = (gpg.key("alice"), gpg.key("bob"));
    let base = directory.path().join("base.aci");
    Aci::new("example.com/base", files("base\n")).write(&base);
    let signature = fs::read(gpg.sign(&bob, &base)).unwrap();
    let (base, key) = (fs::read(&base).unwrap(), gpg.export(&bob));
    let app = directory.path().join("app.aci");
    Aci::new("example.com/app", files("app\n"))
        .executes(&["/bin/app"])
        .with("dependencies", json!([{"imageName": "example.com/base"}]))
        .write(&app);
    gpg.sign(&alice, &app);
    let web = Web::new(6, move |request| match request.path() {
        "/base" => Answer::found(
            "<meta name=\"ac-discovery\" content=\"example.com https://example.com/{name}.{ext}\">\
             <meta name=\"ac-discovery-pubkeys\" content=\"example.com https://example.com/keys\">",
        ),
        "/example.com/base.aci" => Answer::found(base.clone()),
        "/example.com/base.aci.asc" => Answer::found(signature.clone()),
        "/keys" => Answer::found(key.clone()),
        _ => Answer::status(404),
    });
    let trusting_alice = || {
        let host = Host::new();
        web.introduce(&host);
        let key = host.put("/root/alice.asc", gpg.export(&alice));
        let trust = ["trust", "--skip-fingerprint-review", "--prefix=example.com/app"];
        let words = trust.into_iter().map(std::ffi::OsString::from);
        host.sandbox(words.chain([key.into()])).exits(0);
        host
    };
    let host = trusting_alice();
    host.refuses(&app, &["example.com/base", "trust"]);
    let key = host.put("/root/bob.asc", gpg.export(&bob));
    let trust = ["trust", "--skip-fingerprint-review", "--prefix=example.com/base"];
    let words = trust.into_iter().map(std::ffi::OsString::from);
    host.sandbox(words.chain([key.into()])).exits(0);
    let id = host.fetch(&app);
    // What was found then is known at every launch.
    host.sandbox(["policy", "check", &id]).exits(0).mentions("example.com/base");
    host.sandbox(["trust", "rm", &bob.fingerprint]).exits(0);
    host.run(&id).end().fails_saying(&["example.com/base"]);

    let host = trusting_alice();
    let app = app.to_str().unwrap();
    host.sandbox(["fetch", "--trust-keys-from-https", app]).exits(0);
    host.sandbox(["trust", "list"]).exits(0).mentions(&bob.fingerprint.to_lowercase());
}

use super::server::{Asked, Server, answer, cut, endless, head, options};
use sandbox_image::{
    Algorithm, Digest, http,
    registry::{Client, Error, Options, RegistryReference, Rules},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// A manifest as a builder may write it.
pub fn plain() -> Vec<u8> {
    br#"{"schemaVersion":2,"config":{},"layers":[]}"#.to_vec()
}

/// What an honest registry has, by path.
#[derive(Clone, Default)]
pub struct Content(BTreeMap<String, (String, Vec<u8>)>);

impl Content {
    /// Adds a manifest `NAME:TAG`, also under its digest.
    pub fn with(self, name: &str, manifest: &[u8]) -> Self {
        self.with_document(name, MANIFEST, manifest)
    }

    pub fn with_document(mut self, name: &str, media_type: &str, bytes: &[u8]) -> Self {
        let (name, tag) = name.split_once(':').unwrap();
        for at in [tag, &digest(bytes).to_string()] {
            let path = format!("/v2/{name}/manifests/{at}");
            self.0.insert(path, (media_type.to_owned(), bytes.to_vec()));
        }
        self
    }

    pub fn with_blob(self, name: &str, bytes: &[u8]) -> Self {
        let path = format!("/v2/{name}/blobs/{}", digest(bytes));
        self.with_path(&path, "application/octet-stream", bytes)
    }

    pub fn with_path(mut self, path: &str, media_type: &str, bytes: &[u8]) -> Self {
        self.0.insert(path.to_owned(), (media_type.to_owned(), bytes.to_vec()));
        self
    }

    pub fn answer(&self, asked: &Asked, to: &mut dyn Write) -> io::Result<()> {
        match self.0.get(&asked.path) {
            Some((media_type, bytes)) => answer(to, 200, &[("Content-Type", media_type)], bytes),
            None => answer(to, 404, &[], b""),
        }
    }

    pub fn serve(self) -> Server {
        Server::https(move |asked, to| self.answer(asked, to))
    }
}

pub fn client() -> Client {
    Client::new(Options { http: options(), ..Options::default() }).unwrap()
}

pub fn reference(server: &Server, name: &str) -> RegistryReference {
    RegistryReference::parse(&format!("{}/{name}", server.authority)).unwrap()
}

#[test]
fn manifests() {
    let content = Content::default().with("a/app:1", &plain());
    let server = content.with_document("a/app:index", INDEX, b"{\"manifests\":[]}").serve();
    let found = client().manifest(&reference(&server, "a/app:1")).unwrap();
    assert_eq!((found.bytes, found.media_type.as_str()), (plain(), MANIFEST));
    assert_eq!(found.digest, digest(&plain()));
    let found = client().manifest(&reference(&server, "a/app:index")).unwrap();
    assert_eq!(found.media_type, INDEX);
    let by_digest = reference(&server, &format!("a/app@{}", digest(&plain())));
    assert_eq!(client().manifest(&by_digest).unwrap().bytes, plain());
    let problem = client().manifest(&reference(&server, "a/app:2")).unwrap_err();
    assert!(matches!(problem, Error::NotFound(_)), "{problem}");
}

#[test]
fn manifests_that_are_not_what_they_are_called() {
    let server = Server::https(|asked, to| {
        let manifest = ("Content-Type", MANIFEST);
        let lie = format!("sha256:{}", "0".repeat(64));
        match asked.path.as_str() {
            "/v2/app/manifests/html" => answer(to, 200, &[("Content-Type", "text/html")], b"{}"),
            "/v2/app/manifests/said" => {
                answer(to, 200, &[manifest, ("Docker-Content-Digest", &lie)], b"{}")
            }
            "/v2/app/manifests/huge" => {
                head(to, 200, &[manifest], Some(100 << 20)).and_then(|()| endless(to))
            }
            "/v2/app/manifests/endless" => {
                head(to, 200, &[manifest], None).and_then(|()| endless(to))
            }
            "/v2/app/manifests/denied" => {
                let body = br#"{"errors":[{"code":"DENIED","message":"no \u001b[31m"}]}"#;
                answer(to, 403, &[], body)
            }
            _ => answer(to, 200, &[manifest], b"{}"),
        }
    });
    let problem = |name: &str| client().manifest(&reference(&server, name)).unwrap_err();
    assert!(matches!(problem("app:html"), Error::MediaType { .. }));
    assert!(matches!(problem("app:said"), Error::SaidDigest { .. }));
    assert!(matches!(problem("app:huge"), Error::Http(http::Error::TooLarge { .. })));
    assert!(matches!(problem("app:endless"), Error::Http(http::Error::TooLarge { .. })));
    let wrong = problem(&format!("app@{}", digest(&plain())));
    assert!(matches!(wrong, Error::Digest { .. }), "{wrong}");
    let denied = problem("app:denied").to_string();
    assert!(denied.contains("DENIED no \\u{1b}[31m"), "{denied}");
}

/// Gets the blob that should be `content` into a file that holds `before`.
fn blob(client: &Client, server: &Server, content: &[u8], before: &[u8]) -> Result<Vec<u8>, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blob");
    fs::write(&path, before).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut last = 0;
    let mut on_bytes = |there| {
        last = there;
        ControlFlow::Continue(())
    };
    let (digest, size) = (digest(content), content.len() as u64);
    let reference = reference(server, "app:1");
    client.blob(&reference, &digest, size, &file, before.len() as u64, &mut on_bytes)?;
    assert_eq!(last, size);
    Ok(fs::read(&path).unwrap())
}

fn content() -> Vec<u8> {
    (0..300_000_u32).flat_map(|number| number.to_le_bytes()).collect()
}

/// Answers with a part, if one is asked for.
fn part(asked: &Asked, to: &mut dyn Write, content: &[u8]) -> io::Result<()> {
    let Some(range) = asked.header("range") else { return answer(to, 200, &[], content) };
    let start: usize = range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
    let (last, size) = (content.len() - 1, content.len());
    let range = format!("bytes {start}-{last}/{size}");
    answer(to, 206, &[("Content-Range", &range)], &content[start..])
}

#[test]
fn blobs_go_on_where_they_ended() {
    let server = Server::https(|asked, to| part(asked, to, &content()));
    let content = content();
    assert_eq!(blob(&client(), &server, &content, b"").unwrap(), content);
    assert_eq!(server.asked().last().unwrap().header("range"), None);
    assert_eq!(blob(&client(), &server, &content, &content[..500_000]).unwrap(), content);
    assert_eq!(server.asked().last().unwrap().header("range"), Some("bytes=500000-"));
    // All of it is there.
    server.asked();
    assert_eq!(blob(&client(), &server, &content, &content).unwrap(), content);
    assert!(server.asked().is_empty());
    // What is there is something else, or too long.
    assert_eq!(blob(&client(), &server, &content, &[1; 1000]).unwrap(), content);
    assert_eq!(blob(&client(), &server, &content, &vec![1; content.len()]).unwrap(), content);
    assert_eq!(blob(&client(), &server, &content, &vec![1; content.len() + 1]).unwrap(), content);
}

#[test]
fn blobs_that_break_off() {
    // Each time some of it.
    let server = Server::https(|asked, to| {
        let content = content();
        let range = asked.header("range").unwrap_or("bytes=0-");
        let start: usize =
            range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
        let (last, size) = (content.len() - 1, content.len());
        let range = format!("bytes {start}-{last}/{size}");
        let status = if start == 0 { 200 } else { 206 };
        head(to, status, &[("Content-Range", &range)], Some(size - start))?;
        to.write_all(&content[start..size.min(start + 400_000)])?;
        to.flush()?;
        if start + 400_000 < size { cut() } else { Ok(()) }
    });
    let content = content();
    assert_eq!(blob(&client(), &server, &content, b"").unwrap(), content);
    let asked = server.asked();
    assert!((3..=5).contains(&asked.iter().filter(|a| a.path.contains("blobs")).count()));

    // Never anything.
    let server = Server::https(|asked, to| {
        if asked.path == "/v2/" {
            return answer(to, 200, &[], b"");
        }
        head(to, 200, &[], Some(1_200_000)).and_then(|()| to.flush()).and_then(|()| cut())
    });
    let problem = blob(&client(), &server, &content, b"").unwrap_err();
    assert!(
        matches!(
            problem,
            Error::Http(http::Error::Truncated { .. } | http::Error::Connection { .. })
        ),
        "{problem}"
    );
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn blobs_that_are_not_what_they_are_called() {
    type Answers = fn(&mut dyn Write) -> io::Result<()>;
    let good = content();
    let wrong: Answers = |to| answer(to, 200, &[], &vec![7; 1_200_000]);
    let long: Answers = |to| head(to, 200, &[], Some(2_000_000)).and_then(|()| endless(to));
    let short: Answers = |to| answer(to, 200, &[], &content()[..1000]);
    let endless: Answers = |to| head(to, 200, &[], None).and_then(|()| endless(to));
    let part: Answers = |to| {
        let headers = [("Content-Range", "bytes 0-9/1200000")];
        answer(to, 206, &headers, &content()[..10])
    };
    for (answers, name) in [
        (wrong, "digest"),
        (long, "length"),
        (short, "length"),
        (endless, "length"),
        (part, "range"),
    ] {
        let server = Server::https(move |_, to| answers(to));
        let problem = blob(&client(), &server, &good, b"").unwrap_err();
        let fits = match name {
            "digest" => matches!(problem, Error::Digest { .. }),
            "length" => matches!(problem, Error::Http(http::Error::Length { .. })),
            _ => matches!(problem, Error::Http(http::Error::Range(_))),
        };
        assert!(fits, "{name}: {problem}");
    }
}

/// Rules with one mirror for a registry.
fn mirrored(server: &Server, mirror: &Server) -> Client {
    let directory = tempfile::tempdir().unwrap();
    let (server, mirror) = (&server.authority, &mirror.authority);
    fs::write(
        directory.path().join("registries.conf"),
        format!(
            "[[registry]]\nlocation = \"{server}\"\n[[registry.mirror]]\nlocation = \"{mirror}\"\n"
        ),
    )
    .unwrap();
    let rules = Rules::load(directory.path()).unwrap();
    Client::new(Options { http: options(), rules, ..Options::default() }).unwrap()
}

#[test]
fn a_mirror_that_lies_is_passed_over() {
    let content = content();
    let honest = Content::default().with("app:1", &plain()).with_blob("app", &content).serve();
    let liar = Server::https(|asked, to| {
        let size = if asked.path.contains("manifests") { 10 } else { 1_200_000 };
        answer(to, 200, &[("Content-Type", MANIFEST)], &vec![b' '; size])
    });
    let client = mirrored(&honest, &liar);
    let by_digest = reference(&honest, &format!("app@{}", digest(&plain())));
    assert_eq!(client.manifest(&by_digest).unwrap().bytes, plain());
    assert_eq!(blob(&client, &honest, &content, b"").unwrap(), content);
    assert!(liar.asked().len() >= 2);
}

#[test]
fn lists_of_referrers_end() {
    let subject = digest(b"subject");
    let other = Server::https(|_, to| answer(to, 200, &[], b"{\"manifests\":[]}"));
    let elsewhere = format!("<{}>; rel=\"next\"", other.url("https", "/v2/app/referrers/x?n=1"));
    let number = AtomicUsize::new(0);
    let server = Server::https(move |asked, to| {
        let next = number.fetch_add(1, Ordering::Relaxed);
        let next = format!("<{}?n={next}>; rel=\"next\"", asked.path.split('?').next().unwrap());
        let item = format!(
            r#"{{"mediaType":"{MANIFEST}","digest":"{}","size":1,"artifactType":"t"}}"#,
            digest(b"x")
        );
        let many = format!(r#"{{"manifests":[{}]}}"#, vec![item; 100].join(","));
        let repository = asked.path.split('/').nth(2).unwrap_or_default();
        match repository {
            "endless" => answer(to, 200, &[("Link", &next)], b"{\"manifests\":[]}"),
            "many" => answer(to, 200, &[("Link", &next)], many.as_bytes()),
            "other" => answer(to, 200, &[("Link", &elsewhere)], b"{\"manifests\":[]}"),
            "up" => {
                answer(to, 200, &[("Link", "</v2/secret/x?n=1>; rel=next")], b"{\"manifests\":[]}")
            }
            "huge" => head(to, 200, &[], None).and_then(|()| endless(to)),
            "malformed" => answer(to, 200, &[], b"<html>"),
            "fails" => answer(to, 403, &[], b""),
            _ => answer(to, 404, &[], b""),
        }
    });
    let list = |name: &str| client().referrers(&reference(&server, name), &subject, "t");
    assert_eq!(list("many:1").unwrap().len(), 256);
    assert_eq!(list("none:1").unwrap(), []);
    server.asked();
    for name in ["endless:1", "other:1", "up:1", "malformed:1"] {
        let problem = list(name).unwrap_err();
        assert!(matches!(problem, Error::Malformed { .. }), "{name}: {problem}");
    }
    assert!(server.asked().len() < 30);
    assert!(server.asked().iter().all(|asked| !asked.path.contains("secret")));
    assert!(other.asked().is_empty());
    assert!(matches!(list("huge:1"), Err(Error::Http(http::Error::TooLarge { .. }))));
    assert!(matches!(list("fails:1"), Err(Error::Refused { .. })));
}

#[test]
fn images_are_put_where_they_belong() {
    let stored = digest(b"layer").to_string();
    let server =
        Server::https(move |asked, to| match (asked.method.as_str(), asked.path.as_str()) {
            ("HEAD", path) if path.ends_with(&digest(b"there").to_string()) => {
                head(to, 200, &[], Some(5))
            }
            ("HEAD", _) => head(to, 404, &[], Some(0)),
            ("POST", "/v2/app/blobs/uploads/") => {
                answer(to, 202, &[("Location", "/upload/1?state=x")], b"")
            }
            ("PUT", "/v2/app/manifests/1") => answer(to, 201, &[], b""),
            ("PUT", "/v2/app/manifests/lie") => {
                answer(to, 201, &[("Docker-Content-Digest", &stored)], b"")
            }
            ("PUT", path) if path.starts_with("/upload/1?state=x&digest=sha256") => {
                assert_eq!(asked.body, b"layer");
                answer(to, 201, &[("Docker-Content-Digest", &stored)], b"")
            }
            _ => answer(to, 500, &[], b""),
        });
    let client = client();
    let reference = reference(&server, "app:1");
    let push = |content: &[u8], digest: &Digest| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let size = content.len() as u64;
        client.push_blob(&reference, digest, size, &file, &mut |_| ControlFlow::Continue(()))
    };
    push(b"layer", &digest(b"layer")).unwrap();
    push(b"there", &digest(b"there")).unwrap();
    assert_eq!(server.asked().last().unwrap().method, "HEAD");
    assert!(matches!(push(b"layer", &digest(b"other")), Err(Error::Sent { .. })));
    assert_eq!(client.push_manifest(&reference, MANIFEST, &plain()).unwrap(), digest(&plain()));
    let lie = reference.with_tag("lie").unwrap();
    let problem = client.push_manifest(&lie, MANIFEST, &plain()).unwrap_err();
    assert!(matches!(problem, Error::SaidDigest { .. }), "{problem}");
}

#[test]
fn options_can_be_sent_to_another_process() {
    use sandbox_image::{http::Secret, registry::Credential};
    let server = Content::default().with("app:1", &plain()).serve();
    let credential = Credential::Basic { user: "u".to_owned(), password: Secret::new("p") };
    let reference = reference(&server, "app:1");
    let options = Options::of::<Error>(&reference, Rules::default(), options(), &mut |_| {
        Ok(Some(credential.clone()))
    });
    let sent = serde_json::to_vec(&options.unwrap()).unwrap();
    let options: Options = serde_json::from_slice(&sent).unwrap();
    assert_eq!(serde_json::to_vec(&options).unwrap(), sent);
    let client = Arc::new(Client::new(options).unwrap());
    assert_eq!(client.manifest(&reference).unwrap().bytes, plain());
}

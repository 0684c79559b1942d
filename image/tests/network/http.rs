use super::server::{Asked, Server, answer, cut, endless, head, options};
use sandbox_image::http::{
    Answer, Authorization, Caching, Client, Download, Downloaded, Error, Options, Secret, Url,
};
use std::{
    fs::{self, File},
    io::{self, Write},
    ops::ControlFlow,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

fn get_with(options: Options, url: &str, limit: u64) -> Result<Answer, Error> {
    Client::new(options).unwrap().get(&url.parse::<Url>().unwrap(), None, limit)
}

fn get(url: &str) -> Result<Answer, Error> {
    get_with(options(), url, 1 << 20)
}

fn body(answer: Answer) -> Vec<u8> {
    match answer {
        Answer::Found { bytes, .. } => bytes,
        other => panic!("{other:?}"),
    }
}

/// With a password for a server.
fn with_password(server: &Server) -> Options {
    let mut options = options();
    let secret = Authorization::basic("user", &Secret::new("geheim"));
    options.authorizations.insert(server.authority.clone(), secret);
    options
}

const BASIC: &str = "Basic dXNlcjpnZWhlaW0=";

#[test]
fn http_only_where_it_is_allowed_and_never_with_credentials() {
    let server = Server::http(|_, to| answer(to, 200, &[], b"content"));
    let url = server.url("http", "/x?token=geheim");
    let problem = get(&url).unwrap_err();
    assert!(matches!(problem, Error::Insecure(_)), "{problem}");
    assert!(!format!("{problem} {problem:?}").contains("geheim"));
    assert!(server.asked().is_empty());

    let mut allowed = with_password(&server);
    allowed.insecure_http = true;
    assert_eq!(body(get_with(allowed, &url, 100).unwrap()), b"content");
    assert_eq!(server.asked()[0].header("authorization"), None);

    let mut allowed = options();
    allowed.insecure_hosts.insert(server.authority.clone());
    assert_eq!(body(get_with(allowed, &url, 100).unwrap()), b"content");
}

#[test]
fn certificates_are_checked() {
    let server = Server::https(|_, to| answer(to, 200, &[], b"content"));
    let url = server.url("https", "/");
    let problem = get_with(Options::default(), &url, 100).unwrap_err();
    assert!(matches!(problem, Error::Certificate { .. }), "{problem}");
    assert!(server.asked().is_empty());
    let unchecked = Options { insecure_tls: true, ..Options::default() };
    assert_eq!(body(get_with(unchecked, &url, 100).unwrap()), b"content");
    assert_eq!(body(get(&url).unwrap()), b"content");
    // No TLS at all on the other side.
    let server = Server::http(|_, to| answer(to, 200, &[], b"content"));
    let problem = get(&server.url("https", "/")).unwrap_err();
    assert!(matches!(problem, Error::Tls { .. } | Error::Connection { .. }), "{problem}");
}

fn redirect(to: &mut dyn Write, location: &str) -> io::Result<()> {
    answer(to, 302, &[("Location", location)], b"")
}

#[test]
fn redirects_never_lead_to_http() {
    let plain = Server::http(|_, to| answer(to, 200, &[], b"content"));
    let location = plain.url("http", "/x");
    let server = Server::https(move |_, to| redirect(to, &location));
    let mut options = options();
    options.insecure_http = true;
    let problem = get_with(options, &server.url("https", "/"), 100).unwrap_err();
    assert!(matches!(problem, Error::Downgrade { .. }), "{problem}");
    assert!(plain.asked().is_empty());
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_server() {
    // It sends the client back, where credentials don't go again either.
    let other = Server::https(|asked: &Asked, to| {
        redirect(to, asked.path.strip_prefix("/?back=").unwrap())
    });
    let target = other.url("https", "/?back=");
    let server = Server::https(move |asked, to| match asked.path.as_str() {
        "/first" => redirect(to, "/second"),
        "/second" => {
            let back = format!("https://{}/third", asked.header("host").unwrap());
            redirect(to, &format!("{target}{back}"))
        }
        _ => answer(to, 200, &[], b"content"),
    });
    let options = with_password(&server);
    assert!(!format!("{options:?}").contains("geheim"));
    assert!(!format!("{options:?}").contains(BASIC));
    assert_eq!(body(get_with(options, &server.url("https", "/first"), 100).unwrap()), b"content");
    let asked = server.asked();
    let sent: Vec<_> = asked.iter().map(|asked| asked.header("authorization")).collect();
    assert_eq!(sent, [Some(BASIC), Some(BASIC), None]);
    assert_eq!(other.asked()[0].header("authorization"), None);
}

#[test]
fn redirects_end() {
    let server = Server::https(|asked, to| redirect(to, &format!("{}x", asked.path)));
    let problem = get(&server.url("https", "/")).unwrap_err();
    assert!(matches!(problem, Error::Redirects(_)), "{problem}");
    assert_eq!(server.asked().len(), 9);
    for location in ["", "file:///etc/passwd", "https://user:geheim@localhost/", "https://a b/"] {
        let server = Server::https(|_, to| redirect(to, location));
        let problem = get(&server.url("https", "/")).unwrap_err();
        assert!(matches!(problem, Error::Location { .. }), "{location}: {problem}");
        assert!(!problem.to_string().contains("geheim"), "{problem}");
    }
}

#[test]
fn lengths_that_lie() {
    let server = Server::https(|asked, to| match asked.path.as_str() {
        "/short" => head(to, 200, &[], Some(1000)).and_then(|()| to.write_all(b"content")),
        "/long" => head(to, 200, &[], Some(4)).and_then(|()| to.write_all(b"content")),
        "/two" => head(to, 200, &[("Content-Length", "5")], Some(7))
            .and_then(|()| to.write_all(b"content")),
        "/word" => head(to, 200, &[("Content-Length", "-1")], None),
        "/both" => head(to, 200, &[("Transfer-Encoding", "chunked")], Some(3))
            .and_then(|()| to.write_all(b"7\r\ncontent\r\n0\r\n\r\n")),
        "/cut" => head(to, 200, &[], None)
            .and_then(|()| to.write_all(b"content"))
            .and_then(|()| to.flush())
            .and_then(|()| cut()),
        "/chunk" => head(to, 200, &[("Transfer-Encoding", "chunked")], None)
            .and_then(|()| to.write_all(b"ffffffffffffffff1\r\ncontent")),
        "/huge" => head(to, 200, &[], Some(100 << 20)).and_then(|()| endless(to)),
        _ => head(to, 200, &[], None).and_then(|()| endless(to)),
    });
    let ask = |path| get(&server.url("https", path));
    let problem = ask("/short").unwrap_err();
    assert!(
        matches!(problem, Error::Truncated { found: 7, expected: 1000, .. })
            || matches!(problem, Error::Connection { .. }),
        "{problem}"
    );
    assert_eq!(server.asked().len(), 3, "it is tried again");
    assert_eq!(body(ask("/long").unwrap()), b"cont");
    for path in ["/two", "/word", "/chunk"] {
        let problem = ask(path).unwrap_err();
        assert!(matches!(problem, Error::Protocol { .. } | Error::Connection { .. }), "{problem}");
    }
    // Where nothing announces the end, that of the connection is it: what has to be whole has a
    // digest or a signature.
    assert_eq!(body(ask("/cut").unwrap()), b"content");
    // Chunks count more than a length.
    assert_eq!(body(ask("/both").unwrap()), b"content");
    for path in ["/huge", "/endless"] {
        let problem = ask(path).unwrap_err();
        assert!(matches!(problem, Error::TooLarge { limit: 0x10_0000, .. }), "{problem}");
    }
}

#[test]
fn answers_that_are_none() {
    for (text, kind) in [
        ("SSH-2.0-x\r\n\r\n".to_owned(), "protocol"),
        (format!("HTTP/1.1 200 X\r\nA: {}\r\n\r\n", "x".repeat(100_000)), "protocol"),
        (format!("HTTP/1.1 200 X\r\n{}\r\n", "A: b\r\n".repeat(1000)), "protocol"),
        (String::new(), "connection"),
    ] {
        let server = Server::https(move |_, to| to.write_all(text.as_bytes()));
        match get(&server.url("https", "/")).unwrap_err() {
            Error::Protocol { .. } => assert_eq!(kind, "protocol"),
            Error::Connection { .. } => assert_eq!(kind, "connection"),
            problem => panic!("{problem}"),
        }
    }
}

fn impatient() -> Options {
    let mut options = options();
    options.timeouts.answer = Duration::from_millis(100);
    options.timeouts.stall = Duration::from_millis(80);
    options.timeouts.document = Duration::from_millis(100);
    options.retry.attempts = 1;
    options
}

/// A byte now and then.
fn drip(to: &mut dyn Write) -> io::Result<()> {
    loop {
        to.write_all(b"x")?;
        to.flush()?;
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn servers_that_are_slow_are_given_up() {
    let server = Server::https(|asked, to| match asked.path.as_str() {
        "/silent" => {
            thread::sleep(Duration::from_secs(1));
            Ok(())
        }
        "/headers" => to.write_all(b"HTTP/1.1 200 X\r\nA: ").and_then(|()| drip(to)),
        "/stops" => {
            head(to, 200, &[], Some(1000))?;
            to.flush()?;
            thread::sleep(Duration::from_secs(1));
            Ok(())
        }
        _ => head(to, 200, &[], Some(1000)).and_then(|()| drip(to)),
    });
    for path in ["/silent", "/headers", "/stops", "/body"] {
        let began = Instant::now();
        let problem = get_with(impatient(), &server.url("https", path), 10_000).unwrap_err();
        assert!(matches!(problem, Error::Timeout { .. }), "{path}: {problem}");
        assert!(began.elapsed() < Duration::from_millis(900), "{path}");
    }
    let file = tempfile::tempfile().unwrap();
    let problem = download(&Client::new(impatient()).unwrap(), &server, "/body", &file, 0, None);
    assert!(matches!(problem, Err(Error::Timeout { .. })), "{problem:?}");
}

#[test]
fn busy_servers_are_asked_again() {
    let count = AtomicUsize::new(0);
    let server = Server::https(move |asked, to| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        match asked.path.as_str() {
            // Whatever it wishes, the wait is bounded.
            "/soon" if number == 0 => answer(to, 429, &[("Retry-After", "1000000")], b""),
            "/soon" if number == 1 => cut(),
            "/soon" => answer(to, 200, &[], b"content"),
            "/missing" => answer(to, 404, &[], b""),
            _ => answer(to, 503, &[("Retry-After", "0")], b"geheim"),
        }
    });
    assert_eq!(body(get(&server.url("https", "/soon")).unwrap()), b"content");
    assert_eq!(server.asked().len(), 3);
    let problem = get(&server.url("https", "/never?geheim")).unwrap_err();
    assert!(matches!(problem, Error::Status { status: 503, .. }), "{problem}");
    assert!(!problem.to_string().contains("geheim"));
    assert_eq!(server.asked().len(), 3);
    assert_eq!(get(&server.url("https", "/missing")).unwrap(), Answer::Missing(404));
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn what_is_known_is_not_sent_again() {
    let server = Server::https(|asked, to| {
        let caching = [("ETag", "\"a\""), ("Cache-Control", "max-age=60")];
        match asked.header("if-none-match") {
            Some("\"a\"") => head(to, 304, &caching, None),
            _ if asked.path == "/lies" => head(to, 304, &caching, None),
            _ if asked.path == "/later" => answer(to, 202, &[], b""),
            _ => answer(to, 200, &caching, b"content"),
        }
    });
    let client = Client::new(options()).unwrap();
    let get = |path, etag| client.get(&server.url("https", path).parse().unwrap(), etag, 100);
    let caching = Caching { etag: Some("\"a\"".to_owned()), max_age: Some(60) };
    let bytes = b"content".to_vec();
    assert_eq!(get("/", None).unwrap(), Answer::Found { bytes, caching: caching.clone() });
    assert_eq!(get("/", Some("\"a\"")).unwrap(), Answer::NotModified(caching));
    assert_eq!(get("/later", None).unwrap(), Answer::Deferred);
    assert!(matches!(get("/lies", None), Err(Error::Status { status: 304, .. })));
}

fn download(
    client: &Client,
    server: &Server,
    path: &str,
    into: &File,
    already: u64,
    etag: Option<&str>,
) -> Result<Downloaded, Error> {
    let url = server.url("https", path).parse().unwrap();
    let what = Download { url: &url, if_none_match: None, into, already, etag, limit: 1 << 20 };
    client.download(&what, &mut |_| ControlFlow::Continue(()), &mut |_| ())
}

#[test]
fn downloads_go_on_where_they_ended() {
    const CONTENT: &[u8] = b"0123456789";
    let server = Server::https(|asked, to| {
        let etag = ("ETag", "\"a\"");
        let range = asked.header("range");
        let is_same = asked.header("if-range") == Some("\"a\"");
        match (asked.path.as_str(), range) {
            ("/broken", None) => {
                head(to, 200, &[etag], Some(10))?;
                to.write_all(b"0123")?;
                to.flush()?;
                cut()
            }
            ("/plain", None) => {
                // Without an ETag there is no going on.
                head(to, 200, &[], Some(10))?;
                to.write_all(b"0123")?;
                to.flush()?;
                cut()
            }
            ("/whole", Some(_)) => answer(to, 200, &[etag], CONTENT),
            ("/other", Some(_)) => {
                let headers = [("ETag", "\"b\""), ("Content-Range", "bytes 4-9/10")];
                answer(to, 206, &headers, b"xxxxxx")
            }
            ("/shifted", Some(_)) => {
                answer(to, 206, &[etag, ("Content-Range", "bytes 3-9/10")], b"3456789")
            }
            ("/larger", Some(_)) => {
                answer(to, 206, &[etag, ("Content-Range", "bytes 4-9/100000000")], b"456789")
            }
            ("/refused", Some(_)) => answer(to, 416, &[("Content-Range", "bytes */4")], b""),
            (_, Some("bytes=4-")) if is_same => {
                answer(to, 206, &[etag, ("Content-Range", "bytes 4-9/10")], b"456789")
            }
            _ => answer(to, 200, &[etag], CONTENT),
        }
    });
    let client = Client::new(options()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for (name, requests) in [
        ("/good", 1),
        ("/broken", 1),
        ("/whole", 1),
        ("/other", 2),
        ("/shifted", 2),
        ("/larger", 2),
        ("/refused", 2),
    ] {
        fs::write(&path, "0123").unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let result = download(&client, &server, name, &file, 4, Some("\"a\"")).unwrap();
        assert!(matches!(result, Downloaded::Complete { size: 10, .. }), "{name}: {result:?}");
        assert_eq!(fs::read(&path).unwrap(), CONTENT, "{name}");
        assert_eq!(server.asked().len(), requests, "{name}");
    }
    // Bytes whose ETag was another one are thrown away.
    fs::write(&path, "old0").unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    for etag in [Some("\"old\""), Some("W/\"a\""), None] {
        download(&client, &server, "/good", &file, 4, etag).unwrap();
        assert_eq!(fs::read(&path).unwrap(), CONTENT, "{etag:?}");
    }
    server.asked();
    // One that breaks off on the way.
    download(&client, &server, "/broken", &file, 0, None).unwrap();
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
    let ranges: Vec<_> =
        server.asked().iter().map(|asked| asked.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=4-".to_owned())]);
    let problem = download(&client, &server, "/plain", &file, 0, None).unwrap_err();
    assert!(matches!(problem, Error::Truncated { .. } | Error::Connection { .. }), "{problem}");
    assert!(server.asked().iter().all(|asked| asked.header("range").is_none()));
}

#[test]
fn a_download_can_be_given_up_and_is_bounded() {
    let server = Server::https(|_, to| head(to, 200, &[], None).and_then(|()| endless(to)));
    let file = tempfile::tempfile().unwrap();
    let client = Client::new(options()).unwrap();
    let problem = download(&client, &server, "/", &file, 0, None).unwrap_err();
    assert!(matches!(problem, Error::TooLarge { .. }), "{problem}");
    assert!(file.metadata().unwrap().len() <= 1 << 20);
    let url = server.url("https", "/").parse().unwrap();
    let what = Download {
        url: &url,
        if_none_match: None,
        into: &file,
        already: 0,
        etag: None,
        limit: u64::MAX,
    };
    let mut stop = |there| {
        if there > 100_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let problem = client.download(&what, &mut stop, &mut |_| ()).unwrap_err();
    assert!(matches!(problem, Error::Cancelled), "{problem}");
}

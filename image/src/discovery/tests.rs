use super::*;
use std::{cell::RefCell, collections::BTreeMap};

/// Pages by their URLs; a page `!` can't be got.
struct Web {
    pages: BTreeMap<&'static str, &'static str>,
    http: bool,
    asked: RefCell<Vec<String>>,
}

impl Web {
    fn new(pages: &[(&'static str, &'static str)]) -> Self {
        let pages = pages.iter().copied().collect();
        Self { pages, http: false, asked: RefCell::default() }
    }

    fn pages<T>(&self, ask: impl FnOnce(&mut Pages<'_>) -> T) -> T {
        let mut fetch = |url: &Url| {
            let url = url.expose();
            self.asked.borrow_mut().push(url.clone());
            match self.pages.get(url.strip_suffix("?ac-discovery=1").unwrap()) {
                Some(&"!") => Err(Error::Redirects(Text::new(url))),
                Some(page) => Ok(Some(page.as_bytes().to_vec())),
                None => Ok(None),
            }
        };
        ask(&mut Pages { fetch: &mut fetch, allows_http: &|_| self.http })
    }

    fn image(&self, name: &str) -> Result<Endpoint, DiscoveryError> {
        let name = AppcName::parse(name).unwrap();
        self.pages(|pages| discover_image(&name, pages))
    }

    fn keys(&self, name: &str) -> Result<Vec<String>, DiscoveryError> {
        let name = AppcName::parse(name).unwrap();
        let keys = self.pages(|pages| discover_keys(&name, pages))?;
        Ok(keys.iter().map(Url::expose).collect())
    }
}

const ROOT: &str = r#"<head>
    <meta name="ac-discovery" content="example.com/application https://wrong.example/{ext}">
    <meta name="ac-discovery" content="example.com/app https://a.example/{channel}.{ext}">
    <meta name="ac-discovery" content="example.com/app https://a.example/{version}.{ext}">
    <meta name="ac-discovery" content="example.com https://b.example/{name}.{ext}">
    <meta name="ac-discovery-pubkeys" content="example.com https://a.example/keys.gpg">
    <meta name="ac-discovery-pubkeys" content="example.com https://a.example/keys.gpg">
    <meta name="ac-discovery-pubkeys" content="other.com https://a.example/others.gpg">"#;

#[test]
fn pages_are_asked_from_the_name_up_to_its_host() {
    let web = Web::new(&[
        ("https://example.com/", ROOT),
        ("https://example.com/app", "<head><title>An app</title>"),
    ]);
    let found = web.image("example.com/app/part:1").unwrap();
    assert_eq!(found.aci.expose(), "https://a.example/1.aci");
    assert_eq!(found.asc.expose(), "https://a.example/1.aci.asc");
    assert_eq!(
        web.asked.take(),
        [
            "https://example.com/app/part?ac-discovery=1",
            "https://example.com/app?ac-discovery=1",
            "https://example.com/?ac-discovery=1"
        ]
    );
    // A prefix is one by whole components.
    let found = web.image("example.com/apps").unwrap();
    assert_eq!(found.aci.expose(), "https://b.example/example.com/apps.aci");
    let found = web.image("example.com/app,channel=beta").unwrap();
    assert_eq!(found.aci.expose(), "https://a.example/beta.aci");
    assert_eq!(web.keys("example.com/app").unwrap(), ["https://a.example/keys.gpg"]);
    assert_eq!(web.keys("example.com").unwrap(), ["https://a.example/keys.gpg"]);
}

#[test]
fn nothing_is_found_where_nothing_is_said() {
    let web = Web::new(&[("https://example.com/", ROOT)]);
    for name in ["other.com/app", "example.co", "example.com.evil.com/app"] {
        let problem = web.image(name).unwrap_err();
        assert!(matches!(problem, DiscoveryError::Nothing { .. }), "{problem}");
        let problem = web.keys(name).unwrap_err();
        assert!(matches!(problem, DiscoveryError::Nothing { .. }), "{problem}");
    }
    assert!(matches!(web.image("a~b/app"), Err(DiscoveryError::Host { .. })));
    let deep = format!("example.com{}", "/a".repeat(MAX_COMPONENTS));
    web.asked.take();
    assert!(matches!(web.image(&deep), Err(DiscoveryError::Deep(_))));
    assert!(web.asked.take().is_empty());
}

#[test]
fn a_page_that_fails_is_not_one_that_says_nothing() {
    let web = Web::new(&[("https://example.com/app", "!"), ("https://example.com/", ROOT)]);
    assert!(matches!(web.image("example.com/app"), Err(DiscoveryError::Page(_))));
    assert_eq!(web.asked.take().len(), 1);
}

#[test]
fn http_only_if_it_is_allowed_and_https_fails() {
    let page = r#"<meta name="ac-discovery" content="example.com http://a.example/{name}.{ext}">
        <meta name="ac-discovery-pubkeys" content="example.com http://a.example/keys">"#;
    let mut web = Web::new(&[("https://example.com/", "!"), ("http://example.com/", page)]);
    assert!(matches!(web.image("example.com"), Err(DiscoveryError::Page(_))));
    assert_eq!(web.asked.take().len(), 1);
    web.http = true;
    assert_eq!(web.image("example.com").unwrap().aci.expose(), "http://a.example/example.com.aci");
    assert_eq!(web.keys("example.com").unwrap(), ["http://a.example/keys"]);
    // What is missing on https is missing.
    assert!(matches!(web.image("example.org"), Err(DiscoveryError::Nothing { .. })));

    // Safe pages that lead to http.
    let web = Web::new(&[("https://example.com/", page)]);
    let problem = web.image("example.com/app").unwrap_err().to_string();
    assert!(problem.contains("http://a.example/example.com/app.aci"), "{problem}");
    assert!(matches!(web.keys("example.com"), Err(DiscoveryError::Insecure { .. })));
}

#[test]
fn there_are_not_many_keys() {
    let mut page = String::new();
    for number in 0..100 {
        page += &format!(
            "<meta name=ac-discovery-pubkeys content='example.com https://a.example/{number}'>"
        );
    }
    let web = Web::new(&[("https://example.com/", page.leak())]);
    assert_eq!(web.keys("example.com").unwrap().len(), MAX_KEYS);
}

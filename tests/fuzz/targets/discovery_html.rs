//! A page about where an App Container Image is, from a server that anybody can run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_image::{
    discovery::{AppcName, MAX_KEYS, Pages, discover_image, discover_keys, metas},
    http::Scheme,
};

fuzz_target!(|page: &[u8]| {
    for meta in metas(&String::from_utf8_lossy(page)) {
        assert!(!meta.prefix.is_empty() && !meta.template.is_empty());
        assert!(!meta.template.contains(|c: char| c.is_ascii_whitespace()));
    }
    let Ok(name) = AppcName::parse("example.com/app:1.0,channel=a?b") else { return };
    let mut requests = 0;
    let mut fetch = |_: &_| {
        requests += 1;
        Ok(Some(page.to_vec()))
    };
    let mut pages = Pages { fetch: &mut fetch, allows_http: &|_| false };
    if let Ok(found) = discover_image(&name, &mut pages) {
        assert!(found.aci.scheme() == Scheme::Https && found.asc.scheme() == Scheme::Https);
    }
    if let Ok(keys) = discover_keys(&name, &mut pages) {
        assert!(!keys.is_empty() && keys.len() <= MAX_KEYS);
        assert!(keys.iter().all(|key| key.scheme() == Scheme::Https));
    }
    assert!(requests <= 4);
});

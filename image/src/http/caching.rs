use serde::{Deserialize, Serialize};
use ureq::http::{HeaderMap, header};

/// What a server says about keeping its answer, as far as rkt heeds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caching {
    /// The answer's ETag, with its quotes.
    pub etag: Option<String>,
    /// For so many seconds the server need not be asked again; 0 if it always has to be.
    pub max_age: Option<u64>,
}

impl Caching {
    /// The longest ETag that is kept.
    const MAX_ETAG: usize = 256;

    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let is_etag = |etag: &&str| {
            etag.len() <= Self::MAX_ETAG
                && etag.strip_prefix("W/").unwrap_or(etag).starts_with('"')
                && etag.len() > 1
                && etag.ends_with('"')
        };
        let etag = text(header::ETAG).filter(is_etag).map(str::to_owned);
        Self { etag, max_age: text(header::CACHE_CONTROL).and_then(max_age) }
    }
}

/// Of the directives of `Cache-Control` those that forbid count more than one that allows.
fn max_age(directives: &str) -> Option<u64> {
    let mut age = None;
    for directive in directives.split(',') {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-cache" | "no-store" => return Some(0),
            // What is not a number means that the answer is stale (RFC 9111, section 4.2.1).
            "max-age" => age = Some(value.trim().trim_matches('"').parse().unwrap_or(0)),
            _ => {}
        }
    }
    age
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caching(etag: &str, control: &str) -> Caching {
        let mut headers = HeaderMap::new();
        headers.insert(header::ETAG, etag.parse().unwrap());
        headers.insert(header::CACHE_CONTROL, control.parse().unwrap());
        Caching::of(&headers)
    }

    #[test]
    fn what_servers_say_about_keeping() {
        assert_eq!(caching("\"x\"", "public, max-age=60").max_age, Some(60));
        assert_eq!(caching("W/\"x\"", "Max-Age=\"60\", no-store").max_age, Some(0));
        assert_eq!(caching("\"x\"", "max-age=-1").max_age, Some(0));
        assert_eq!(caching("\"x\"", "private").max_age, None);
        assert_eq!(caching("\"x\"", "").etag.unwrap(), "\"x\"");
        assert_eq!(caching("x", "").etag, None);
        assert_eq!(caching("\"", "").etag, None);
        assert_eq!(caching(&format!("\"{}\"", "x".repeat(300)), "").etag, None);
    }
}

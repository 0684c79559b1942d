use crate::Text;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// How a server is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// An absolute URL of the schemes `http` and `https` (RFC 3986), without user information: what
/// stands before an `@` is a password in the clear, or a trick to make one host look like another.
///
/// `Display` and `Debug` leave the query out, since those of signed URLs are credentials.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    scheme: Scheme,
    host: String,
    port: u16,
    path: String,
    query: Option<String>,
}

/// The text is not a URL that is used here.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It is longer than any that is needed.
    #[error("the URL is longer than {} bytes", Url::MAX)]
    Long,
    /// It has another scheme.
    #[error("'{0}' is not a URL of the form https://HOST[:PORT]/PATH")]
    Scheme(Text),
    /// Its host can't be one.
    #[error("'{0}' is not the name or address of a host")]
    Host(Text),
    /// Its port can't be one.
    #[error("'{0}' is not a port")]
    Port(Text),
    /// It holds a user name.
    #[error("the URL holds a user name or password before its host; this is not allowed")]
    UserInfo,
    /// It holds a character that has to be percent-encoded.
    #[error("the URL holds a character that is not allowed in one")]
    Character,
}

impl Url {
    /// The longest URL in bytes.
    pub const MAX: usize = 8192;

    /// How the server is talked to.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host in lower case; an IPv6 address is in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, also where it is the scheme's own.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `HOST`, or `HOST:PORT` where the port is not the scheme's own.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.port() {
            return self.host.clone();
        }
        format!("{}:{}", self.host, self.port)
    }

    /// The path, which begins with a slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query, without its question mark. Not for messages.
    pub(crate) fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// All of it, for the request. Not for messages: a query can be a credential.
    pub fn expose(&self) -> String {
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}://{}{}{query}", self.scheme.name(), self.authority(), self.path)
    }

    /// The URL without its query, for messages.
    pub fn shown(&self) -> Text {
        let url = format!("{}://{}{}", self.scheme.name(), self.authority(), self.path);
        Text::new(if self.query.is_some() { url + "?…" } else { url })
    }

    /// Whether credentials for `self` are also good for `other`: scheme, host and port are equal.
    pub fn is_same_origin(&self, other: &Self) -> bool {
        (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port)
    }

    /// A URL on the same server, of a path that begins with a slash, and a query if it has one.
    pub(crate) fn with_path(&self, path: &str) -> Result<Self, UrlError> {
        if path.starts_with("//") { Err(UrlError::Character) } else { self.join(path) }
    }

    /// Appends `NAME=VALUE` to the query; the value is percent-encoded.
    pub(crate) fn with_parameter(&self, name: &str, value: &str) -> Self {
        let mut url = self.clone();
        let query = url.query.get_or_insert_default();
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(name);
        query.push('=');
        query.push_str(&percent_encoded(value, b""));
        url
    }

    /// What `reference` means in an answer from this URL (RFC 3986, section 5.2), as `Location`
    /// has it.
    ///
    /// # Errors
    /// If the result is not a URL of this type.
    pub fn join(&self, reference: &str) -> Result<Self, UrlError> {
        if reference.len() > Self::MAX {
            return Err(UrlError::Long);
        }
        let reference = reference.split_once('#').map_or(reference, |(before, _)| before);
        check_characters(reference)?;
        if has_scheme(reference) {
            return reference.parse();
        }
        if reference.starts_with("//") {
            return format!("{}:{reference}", self.scheme.name()).parse();
        }
        let (path, query) = split_query(reference);
        let mut url = self.clone();
        if path.is_empty() {
            if query.is_some() {
                url.query = query;
            }
            return Ok(url);
        }
        url.query = query;
        url.path = if path.starts_with('/') {
            without_dots(path)
        } else {
            let directory = self.path.rfind('/').map_or("", |slash| &self.path[..slash]);
            without_dots(&format!("{directory}/{path}"))
        };
        if url.expose().len() > Self::MAX { Err(UrlError::Long) } else { Ok(url) }
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.len() > Self::MAX {
            return Err(UrlError::Long);
        }
        let text = text.split_once('#').map_or(text, |(before, _)| before);
        check_characters(text)?;
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            _ => return Err(UrlError::Scheme(Text::new(split_query(text).0))),
        };
        let (authority, rest) = match rest.find(['/', '?']) {
            Some(end) => rest.split_at(end),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        let (host, port) = parse_authority(authority)?;
        let (path, query) = split_query(rest);
        let path = if path.is_empty() { "/".to_owned() } else { without_dots(path) };
        Ok(Self { scheme, host, port: port.unwrap_or(scheme.port()), path, query })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.shown())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl Serialize for Url {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.expose())
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// `HOST[:PORT]`: the host in lower case, and the port if there is one.
pub(crate) fn parse_authority(text: &str) -> Result<(String, Option<u16>), UrlError> {
    let refused = || UrlError::Host(Text::new(text));
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']').ok_or_else(refused)?;
        let address: Ipv6Addr = text[1..end].parse().map_err(|_| refused())?;
        let port = match &text[end + 1..] {
            "" => None,
            port => Some(port.strip_prefix(':').ok_or_else(refused)?),
        };
        (format!("[{address}]"), port)
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        if !is_host(host) {
            return Err(refused());
        }
        (host.to_ascii_lowercase(), port)
    };
    let port = match port {
        None => None,
        Some(digits) => {
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            let port = digits.parse().ok().filter(|&port: &u16| is_number && port != 0);
            Some(port.ok_or_else(|| UrlError::Port(Text::new(digits)))?)
        }
    };
    Ok((host, port))
}

/// Whether it is a DNS name or an IPv4 address. What ends in a number is an address, and no other
/// notation of one is allowed than the usual one: `0x7f.1` and `2130706433` are refused.
fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let ends_in_number = last.starts_with(|first: char| first.is_ascii_digit())
        && (last.bytes().all(|byte| byte.is_ascii_digit())
            || last.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x")));
    if ends_in_number {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    host.len() <= 253 && host.split('.').all(is_label)
}

fn has_scheme(reference: &str) -> bool {
    let Some(colon) = reference.find(':') else { return false };
    let scheme = &reference[..colon];
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn split_query(text: &str) -> (&str, Option<String>) {
    match text.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (text, None),
    }
}

/// What may be in a URL without being encoded. Square brackets are for IPv6 addresses, and some
/// servers have them in queries.
fn check_characters(text: &str) -> Result<(), UrlError> {
    let is_allowed = |byte: u8| {
        byte.is_ascii_graphic()
            && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    };
    if text.bytes().all(is_allowed) { Ok(()) } else { Err(UrlError::Character) }
}

/// Removes `.` and `..` from a path that begins with a slash (RFC 3986, section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut components = path.split('/').skip(1).peekable();
    while let Some(component) = components.next() {
        let is_last = components.peek().is_none();
        match component {
            "." | ".." => {
                if component == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            _ => kept.push(component),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Encodes all that is not unreserved (RFC 3986, section 2.3) nor in `also`.
pub(crate) fn percent_encoded(text: &str, also: &[u8]) -> String {
    use fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_a_url() {
        for (text, whole) in [
            ("https://Example.COM", "https://example.com/"),
            ("https://example.com:443/a?b=c#d", "https://example.com/a?b=c"),
            ("http://127.0.0.1:5000/v2/", "http://127.0.0.1:5000/v2/"),
            ("HTTPS://[::1]:5000/x/../y", "https://[::1]:5000/y"),
            ("https://example.com?x", "https://example.com/?x"),
        ] {
            assert_eq!(url(text).expose(), whole);
        }
        for text in [
            "",
            "example.com",
            "ftp://example.com/",
            "file:///etc/passwd",
            "https://",
            "https:///path",
            "https://user@example.com/",
            "https://user:pass@example.com/",
            "https://example.com:0/",
            "https://example.com:65536/",
            "https://example.com:+80/",
            "https://example.com:/",
            "https://exa mple.com/",
            "https://example.com/a b",
            "https://example.com/\r\nHost: evil",
            "https://example.com\\@evil/",
            "https://exämple.com/",
            "https://-a.com/",
            "https://a..b/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://127.0X1/",
            "https://127.1/",
            "https://[::1/",
            "https://[::1]x/",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text:?}");
        }
        assert!(format!("https://a/{}", "x".repeat(Url::MAX)).parse::<Url>().is_err());
    }

    // RFC 3986, section 5.4, as far as it is about these schemes.
    #[test]
    fn references_are_resolved_as_the_rfc_says() {
        let base = url("http://a/b/c/d;p?q");
        for (reference, expected) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("g..", "http://a/b/c/g.."),
            ("https://h/x", "https://h/x"),
        ] {
            assert_eq!(base.join(reference).unwrap().expose(), expected, "{reference}");
        }
        for reference in ["file:///etc/passwd", "gopher://x", "//u@h/", "x y", "http:g"] {
            assert!(base.join(reference).is_err(), "{reference}");
        }
    }

    #[test]
    fn a_query_is_not_shown() {
        let signed = url("https://cdn.example/blob?X-Signature=geheim");
        assert_eq!(signed.to_string(), "https://cdn.example/blob?…");
        assert!(!format!("{signed:?}").contains("geheim"));
        let problem = "ftp://x/?token=geheim".parse::<Url>().unwrap_err().to_string();
        assert!(!problem.contains("geheim"), "{problem}");
        // Wherever a long one is cut, what is left of the mark for the query is no half character.
        for length in 220..=Text::MAX {
            let long = url(&format!("https://a.example/{}?token=geheim", "b".repeat(length)));
            let shown = long.to_string();
            assert!(shown.split_once('?').is_none_or(|(_, query)| query == "…"), "{shown}");
        }
    }

    #[test]
    fn credentials_are_good_for_one_origin() {
        let base = url("https://example.com/a");
        assert!(base.is_same_origin(&url("https://EXAMPLE.com:443/b")));
        for other in
            ["http://example.com/a", "https://example.com:444/", "https://example.com.evil/"]
        {
            assert!(!base.is_same_origin(&url(other)), "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_url_reads_back_as_itself(text in "https?://[a-z0-9.:\\[\\]-]{1,20}[ -~]{0,40}") {
            if let Ok(first) = text.parse::<Url>() {
                prop_assert_eq!(&first.expose().parse::<Url>().unwrap(), &first);
            }
        }

        #[test]
        fn what_is_joined_is_a_url(reference in "[ -~]{0,40}") {
            if let Ok(joined) = url("https://example.com/a/b?c").join(&reference) {
                prop_assert_eq!(&joined.expose().parse::<Url>().unwrap(), &joined);
            }
        }
    }
}

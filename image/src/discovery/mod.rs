//! Where an App Container Image is that is known by its name (appc spec, discovery.md).
//!
//! The name begins with a host. Its page `https://NAME?ac-discovery=1` says in `meta` elements
//! where images and keys are whose names begin so; if it says nothing, the page of the name without
//! its last component is asked, and so on up to the host's own.

mod error;
mod html;
mod name;
mod template;

pub use error::DiscoveryError;
pub use html::{Kind, Meta, metas};
pub use name::{AppcMismatch, AppcName, AppcNameError};
pub use template::expand;

use crate::{
    Text,
    http::{Answer, Client, Error, Scheme, Url},
};

/// The largest page that is read.
pub const MAX_PAGE: u64 = 1 << 20;
/// The most components of a name, each of which can cost a page.
pub const MAX_COMPONENTS: usize = 32;
/// The most keys that are fetched for a name.
pub const MAX_KEYS: usize = 16;

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The image.
    pub aci: Url,
    /// Its detached signature.
    pub asc: Url,
}

/// Gets a page, of at most [`MAX_PAGE`] bytes; nothing if the server does not have it.
pub type Fetch<'a> = dyn FnMut(&Url) -> Result<Option<Vec<u8>>, Error> + 'a;

/// How pages are got.
pub struct Pages<'a> {
    /// Gets one.
    pub fetch: &'a mut Fetch<'a>,
    /// Whether http is allowed for this `HOST[:PORT]`.
    pub allows_http: &'a dyn Fn(&str) -> bool,
}

impl std::fmt::Debug for Pages<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Pages")
    }
}

/// Finds out where the image with this name is. Labels that are not given are `version=latest`,
/// `os=linux` and `arch=amd64`. Of several endpoints the first counts.
///
/// # Errors
/// If no page says it, or one can't be got.
pub fn discover_image(name: &AppcName, pages: &mut Pages<'_>) -> Result<Endpoint, DiscoveryError> {
    let found = walk(name, Kind::Image, pages, &mut |template| {
        let aci = expand(template, name, "aci")?;
        let asc = expand(template, name, "aci.asc")?;
        Some(vec![aci, asc])
    })?;
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(aci), Some(asc)) => Ok(Endpoint { aci, asc }),
        _ => Err(DiscoveryError::nothing(name, Kind::Image)),
    }
}

/// Finds out where the public keys are for images whose names are `name` or begin with it: at most
/// [`MAX_KEYS`] files.
///
/// # Errors
/// If no page says it, or one can't be got.
pub fn discover_keys(name: &AppcName, pages: &mut Pages<'_>) -> Result<Vec<Url>, DiscoveryError> {
    let mut keys = walk(name, Kind::Keys, pages, &mut |place| Some(vec![place.parse().ok()?]))?;
    let mut seen = std::collections::BTreeSet::new();
    keys.retain(|key| seen.insert(key.clone()));
    keys.truncate(MAX_KEYS);
    Ok(keys)
}

/// Asks page after page until one says something, which `urls_of` makes URLs of.
fn walk(
    name: &AppcName,
    kind: Kind,
    pages: &mut Pages<'_>,
    urls_of: &mut dyn FnMut(&str) -> Option<Vec<Url>>,
) -> Result<Vec<Url>, DiscoveryError> {
    let full = name.name();
    if full.split('/').count() > MAX_COMPONENTS {
        return Err(DiscoveryError::Deep(Text::new(full)));
    }
    let mut insecure = None;
    let mut prefix = full;
    loop {
        let page = page(prefix, pages)?.unwrap_or_default();
        let mut urls = Vec::new();
        for meta in metas(&String::from_utf8_lossy(&page)) {
            if meta.kind != kind || !is_prefix(&meta.prefix, full) {
                continue;
            }
            // What is no URL, or can't be filled in, is for someone else.
            let Some(found) = urls_of(&meta.template) else { continue };
            let is_refused =
                |url: &&Url| url.scheme() == Scheme::Http && !(pages.allows_http)(&url.authority());
            match found.iter().find(is_refused) {
                Some(url) => insecure = insecure.or_else(|| Some(url.shown())),
                None => urls.extend(found),
            }
        }
        if !urls.is_empty() {
            return Ok(urls);
        }
        // Not another one instead: it would not be clear why that one is taken.
        if let Some(url) = insecure {
            return Err(DiscoveryError::Insecure { name: Text::new(full), url });
        }
        match prefix.rsplit_once('/') {
            Some((rest, _)) => prefix = rest,
            None => return Err(DiscoveryError::nothing(name, kind)),
        }
    }
}

/// Gets a page, over http only if https fails and http is allowed.
fn page(prefix: &str, pages: &mut Pages<'_>) -> Result<Option<Vec<u8>>, DiscoveryError> {
    let url = |scheme| {
        let parsed: Result<Url, _> = format!("{scheme}://{prefix}?ac-discovery=1").parse();
        parsed.map_err(|problem| DiscoveryError::Host { name: Text::new(prefix), problem })
    };
    let https = url("https")?;
    let failure = match (pages.fetch)(&https) {
        Ok(page) => return Ok(page),
        Err(failure) => failure,
    };
    if matches!(failure, Error::Cancelled) || !(pages.allows_http)(&https.authority()) {
        return Err(DiscoveryError::Page(failure));
    }
    (pages.fetch)(&url("http")?).map_err(|_| DiscoveryError::Page(failure))
}

/// Whether a name begins with the prefix, by whole components: `example.com/app` is not about
/// `example.com/application`.
fn is_prefix(prefix: &str, name: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let rest = name.strip_prefix(prefix);
    !prefix.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Client {
    /// [`discover_image`] with this client.
    ///
    /// # Errors
    /// See [`DiscoveryError`].
    pub fn discover_image(&self, name: &AppcName) -> Result<Endpoint, DiscoveryError> {
        self.with_pages(|pages| discover_image(name, pages))
    }

    /// [`discover_keys`] with this client.
    ///
    /// # Errors
    /// See [`DiscoveryError`].
    pub fn discover_keys(&self, name: &AppcName) -> Result<Vec<Url>, DiscoveryError> {
        self.with_pages(|pages| discover_keys(name, pages))
    }

    fn with_pages<T>(&self, discover: impl FnOnce(&mut Pages<'_>) -> T) -> T {
        let mut fetch = |url: &Url| match self.get(url, None, MAX_PAGE)? {
            Answer::Found { bytes, .. } => Ok(Some(bytes)),
            Answer::NotModified(_) | Answer::Deferred | Answer::Missing(_) => Ok(None),
        };
        discover(&mut Pages {
            fetch: &mut fetch,
            allows_http: &|authority| self.allows_http(authority),
        })
    }
}

#[cfg(test)]
mod tests;

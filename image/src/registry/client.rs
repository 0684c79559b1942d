use super::{
    DOCKER_IO, Error, Options, Place, RegistryReference,
    token::{self, Action, Held},
};
use crate::{
    Text,
    http::{self, Authorization, Reply, Request, Response, Url},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use ureq::http::HeaderMap;

/// The host of Docker's registry, which is called otherwise in references.
const DOCKER_IO_HOST: &str = "registry-1.docker.io";

/// A client for registries (distribution-spec 1.1), with the rules and credentials of
/// [`Options`].
///
/// Clones share connections and tokens, so that each thread can have one.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) http: http::Client,
    options: Arc<Options>,
    shared: Arc<Mutex<Shared>>,
}

/// What was learned from registries.
#[derive(Debug, Default)]
struct Shared {
    /// How each registry is reached.
    bases: HashMap<String, Url>,
    held: HashMap<(String, Action), Held>,
}

/// What a registry answered, read or not.
pub(super) trait Answered {
    fn url(&self) -> &Url;
    fn status(&self) -> u16;
    fn headers(&self) -> &HeaderMap;
}

impl Answered for Response {
    fn url(&self) -> &Url {
        &self.url
    }

    fn status(&self) -> u16 {
        self.status
    }

    fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

impl Answered for Reply {
    fn url(&self) -> &Url {
        &self.url
    }

    fn status(&self) -> u16 {
        self.status
    }

    fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

impl Client {
    /// Makes a client.
    ///
    /// # Errors
    /// If a certificate can't be used.
    pub fn new(options: Options) -> Result<Self, Error> {
        let http = http::Client::new(options.http.clone())?;
        let shared = Arc::default();
        Ok(Self { http, options: Arc::new(options), shared })
    }

    /// Where to look for an image.
    pub(super) fn places(&self, reference: &RegistryReference) -> Result<Vec<Place>, Error> {
        self.options.rules.places(reference)
    }

    /// See [`Options::unchecked_blobs`].
    pub(super) fn checks_blobs(&self) -> bool {
        !self.options.unchecked_blobs
    }

    /// The place where an image is put: the registry itself.
    pub(super) fn home(&self, reference: &RegistryReference) -> Result<Place, Error> {
        let home = self.places(reference)?.pop();
        home.ok_or_else(|| Error::Blocked(Text::new(reference.name())))
    }

    /// Asks each place, until one answers. What a mirror answers wrongly is no error, since the
    /// registry itself is asked after it.
    pub(super) fn at_places<T>(
        &self,
        reference: &RegistryReference,
        by_digest: bool,
        ask: &mut dyn FnMut(&Place) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut places = self.places(reference)?;
        let Some(home) = places.pop() else {
            return Err(Error::Blocked(Text::new(reference.name())));
        };
        let is_asked = |place: &&Place| if by_digest { place.has_digests } else { place.has_tags };
        for mirror in places.iter().filter(is_asked) {
            match ask(mirror) {
                Ok(answer) => return Ok(answer),
                // These are about this side.
                Err(error @ Error::Http(http::Error::Cancelled | http::Error::File { .. })) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        ask(&home)
    }

    /// Makes a request to a place, and again with credentials if it wants them.
    pub(super) fn authorized<T: Answered>(
        &self,
        place: &Place,
        action: Action,
        ask: &mut dyn FnMut(Option<&Authorization>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let base = self.base(place)?;
        let key = (place.name(), action);
        let held = self.shared().held.get(&key).cloned();
        let held = held.filter(|held| held.until.is_none_or(|until| Instant::now() < until));
        let answer = ask(held.as_ref().map(|held| &held.authorization))?;
        // Only the registry itself is answered: to whom it redirects gets no credentials.
        if answer.status() != 401 || !answer.url().is_same_origin(&base) {
            return Ok(answer);
        }
        let credential = self.options.credentials.of(place);
        let held = token::answer(&self.http, &base, place, action, credential, answer.headers())?;
        let answer = ask(Some(&held.authorization))?;
        if answer.status() == 401 && answer.url().is_same_origin(&base) {
            let problem = match credential {
                Some(_) => "refuses the configured credentials",
                None => token::NO_CREDENTIALS,
            };
            let (what, registry) = (Text::new(place.name()), Text::new(&place.registry));
            return Err(Error::Unauthorized { what, registry, problem });
        }
        self.shared().held.insert(key, held);
        Ok(answer)
    }

    /// A document of a place, of at most `limit` bytes.
    pub(super) fn document(
        &self,
        place: &Place,
        path: &str,
        headers: &[(&'static str, &str)],
        limit: u64,
    ) -> Result<Reply, Error> {
        let url = self.url(place, path)?;
        self.authorized(place, Action::Pull, &mut |authorization| {
            let mut request = Request::get(&url, headers);
            request.authorization = authorization;
            Ok(self.http.document(&request, limit)?)
        })
    }

    /// `/v2/REPOSITORY/PATH` of a place.
    pub(super) fn url(&self, place: &Place, path: &str) -> Result<Url, Error> {
        let url = self.base(place)?.with_path(&format!("/v2/{}/{path}", place.repository));
        url.map_err(|problem| Error::Url { what: Text::new(place.name()), problem })
    }

    /// How a registry is reached: https, unless http is allowed and it doesn't speak anything
    /// else. A certificate that is not believed is no reason to try http.
    fn base(&self, place: &Place) -> Result<Url, Error> {
        let registry = &place.registry;
        if let Some(base) = self.shared().bases.get(registry) {
            return Ok(base.clone());
        }
        let host = if registry == DOCKER_IO { DOCKER_IO_HOST } else { registry };
        let parse = |scheme: &str| {
            let url = format!("{scheme}://{host}/v2/").parse::<Url>();
            url.map_err(|problem| Error::Url { what: Text::new(place.name()), problem })
        };
        let https = parse("https")?;
        let http = parse("http")?;
        let may_be_http = self.http.allows_http(&http.authority());
        let base = if may_be_http && self.speaks_no_tls(&https) { http } else { https };
        self.shared().bases.insert(registry.clone(), base.clone());
        Ok(base)
    }

    fn speaks_no_tls(&self, url: &Url) -> bool {
        use http::Error as E;
        let result = self.http.ask(&Request::get(url, &[]));
        matches!(
            result,
            Err(E::Connection { .. } | E::Timeout { .. } | E::Tls { .. } | E::Protocol { .. })
        )
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // Nothing in it is half done when a thread panics.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer that is none of the expected ones means.
pub(super) fn refused(what: &str, place: &Place, status: u16, body: &[u8]) -> Error {
    let (what, registry) = (Text::new(what), Text::new(&place.registry));
    match status {
        404 => Error::NotFound(what),
        401 => Error::Unauthorized { what, registry, problem: token::NO_CREDENTIALS },
        _ => Error::Refused { what, registry, status, detail: Text::new(detail(body)) },
    }
}

/// The first error in an answer's body (distribution-spec, "Error Codes").
fn detail(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let errors: Option<Errors> = serde_json::from_slice(body).ok();
    let first = errors.and_then(|errors| errors.errors.into_iter().next());
    first.map(|Item { code, message }| format!(": {code} {message}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_registries_are_shown() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[31m"},{"code":"X"}]}"#;
        assert_eq!(detail(body), ": DENIED no\u{1b}[31m");
        let place = Place {
            registry: "r.example".into(),
            repository: "x".into(),
            is_insecure: false,
            is_mirror: false,
            has_tags: true,
            has_digests: true,
        };
        let shown = refused("r.example/x", &place, 403, body).to_string();
        assert_eq!(shown, "r.example/x: r.example answers with status 403: DENIED no\\u{1b}[31m");
        assert_eq!(detail(b"<html>"), "");
        assert!(matches!(refused("x", &place, 404, b""), Error::NotFound(_)));
    }
}

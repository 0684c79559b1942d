//! How a registry is convinced that a request is allowed: Basic, or a bearer token from a token
//! server (distribution's token authentication and OAuth2 documents).

use super::{
    Credential, Error, Place,
    challenge::{Challenge, parse_challenges},
};
use crate::{
    Text,
    http::{self, Authorization, Body, Reply, Request, Scheme, Secret, Url, percent_encoded},
};
use serde::Deserialize;
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Method, header};

/// Longest answer of a token server.
const MAX_ANSWER: u64 = 256 << 10;
/// Longest token.
const MAX_TOKEN: usize = 64 << 10;
/// How long a token holds whose server doesn't say it.
const DEFAULT_LIFE: u64 = 60;
/// The longest that a token is used.
const MAX_LIFE: u64 = 60 * 60;
/// A token is not used in the last seconds of its life.
const MARGIN: u64 = 5;

/// What is to be done in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Pull,
    Push,
}

impl Action {
    fn scope(self, place: &Place) -> String {
        let actions = match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        };
        format!("repository:{}:{actions}", place.repository)
    }
}

/// What is sent to a registry, and until when it is good.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) authorization: Authorization,
    pub(super) until: Option<Instant>,
}

/// A token server's answer. Some call the token one thing, some the other.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<u64>,
}

/// Answers the challenges of a registry at `base` with the credential for it, if there is one.
pub(super) fn answer(
    client: &http::Client,
    base: &Url,
    place: &Place,
    action: Action,
    credential: Option<&Credential>,
    headers: &HeaderMap,
) -> Result<Held, Error> {
    let registry = || Text::new(&place.registry);
    let wrong =
        |problem: &str| Error::Challenge { registry: registry(), problem: Text::new(problem) };
    let unauthorized = |problem| Error::Unauthorized {
        what: Text::new(place.name()),
        registry: registry(),
        problem,
    };
    if credential.is_some() && base.scheme() == Scheme::Http {
        return Err(Error::InTheClear(base.shown()));
    }
    let mut challenges = Vec::new();
    for value in headers.get_all(header::WWW_AUTHENTICATE) {
        let text = value.to_str().map_err(|_| wrong("its WWW-Authenticate is not text"))?;
        let parsed = parse_challenges(text).map_err(|error| wrong(&error.to_string()))?;
        challenges.extend(parsed.into_iter().take(8));
    }
    let find = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
    if let Some(challenge) = find("bearer") {
        if let Some(Credential::Bearer(token)) = credential {
            return Ok(Held { authorization: Authorization::bearer(token), until: None });
        }
        return bearer(client, place, action, credential, challenge);
    }
    match (find("basic"), credential) {
        (Some(_), Some(Credential::Basic { user, password })) => {
            Ok(Held { authorization: Authorization::basic(user, password), until: None })
        }
        (Some(_), Some(_)) => {
            Err(unauthorized("wants a user name and password; only a token is configured for it"))
        }
        (Some(_), None) => Err(unauthorized(NO_CREDENTIALS)),
        (None, _) => Err(wrong(
            "it asks for credentials by none of the ways that are known: Bearer and Basic",
        )),
    }
}

pub(super) const NO_CREDENTIALS: &str =
    "wants credentials; none are configured for it (auth.json, config.json or auth.d)";

/// Gets a token.
fn bearer(
    client: &http::Client,
    place: &Place,
    action: Action,
    credential: Option<&Credential>,
    challenge: &Challenge,
) -> Result<Held, Error> {
    let wrong = |problem: String| Error::Challenge {
        registry: Text::new(&place.registry),
        problem: Text::new(problem),
    };
    let realm =
        challenge.parameter("realm").ok_or_else(|| wrong("it names no realm".to_owned()))?;
    let realm: Url = realm.parse().map_err(|problem| wrong(format!("its realm: {problem}")))?;
    if credential.is_some() && realm.scheme() == Scheme::Http {
        return Err(Error::InTheClear(realm.shown()));
    }
    let service = challenge.parameter("service");
    let own = action.scope(place);
    let scope = challenge.parameter("scope").filter(|scope| !scope.is_empty()).unwrap_or(&own);
    let failed = |problem: String| Error::Token {
        realm: realm.shown(),
        what: Text::new(place.name()),
        problem: Text::new(problem),
    };
    let reply = match credential {
        Some(Credential::Identity(token)) => refresh(client, &realm, service, scope, token)?,
        _ => {
            let mut url = realm.clone();
            if let Some(service) = service {
                url = url.with_parameter("service", service);
            }
            url = url.with_parameter("scope", scope);
            let authorization = match credential {
                Some(Credential::Basic { user, password }) => {
                    Some(Authorization::basic(user, password))
                }
                _ => None,
            };
            let mut request = Request::get(&url, &[("accept", "application/json")]);
            request.authorization = authorization.as_ref();
            client.document(&request, MAX_ANSWER)?
        }
    };
    match (reply.status, credential) {
        (200, _) => {}
        (401 | 403, None) => {
            return Err(failed(
                "it refuses to give one to somebody without credentials".to_owned(),
            ));
        }
        (401 | 403, Some(_)) => {
            return Err(failed("it refuses the configured credentials".to_owned()));
        }
        (status, _) => return Err(failed(format!("it answers with status {status}"))),
    }
    let now = Instant::now();
    let (token, life) = parse_token(&reply.bytes).map_err(|problem| failed(problem.to_owned()))?;
    let until = Some(now + Duration::from_secs(life.saturating_sub(MARGIN)));
    Ok(Held { authorization: Authorization::bearer(&token), until })
}

/// Exchanges an identity token for one that is good for the scope.
fn refresh(
    client: &http::Client,
    realm: &Url,
    service: Option<&str>,
    scope: &str,
    token: &Secret,
) -> Result<Reply, Error> {
    let mut form = String::from("grant_type=refresh_token&client_id=sandbox");
    for (name, value) in [
        ("service", service.unwrap_or_default()),
        ("scope", scope),
        ("refresh_token", token.expose()),
    ] {
        form.push_str(&format!("&{name}={}", percent_encoded(value, b"")));
    }
    let headers =
        [("accept", "application/json"), ("content-type", "application/x-www-form-urlencoded")];
    let request = Request {
        method: Method::POST,
        url: realm,
        headers: &headers,
        authorization: None,
        body: Body::Bytes(form.as_bytes()),
    };
    Ok(client.document(&request, MAX_ANSWER)?)
}

/// The token in a token server's answer, and for how many seconds it is good.
///
/// # Errors
/// Says what is wrong; never holds a part of the answer.
pub fn parse_token(answer: &[u8]) -> Result<(Secret, u64), &'static str> {
    let answer: TokenAnswer =
        serde_json::from_slice(answer).map_err(|_| "its answer is not the JSON of a token")?;
    let named = answer.token.filter(|token| !token.expose().is_empty());
    let token = named.or(answer.access_token).ok_or("its answer holds no token")?;
    let text = token.expose();
    if text.is_empty()
        || text.len() > MAX_TOKEN
        || !text.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err("its token is empty, too long, or not printable");
    }
    Ok((token, answer.expires_in.unwrap_or(DEFAULT_LIFE).min(MAX_LIFE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_token_servers() {
        let token = |json: &str| {
            parse_token(json.as_bytes()).map(|(token, life)| (token.expose().to_owned(), life))
        };
        assert_eq!(token(r#"{"token":"a"}"#), Ok(("a".into(), 60)));
        assert_eq!(token(r#"{"access_token":"b","expires_in":300}"#), Ok(("b".into(), 300)));
        assert_eq!(
            token(r#"{"token":"a","access_token":"b","expires_in":99999999}"#).unwrap().1,
            3600
        );
        assert_eq!(token(r#"{"token":"","access_token":"b"}"#).unwrap().0, "b");
        for json in [
            "",
            "[]",
            "{}",
            r#"{"token":""}"#,
            r#"{"token":"a\r\nX-Evil: 1"}"#,
            r#"{"token":5}"#,
            r#"{"token":"a","expires_in":-1}"#,
        ] {
            assert!(token(json).is_err(), "{json}");
        }
        assert!(token(&format!(r#"{{"token":"{}"}}"#, "x".repeat(70_000))).is_err());
    }
}

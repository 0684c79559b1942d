//! Who gets which credentials.

use super::{
    registry::{Content, client, plain, reference},
    server::{Asked, Server, answer, options},
};
use sandbox_image::{
    http::{self, Secret},
    registry::{Client, Credential, Error, Options, Rules},
};
use std::io::{self, Write};

const BASIC: &str = "Basic dXNlcjpnZWhlaW0=";

fn basic() -> Option<Credential> {
    Some(Credential::Basic { user: "user".to_owned(), password: Secret::new("geheim") })
}

fn with(server: &Server, credential: Option<Credential>) -> Client {
    let options =
        Options::of::<Error>(&reference(server, "app:1"), Rules::default(), options(), &mut |_| {
            Ok(credential.clone())
        });
    let options = options.unwrap();
    let client = Client::new(options.clone()).unwrap();
    let shown = format!("{options:?} {client:?}");
    assert!(!shown.contains("geheim") && !shown.contains("Z2VoZWlt"), "{shown}");
    client
}

/// A registry that wants a token from `realm`, and believes `Bearer good`.
fn registry(challenge: String) -> Server {
    let content = Content::default().with("app:1", &plain());
    Server::https(move |asked, to| {
        if asked.header("authorization") == Some("Bearer good") {
            return content.answer(asked, to);
        }
        answer(to, 401, &[("WWW-Authenticate", &challenge)], b"{}")
    })
}

fn challenge(realm: &str) -> String {
    format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:app:pull\"")
}

fn token_server() -> Server {
    Server::https(|_, to| answer(to, 200, &[], br#"{"token":"good"}"#))
}

/// An error that shows nothing that is secret.
fn problem(client: &Client, server: &Server) -> Error {
    let problem = client.manifest(&reference(server, "app:1")).unwrap_err();
    let shown = format!("{problem} {problem:?}");
    for secret in ["geheim", "Z2VoZWlt", "good"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    problem
}

#[test]
fn tokens_are_got_once_and_with_the_credentials_for_them() {
    let tokens = token_server();
    let server = registry(challenge(&tokens.url("https", "/token?x=y")));
    let client = with(&server, basic());
    for _ in 0..3 {
        client.clone().manifest(&reference(&server, "app:1")).unwrap();
    }
    let asked = tokens.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, "/token?x=y&service=s&scope=repository%3Aapp%3Apull");
    assert_eq!(asked[0].header("authorization"), Some(BASIC));
    // The password itself is not for the registry.
    let sent: Vec<_> = server.asked();
    let sent: Vec<_> = sent.iter().map(|asked| asked.header("authorization")).collect();
    assert_eq!(sent, [None, Some("Bearer good"), Some("Bearer good"), Some("Bearer good")]);

    // Without credentials.
    with(&server, None).manifest(&reference(&server, "app:1")).unwrap();
    assert_eq!(tokens.asked()[0].header("authorization"), None);

    // An identity token goes into the body of a POST.
    let client = with(&server, Some(Credential::Identity(Secret::new("geheim+"))));
    client.manifest(&reference(&server, "app:1")).unwrap();
    let asked: &Asked = &tokens.asked()[0];
    let body = String::from_utf8(asked.body.clone()).unwrap();
    assert_eq!((asked.method.as_str(), asked.header("authorization")), ("POST", None));
    assert!(body.ends_with("&scope=repository%3Aapp%3Apull&refresh_token=geheim%2B"), "{body}");

    // A token that is there already.
    let client = with(&server, Some(Credential::Bearer(Secret::new("good"))));
    client.manifest(&reference(&server, "app:1")).unwrap();
    assert!(tokens.asked().is_empty());
}

#[test]
fn credentials_never_go_over_http() {
    let tokens = Server::http(|_, to| answer(to, 200, &[], br#"{"token":"good"}"#));
    let server = registry(challenge(&tokens.url("http", "/token")));
    let secrets = [basic(), Some(Credential::Identity(Secret::new("geheim")))];
    for credential in secrets.clone() {
        let problem = problem(&with(&server, credential), &server);
        assert!(matches!(problem, Error::InTheClear(_)), "{problem}");
    }
    let problem1 = problem(&with(&server, None), &server);
    assert!(matches!(problem1, Error::Http(http::Error::Insecure(_))), "{problem1}");
    assert!(tokens.asked().is_empty());

    // A registry that speaks http, which is allowed.
    let server =
        Server::http(|_, to| answer(to, 401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b"{}"));
    let bearer = Some(Credential::Bearer(Secret::new("geheim")));
    for credential in secrets.into_iter().chain([bearer]) {
        let mut http = options();
        http.insecure_http = true;
        let all =
            Options::of::<Error>(&reference(&server, "app:1"), Rules::default(), http, &mut |_| {
                Ok(credential.clone())
            });
        let client = Client::new(all.unwrap()).unwrap();
        let problem = problem(&client, &server);
        assert!(matches!(problem, Error::InTheClear(_)), "{problem}");
        assert!(server.asked().iter().all(|asked| asked.header("authorization").is_none()));
    }
}

#[test]
fn a_redirect_gets_neither_password_nor_token() {
    // Content networks want no credentials, and some refuse those of others.
    let content = Content::default().with("app:1", &plain());
    let other = Server::https(move |asked, to| content.answer(asked, to));
    let target = other.authority.clone();
    let server = Server::https(move |asked, to| match asked.header("authorization") {
        Some(BASIC) => {
            let location = format!("https://{target}{}", asked.path);
            answer(to, 307, &[("Location", &location)], b"")
        }
        _ => answer(to, 401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b""),
    });
    with(&server, basic()).manifest(&reference(&server, "app:1")).unwrap();
    let asked = other.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), None);

    // One that leads to another server which then asks for a password.
    let thief =
        Server::https(|_, to| answer(to, 401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b""));
    let target = thief.url("https", "/v2/app/manifests/1");
    let server = Server::https(move |_, to| answer(to, 307, &[("Location", &target)], b""));
    let problem = problem(&with(&server, basic()), &server);
    assert!(matches!(problem, Error::Unauthorized { .. }), "{problem}");
    assert!(thief.asked().iter().all(|asked| asked.header("authorization").is_none()));

    // A token server that leads on.
    let thief = token_server();
    let target = thief.url("https", "/token");
    let tokens = Server::https(move |_, to| answer(to, 302, &[("Location", &target)], b""));
    let server = registry(challenge(&tokens.url("https", "/token")));
    with(&server, basic()).manifest(&reference(&server, "app:1")).unwrap();
    assert_eq!(thief.asked()[0].header("authorization"), None);
    let identity = Some(Credential::Identity(Secret::new("geheim")));
    let problem = self::problem(&with(&server, identity), &server);
    assert!(matches!(problem, Error::Http(http::Error::RedirectedBody(_))), "{problem}");
    assert!(thief.asked().is_empty());
}

#[test]
fn credentials_are_for_one_registry() {
    // Options for one image know nothing for another registry.
    let server = registry("Basic realm=\"x\"".to_owned());
    let client = with(&server, basic());
    let other =
        Server::https(|_, to| answer(to, 401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b""));
    let problem = problem(&client, &other);
    assert!(matches!(problem, Error::Unauthorized { .. }), "{problem}");
    assert!(other.asked().iter().all(|asked| asked.header("authorization").is_none()));
}

type Tokens = fn(&Asked, &mut dyn Write) -> io::Result<()>;

#[test]
fn token_servers_that_answer_badly() {
    let cases: [(Tokens, &str); 6] = [
        (|_, to| answer(to, 200, &[], br#"{"token":"geheim geheim"}"#), "not printable"),
        (|_, to| answer(to, 200, &[], br#"{"token":["geheim"]}"#), "not the JSON of a token"),
        (|_, to| answer(to, 200, &[], b"{}"), "no token"),
        (|_, to| answer(to, 401, &[], b"geheim"), "refuses"),
        (|_, to| answer(to, 418, &[], b"geheim"), "418"),
        (|_, to| answer(to, 200, &[], &[b' '; 300 << 10]), "longer than 262144 bytes"),
    ];
    for (answers, expected) in cases {
        let tokens = Server::https(answers);
        let server = registry(challenge(&tokens.url("https", "/token?geheim")));
        let problem = problem(&with(&server, basic()), &server).to_string();
        assert!(problem.contains(expected), "{problem}");
    }
    // One whose tokens are no good: it is not asked for ever.
    let tokens = Server::https(|_, to| answer(to, 200, &[], br#"{"token":"bad"}"#));
    let server = registry(challenge(&tokens.url("https", "/token")));
    let problem = problem(&with(&server, basic()), &server);
    assert!(matches!(problem, Error::Unauthorized { .. }), "{problem}");
    assert_eq!((tokens.asked().len(), server.asked().len()), (1, 2));
}

#[test]
fn challenges_that_are_none() {
    for header in [
        "",
        "Negotiate",
        "Bearer",
        "Bearer service=x",
        "Bearer realm=\"geheim",
        "Bearer realm=\"file:///etc/shadow\"",
        "Bearer realm=\"https://user:geheim@localhost/\"",
        "Bearer realm=\"localhost\"",
    ] {
        let server = registry(header.to_owned());
        let problem = problem(&with(&server, basic()), &server);
        assert!(matches!(problem, Error::Challenge { .. }), "{header}: {problem}");
    }
    // No credentials are needed, and none are asked for.
    let content = Content::default().with("app:1", &plain());
    let server = Server::https(move |asked, to| content.answer(asked, to));
    with(&server, basic()).manifest(&reference(&server, "app:1")).unwrap();
    assert!(server.asked().iter().all(|asked| asked.header("authorization").is_none()));
    client().manifest(&reference(&server, "app:1")).unwrap();
}

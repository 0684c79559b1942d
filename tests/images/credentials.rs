//! Passwords and tokens: found where people keep them, sent to whom they are for, and shown nowhere.

use crate::{Secure, small};
use sandbox_tests::certificates::Authority;
use sandbox_tests::registry::{Access, Registry};
use sandbox_tests::tokens::{PASSWORD, REFRESH_TOKEN, TokenServer, USER};
use sandbox_tests::{Host, base64, temporary};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

/// A file with credentials, as a host has it for a registry.
fn files(server: &str, user: &str, password: &str) -> Vec<(&'static str, Value)> {
    let auth = base64(format!("{user}:{password}").as_bytes());
    let auths = json!({"auths": {server: {"auth": auth}}});
    let rkt = json!({"rktKind": "dockerAuth", "rktVersion": "v1", "registries": [server],
        "credentials": {"user": user, "password": password}});
    vec![
        ("/root/.docker/config.json", auths.clone()),
        ("/root/.config/containers/auth.json", auths),
        ("/etc/rkt/auth.d/tests.json", rkt.clone()),
        ("/usr/lib/rkt/auth.d/tests.json", rkt),
    ]
}

#[test]
fn a_password_is_found_in_every_file_and_shown_by_no_message() {
    let secret = "secret-08/15";
    let server = Secure::new(Access::Password("alice", secret));
    let directory = temporary();
    server.registry.push(small("x").layout(directory.path()), "app:1");
    let name = server.door.image("app:1");
    server.host().refuses(&name, &["credentials"]);
    for (file, content) in files(&server.door.name(), "alice", secret) {
        let host = server.host();
        host.put(file, content.to_string());
        let debug = host.sandbox(["fetch", "--debug", &name]).exits(0);
        debug.never_shows(secret);
        host.sandbox(["config"]).exits(0).never_shows(secret);
        host.never_keeps(secret);
    }
    for (file, content) in files(&server.door.name(), "alice", "wrong-0815") {
        let host = server.host();
        host.put(file, content.to_string());
        host.sandbox(["fetch", "--debug", &name]).exits(254).never_shows("wrong-0815");
        host.has_nothing();
    }
    // For another server nothing is sent.
    let host = server.host();
    for (file, content) in files("registry.example.com", "alice", secret) {
        host.put(file, content.to_string());
    }
    host.refuses(&name, &["credentials"]);
}

/// docker-credential-helpers' protocol: `get` with the server on standard input.
#[test]
fn a_credential_helper_is_asked() {
    let secret = "from-the-helper-9";
    let server = Secure::new(Access::Password("alice", secret));
    let directory = temporary();
    server.registry.push(small("x").layout(directory.path()), "app:1");
    let host = server.host();
    let program = host.put(
        "/root/bin/docker-credential-tests",
        format!(
            "#!/bin/sh\n[ \"$1\" = get ] && [ \"$(cat)\" = {} ] || exit 1\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"alice\",\"Secret\":\"{secret}\"}}'\n",
            server.door.name(),
        ),
    );
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    host.put(
        "/root/.docker/config.json",
        json!({"credHelpers": {server.door.name(): "tests"}}).to_string(),
    );
    let path =
        format!("PATH={}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let name = server.door.image("app:1");
    let fetch = host.start_through(&["env", &path], ["fetch", "--debug", &name]);
    fetch.end().exits(0).never_shows(secret);
    host.never_keeps(secret);
}

/// distribution's token authentication: by password, by identity token, and for anybody.
#[test]
fn a_token_server_is_asked_for_a_token() {
    let authority = Authority::new();
    let tokens = TokenServer::tls(&authority.certify(&["localhost"]));
    let registry = Registry::new();
    let directory = temporary();
    let layout = small("x").layout(directory.path());
    registry.push(&layout, "private/app:1");
    registry.push(&layout, "public/app:1");
    let door = registry.door(Some(&authority.certify(&["localhost"])), Access::Token(&tokens));
    let host = || {
        let host = Host::trusting();
        host.believes(&door.name(), &authority);
        host.believes(&tokens.name(), &authority);
        host
    };
    let private = door.image("private/app:1");
    host().fetch(door.image("public/app:1"));
    host().refuses(&private, &["credentials"]);
    for (what, content) in [
        ("password", json!({"auth": base64(format!("{USER}:{PASSWORD}").as_bytes())})),
        ("identity token", json!({"auth": base64(b"<token>:"), "identitytoken": REFRESH_TOKEN})),
    ] {
        let host = host();
        let auths = json!({"auths": {door.name(): content}});
        host.put("/root/.docker/config.json", auths.to_string());
        let before = tokens.requests().len();
        let ended = host.sandbox(["fetch", "--debug", &private]).exits(0);
        ended.never_shows(PASSWORD).never_shows(REFRESH_TOKEN);
        host.never_keeps(PASSWORD);
        let asked = &tokens.requests()[before..];
        assert!(!asked.is_empty(), "{what}");
        for request in asked {
            let target = request.target.as_str();
            assert!(!target.contains(PASSWORD) && !target.contains(REFRESH_TOKEN), "{target}");
        }
    }
    // A push needs more than a pull.
    let host = host();
    let auths =
        json!({"auths": {door.name(): {"auth": base64(format!("{USER}:{PASSWORD}").as_bytes())}}});
    host.put("/root/.docker/config.json", auths.to_string());
    host.fetch(&layout);
    host.sandbox(["image", "push", layout.to_str().unwrap(), &door.image("private/new:1")])
        .exits(0);
}

/// A server that sends its clients elsewhere doesn't get them to show their password there.
#[test]
fn a_redirect_does_not_take_credentials_along() {
    use sandbox_tests::http::{Answer, Proxy, Server};
    let secret = "never-to-the-other";
    let server = Secure::new(Access::Anybody);
    let directory = temporary();
    server.registry.push(small("x").layout(directory.path()), "app:1");
    let identity = server.authority.certify(&["localhost"]);
    let plain = server.registry.port();
    // Blobs are elsewhere.
    let elsewhere = Proxy::tls(&identity, plain, |_, answer| answer);
    let place = format!("https://{}", elsewhere.server().name());
    let basic = format!("Basic {}", base64(format!("alice:{secret}").as_bytes()));
    let front = Proxy::tls(&identity, plain, move |request, answer| {
        if request.header("authorization") != Some(basic.as_str()) {
            let challenge = "Basic realm=\"tests\"";
            return Answer::status(401).with("WWW-Authenticate", challenge);
        }
        match request.path().contains("/blobs/") {
            true => Answer::redirect(format!("{place}{}", request.target)),
            false => answer,
        }
    });
    let host = Host::trusting();
    for name in [front.server().name(), elsewhere.server().name()] {
        host.believes(&name, &server.authority);
    }
    let auths = json!({"auths": {front.server().name(): {"auth": base64(format!("alice:{secret}").as_bytes())}}});
    host.put("/root/.docker/config.json", auths.to_string());
    let name = format!("{}/app:1", front.server().name());
    host.sandbox(["fetch", "--debug", &name]).exits(0).never_shows(secret);
    let asked = elsewhere.server().requests();
    assert!(!asked.is_empty(), "the blobs come from elsewhere");
    for request in asked {
        assert_eq!(request.header("authorization"), None, "{}", request.target);
    }
    // Not even to the same host without TLS.
    let open = Server::plain(|_| Answer::status(404));
    let place = format!("http://{}/", open.name());
    let front = Proxy::tls(&identity, plain, move |request, answer| {
        match request.path().contains("/blobs/") {
            true => Answer::redirect(place.clone()),
            false => answer,
        }
    });
    let host = Host::trusting();
    host.believes(&front.server().name(), &server.authority);
    host.refuses(format!("{}/app:1", front.server().name()), &["http"]);
    assert!(open.requests().is_empty(), "nothing is asked without TLS");
}

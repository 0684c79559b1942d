use super::*;
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

fn place(name: &str) -> Place {
    let (registry, repository) = name.split_once('/').unwrap();
    Place {
        registry: registry.into(),
        repository: repository.into(),
        is_insecure: false,
        is_mirror: false,
        has_tags: true,
        has_digests: true,
    }
}

fn basic(user: &str, password: &str) -> Option<Credential> {
    Some(Credential::Basic { user: user.into(), password: Secret::new(password) })
}

fn entry(user: &str, password: &str) -> String {
    format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(format!("{user}:{password}")))
}

fn sources(home: &Path, files: &[(&str, String)]) -> Result<Sources, ContainersError> {
    for (name, content) in files {
        let path = home.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    Sources::load(&Places {
        runtime: Some(home.join("run")),
        home: Some(home.into()),
        ..Places::default()
    })
}

#[test]
fn the_first_file_counts_and_in_it_the_most_specific_key() {
    let home = tempfile::tempdir().unwrap();
    let run = format!(
        r#"{{"auths":{{"quay.io":{},"quay.io/team":{},"quay.io/team/app":{}}}}}"#,
        entry("host", "1"),
        entry("team", "2"),
        entry("app", "3:4")
    );
    let config =
        format!(r#"{{"auths":{{"quay.io":{},"b.example":{}}}}}"#, entry("x", "x"), entry("b", "5"));
    let docker = format!(
        r#"{{"auths":{{"https://index.docker.io/v1/":{},"https://C.example/v2/":{},"d.example":{{}}}},
            "HttpHeaders":{{}}}}"#,
        entry("hub", "6"),
        entry("c", "7")
    );
    let sources = sources(
        home.path(),
        &[
            ("run/containers/auth.json", run),
            (".config/containers/auth.json", config),
            (".docker/config.json", docker),
        ],
    )
    .unwrap();
    for (name, expected) in [
        ("quay.io/x", basic("host", "1")),
        ("quay.io/teams", basic("host", "1")),
        ("quay.io/team/x", basic("team", "2")),
        ("quay.io/team/app", basic("app", "3:4")),
        ("quay.io/team/app/below", basic("app", "3:4")),
        ("b.example/x", basic("b", "5")),
        ("docker.io/library/debian", basic("hub", "6")),
        ("c.example/x", basic("c", "7")),
        ("d.example/x", None),
        ("quay.io:444/x", None),
        ("evil.quay.io/x", None),
    ] {
        assert_eq!(sources.credential(&place(name)).unwrap(), expected, "{name}");
    }
}

#[test]
fn tokens_and_the_only_file() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("auth.json");
    let auths = r#"{"auths":{
        "a.example":{"auth":"eDp5","identitytoken":"refresh"},
        "b.example":{"registrytoken":"bearer"},
        "c.example":{"username":"u","password":"p"}}}"#;
    fs::write(&path, auths).unwrap();
    let places = Places { only: Some(path), ..Places::default() };
    let sources = Sources::load(&places).unwrap();
    let credential = |name| sources.credential(&place(name)).unwrap();
    assert_eq!(credential("a.example/x"), Some(Credential::Identity(Secret::new("refresh"))));
    assert_eq!(credential("b.example/x"), Some(Credential::Bearer(Secret::new("bearer"))));
    assert_eq!(credential("c.example/x"), basic("u", "p"));
    assert_eq!(places.files().len(), 1);
}

#[test]
fn malformed_files_are_refused_without_showing_them() {
    for content in [
        r#"{"auths":{"a.example":{"auth":"Z2VoZWlt"}}}"#,
        r#"{"auths":{"a.example":{"auth":"geheim!"}}}"#,
        r#"{"auths":{"a.example":"geheim"}}"#,
        r#"{"auths":["geheim"]}"#,
        r#"geheim"#,
    ] {
        let home = tempfile::tempdir().unwrap();
        let result = sources(home.path(), &[(".docker/config.json", content.to_owned())])
            .and_then(|sources| sources.credential(&place("a.example/x")));
        let problem = result.unwrap_err().to_string();
        assert!(problem.contains(".docker/config.json"), "{problem}");
        assert!(!problem.contains("geheim") && !problem.contains("Z2VoZWlt"), "{problem}");
    }
}

fn write_helper(directory: &Path, name: &str, script: &str) {
    let path = directory.join(format!("docker-credential-{name}"));
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn helpers_are_asked_and_not_trusted() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    // It says what it was asked: the argument and the host on its standard input.
    write_helper(at, "echo", r#"read -r host; echo "{\"Username\":\"$1\",\"Secret\":\"$host\"}""#);
    write_helper(at, "token", r#"echo '{"Username":"<token>","Secret":"refresh"}'"#);
    write_helper(at, "none", "echo 'credentials not found in native keychain'; exit 1");
    write_helper(at, "fails", "echo geheim; exit 3");
    write_helper(at, "endless", "while :; do echo geheimgeheimgeheimgeheim; done");
    write_helper(at, "garbage", "echo geheim");
    write_helper(at, "sleeps", "sleep 600");
    let config = r#"{
        "credHelpers":{"a.example":"echo","t.example":"token","n.example":"none","f.example":"fails",
            "e.example":"endless","g.example":"garbage","m.example":"missing","s.example":"sleeps",
            "p.example":"../../bin/sh","d.example":""},
        "auths":{"n.example":{"auth":"dTpw"},"z.example":{}},
        "credsStore":"echo"}"#;
    fs::write(at.join("auth.json"), config).unwrap();
    let path = format!("{}:/usr/bin:/bin", at.display());
    let sources = Sources::load(&Places {
        only: Some(at.join("auth.json")),
        helpers: Some(path.into()),
        ..Places::default()
    });
    let mut sources = sources.unwrap();
    sources.helper_time = Duration::from_millis(500);
    let ask = |name: &str| sources.credential(&place(name));
    assert_eq!(ask("a.example/x").unwrap(), basic("get", "a.example"));
    assert_eq!(ask("t.example/x").unwrap(), Some(Credential::Identity(Secret::new("refresh"))));
    assert_eq!(ask("n.example/x").unwrap(), basic("u", "p"));
    assert_eq!(ask("z.example/x").unwrap(), basic("get", "z.example"));
    assert_eq!(ask("docker.io/x/y").unwrap(), basic("get", "https://index.docker.io/v1/"));
    for (name, expected) in [
        ("f.example/x", "ended with"),
        ("e.example/x", "not a credential"),
        ("g.example/x", "not a credential"),
        ("m.example/x", "docker-credential-missing"),
        ("s.example/x", "no answer within"),
        ("p.example/x", "can't be the name"),
        ("d.example/x", "can't be the name"),
    ] {
        let problem = ask(name).unwrap_err().to_string();
        assert!(problem.contains(expected), "{name}: {problem}");
        assert!(!problem.contains("geheim"), "{problem}");
    }
}

use super::*;
use std::fs;

struct Host {
    root: tempfile::TempDir,
}

impl Host {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Self { root }
    }

    fn load(&self) -> Result<Settings, String> {
        let place = |name| self.root.path().join(name);
        let directories = Directories {
            system: place("system"),
            local: place("local"),
            user: Some(place("user")),
        };
        Settings::load(&directories).map_err(|error| error.to_string())
    }
}

/// The example of rkt's `configuration.md`.
const PATHS: &str = r#"{"rktKind": "paths", "rktVersion": "v1",
    "data": "/home/me/rkt/data", "stage1-images": "/home/me/rkt/stage1-images"}"#;

#[test]
fn no_configuration_is_an_empty_one() {
    assert_eq!(Host::new(&[]).load(), Ok(Settings::default()));
}

/// rkt `configuration.md`: "the local configuration … can override the system configuration".
#[test]
fn a_stronger_directory_wins_for_what_it_says() {
    let data = r#"{"rktKind": "paths", "rktVersion": "v1", "data": "/srv/rkt"}"#;
    let host = Host::new(&[
        ("system/paths.d/10-paths.json", PATHS),
        ("local/paths.d/paths.json", data),
        ("user/paths.d/nothing.json", r#"{"rktKind": "paths", "rktVersion": "v1"}"#),
    ]);
    let paths = host.load().unwrap().paths;
    assert_eq!(paths.data, "/srv/rkt");
    assert_eq!(paths.stage1_images, "/home/me/rkt/stage1-images");
}

#[test]
fn only_json_files_of_the_folder_itself_count() {
    let host = Host::new(&[
        ("local/paths.d/paths.json.bak", "x"),
        ("local/paths.d/below/paths.json", PATHS),
        ("local/paths.d/README", "x"),
    ]);
    assert_eq!(host.load(), Ok(Settings::default()));
}

#[test]
fn what_can_not_be_used_is_told_with_its_file() {
    for (content, expected) in [
        (r#"{"rktKind": "paths", "rktVersion": "v2"}"#, "rktVersion is not \"v1\""),
        (r#"{"rktKind": "auth", "rktVersion": "v1"}"#, "rktKind is not paths"),
        (r#"{"rktVersion": "v1"}"#, "not JSON of the form"),
        (
            r#"{"rktKind": "paths", "rktVersion": "v1", "data": "rkt"}"#,
            "data directory must be an absolute path",
        ),
        ("{", "not JSON of the form that rkt's configuration.md describes, at line 1, column 1"),
    ] {
        let host = Host::new(&[("local/paths.d/a.json", content)]);
        let error = host.load().unwrap_err();
        assert!(error.contains("local/paths.d/a.json: "), "{error}");
        assert!(error.contains(expected), "{content}: {error}");
    }
}

#[test]
fn the_same_twice_in_one_directory_is_refused() {
    let host = Host::new(&[("local/paths.d/a.json", PATHS), ("local/paths.d/b.json", PATHS)]);
    let error = host.load().unwrap_err();
    assert!(error.contains("b.json: data directory is already specified"), "{error}");
    let stage1 = r#"{"rktKind": "stage1", "rktVersion": "v1", "name": "a", "version": "1"}"#;
    let host = Host::new(&[("local/stage1.d/a.json", stage1), ("local/stage1.d/b.json", stage1)]);
    assert!(host.load().unwrap_err().contains("already specified"));
}

#[test]
fn a_secret_in_a_broken_file_is_not_shown() {
    let content = r#"{"rktKind": "paths", "rktVersion": "v1", "data": ["hunter2"]}"#;
    let error = Host::new(&[("local/paths.d/a.json", content)]).load().unwrap_err();
    assert!(!error.contains("hunter2"), "{error}");
}

impl Host {
    fn credentials(&self, show_secrets: bool) -> Result<serde_json::Value, String> {
        let place = |name| self.root.path().join(name);
        let directories = Directories {
            system: place("system"),
            local: place("local"),
            user: Some(place("user")),
        };
        Credentials::load(&directories)
            .map(|credentials| credentials.documents(show_secrets).into())
            .map_err(|error| error.to_string())
    }
}

/// The examples of rkt's `configuration.md`.
const BASIC: &str = r#"{"rktKind": "auth", "rktVersion": "v1",
    "domains": ["coreos.com", "tectonic.com"], "type": "basic",
    "credentials": {"user": "foo", "password": "bar"}}"#;
const DOCKER: &str = r#"{"rktKind": "dockerAuth", "rktVersion": "v1",
    "registries": ["quay.io"], "credentials": {"user": "foo", "password": "bar"}}"#;
const OAUTH: &str = r#"{"rktKind": "auth", "rktVersion": "v1", "domains": ["tectonic.com"],
    "type": "oauth", "credentials": {"token": "sometoken"}}"#;

#[test]
fn credentials_are_shown_without_secrets_unless_these_are_asked_for() {
    let host = Host::new(&[
        ("system/auth.d/a.json", BASIC),
        ("local/auth.d/b.json", DOCKER),
        ("user/auth.d/c.json", OAUTH),
    ]);
    for (show, password, token) in [(false, "***", "***"), (true, "bar", "sometoken")] {
        assert_eq!(
            host.credentials(show).unwrap(),
            serde_json::json!([
                {"rktVersion": "v1", "rktKind": "auth", "domains": ["coreos.com"], "type": "basic",
                 "credentials": {"user": "foo", "password": password}},
                {"rktVersion": "v1", "rktKind": "auth", "domains": ["tectonic.com"],
                 "type": "oauth", "credentials": {"token": token}},
                {"rktVersion": "v1", "rktKind": "dockerAuth", "registries": ["quay.io"],
                 "credentials": {"user": "foo", "password": password}},
            ])
        );
    }
}

#[test]
fn credentials_said_twice_or_not_of_the_form_are_refused_without_being_shown() {
    for (first, second, expected) in [
        (BASIC, BASIC, "auth for domain \"coreos.com\" is already specified"),
        (DOCKER, DOCKER, "credentials for docker registry \"quay.io\" are already specified"),
        (BASIC, PATHS, "rktKind is not auth or dockerAuth"),
        (DOCKER, "{\"credentials\": \"bar\"", "not JSON of the form"),
    ] {
        let host = Host::new(&[("local/auth.d/a.json", first), ("local/auth.d/b.json", second)]);
        let error = host.credentials(true).unwrap_err();
        assert!(error.contains(expected) && error.contains("local/auth.d/b.json"), "{error}");
        assert!(!error.contains("\"bar\""), "{error}");
    }
}

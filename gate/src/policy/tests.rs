use super::*;
use crate::Identity;
use proptest::prelude::*;
use sandbox_image::Digest;

/// A policy whose transport `docker` has the scope, with one requirement.
fn with_scope(transport: &str, scope: &str) -> Result<Policy, JsonError> {
    Policy::parse(
        format!(
            r#"{{"default": [{{"type": "reject"}}], "transports": {{"{transport}":
            {{"{scope}": [{{"type": "insecureAcceptAnything"}}]}}}}}}"#
        )
        .as_bytes(),
    )
}

/// A policy whose default is this one requirement.
fn with(requirement: &str) -> Result<Policy, JsonError> {
    Policy::parse(format!(r#"{{"default": [{requirement}]}}"#).as_bytes())
}

#[test]
fn what_a_policy_may_be() {
    for document in [
        r#"{"default": [{"type": "reject"}]}"#,
        r#"{"default": [{"type": "insecureAcceptAnything"}], "transports": {}}"#,
        r#"{"default": [{"type": "reject"}], "transports": {"docker": {}, "docker-daemon": {"": [{"type": "reject"}]}}}"#,
    ] {
        Policy::parse(document.as_bytes()).unwrap();
    }
    for document in [
        "",
        "[]",
        "{}",
        r#"{"default": []}"#,
        r#"{"default": {}}"#,
        r#"{"default": [{"type": "reject"}]} {}"#,
        r#"{"default": [{"type": "reject"}], "default": [{"type": "insecureAcceptAnything"}]}"#,
        r#"{"default": [{"type": "reject"}], "Default": []}"#,
        r#"{"default": [{"type": "reject"}], "comment": "x"}"#,
        r#"{"default": [{"type": "reject"}], "transports": {"dockr": {}}}"#,
        r#"{"default": [{"type": "reject"}], "transports": {"docker": {}, "docker": {}}}"#,
        r#"{"default": [{"type": "reject"}], "transports": {"docker": {"": []}}}"#,
        r#"{"default": [{"type": "reject"}], "transports": {"docker": {"a.b": [{"type": "reject"}], "a.b": [{"type": "reject"}]}}}"#,
    ] {
        assert!(Policy::parse(document.as_bytes()).is_err(), "{document}");
    }
    assert!(Policy::parse(&vec![b' '; Policy::MAX + 1]).is_err());
    assert!(Policy::parse("[".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn what_a_requirement_may_be() {
    let gpg = r#""type": "signedBy", "keyType": "GPGKeys""#;
    let sigstore = r#""type": "sigstoreSigned""#;
    let fulcio = r#""fulcio": {"caPath": "/c", "oidcIssuer": "i", "subjectEmail": "e"}"#;
    for requirement in [
        r#""type": "reject""#.to_owned(),
        format!(r#"{gpg}, "keyPath": "/k""#),
        format!(r#"{gpg}, "keyPaths": ["/k", "/l"]"#),
        format!(r#"{gpg}, "keyData": "AAAA""#),
        format!(r#"{gpg}, "keyPath": "/k", "signedIdentity": {{"type": "matchExact"}}"#),
        format!(r#"{sigstore}, "keyPath": "/k""#),
        format!(r#"{sigstore}, "keyPaths": ["/k"]"#),
        format!(r#"{sigstore}, "keyData": "AAAA""#),
        format!(r#"{sigstore}, "keyDatas": ["AAAA", "BBBB"]"#),
        format!(r#"{sigstore}, "keyPath": "/k", "signedIdentity": {{"type": "matchDigest"}}"#),
        format!(r#"{sigstore}, "keyPath": "/k", "rekorPublicKeyPath": "/r""#),
        format!(r#"{sigstore}, {fulcio}, "rekorPublicKeyPath": "/r""#),
        format!(r#"{sigstore}, "pki": {{"caRootsPath": "/c", "subjectEmail": "e"}}"#),
        r#""type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}"#.to_owned(),
        r#""type": "signedBy", "keyType": "X509Certificates", "keyPath": "/k""#.to_owned(),
    ] {
        with(&format!("{{{requirement}}}"))
            .unwrap_or_else(|error| panic!("{requirement}: {error}"));
    }
    let identity =
        |inner: &str| format!(r#"{gpg}, "keyPath": "/k", "signedIdentity": {{{inner}}}"#);
    for requirement in [
        String::new(),
        r#""type": "accept""#.to_owned(),
        r#""type": "Reject""#.to_owned(),
        r#""type": "reject", "type": "insecureAcceptAnything""#.to_owned(),
        r#""type": "insecureAcceptAnything", "keyPath": "/k""#.to_owned(),
        gpg.to_owned(),
        r#""type": "signedBy", "keyPath": "/k""#.to_owned(),
        r#""type": "signedBy", "keyType": "PGP", "keyPath": "/k""#.to_owned(),
        format!(r#"{gpg}, "keyPath": "k""#),
        format!(r#"{gpg}, "keyPath": """#),
        format!(r#"{gpg}, "keyPaths": []"#),
        format!(r#"{gpg}, "keyPaths": "/k""#),
        format!(r#"{gpg}, "keyPath": ["/k"]"#),
        format!(r#"{gpg}, "keyData": "not base64""#),
        format!(r#"{gpg}, "keyDatas": ["AAAA"]"#),
        format!(r#"{gpg}, "keyPath": "/k", "keyData": "AAAA""#),
        format!(r#"{gpg}, "keyPath": "/k", "keypath": "/l""#),
        sigstore.to_owned(),
        format!(r#"{sigstore}, "keyPath": "/k", "keyType": "GPGKeys""#),
        format!(r#"{sigstore}, "keyPath": "/k", {fulcio}"#),
        format!(r#"{sigstore}, {fulcio}"#),
        format!(
            r#"{sigstore}, "keyPath": "/k", "rekorPublicKeyPath": "/r", "rekorPublicKeyData": "AAAA""#
        ),
        format!(r#"{sigstore}, "keyDatas": []"#),
        r#""type": "signedBaseLayer""#.to_owned(),
        identity(r#""type": "matchDigest""#),
        identity(r#""type": "matchSomething""#),
        identity(r#""type": "matchExact", "dockerReference": "a:1""#),
        identity(r#""type": "exactReference", "dockerReference": "example.com/a""#),
        identity(r#""type": "exactReference""#),
        identity(r#""type": "exactRepository", "dockerRepository": "UPPER""#),
        identity(r#""type": "remapIdentity", "prefix": "example.com""#),
        identity(r#""type": "remapIdentity", "prefix": "busybox", "signedPrefix": "example.com""#),
        identity(r#""type": "remapIdentity", "prefix": "a.b/c:1", "signedPrefix": "example.com""#),
    ] {
        assert!(with(&format!("{{{requirement}}}")).is_err(), "{requirement}");
    }
}

#[test]
fn an_aci_has_neither_sigstore_signatures_nor_names_in_them() {
    let aci = |requirement: &str| {
        Policy::parse(
            format!(
                r#"{{"default": [{{"type": "reject"}}], "transports": {{"aci": {{"": [{requirement}]}}}}}}"#
            )
            .as_bytes(),
        )
    };
    aci(r#"{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}"#).unwrap();
    for refused in [
        r#"{"type": "sigstoreSigned", "keyPath": "/k"}"#,
        r#"{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k", "signedIdentity": {"type": "matchExact"}}"#,
    ] {
        assert!(aci(refused).is_err(), "{refused}");
    }
}

#[test]
fn a_scope_that_could_hold_no_image_is_an_error() {
    for (transport, scope) in [
        ("docker", ""),
        ("docker", "docker.io"),
        ("docker", "docker.io/library"),
        ("docker", "docker.io/library/debian:13"),
        ("docker", "localhost:5000/a"),
        ("docker", "*.example.com"),
        ("oci", "/srv/images"),
        ("oci", "/srv/images:name/with/slashes"),
        ("oci-archive", "/srv/a.tar"),
        ("dir", "/srv"),
        ("docker-archive", ""),
        ("aci", "example.com/app"),
    ] {
        with_scope(transport, scope).unwrap_or_else(|error| panic!("{transport} {scope}: {error}"));
    }
    for (transport, scope) in [
        ("docker", "busybox"),
        ("docker", "library/debian"),
        ("docker", "docker.io/"),
        ("docker", "docker.io/library/"),
        ("docker", "docker.io//debian"),
        ("docker", "docker.io/library/debian:"),
        ("docker", "docker.io/library/debian@sha256:12"),
        ("docker", "exam*.com"),
        ("docker", "*.example.com:5000"),
        ("docker", "*.example.com/a"),
        ("docker", "*.*.com"),
        ("docker", "*"),
        ("docker", "*."),
        ("docker", "https://example.com"),
        ("oci", "srv"),
        ("oci", "/srv/"),
        ("oci", "/srv/../etc"),
        ("oci", "/srv//a"),
        ("oci", "/"),
        ("dir", "/srv/./a"),
        ("docker-archive", "/srv/a.tar"),
        ("aci", "Example.com"),
        ("aci", "example.com/"),
    ] {
        assert!(with_scope(transport, scope).is_err(), "{transport} {scope}");
    }
    for (transport, scope, problem) in [
        (
            "docker-archive",
            "/x.tar",
            "images of docker-archive have no scope but the empty one (\"\")",
        ),
        ("aci", "A", "the scope should be the beginning of an ACI's name"),
    ] {
        let error = with_scope(transport, scope).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
        assert!(!error.contains("the scope has no scope"), "{error}");
    }
}

fn docker<'a>(registry: &'a str, repository: &'a str, tag: Option<&'a str>) -> Identity<'a> {
    Identity::Docker { registry, repository, tag, digest: None }
}

/// containers-policy.json(5), "Supported transports and their scopes".
#[test]
fn scopes_from_the_most_specific_one() {
    let digest = Digest::of(sandbox_image::Algorithm::Sha256, b"");
    let image = Identity::Docker {
        registry: "r.example.com:5000",
        repository: "a/b",
        tag: Some("1"),
        digest: Some(&digest),
    };
    let expected = [
        format!("r.example.com:5000/a/b@{digest}"),
        "r.example.com:5000/a/b:1".to_owned(),
        "r.example.com:5000/a/b".to_owned(),
        "r.example.com:5000/a".to_owned(),
        "r.example.com:5000".to_owned(),
        "*.example.com".to_owned(),
        "*.com".to_owned(),
    ];
    assert_eq!(Place::of(&image).unwrap().scopes, expected);
    for (image, expected) in [
        (Identity::Oci { path: "/a/b", name: Some("n") }, &["/a/b:n", "/a/b", "/a"][..]),
        (Identity::OciArchive { path: "/a/b.tar", name: None }, &["/a/b.tar", "/a"]),
        (Identity::DockerArchive { path: "/a/b.tar", name: None }, &[]),
        (Identity::Aci { name: "a.b/c/d", labels: &[] }, &["a.b/c/d", "a.b/c", "a.b"]),
    ] {
        assert_eq!(Place::of(&image).unwrap().scopes, expected, "{image}");
    }
    for path in ["a", "/a/../b", "/a/", "/", "/a//b", ""] {
        assert!(Place::of(&Identity::Oci { path, name: None }).is_err(), "{path}");
    }
}

proptest! {
    /// A scope holds whole components only.
    #[test]
    fn a_namespace_holds_what_is_below_it(
        repository in "[ab]{1,2}(/[ab]{1,2}){0,3}",
        scope in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let policy = with_scope("docker", &format!("example.com/{scope}")).unwrap();
        let place = Place::of(&docker("example.com", &repository, Some("1"))).unwrap();
        let holds = format!("{repository}/").starts_with(&format!("{scope}/"));
        prop_assert_eq!(policy.applicable(&place).place.is_some(), holds);
    }

    /// A wildcard stands for at least one label, and for whole ones.
    #[test]
    fn a_wildcard_holds_the_hosts_below_a_domain(
        host in "[ab]{1,2}(\\.[ab]{1,2}){1,3}",
        domain in "[ab]{1,2}(\\.[ab]{1,2}){0,2}",
    ) {
        let policy = with_scope("docker", &format!("*.{domain}")).unwrap();
        let place = Place::of(&docker(&host, "x", Some("1"))).unwrap();
        let holds = host.ends_with(&format!(".{domain}"));
        prop_assert_eq!(policy.applicable(&place).place.is_some(), holds);
    }

    #[test]
    fn a_path_holds_what_is_below_it(
        path in "(/[ab]{1,2}){1,4}",
        scope in "(/[ab]{1,2}){1,4}",
    ) {
        let policy = with_scope("oci", &scope).unwrap();
        let place = Place::of(&Identity::Oci { path: &path, name: None }).unwrap();
        let holds = format!("{path}/").starts_with(&format!("{scope}/"));
        prop_assert_eq!(policy.applicable(&place).place.is_some(), holds);
    }

    #[test]
    fn any_document_is_read_or_refused(document in "\\PC{0,80}") {
        let _ = Policy::parse(document.as_bytes());
    }

    /// A member that nobody knows refuses the policy, wherever it is.
    #[test]
    fn nothing_is_passed_over(place in 0_usize..6, name in "[a-zA-Z]{1,8}") {
        let document = r#"{"default": [{"type": "reject"}], "transports": {"docker": {"a.b":
            [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k", "signedIdentity":
            {"type": "matchExact"}}]}}}"#;
        Policy::parse(document.as_bytes()).unwrap();
        let (at, _) = document.match_indices('{').nth(place).unwrap();
        let changed = format!("{{\"{name}\": 1, {}", &document[at + 1..]);
        let changed = document[..at].to_owned() + &changed;
        prop_assert!(Policy::parse(changed.as_bytes()).is_err());
    }
}

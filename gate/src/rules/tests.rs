//! The two formats.

use super::*;
use crate::Identity;
use proptest::prelude::*;

fn one(members: &str) -> Result<Rules, JsonError> {
    Rules::parse(format!(r#"{{"version": 1, "images": [{{{members}}}]}}"#).as_bytes())
}

#[test]
fn what_a_rule_of_version_1_has_to_look_like() {
    for fine in [
        r#""prefix": "docker.io/library/debian", "notBefore": "2026-01-01T00:00:00Z""#,
        r#""prefix": "localhost:5000", "minimumVersion": "1""#,
        r#""prefix": "example.com/app", "minimumVersion": "v1.2", "notBefore": "2026-01-01T00:00:00+01:00""#,
        r#""prefix": "/srv/images", "minimumVersion": "1""#,
    ] {
        one(fine).unwrap();
    }
    for refused in [
        r#""prefix": "docker.io/library/debian""#,
        r#""prefix": "docker.io/library/debian/", "minimumVersion": "1""#,
        r#""prefix": "docker.io/library/debian:13", "minimumVersion": "1""#,
        r#""prefix": "docker.io/library/debian@sha256:00", "minimumVersion": "1""#,
        r#""prefix": "*.example.com", "minimumVersion": "1""#,
        r#""prefix": "", "minimumVersion": "1""#,
        r#""prefix": "/", "minimumVersion": "1""#,
        r#""prefix": "/srv/../a", "minimumVersion": "1""#,
        r#""prefix": "a", "minimumVersion": "new""#,
        r#""prefix": "a", "minimumVersion": 1"#,
        r#""prefix": "a", "notBefore": "2026-01-01""#,
        r#""prefix": "a", "notBefore": 1767225600"#,
        r#""prefix": "a", "minimumVersion": "1", "notbefore": "2026-01-01T00:00:00Z""#,
        r#""prefix": "a", "minimumVersion": "1", "minimumVersion": "2""#,
        r#""prefix": "a", "minimumVersion": "1"}, {"prefix": "a", "minimumVersion": "2""#,
        r#""minimumVersion": "1""#,
    ] {
        assert!(one(refused).is_err(), "{refused}");
    }
    for refused in [
        "",
        "{}",
        r#"{"images": []}"#,
        r#"{"version": 3, "rules": []}"#,
        r#"{"version": 2, "images": []}"#,
        r#"{"version": 1, "rules": []}"#,
        r#"{"version": 1}"#,
        r#"{"version": 1, "images": [], "more": 1}"#,
        r#"{"version": "1", "images": []}"#,
    ] {
        assert!(Rules::parse(refused.as_bytes()).is_err(), "{refused}");
    }
}

fn two(members: &str) -> Result<Rules, JsonError> {
    Rules::parse(format!(r#"{{"version": 2, "rules": [{{{members}}}]}}"#).as_bytes())
}

#[test]
fn what_a_rule_of_version_2_has_to_look_like() {
    let digest = "ab".repeat(32);
    let digests =
        format!(r#""kernels": ["installed", "sha256:{digest}"], "monitors": ["sha256:{digest}"]"#);
    for fine in [
        r#""minimumVersion": "1""#,
        r#""prefix": "example.com/app", "tenant": "team_a.b-c", "notBefore": "2026-01-01T00:00:00Z""#,
        r#""require": {"signature": true, "tpm": true, "selinux": true, "verity": true}"#,
        r#""require": {"tpm": "service"}"#,
        r#""volumes": ["/srv/data", "/a"]"#,
        r#""volumes": [], "networks": [], "capabilities": [], "kernels": [], "monitors": []"#,
        r#""networks": ["lan-1"], "capabilities": ["CAP_NET_ADMIN"]"#,
        &digests,
    ] {
        two(fine).unwrap_or_else(|error| panic!("{fine}: {error}"));
    }
    for (refused, because) in [
        ("", "asks for nothing"),
        (r#""prefix": "example.com""#, "asks for nothing"),
        (r#""require": {}"#, "rules[0].require: asks for nothing"),
        (r#""require": {"signature": false}"#, "require.signature: can only be true"),
        (r#""require": {"signature": "true"}"#, "can only be true"),
        (r#""require": {"selinux": null}"#, "can only be true"),
        (r#""require": {"tpm": false}"#, "require.tpm: should be true"),
        (r#""require": {"tpm": "local"}"#, "should be true"),
        (r#""require": {"tpm": true, "seccomp": true}"#, "'seccomp' is not known"),
        (r#""require": [], "volumes": []"#, "should be an object"),
        (r#""volumes": "/srv""#, "should be a list"),
        (r#""volumes": ["/srv/"]"#, "volumes[0]: should be an absolute path"),
        (r#""volumes": ["/a", "srv"]"#, "volumes[1]"),
        (r#""volumes": ["/"]"#, "absolute path"),
        (r#""volumes": ["/srv/../etc"]"#, "absolute path"),
        (r#""volumes": [1]"#, "should be a string"),
        (r#""volumes": null"#, "should be a list"),
        (r#""networks": ["a b"]"#, "networks[0]: should be a name"),
        (r#""networks": [""]"#, "should be a name"),
        (r#""capabilities": ["net_admin"]"#, "CAP_NET_ADMIN"),
        (r#""capabilities": ["CAP_"]"#, "CAP_NET_ADMIN"),
        (r#""kernels": ["sha256:00"]"#, "64 lower-case"),
        (r#""kernels": ["Installed"]"#, "or installed"),
        (r#""monitors": ["installed"]"#, "monitors[0]: should be sha256:"),
        (&format!(r#""monitors": ["sha512:{0}{0}"]"#, digest), "should be sha256:"),
        (&format!(r#""monitors": ["sha256:{}"]"#, digest.to_uppercase()), "lower-case"),
        (r#""tenant": "", "volumes": []"#, "tenant: should be a name"),
        (r#""tenant": "a b", "volumes": []"#, "tenant: should be a name"),
        (r#""tenant": null, "volumes": []"#, "tenant: should be a string"),
        (r#""prefix": "a/", "volumes": []"#, "prefix: should be HOST"),
        (r#""prefix": "", "volumes": []"#, "prefix: should be HOST"),
        (r#""volume": []"#, "asks for nothing"),
        (r#""volume": [], "volumes": []"#, "'volume' is not known"),
        (r#""volumes": [], "volumes": []"#, "there twice"),
        (r#""minimumVersion": "new""#, "minimumVersion"),
        (r#""notBefore": "2026""#, "notBefore"),
    ] {
        let error = two(refused).unwrap_err().to_string();
        assert!(error.contains(because), "{refused}: {error}");
    }
    Rules::parse(br#"{"version": 2, "rules": []}"#).unwrap();
    for refused in [r#"{"version": 2}"#, r#"{"version": 2, "rules": [], "images": []}"#] {
        assert!(Rules::parse(refused.as_bytes()).is_err(), "{refused}");
    }
}

fn checks(rules: Rules, name: &str) -> usize {
    let mut host = HostRules::default();
    assert!(host.add(Path::new("/rules.json"), rules).is_ok());
    let facts = ImageFacts { version: None, signed: None, created: None, keys: &[] };
    host.of_image(&Identity::Aci { name, labels: &[] }, &facts, None).len()
}

proptest! {
    #[test]
    fn a_prefix_holds_whole_components(
        name in "[ab]{1,2}(/[ab]{1,2}){0,3}",
        prefix in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let members = format!(r#""prefix": "{prefix}", "minimumVersion": "1""#);
        let holds = format!("{name}/").starts_with(&format!("{prefix}/"));
        prop_assert_eq!(checks(one(&members).unwrap(), &name), usize::from(holds));
        prop_assert_eq!(checks(two(&members).unwrap(), &name), usize::from(holds));
    }

    #[test]
    fn any_document_is_read_or_refused(document in "\\PC{0,60}") {
        let _ = Rules::parse(document.as_bytes());
        let _ = one(&document);
        let _ = two(&document);
    }
}

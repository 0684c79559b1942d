//! The policy's file (containers-policy.json(5)): what it says, and that it says one thing only.

use crate::cases::Expected::{Allowed, Refused};
use crate::cases::{Expected, Table};
use crate::world::{World, anything, docker, reject};
use serde_json::json;

#[test]
fn the_policy_is_read_strictly_and_the_most_specific_scope_decides() {
    let world = World::new(&["team/foo", "team/foobar"]);
    let foo = world.name("team/foo");
    let foobar = world.name("team/foobar");
    let server = world.door.name();
    let mut table = Table::default();
    table.case("no policy at all", &world.host(), &foo, &Refused(&["policy.json"]));

    let mut case = |rule: &str, policy: String, image: &str, expected: &Expected| {
        let host = world.host();
        host.put("/etc/sandbox/policy.json", policy);
        table.case(rule, &host, image, expected);
    };
    let default_only = json!({"default": reject()}).to_string();
    case("reject by default", default_only, &foo, &Refused(&["reject"]));
    case("accept by default", json!({"default": anything()}).to_string(), &foo, &Allowed);
    let scopes = |scopes| docker(scopes).to_string();
    case("a scope for the registry", scopes(json!({server.as_str(): anything()})), &foo, &Allowed);
    let one = scopes(json!({world.repository("team/foo"): anything()}));
    case("a scope for the repository", one.clone(), &foo, &Allowed);
    case("team/foo is no prefix of team/foobar", one, &foobar, &Refused(&["reject"]));
    let part = scopes(json!({format!("{server}/te"): anything()}));
    case("half a component is no prefix", part, &foo, &Refused(&["reject"]));
    let team = scopes(json!({format!("{server}/team"): anything()}));
    case("a scope for all below a path", team, &foobar, &Allowed);
    let narrow = scopes(json!({server.as_str(): anything(), foo.as_str(): reject()}));
    case("a tag's scope wins over the registry's", narrow.clone(), &foo, &Refused(&["reject"]));
    case("a tag's scope is for that tag's repository alone", narrow, &foobar, &Allowed);
    let other = scopes(json!({"registry.example.com": anything()}));
    case("another registry's scope", other, &foo, &Refused(&["reject"]));
    let oci = json!({"default": reject(), "transports": {"oci": {"": anything()}}}).to_string();
    case("another transport's scope", oci.clone(), &foo, &Refused(&["reject"]));
    let layout = format!("oci:{}", world.layout.display());
    case("the transport's own scope", oci, &layout, &Allowed);
    let place = world.layout.to_str().unwrap();
    let near = json!({"default": reject(), "transports": {"oci": {&place[..place.len() - 1]: anything()}}});
    case("half a directory is no prefix", near.to_string(), &layout, &Refused(&["reject"]));

    let accept = r#"[{"type":"insecureAcceptAnything"}]"#;
    let refused = Refused(&["policy.json"]);
    for (rule, policy) in [
        ("an empty file", String::new()),
        ("no JSON", "{".to_owned()),
        ("JSON with something behind it", format!(r#"{{"default":{accept}}} {{}}"#)),
        ("no default", "{}".to_owned()),
        ("a member that nobody knows", format!(r#"{{"default":{accept},"defualt":[]}}"#)),
        ("a member twice", format!(r#"{{"default":[{{"type":"reject"}}],"default":{accept}}}"#)),
        (
            "a scope twice",
            format!(
                r#"{{"default":{accept},"transports":{{"docker":{{"a.example":{accept},"a.example":{accept}}}}}}}"#
            ),
        ),
        ("an empty list of requirements", r#"{"default":[]}"#.to_owned()),
        ("a requirement of no known type", r#"{"default":[{"type":"signedByMagic"}]}"#.to_owned()),
        (
            "a requirement's member that nobody knows",
            r#"{"default":[{"type":"insecureAcceptAnything","really":true}]}"#.to_owned(),
        ),
        (
            "a type in other letters",
            r#"{"default":[{"type":"InsecureAcceptAnything"}]}"#.to_owned(),
        ),
        (
            "a transport that nobody knows",
            format!(r#"{{"default":{accept},"transports":{{"dokcer":{{}}}}}}"#),
        ),
        (
            "a key by a relative path",
            r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"key.asc"}]}"#
                .to_owned(),
        ),
        (
            "two sources of one key",
            r#"{"default":[{"type":"sigstoreSigned","keyPath":"/k","keyData":"aGk="}]}"#.to_owned(),
        ),
        (
            "a file larger than any policy",
            format!(r#"{{"default":{accept}{}}}"#, " ".repeat(8 << 20)),
        ),
    ] {
        case(rule, policy, &foo, &refused);
    }
    // Known, and not supported: they are never met, and that is said.
    let fulcio = json!([{"type": "sigstoreSigned",
        "fulcio": {"caData": "aGk=", "oidcIssuer": "https://example.com", "subjectEmail": "a@example.com"},
        "rekorPublicKeyData": "aGk="}]);
    case(
        "keyless signatures",
        scopes(json!({server.as_str(): fulcio})),
        &foo,
        &Refused(&["fulcio"]),
    );
    let x509 = json!([{"type": "signedBy", "keyType": "X509Certificates", "keyData": "aGk="}]);
    case(
        "X.509 keys",
        scopes(json!({server.as_str(): x509})),
        &foo,
        &Refused(&["X509Certificates"]),
    );
    let base = json!([{"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}]);
    case(
        "signedBaseLayer",
        scopes(json!({server.as_str(): base})),
        &foo,
        &Refused(&["signedBaseLayer"]),
    );
}

/// The policy is the host's business alone.
#[test]
fn a_policy_that_others_can_write_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(&["team/foo"]);
    let host = world.host_with(&world.anything());
    let file = host.at("/etc/sandbox/policy.json");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
    let image = world.name("team/foo");
    Refused(&["policy.json"]).check(&host, &image);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    Allowed.check(&host, &image);
}

//! The host's own rules against old images (`/etc/sandbox/gate.d`): a signature doesn't go stale, so
//! who can't make one can still offer an image with known holes.

use crate::cases::Expected::{Allowed, Refused};
use crate::cases::{Expected, Table};
use crate::world::{CREATED, VERSION, World};
use serde_json::{Value, json};

#[test]
fn an_older_image_is_refused_whoever_signed_it() {
    let world = World::new(&["team/app", "team/application"]);
    let name = world.name("team/app");
    let mut table = Table::default();
    let mut case = |rule: &str, rules: &[(&str, Value)], expected: &Expected| {
        let host = world.host_with(&world.anything());
        for (number, (prefix, limits)) in rules.iter().enumerate() {
            let mut image = limits.clone();
            image["prefix"] = prefix.replace("HERE", &world.door.name()).into();
            let rules = json!({"version": 1, "images": [image]});
            host.put(&format!("/etc/sandbox/gate.d/{number}.json"), rules.to_string());
        }
        table.case(rule, &host, &name, expected);
        if let Refused(words) = expected {
            // It is no question of signatures, so nobody who skips those skips this.
            let ended =
                host.sandbox(["policy", "check", "--insecure-options=image", &name]).exits(1);
            for word in *words {
                assert!(
                    ended.text().contains(word),
                    "{rule}: should mention {word:?}\n{}",
                    ended.shown()
                );
            }
        }
    };
    let minimum = |version: &str| json!({"minimumVersion": version});
    let since = |time: &str| json!({"notBefore": time});
    case("as old as allowed", &[("HERE/team/app", minimum(VERSION))], &Allowed);
    case("newer than it has to be", &[("HERE/team/app", minimum("1.3.9"))], &Allowed);
    case(
        "an older version than the least",
        &[("HERE/team/app", minimum("1.4.1"))],
        &Refused(&["1.4.1"]),
    );
    case(
        "versions are compared as numbers",
        &[("HERE/team/app", minimum("1.10.0"))],
        &Refused(&["1.10.0"]),
    );
    case("made just in time", &[("HERE/team/app", since(CREATED))], &Allowed);
    case(
        "made too early",
        &[("HERE/team/app", since("2025-06-01T00:00:01Z"))],
        &Refused(&["2025-06-01"]),
    );
    case("a rule for all below a path", &[("HERE/team", minimum("2"))], &Refused(&["team"]));
    case("a rule for another name that begins alike", &[("HERE/team/ap", minimum("2"))], &Allowed);
    case(
        "the longest prefix decides",
        &[("HERE", minimum("2")), ("HERE/team/app", minimum("1"))],
        &Allowed,
    );
    case(
        "the longest prefix decides, whichever comes first",
        &[("HERE/team/app", minimum("2")), ("HERE", minimum("1"))],
        &Refused(&["team/app"]),
    );
}

/// What does not say how old it is may be as old as can be.
#[test]
fn an_image_without_a_version_does_not_meet_a_rule_about_it() {
    let world = World::new(&["team/app"]);
    let mut image = crate::world::image();
    image.config["Labels"] = json!({});
    image.created = None;
    let layout = world.directory.path().join("unnamed");
    world.registry.push(image.layout(&layout), "team/unnamed:1");
    let name = world.name("team/unnamed");
    let mut table = Table::default();
    for (rule, limits) in [
        ("no version", json!({"prefix": world.door.name(), "minimumVersion": "0.1"})),
        ("no date", json!({"prefix": world.door.name(), "notBefore": "1971-01-01T00:00:00Z"})),
    ] {
        let host = world.host_with(&world.anything());
        let rules = json!({"version": 1, "images": [limits]});
        host.put("/etc/sandbox/gate.d/rules.json", rules.to_string());
        table.case(rule, &host, &name, &Refused(&[]));
    }
}

#[test]
fn rules_that_are_malformed_refuse_every_image() {
    let world = World::new(&["team/app"]);
    let name = world.name("team/app");
    let mut table = Table::default();
    for (rule, text) in [
        ("no JSON", "{"),
        ("no version of the format", r#"{"images":[]}"#),
        ("another version of the format", r#"{"version":2,"images":[]}"#),
        (
            "a member that nobody knows",
            r#"{"version":1,"images":[{"prefix":"a.example","minimalVersion":"2"}]}"#,
        ),
        ("a member twice", r#"{"version":1,"images":[],"images":[]}"#),
        (
            "a date that is none",
            r#"{"version":1,"images":[{"prefix":"a.example","notBefore":"yesterday"}]}"#,
        ),
    ] {
        let host = world.host_with(&world.anything());
        host.put("/etc/sandbox/gate.d/rules.json", text);
        table.case(rule, &host, &name, &Refused(&["rules.json"]));
    }
}

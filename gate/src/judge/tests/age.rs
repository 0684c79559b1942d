//! Rules against rollback.

use super::*;

const NAME: &str = "example.com/team/app:1";
const FROM_MARCH: &str = r#""prefix": "example.com/team", "notBefore": "2026-03-01T00:00:00Z""#;
const FROM_JANUARY: &str = r#""prefix": "example.com/team", "notBefore": "2026-01-01T00:00:00Z""#;
const FROM_1_2: &str = r#""prefix": "example.com/team/app", "minimumVersion": "1.2""#;

fn accepted(name: &'static str) -> Case {
    case(name).docker("", ACCEPT)
}

fn signed(name: &'static str) -> Case {
    case(name).docker("", &signed_by(&["alice"], "")).signed(simple(&KEYS.alice, &manifest(), NAME))
}

#[test]
fn an_image_has_to_be_new_enough() {
    accepted("made before")
        .rule(FROM_MARCH)
        .created("2026-02-28T23:59:59Z")
        .refused("before 2026-03-01T00:00:00Z");
    accepted("made just then").rule(FROM_MARCH).created("2026-03-01T00:00:00Z").allowed("docker");
    accepted("made nobody knows when").rule(FROM_MARCH).refused("nothing says when");
    accepted("a rule for others")
        .rule(&FROM_MARCH.replace("team", "tea"))
        .created("2020-01-01T00:00:00Z")
        .allowed("docker");
    signed("an old signature of an image that says it is new")
        .rule(FROM_MARCH)
        .created("2026-05-01T00:00:00Z")
        .refused("was signed at 2026-02-01");
    signed("a new signature of an old image")
        .rule(FROM_JANUARY)
        .created("2020-01-01T00:00:00Z")
        .allowed("docker");
    signed("the newest signature that counts")
        .rule(FROM_MARCH)
        .signed(KEYS.alice.message(
            &payload("atomic", &manifest(), NAME),
            "2026-04-01T00:00:00Z",
            HashAlgorithm::Sha256,
        ))
        .allowed("docker");
    signed("a new signature that does not count")
        .rule(FROM_MARCH)
        .signed(KEYS.mallory.message(
            &payload("atomic", &manifest(), NAME),
            "2026-04-01T00:00:00Z",
            HashAlgorithm::Sha256,
        ))
        .refused("was signed at 2026-02-01");
    case("two requirements, of which one is met by an old signature only")
        .docker("", &format!("{}, {}", signed_by(&["alice"], ""), signed_by(&["bob"], "")))
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .signed(KEYS.bob.message(
            &payload("atomic", &manifest(), NAME),
            "2026-04-01T00:00:00Z",
            HashAlgorithm::Sha256,
        ))
        .rule(FROM_MARCH)
        .refused("was signed at 2026-02-01");
    case("a sigstore signature says no time, so the image's counts")
        .docker("", &sigstore(&["cosign"], r#""matchRepository""#))
        .signed(tagged(&KEYS.cosign, &manifest(), NAME))
        .rule(FROM_MARCH)
        .created("2026-02-01T00:00:00Z")
        .refused("was made");
}

#[test]
fn an_image_has_to_have_a_version_that_is_high_enough() {
    accepted("older").rule(FROM_1_2).version("1.1.9").refused("older than 1.2");
    accepted("the same").rule(FROM_1_2).version("1.2.0").allowed("docker");
    accepted("numbers, not texts").rule(FROM_1_2).version("1.10").allowed("docker");
    accepted("a pre-release").rule(FROM_1_2).version("1.2.0-rc1").refused("older than 1.2");
    accepted("no version").rule(FROM_1_2).refused("no version");
    accepted("a version without order")
        .rule(FROM_1_2)
        .version("latest")
        .refused("can't be compared");
}

#[test]
fn the_option_changes_nothing_about_it() {
    accepted("a policy that accepts").rule(FROM_1_2).version("1.0").insecure().refused("older");
    case("no policy").rule(FROM_1_2).version("1.0").insecure().refused("older");
    case("no policy, new enough").rule(FROM_1_2).version("1.2").insecure().allowed("--insecure");
    case("no policy, made before")
        .rule(FROM_MARCH)
        .created("2026-02-01T00:00:00Z")
        .insecure()
        .refused("before 2026-03-01");
    signed("a signature counts with the option, too")
        .rule(FROM_JANUARY)
        .insecure()
        .allowed("docker");
}

#[test]
fn the_most_specific_rule_alone_counts() {
    let rules = |from: &str| {
        format!(
            r#""prefix": "example.com", "minimumVersion": "9"}}, {{"prefix": "example.com/team", "minimumVersion": "{from}""#
        )
    };
    accepted("a laxer rule for a part").rule(&rules("1")).version("2").allowed("docker");
    accepted("a stricter rule for a part").rule(&rules("10")).version("9").refused("older than 10");
}

#[test]
fn other_kinds_of_images_have_rules_too() {
    let aci = Identity::Aci { name: "example.com/team/app", labels: &[] };
    case("an ACI")
        .policy(policy("aci", &[("", ACCEPT)]))
        .of(aci)
        .rule(FROM_1_2)
        .version("1")
        .refused("older");
    case("an archive")
        .policy(policy("oci-archive", &[("", ACCEPT)]))
        .of(Identity::OciArchive { path: "/srv/a.tar", name: None })
        .rule(r#""prefix": "/srv", "minimumVersion": "2""#)
        .version("1")
        .refused("older");
}

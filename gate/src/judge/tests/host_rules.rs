//! Rules of version 2, kind by kind.

use super::*;
use crate::{Answer, DigestsAsked, LaunchVolume, Refusal};
use proptest::prelude::*;

const NAME: &str = "example.com/team/app:1";

fn accepted(name: &'static str) -> Case {
    case(name).docker("", ACCEPT)
}

fn signed(name: &'static str) -> Case {
    case(name).docker("", &signed_by(&["alice"], "")).signed(simple(&KEYS.alice, &manifest(), NAME))
}

fn digest(of: &str) -> Digest {
    Digest::of(Algorithm::Sha256, of.as_bytes())
}

fn kernel(of: &str, kernel_is_installed: bool) -> Launch {
    let kernel = Program { path: "/boot/kernel".into(), digest: Some(digest(of)) };
    Launch { kernel, kernel_is_installed, ..launch() }
}

fn monitor(of: Option<&str>) -> Launch {
    let monitor = Program { path: "/opt/sandbox-vmm".into(), digest: of.map(digest) };
    Launch { monitor, ..launch() }
}

fn volumes(paths: &[&str]) -> Launch {
    let volume = |(number, path): (usize, &&str)| LaunchVolume {
        name: format!("v{number}"),
        host: (!path.is_empty()).then(|| PathBuf::from(path)),
        read_only: true,
    };
    Launch { volumes: paths.iter().enumerate().map(volume).collect(), ..launch() }
}

fn networks(names: &[&str]) -> Launch {
    Launch { networks: names.iter().map(|&name| name.to_owned()).collect(), ..launch() }
}

fn capabilities(names: &[&str]) -> Launch {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    Launch { capabilities: vec![("web".to_owned(), names)], ..launch() }
}

fn tenant(name: &str) -> Launch {
    Launch { tenant: Some(name.to_owned()), ..launch() }
}

/// Everything that speaks against it, in one line.
fn why(result: Result<Approval, Refusal>) -> String {
    result.err().map(|refusal| refusal.to_string()).unwrap_or_default()
}

#[test]
fn every_kind_of_rule_about_pods_allows_and_refuses() {
    let kernels = format!(r#"{{"kernels": ["{}", "{}"]}}"#, digest("a"), digest("b"));
    let monitors = format!(r#"{{"monitors": ["{}"]}}"#, digest("m"));
    let data = r#"{"volumes": ["/srv/data", "/opt/a"]}"#;
    let two = r#"{"volumes": ["/srv"]}, {"volumes": ["/srv/data", "/opt"]}"#;
    let nets = r#"{"networks": ["lan", "back-end"]}"#;
    let caps = r#"{"capabilities": ["CAP_NET_ADMIN"]}"#;
    let installed = r#"{"kernels": ["installed"]}"#;
    let of_tenant = r#"{"tenant": "a", "volumes": []}"#;
    let elsewhere = r#"{"prefix": "example.com/te", "volumes": [], "kernels": []}"#;
    let here = r#"{"prefix": "example.com/team", "volumes": []}"#;
    let verity = r#"{"require": {"verity": true}}"#;
    let selinux = r#"{"require": {"selinux": true}}"#;
    let srv = volumes(&["/srv/data/x"]);
    for (rules, launch, refused) in [
        (kernels.as_str(), kernel("a", false), &[][..]),
        (&kernels, kernel("b", true), &[]),
        (&kernels, kernel("c", true), &["guest kernel /boot/kernel is sha256:", "not allowed"]),
        (&kernels, launch(), &["its digest is not known"]),
        (r#"{"kernels": []}"#, kernel("a", true), &["not allowed"]),
        (installed, launch(), &[]),
        (installed, kernel("a", true), &[]),
        (installed, kernel("a", false), &["guest kernel /boot/kernel"]),
        (&monitors, monitor(Some("m")), &[]),
        (&monitors, monitor(Some("n")), &["monitor /opt/sandbox-vmm is sha256:"]),
        (&monitors, monitor(None), &["its digest is not known"]),
        (data, volumes(&[]), &[]),
        (data, volumes(&[""]), &[]),
        (data, volumes(&["/srv/data", "/srv/data/a/b", "/opt/a/x"]), &[]),
        (data, volumes(&["/srv/database"]), &["volume v0, /srv/database is not allowed"]),
        (data, volumes(&["/srv"]), &["volume v0, /srv is not allowed"]),
        (data, volumes(&["/"]), &["not allowed"]),
        (data, volumes(&["/srv/data/../../etc"]), &["not allowed"]),
        (data, volumes(&["/a", "/opt/a", "/b"]), &["volume v0, /a is", "volume v2, /b is"]),
        (r#"{"volumes": []}"#, srv.clone(), &["volume v0"]),
        (r#"{"volumes": []}"#, volumes(&[""]), &[]),
        (two, srv.clone(), &[]),
        (two, volumes(&["/srv/other"]), &["rule 2 in"]),
        (two, volumes(&["/opt"]), &["rule 1 in"]),
        (nets, networks(&[]), &[]),
        (nets, networks(&["lan", "back-end"]), &[]),
        (nets, networks(&["wan", "lan"]), &["network wan is not allowed"]),
        (r#"{"networks": []}"#, networks(&["lan"]), &["network lan"]),
        (caps, capabilities(&[]), &[]),
        (caps, capabilities(&["CAP_NET_ADMIN"]), &[]),
        (caps, capabilities(&["CAP_SYS_ADMIN"]), &["CAP_SYS_ADMIN of app web is not allowed"]),
        (r#"{"capabilities": []}"#, capabilities(&["CAP_NET_ADMIN"]), &["CAP_NET_ADMIN"]),
        (verity, launch(), &[]),
        (verity, Launch { verified: false, ..launch() }, &["root file system is not verified"]),
        (selinux, launch(), &[]),
        (selinux, Launch { label: None, ..launch() }, &["no SELinux label"]),
        (of_tenant, srv.clone(), &[]),
        (of_tenant, Launch { tenant: Some("a".to_owned()), ..srv.clone() }, &["volume v0"]),
        (of_tenant, Launch { tenant: Some("b".to_owned()), ..srv.clone() }, &[]),
        (elsewhere, srv.clone(), &[]),
        (here, srv.clone(), &["rule 1, for 'example.com/team', in", "volume v0"]),
    ] {
        let result = accepted("about pods").rules(rules).decide(&launch);
        assert_eq!(result.is_ok(), refused.is_empty(), "{rules} {launch:?} {result:?}");
        let told = why(result);
        for part in refused {
            assert!(told.contains(part), "{rules}: no '{part}' in: {told}");
        }
    }
}

#[test]
fn a_signature_has_to_be_one_that_decided() {
    let rule = r#"{"require": {"signature": true}}"#;
    signed("signed").rules(rule).allowed("docker");
    accepted("anything is accepted").rules(rule).refused("no signature of the image was accepted");
    accepted("a signature that nobody asked for")
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .rules(rule)
        .refused("no signature");
    case("no policy, and the option").rules(rule).insecure().refused("no signature");
    case("a wrong signature, and the option")
        .docker("", &signed_by(&["bob"], ""))
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .rules(rule)
        .insecure()
        .refused("no signature");
    signed("the option where it changes nothing").rules(rule).insecure().allowed("docker");
    case("sigstore")
        .docker("", &sigstore(&["cosign"], r#""matchRepository""#))
        .signed(tagged(&KEYS.cosign, &manifest(), NAME))
        .rules(rule)
        .allowed("docker");
    case("an ACI by trusted keys, unsigned")
        .of(Identity::Aci { name: "example.com/team/app", labels: &[] })
        .trust("example.com", "alice")
        .rules(rule)
        .refused("no signature");
    accepted("another's rule")
        .rules(r#"{"prefix": "example.org", "require": {"signature": true}}"#)
        .allowed("docker");
}

#[test]
fn all_rules_that_hold_apply_together() {
    let rules = r#"{"prefix": "example.com", "minimumVersion": "9"},
                   {"prefix": "example.com/team", "minimumVersion": "1"}"#;
    accepted("a laxer rule for a part").rules(rules).version("2").refused("older than 9");
    accepted("new enough for both").rules(rules).version("9").allowed("docker");
    accepted("two for one prefix")
        .rules(r#"{"prefix": "a.b", "minimumVersion": "1"}, {"prefix": "a.b", "volumes": []}"#)
        .allowed("docker");
    accepted("for all images")
        .rules(r#"{"notBefore": "2026-03-01T00:00:00Z"}"#)
        .created("2026-02-28T00:00:00Z")
        .refused("before 2026-03-01");
}

#[test]
fn files_of_both_versions_apply_together() {
    let folder = tempfile::tempdir().unwrap();
    let case =
        accepted("both").rule(r#""prefix": "example.com", "minimumVersion": "2""#).version("1");
    case.host(folder.path()).unwrap();
    let second = r#"{"version": 2, "rules": [{"minimumVersion": "3", "volumes": []}]}"#;
    fs::write(folder.path().join("gate.d/z.json"), second).unwrap();
    let host = HostPolicy::load(&paths(folder.path())).unwrap();
    let subjects = [("app", case.subject())];
    let decided = crate::decide(&subjects, &volumes(&["/srv"]), &host, false, now());
    let refusal = decided.unwrap_err();
    let problems: Vec<_> = refusal.reasons().map(|reason| reason.problem.as_str()).collect();
    assert_eq!(
        problems,
        [
            "the image's version 1 is older than 2",
            "the image's version 1 is older than 3",
            "volume v0, /srv is not allowed"
        ]
    );
}

#[test]
fn everything_that_refuses_is_told_at_once() {
    let rules = format!(
        r#"{{"prefix": "example.com", "require": {{"signature": true, "verity": true, "selinux": true,
             "tpm": true}}, "minimumVersion": "2", "notBefore": "2026-03-01T00:00:00Z",
             "kernels": ["installed"], "monitors": ["{}"], "volumes": ["/srv"], "networks": [],
             "capabilities": []}}, {{"volumes": []}}"#,
        digest("m")
    );
    let launch = Launch {
        verified: false,
        label: None,
        monitor: monitor(Some("n")).monitor,
        volumes: volumes(&["/etc"]).volumes,
        networks: networks(&["lan"]).networks,
        capabilities: capabilities(&["CAP_SYS_ADMIN", "CAP_BPF"]).capabilities,
        ..kernel("a", false)
    };
    let case = case("all wrong")
        .docker("", &format!("{}, {REJECT}", signed_by(&["alice"], "")))
        .version("1")
        .created("2026-01-01T00:00:00Z")
        .rules(&rules);
    let refusal = case.decide(&launch).unwrap_err();
    let reasons: Vec<_> = refusal.reasons().collect();
    for part in [
        "it has no simple signing signature",
        "it rejects every image",
        "no signature of the image was accepted",
        "before 2026-03-01",
        "older than 2",
        "no SELinux label",
        "not verified as it is read",
        "guest kernel",
        "monitor /opt/sandbox-vmm",
        "volume v0, /etc",
        "network lan",
        "CAP_SYS_ADMIN",
        "CAP_BPF",
    ] {
        let about = reasons.iter().filter(|reason| reason.problem.contains(part)).count();
        let expected = if part.starts_with("volume") { 2 } else { 1 };
        assert_eq!(about, expected, "{part}: {reasons:#?}");
    }
    assert_eq!(reasons.len(), 14, "{reasons:#?}");
    assert_eq!((refusal.images.len(), refusal.images[0].reasons.len()), (1, 5));
    let text = refusal.to_string();
    assert!(reasons.iter().all(|reason| text.contains(&reason.problem)), "{text}");
}

#[test]
fn a_rule_holds_for_a_pod_if_it_is_about_any_of_its_images() {
    let folder = tempfile::tempdir().unwrap();
    let one =
        accepted("one").rules(r#"{"prefix": "example.org", "volumes": [], "minimumVersion": "2"}"#);
    let host = one.host(folder.path()).unwrap();
    let other = accepted("other").of(docker("example.org", "app", Some("1"))).version("2");
    let launch = volumes(&["/srv"]);
    let decide = |subjects: &[_]| crate::decide(subjects, &launch, &host, false, now());
    assert!(decide(&[("one", one.subject())]).is_ok());
    let refusal = decide(&[("one", one.subject()), ("other", other.subject())]).unwrap_err();
    // About images it is about that one alone, and about the pod it says it once.
    assert!(refusal.images.is_empty(), "{refusal}");
    assert_eq!(refusal.pod.len(), 1, "{refusal}");
    let twice = [("a", other.subject()), ("b", other.subject())];
    assert_eq!(decide(&twice).unwrap_err().pod.len(), 1);
}

#[test]
fn digests_are_asked_for_where_a_rule_needs_them() {
    let (kernel, monitor) = (digest("k"), digest("m"));
    for (rules, expected) in [
        (String::new(), (false, false)),
        (r#"{"kernels": ["installed"]}"#.to_owned(), (false, false)),
        (format!(r#"{{"kernels": ["installed", "{kernel}"]}}"#), (true, false)),
        (format!(r#"{{"prefix": "a.b", "monitors": ["{monitor}"]}}"#), (false, true)),
        (
            format!(r#"{{"kernels": ["{kernel}"]}}, {{"tenant": "x", "monitors": []}}"#),
            (true, true),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let host = accepted("digests").rules(&rules).host(folder.path()).unwrap();
        let DigestsAsked { kernel, monitor } = host.digests_asked();
        assert_eq!((kernel, monitor), expected, "{rules}");
    }
}

#[test]
fn what_depends_on_the_pod_is_open_for_an_image_alone() {
    let judgement = accepted("alone")
        .rules(
            r#"{"volumes": [], "require": {"tpm": true, "signature": true}},
               {"tenant": "a", "minimumVersion": "2"}, {"prefix": "example.org", "volumes": []}"#,
        )
        .version("1")
        .judge_alone();
    let answers: Vec<_> =
        judgement.checks.iter().map(|check| (check.demand.as_str(), check.answer)).collect();
    assert_eq!(
        answers,
        [
            ("a signature that counts", Answer::Unmet),
            ("no volumes of the host", Answer::Open),
            ("a measurement that this host or a service has verified", Answer::Open),
            ("minimumVersion 2", Answer::Open),
        ]
    );
    let of_tenant = &judgement.checks[3].found;
    assert!(of_tenant.contains("tenant 'a' only: not met"), "{of_tenant}");
    let steps = judgement.steps.join("\n");
    assert!(steps.contains("asks for a measurement"), "{steps}");
}

#[test]
fn rules_of_a_tenant_are_about_its_images_too() {
    let case = accepted("tenant").rules(r#"{"tenant": "a", "minimumVersion": "2"}"#).version("1");
    assert!(case.decide(&launch()).is_ok());
    assert!(case.decide(&tenant("b")).is_ok());
    assert!(why(case.decide(&tenant("a"))).contains("older than 2"));
}

/// A rule of version 2 that means something, as JSON.
fn rule() -> impl Strategy<Value = String> {
    let maybe =
        |texts: &'static [&'static str]| proptest::option::of(proptest::sample::select(texts));
    let members = (
        maybe(&[
            r#""prefix": "example.com""#,
            r#""prefix": "example.com/team/app""#,
            r#""prefix": "a""#,
        ]),
        maybe(&[r#""tenant": "a""#]),
        maybe(&[
            r#""require": {"signature": true}"#,
            r#""require": {"tpm": true, "selinux": true}"#,
            r#""require": {"tpm": "service"}"#,
            r#""require": {"verity": true}"#,
        ]),
        maybe(&[r#""minimumVersion": "1""#, r#""minimumVersion": "3""#]),
        maybe(&[
            r#""notBefore": "2025-01-01T00:00:00Z""#,
            r#""notBefore": "2026-05-01T00:00:00Z""#,
        ]),
        maybe(&[r#""kernels": ["installed"]"#, r#""kernels": []"#]),
        maybe(&[r#""volumes": []"#, r#""volumes": ["/srv"]"#, r#""volumes": ["/srv/data"]"#]),
        maybe(&[r#""networks": []"#, r#""networks": ["lan"]"#]),
        maybe(&[r#""capabilities": []"#, r#""capabilities": ["CAP_NET_ADMIN"]"#]),
    );
    members.prop_map(|(prefix, tenant, require, minimum, since, kernels, volumes, nets, caps)| {
        let asked = [require, minimum, since, kernels, volumes, nets, caps];
        let mut members: Vec<_> = [prefix, tenant].into_iter().chain(asked).flatten().collect();
        if asked.iter().all(Option::is_none) {
            members.push(r#""volumes": []"#);
        }
        format!("{{{}}}", members.join(", "))
    })
}

fn any_launch() -> impl Strategy<Value = Launch> {
    use proptest::{option, sample::select};
    (
        any::<[bool; 4]>(),
        option::of(select(&["a", "b"])),
        option::of(select(&["/srv", "/srv/data/x", "/etc"])),
        option::of(select(&["lan", "wan"])),
        option::of(select(&["CAP_NET_ADMIN", "CAP_BPF"])),
    )
        .prop_map(|([installed, verified, label, attest], tenant, volume, net, cap)| Launch {
            kernel_is_installed: installed,
            verified,
            label: label.then(|| "label".to_owned()),
            attest: attest.then_some(crate::Verifier::Local),
            tenant: tenant.map(str::to_owned),
            volumes: volumes(&volume.into_iter().collect::<Vec<_>>()).volumes,
            networks: net.into_iter().map(str::to_owned).collect(),
            capabilities: capabilities(&cap.into_iter().collect::<Vec<_>>()).capabilities,
            ..launch()
        })
}

/// What is permitted: without a measurement, with one by this host, and with one by a service.
fn permitted(case: &Case, launch: &Launch) -> [bool; 3] {
    use crate::{
        Measured,
        Verifier::{Local, Service},
    };
    let folder = tempfile::tempdir().unwrap();
    let host = case.host(folder.path()).unwrap();
    let subjects = [("app", case.subject())];
    let measured = |by| Some(Measured::new("pod", 1, true, by));
    [None, measured(Local), measured(Service)].map(|measured| {
        let approval = crate::decide(&subjects, launch, &host, case.insecure, now());
        approval.and_then(|approval| approval.permit("pod", measured)).is_ok()
    })
}

proptest! {
    // Signatures are verified in each.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// "A rule can only tighten what the others say."
    #[test]
    fn a_further_rule_never_turns_a_refusal_into_a_permit(
        rules in proptest::collection::vec(rule(), 0..4),
        further in rule(),
        place: proptest::sample::Index,
        launch in any_launch(),
        is_signed: bool,
        insecure: bool,
    ) {
        let case = || {
            let case = if is_signed { signed("rules") } else { accepted("rules") };
            Case { insecure, ..case.version("2").created("2026-01-01T00:00:00Z") }
        };
        let before = permitted(&case().rules(&rules.join(", ")), &launch);
        let mut more = rules.clone();
        more.insert(place.index(rules.len() + 1), further);
        let after = permitted(&case().rules(&more.join(", ")), &launch);
        for (before, after) in before.into_iter().zip(after) {
            prop_assert!(before || !after, "{rules:?} {more:?} {launch:?}");
        }
        // The order means nothing.
        more.reverse();
        prop_assert_eq!(after, permitted(&case().rules(&more.join(", ")), &launch));
    }
}

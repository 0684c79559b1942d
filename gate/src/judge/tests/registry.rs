//! Images of registries, layouts and archives.

use super::*;

const NAME: &str = "example.com/team/app:1";

#[test]
fn what_the_policy_says_without_signatures() {
    case("no policy at all").refused("does not exist");
    case("no policy, and the way out is told").refused("--policy=FILE");
    case("the default rejects").docker("other.com", ACCEPT).refused("rejects every image");
    case("the default accepts")
        .policy(format!(r#"{{"default": [{ACCEPT}]}}"#))
        .allowed("the default in ");
    case("a transport's own default").docker("", ACCEPT).allowed("transport docker in ");
    case("a rule for another transport is none")
        .policy(policy("oci", &[("", ACCEPT)]))
        .refused("rejects every image");
    case("a host").docker("example.com", ACCEPT).allowed("scope 'example.com' of");
    case("a host with a port is another host")
        .docker("example.com", ACCEPT)
        .of(docker("example.com:5000", "team/app", Some("1")))
        .refused("rejects");
    case("a host that only begins so").docker("example.co", ACCEPT).refused("rejects");
    case("a host that only ends so").docker("ample.com", ACCEPT).refused("rejects");
    case("a namespace").docker("example.com/team", ACCEPT).allowed("'example.com/team'");
    case("a namespace that only begins so").docker("example.com/te", ACCEPT).refused("rejects");
    case("a repository that only begins so")
        .docker("example.com/team/ap", ACCEPT)
        .refused("rejects");
    case("a tag").docker("example.com/team/app:1", ACCEPT).allowed("app:1'");
    case("another tag").docker("example.com/team/app:2", ACCEPT).refused("rejects");
    case("a wildcard of hosts").docker("*.com", ACCEPT).allowed("'*.com'");
    case("a wildcard holds no host itself").docker("*.example.com", ACCEPT).refused("rejects");
    case("the most specific scope alone counts, if it rejects")
        .policy(policy("docker", &[("example.com", ACCEPT), ("example.com/team/app", REJECT)]))
        .refused("rejects");
    case("the most specific scope alone counts, if it accepts")
        .policy(policy("docker", &[("example.com", REJECT), ("example.com/team/app", ACCEPT)]))
        .allowed("app'");
    case("all requirements of a list have to be met")
        .docker("example.com", &format!("{ACCEPT}, {REJECT}"))
        .refused("rejects");
    case("the option overrides the policy").docker("other.com", ACCEPT).insecure().allowed("--ins");
    case("without a policy the option still lets it run").insecure().allowed("--insecure");
}

#[test]
fn what_is_not_supported_is_refused() {
    for (name, list) in [
        (
            "fulcio",
            r#"{"type": "sigstoreSigned", "fulcio": {"caPath": "/c", "oidcIssuer": "i", "subjectEmail": "e"}, "rekorPublicKeyPath": "/r"}"#,
        ),
        ("pki", r#"{"type": "sigstoreSigned", "pki": {"caRootsPath": "/c", "subjectEmail": "e"}}"#),
        (
            "signedBaseLayer",
            r#"{"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}"#,
        ),
        (
            "X509Certificates",
            r#"{"type": "signedBy", "keyType": "X509Certificates", "keyPath": "/k"}"#,
        ),
    ] {
        case(name)
            .docker("example.com", list)
            .signed(tagged(&KEYS.cosign, &manifest(), NAME))
            .refused("not supported");
    }
    let rekor = sigstore(&["cosign"], "").replace("}", r#", "rekorPublicKeyPath": "/r"}"#);
    case("rekor, with a signature that is fine")
        .docker("example.com", &rekor)
        .signed(tagged(&KEYS.cosign, &manifest(), NAME))
        .refused("not supported");
}

#[test]
fn simple_signatures() {
    let alice = || case("signed by the key").docker("example.com", &signed_by(&["alice"], ""));
    alice().signed(simple(&KEYS.alice, &manifest(), NAME)).allowed("'example.com'");
    alice().refused("no simple signing signature");
    let of = |name| Case { name, ..alice() };
    of("over the index that it was reached through")
        .signed(simple(&KEYS.alice, &index(), NAME))
        .allowed("'example.com'");
    of("by another key").signed(simple(&KEYS.mallory, &manifest(), NAME)).refused("signature 1");
    of("for another image")
        .signed(simple(&KEYS.alice, &elsewhere(), NAME))
        .refused("another image");
    of("for another repository")
        .signed(simple(&KEYS.alice, &manifest(), "example.com/team/other:1"))
        .refused("example.com/team/other:1");
    of("for another tag: an old version sold as a new one")
        .signed(simple(&KEYS.alice, &manifest(), "example.com/team/app:0"))
        .refused("example.com/team/app:0");
    of("for another registry")
        .signed(simple(&KEYS.alice, &manifest(), "mirror.com/team/app:1"))
        .refused("mirror.com");
    of("one of several that is fine")
        .signed(simple(&KEYS.mallory, &manifest(), NAME))
        .signed(simple(&KEYS.alice, &elsewhere(), NAME))
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .allowed("'example.com'");
    of("hundreds that are not")
        .many(300, &simple(&KEYS.mallory, &manifest(), NAME))
        .refused("and 292 signatures more");
    of("of the future")
        .signed(KEYS.alice.message(
            &payload("atomic", &manifest(), NAME),
            "2027-01-01T00:00:00Z",
            HashAlgorithm::Sha256,
        ))
        .refused("signature 1");
    of("a payload of cosign's, signed by the OpenPGP key")
        .signed(KEYS.alice.message(
            &payload("cosign", &manifest(), NAME),
            SIGNED,
            HashAlgorithm::Sha256,
        ))
        .refused("no statement about an image");
    of("a signed text that is no statement")
        .signed(KEYS.alice.message("{}", SIGNED, HashAlgorithm::Sha256))
        .refused("no statement about an image");
    of("a critical member that nobody knows")
        .signed(
            KEYS.alice.message(
                &payload("atomic", &manifest(), NAME)
                    .replace("{\"critical\":{", "{\"critical\":{\"notFor\":\"production\","),
                SIGNED,
                HashAlgorithm::Sha256,
            ),
        )
        .refused("notFor");
    of("garbage for a signature")
        .signed(Signature::SimpleSigning { message: b"garbage".to_vec() })
        .refused("signature 1");
    of("a sigstore signature is no simple signature")
        .signed(tagged(&KEYS.cosign, &manifest(), NAME))
        .refused("no simple signing signature");
    let mut changed = simple(&KEYS.alice, &manifest(), NAME);
    if let Signature::SimpleSigning { message } = &mut changed {
        let text = message.windows(8).position(|bytes| bytes == b"team/app").unwrap();
        message[text] = b'x';
    }
    of("a name that was changed after signing").signed(changed).refused("signature 1");
}

#[test]
fn keys_of_simple_signatures() {
    let with = |name, list: &str| case(name).docker("example.com", list);
    for (name, key) in [("expired", &KEYS.expired), ("revoked", &KEYS.revoked)] {
        with("a key that counted when it signed, and does not now", &signed_by(&[name], ""))
            .signed(simple(key, &manifest(), NAME))
            .refused(name);
    }
    with("one of several keys", &signed_by(&["alice", "bob"], ""))
        .signed(simple(&KEYS.bob, &manifest(), NAME))
        .allowed("'example.com'");
    let both = format!("{}, {}", signed_by(&["alice"], ""), signed_by(&["bob"], ""));
    with("two keys, both asked for", &both)
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .signed(simple(&KEYS.bob, &manifest(), NAME))
        .allowed("'example.com'");
    with("two keys, one signed twice", &both)
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .refused("signature 1");
    with("the file of the key is missing", &signed_by(&["alice", "missing"], ""))
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .refused("no such file");
    with("the file of the key holds none", &signed_by(&["garbage"], ""))
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .refused("garbage");
}

#[test]
fn names_in_signatures() {
    let with = |name, identity: &str| case(name).docker("", &signed_by(&["alice"], identity));
    with("matchRepository takes any tag", r#""matchRepository""#)
        .signed(simple(&KEYS.alice, &manifest(), "example.com/team/app:9"))
        .allowed("docker");
    with("matchRepository takes no other repository", r#""matchRepository""#)
        .signed(simple(&KEYS.alice, &manifest(), "example.com/team/app2:1"))
        .refused("the repository example.com/team/app");
    with("matchExact", r#""matchExact""#)
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .allowed("docker");
    with("exactReference takes one name", r#""exactReference", "dockerReference": "o.com/a:1""#)
        .signed(simple(&KEYS.alice, &manifest(), "o.com/a:1"))
        .allowed("docker");
    with(
        "exactReference takes not the image's",
        r#""exactReference", "dockerReference": "o.com/a:1""#,
    )
    .signed(simple(&KEYS.alice, &manifest(), NAME))
    .refused("o.com/a:1");
    with("exactRepository", r#""exactRepository", "dockerRepository": "o.com/a""#)
        .signed(simple(&KEYS.alice, &manifest(), "o.com/a:7"))
        .allowed("docker");
    let remap = r#""remapIdentity", "prefix": "example.com/team", "signedPrefix": "vendor.com/x""#;
    with("remapIdentity", remap)
        .signed(simple(&KEYS.alice, &manifest(), "vendor.com/x/app:1"))
        .allowed("docker");
    with("remapIdentity takes the mirror's own name no more", remap)
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .refused("vendor.com/x/app:1");
    let digest: &'static Digest = Box::leak(Box::new(manifest()));
    let by_digest = |digest| Identity::Docker {
        registry: "example.com",
        repository: "team/app",
        tag: None,
        digest: Some(digest),
    };
    with("asked for by digest, any tag of the repository is fine", "")
        .of(by_digest(digest))
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .allowed("docker");
    let other: &'static Digest = Box::leak(Box::new(elsewhere()));
    with("asked for by a digest that it has not", "")
        .of(by_digest(other))
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .refused("it was asked for by");
}

#[test]
fn sigstore_signatures() {
    let with =
        |name, identity: &str| case(name).docker("example.com", &sigstore(&["cosign"], identity));
    let repository = r#""matchRepository""#;
    with("signed by the key", repository)
        .signed(tagged(&KEYS.cosign, &manifest(), "example.com/team/app"))
        .allowed("'example.com'");
    with("not signed", repository).refused("no sigstore signature");
    with("cosign names a repository, and the tag is asked for", "")
        .signed(tagged(&KEYS.cosign, &manifest(), "example.com/team/app"))
        .refused("matchRepoDigestOrExact");
    with("by another key", repository)
        .signed(tagged(&KEYS.other, &manifest(), NAME))
        .refused("signature 1");
    with("for another image", repository)
        .signed(tagged(&KEYS.cosign, &elsewhere(), NAME))
        .refused("another image");
    with("for another repository", repository)
        .signed(tagged(&KEYS.cosign, &manifest(), "example.com/team/other"))
        .refused("example.com/team/other");
    let mut changed = tagged(&KEYS.cosign, &elsewhere(), NAME);
    if let Signature::Cosign { payload: text, .. } = &mut changed {
        *text = payload("cosign", &manifest(), NAME).into_bytes();
    }
    with("another image's signature under a new payload", repository)
        .signed(changed)
        .refused("signature 1");
    with("a payload of simple signing's, signed by cosign's key", repository)
        .signed(KEYS.cosign.tagged(&payload("atomic", &manifest(), NAME)))
        .refused("no statement about an image");
    with("a bundle names no image", repository)
        .signed(KEYS.cosign.bundle(&manifest()))
        .refused("matchDigest");
    with("a bundle, and the policy takes the digest alone", r#""matchDigest""#)
        .signed(KEYS.cosign.bundle(&manifest()))
        .allowed("'example.com'");
    with("a bundle for another image", r#""matchDigest""#)
        .signed(KEYS.cosign.bundle(&elsewhere()))
        .refused("another image");
    with("a bundle by another key", r#""matchDigest""#)
        .signed(KEYS.other.bundle(&manifest()))
        .refused("signature 1");
    with("a simple signature is no sigstore signature", repository)
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .refused("no sigstore signature");
    case("one of several keys")
        .docker("example.com", &sigstore(&["other", "cosign"], repository))
        .signed(tagged(&KEYS.cosign, &manifest(), NAME))
        .allowed("'example.com'");
    case("an OpenPGP key for sigstore")
        .docker("example.com", &sigstore(&["alice"], repository))
        .signed(tagged(&KEYS.cosign, &manifest(), NAME))
        .refused("alice");
}

#[test]
fn layouts_and_archives() {
    let layout = Identity::Oci { path: "/srv/images/app", name: Some("1") };
    let oci =
        |name, scopes: &[(&str, &str)]| case(name).policy(policy("oci", scopes)).of(layout.clone());
    oci("a directory's path", &[("/srv/images", ACCEPT)]).allowed("'/srv/images'");
    oci("a path that only begins so", &[("/srv/image", ACCEPT)]).refused("rejects");
    oci("a name in a layout", &[("/srv/images/app", REJECT), ("/srv/images/app:1", ACCEPT)])
        .allowed("app:1'");
    oci("a path that leads out of its scope", &[("/srv/images", ACCEPT)])
        .of(Identity::Oci { path: "/srv/images/../evil", name: None })
        .refused("not an absolute path");
    oci("a relative path", &[("", ACCEPT)])
        .of(Identity::Oci { path: "srv", name: None })
        .refused("not an absolute path");
    let list = signed_by(&["alice"], r#""exactReference", "dockerReference": "o.com/a:1""#);
    oci("a layout with a signature for the name that is asked for", &[("", &list)])
        .signed(simple(&KEYS.alice, &manifest(), "o.com/a:1"))
        .allowed("oci");
    oci("a layout has no name to compare with", &[("", &signed_by(&["alice"], ""))])
        .signed(simple(&KEYS.alice, &manifest(), NAME))
        .refused("the image has none");
    case("an archive is not a layout")
        .policy(policy("oci", &[("", ACCEPT)]))
        .of(Identity::OciArchive { path: "/srv/a.tar", name: None })
        .refused("rejects");
    let saved = Identity::DockerArchive { path: "/srv/a.tar", name: None };
    case("a saved image")
        .policy(policy("docker-archive", &[("", ACCEPT)]))
        .of(saved.clone())
        .allowed("docker-archive");
    // Its ID is the digest of its configuration, which no signature is about.
    let mut unsigned = case("a saved image can't be signed")
        .policy(policy("docker-archive", &[("", &list)]))
        .of(saved)
        .signed(simple(&KEYS.alice, &manifest(), "o.com/a:1"));
    unsigned.manifests.clear();
    unsigned.refused("not known by the digest");
    let mut swapped = case("another image with the digests of a signed one")
        .docker("example.com", &signed_by(&["alice"], ""))
        .signed(simple(&KEYS.alice, &manifest(), NAME));
    swapped.id = elsewhere();
    swapped.refused("not known by the digest");
}

//! App Container Images with detached signatures, and the keys of `sandbox trust`.

use crate::cases::Expected::{Allowed, Refused, Runs};
use crate::cases::{Expected, Table};
use crate::world::{OUTPUT, anything, reject};
use sandbox_tests::aci::Aci;
use sandbox_tests::image::tiny_layer;
use sandbox_tests::signatures::{Key, Keyring};
use sandbox_tests::{Host, temporary};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

struct Images {
    directory: TempDir,
    gpg: Keyring,
}

impl Images {
    fn new() -> Self {
        Self { directory: temporary(), gpg: Keyring::new() }
    }

    /// An image of that name.
    fn image(&self, name: &str, file: &str) -> PathBuf {
        let file = self.directory.path().join(file);
        let files = fs::read(tiny_layer()).unwrap();
        Aci::new(name, files)
            .version("1.0")
            .executes(&["/bin/echo", OUTPUT.trim_end()])
            .write(&file);
        file
    }

    /// A copy of it, so that it can have another signature.
    fn copy(&self, image: &Path, name: &str) -> PathBuf {
        let file = self.directory.path().join(name);
        fs::copy(image, &file).unwrap();
        file
    }

    /// A copy of it that this key has signed.
    fn signed(&self, image: &Path, key: &Key, name: &str) -> PathBuf {
        let file = self.copy(image, name);
        self.gpg.sign(key, &file);
        file
    }

    /// Lets a host trust a key: `--root` or `--prefix=NAME`.
    fn trust(&self, host: &Host, scope: &str, key: &Key) {
        let file = self.directory.path().join(format!("{}.asc", key.fingerprint));
        self.gpg.export_to(key, &file);
        let file = file.to_str().unwrap();
        host.sandbox(["trust", "--skip-fingerprint-review", scope, file]).exits(0);
    }
}

/// Where a trusted key is, for all names or for those with a prefix.
fn place(layer: &str, prefix: &str, key: &Key) -> String {
    format!("{layer}/trustedkeys/prefix.d/{prefix}/{}", key.fingerprint.to_lowercase())
}

#[test]
fn an_aci_runs_if_a_key_that_is_trusted_for_its_name_signed_it() {
    let images = Images::new();
    let gpg = &images.gpg;
    let (alice, mallory, expired, revoked, weak) = (
        gpg.key("alice"),
        gpg.key("mallory"),
        gpg.expired_key("expired"),
        gpg.key("revoked"),
        gpg.rsa_key("weak"),
    );
    let app = images.image("example.com/foo/app", "app.aci");
    let similar = images.image("example.com/foobar", "foobar.aci");
    let signed = images.signed(&app, &alice, "signed.aci");
    let similar = images.signed(&similar, &alice, "similar.aci");
    let by_mallory = images.signed(&app, &mallory, "mallory.aci");
    let by_expired = images.signed(&app, &expired, "expired.aci");
    let by_revoked = images.signed(&app, &revoked, "revoked.aci");
    gpg.revoke(&revoked);
    let by_sha1 = images.copy(&app, "weak.aci");
    gpg.sign_with(&weak, &by_sha1, &["--digest-algo", "SHA1"]);
    let replaced = images.copy(&similar, "replaced.aci");
    fs::copy(signed.with_extension("aci.asc"), replaced.with_extension("aci.asc")).unwrap();
    let tampered = images.copy(&app, "tampered.aci");
    fs::copy(signed.with_extension("aci.asc"), tampered.with_extension("aci.asc")).unwrap();
    let mut bytes = fs::read(&tampered).unwrap();
    // The time in gzip's head: what is unpacked stays the same.
    bytes[5] ^= 1;
    fs::write(&tampered, bytes).unwrap();

    let mut table = Table::default();
    let mut case = |rule: &str, keys: &[(&str, &Key)], image: &Path, expected: &Expected<'_>| {
        let host = Host::new();
        for (scope, key) in keys {
            images.trust(&host, scope, key);
        }
        table.case(rule, &host, image.to_str().unwrap(), expected);
    };
    let foo = "--prefix=example.com/foo";
    case("signed by a key for the prefix", &[(foo, &alice)], &signed, &Runs);
    case("signed by a key for all names", &[("--root", &alice)], &signed, &Allowed);
    case(
        "signed by a key for the whole name",
        &[("--prefix=example.com/foo/app", &alice)],
        &signed,
        &Allowed,
    );
    case("no key is trusted", &[], &signed, &Refused(&["trust"]));
    case("unsigned", &[(foo, &alice)], &app, &Refused(&["signature"]));
    case("signed by a key that nobody trusts", &[(foo, &alice)], &by_mallory, &Refused(&["key"]));
    case(
        "signed by a key for another prefix",
        &[("--prefix=example.org", &alice)],
        &signed,
        &Refused(&["trust"]),
    );
    case(
        "example.com/foo is no prefix of example.com/foobar",
        &[(foo, &alice)],
        &similar,
        &Refused(&["example.com/foobar"]),
    );
    case(
        "signed in time by a key that has expired since",
        &[(foo, &expired)],
        &by_expired,
        &Refused(&["expired"]),
    );
    case(
        "signed by a key that its owner has revoked",
        &[(foo, &revoked)],
        &by_revoked,
        &Refused(&["revoked"]),
    );
    case("signed with SHA-1", &[(foo, &weak)], &by_sha1, &Refused(&["SHA1"]));
    case(
        "the signature of another file",
        &[("--root", &alice)],
        &replaced,
        &Refused(&["signature"]),
    );
    case("one bit of the file changed", &[(foo, &alice)], &tampered, &Refused(&["signature"]));
}

/// "A key that a package brings stays where it is; an empty file in --local-config takes it back."
#[test]
fn keys_of_the_system_can_be_taken_back_and_keys_of_the_host_removed() {
    let images = Images::new();
    let alice = images.gpg.key("alice");
    let app = images.image("example.com/app", "app.aci");
    let signed = images.signed(&app, &alice, "signed.aci");
    let signed = signed.to_str().unwrap();
    let key = images.gpg.export(&alice);
    let mut table = Table::default();

    let host = Host::new();
    host.put(&place("/usr/lib/rkt", "example.com", &alice), &key);
    table.case("a key that a package brings", &host, signed, &Allowed);
    host.put(&place("/etc/rkt", "example.com", &alice), "");
    table.case("an empty file takes it back", &host, signed, &Refused(&["trust"]));

    let host = Host::new();
    host.put(&place("/usr/lib/rkt", "example.com", &alice), &key);
    let id = host.fetch(signed);
    host.sandbox(["trust", "rm", &alice.fingerprint]).exits(0).mentions("example.com");
    table.case("trust rm takes a system's key back", &host, signed, &Refused(&["trust"]));
    table.case("and images that it signed, by their ID", &host, &id, &Refused(&["trust"]));

    let host = Host::new();
    images.trust(&host, "--prefix=example.com", &alice);
    host.sandbox(["trust", "list"]).exits(0).mentions(&alice.fingerprint.to_lowercase());
    host.sandbox(["trust", "rm", &alice.fingerprint]).exits(0);
    table.case("trust rm removes a key of the host", &host, signed, &Refused(&["trust"]));

    let host = Host::new();
    let other = images.gpg.key("other");
    host.put(&place("/etc/rkt", "example.com", &other), &key);
    table.case("a key's file under another key's name", &host, signed, &Refused(&["another key"]));
}

/// containers-policy.json's transport `aci` decides where it says something.
#[test]
fn the_policy_can_say_more_about_acis_than_keys_do() {
    let images = Images::new();
    let alice = images.gpg.key("alice");
    let app = images.image("example.com/app", "app.aci");
    let signed = images.signed(&app, &alice, "signed.aci");
    let (app, signed) = (app.to_str().unwrap(), signed.to_str().unwrap());
    let host = Host::new();
    images.trust(&host, "--prefix=example.com", &alice);
    let mut table = Table::default();
    let policy = |scopes| json!({"default": reject(), "transports": {"aci": scopes}});
    host.policy(&policy(json!({"example.com/app": reject()})));
    table.case(
        "a name that is rejected, though its key is trusted",
        &host,
        signed,
        &Refused(&["reject"]),
    );
    host.policy(&policy(json!({"example.org": anything()})));
    table.case("another name's scope", &host, app, &Refused(&["signature"]));
    host.policy(&policy(json!({"example.com": anything()})));
    table.case("a name of which anything is taken", &host, app, &Allowed);
    let minimum =
        json!({"version": 1, "images": [{"prefix": "example.com/app", "minimumVersion": "1.1"}]});
    host.put("/etc/sandbox/gate.d/rules.json", minimum.to_string());
    table.case("an older version than the least", &host, signed, &Refused(&["1.1"]));
}

/// The image that runs is the one that was asked for, by its own word.
#[test]
fn a_signature_by_option_is_for_this_file_alone() {
    let images = Images::new();
    let alice = images.gpg.key("alice");
    let app = images.image("example.com/app", "app.aci");
    let other = images.image("example.com/other", "other.aci");
    let signature = images.gpg.sign(&alice, &app);
    let moved = images.directory.path().join("signature");
    fs::rename(signature, &moved).unwrap();
    let host = Host::new();
    images.trust(&host, "--root", &alice);
    let option = format!("--signature={}", moved.display());
    let check = |image: &Path| host.sandbox(["policy", "check", &option, image.to_str().unwrap()]);
    check(&app).exits(0).mentions(&alice.fingerprint.to_lowercase());
    check(&other).exits(1).mentions("refused");
    host.refuses(&app, &["signature"]);
}

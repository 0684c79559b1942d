use super::*;
use crate::judge::test_keys::Pgp;
use std::{fs, os::unix::fs::PermissionsExt as _, sync::LazyLock};

static KEYS: LazyLock<[Pgp; 2]> =
    LazyLock::new(|| [Pgp::new(11, None, None), Pgp::new(12, Some("2026-01-01T00:00:00Z"), None)]);

struct Host(tempfile::TempDir, Keystore);

fn host() -> Host {
    let folder = tempfile::tempdir().unwrap();
    let keystore = Keystore::new(&folder.path().join("usr"), &folder.path().join("etc"));
    Host(folder, keystore)
}

impl Host {
    fn system(&self) -> Keystore {
        // What a package would install.
        Keystore { system: "/nonexistent".into(), local: self.1.system.clone() }
    }

    fn scopes(&self, name: &str) -> usize {
        self.1.load().unwrap().keys.iter().filter(|key| key.scope.holds(name)).count()
    }
}

fn key(number: usize) -> Key {
    parse(KEYS[number].armored().as_bytes()).unwrap().remove(0)
}

fn prefix(text: &str) -> Scope {
    Scope::Prefix(text.to_owned())
}

#[test]
fn a_fingerprint_is_shown_as_rkt_shows_it() {
    assert_eq!(
        spaced("8b86de38890ddb7291867b025210bd8888182190"),
        "8B86 DE38 890D DB72 9186  7B02 5210 BD88 8818 2190"
    );
}

#[test]
fn keys_are_where_rkt_has_them() {
    let host = host();
    let fingerprint = key(0).fingerprint().to_owned();
    let trusted = host.0.path().join("etc/trustedkeys");
    let path = host.1.add(&prefix("example.com/a"), &key(0)).unwrap();
    assert_eq!(path, trusted.join("prefix.d/example.com/a").join(&fingerprint));
    let path = host.1.add(&Scope::Root, &key(0)).unwrap();
    assert_eq!(path, trusted.join("root.d").join(&fingerprint));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(parse(&fs::read(&path).unwrap()).unwrap()[0].fingerprint(), fingerprint);
    for bad in ["", "/", "..", "a/../b", "a//b", "/a", "a/", "A", "https://example.com", "*"] {
        let error = host.1.add(&prefix(bad), &key(0)).unwrap_err();
        assert!(matches!(error, KeystoreError::Prefix(_)), "{bad}");
    }
}

#[test]
fn a_prefix_stands_for_whole_components() {
    let host = host();
    assert!(!host.1.has_keys_for("example.com/foo").unwrap());
    host.1.add(&prefix("example.com/foo"), &key(0)).unwrap();
    for (name, expected) in [
        ("example.com/foo", 1),
        ("example.com/foo/bar", 1),
        ("example.com/foobar", 0),
        ("example.com/fo", 0),
        ("example.com", 0),
    ] {
        assert_eq!(host.scopes(name), expected, "{name}");
        assert_eq!(host.1.has_keys_for(name).unwrap(), expected > 0, "{name}");
    }
    host.1.add(&Scope::Root, &key(1)).unwrap();
    assert!(host.1.has_keys_for("other.com").unwrap());
}

#[test]
fn keys_are_listed_and_removed() {
    let host = host();
    host.1.add(&prefix("a.b"), &key(0)).unwrap();
    host.1.add(&prefix("a.b/c"), &key(0)).unwrap();
    host.1.add(&Scope::Root, &key(1)).unwrap();
    let list = host.1.list().unwrap();
    assert_eq!(list.len(), 3);
    let expired = list.iter().find(|entry| entry.scope == Scope::Root).unwrap();
    assert!(expired.problem.as_ref().unwrap().contains("expired"), "{expired:?}");
    assert_eq!(expired.identities, ["Signer 12 <s@example.com>"]);
    assert!(list.iter().all(|entry| entry.layer == Layer::Local && !entry.masked));
    let fingerprint = key(0).fingerprint().to_owned();
    assert!(host.1.remove(&fingerprint[..16], None).unwrap().is_empty(), "a short ID");
    let removed = host.1.remove(&fingerprint, Some(&prefix("a.b/c"))).unwrap();
    assert_eq!(removed.len(), 1);
    assert!(!removed[0].masked && !removed[0].path.exists());
    assert_eq!(host.scopes("a.b/c"), 2, "the prefix above, and the root key");
    assert_eq!(host.1.remove(&fingerprint, None).unwrap().len(), 1);
    assert!(host.1.remove(&fingerprint, None).unwrap().is_empty());
    assert_eq!(host.scopes("a.b/c"), 1);
}

#[test]
fn a_key_of_the_system_is_taken_back_by_an_empty_file() {
    let host = host();
    let (key, scope) = (key(0), prefix("a.b"));
    let shipped = host.system().add(&scope, &key).unwrap();
    assert_eq!(host.scopes("a.b"), 1);
    // The machine has it as well: it counts once, and both are gone.
    host.1.add(&scope, &key).unwrap();
    assert_eq!(host.scopes("a.b"), 1);
    let removed = host.1.remove(key.fingerprint(), None).unwrap();
    assert_eq!(removed.len(), 1);
    assert!(removed[0].masked && shipped.exists());
    assert_eq!(fs::read(&removed[0].path).unwrap(), b"");
    assert_eq!(host.scopes("a.b"), 0);
    let list = host.1.list().unwrap();
    assert!(list.len() == 1 && list[0].masked && list[0].layer == Layer::System);
    // Taken back for one scope, it may be trusted for another.
    host.system().add(&prefix("a.b/c"), &key).unwrap();
    assert_eq!((host.scopes("a.b"), host.scopes("a.b/c")), (0, 1));
    // And it can be trusted again.
    host.1.add(&scope, &key).unwrap();
    assert_eq!(host.scopes("a.b"), 1);
}

#[test]
fn what_does_not_belong_there_is_broken() {
    let fingerprint = key(0).fingerprint().to_owned();
    let armored = KEYS[0].armored();
    let two = armored.clone() + &KEYS[1].armored();
    let other = "0".repeat(40);
    let below = prefix("a.b");
    for (place, content, problem, scope) in [
        (format!("root.d/{other}"), armored.as_str(), "another key", &Scope::Root),
        (format!("root.d/{fingerprint}"), "no key", "no OpenPGP key", &Scope::Root),
        (format!("root.d/{fingerprint}"), two.as_str(), "exactly one key", &Scope::Root),
        ("root.d/README".to_owned(), "", "only keys belong here", &Scope::Root),
        (format!("root.d/sub/{fingerprint}"), &armored, "only keys belong here", &Scope::Root),
        (format!("prefix.d/{fingerprint}"), &armored, "only keys belong here", &Scope::Root),
        (format!("prefix.d/A/{fingerprint}"), &armored, "beginning of a name", &Scope::Root),
        (format!("prefix.d/a.b/{}", fingerprint.to_uppercase()), &armored, "only keys", &below),
        (format!("prefix.d/a.b/{fingerprint}"), "no key", "no OpenPGP key", &below),
    ] {
        let host = host();
        let good = host.1.add(&prefix("example.com"), &key(0)).unwrap();
        let path = host.0.path().join("etc/trustedkeys").join(&place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let found = host.1.load().unwrap();
        let [broken] = &found.broken[..] else { panic!("{place}: {found:?}") };
        assert_eq!(&broken.scope, scope, "{place}");
        for part in [problem, "trustedkeys"] {
            assert!(broken.problem.contains(part), "{place}: {broken:?}");
        }
        assert_eq!(found.keys.len(), 1, "{place}");
        let list = host.1.list().unwrap();
        let shown = list.iter().find(|entry| entry.path != good).unwrap();
        assert!(shown.problem.as_ref().unwrap().contains(problem), "{shown:?}");
        assert!(!shown.masked && &shown.scope == scope, "{shown:?}");
    }
}

#[test]
fn a_broken_file_is_removed_as_a_key_is() {
    let host = host();
    let fingerprint = key(0).fingerprint().to_owned();
    let broken = || host.1.load().unwrap().broken.len();
    let mut places = Vec::new();
    for place in
        ["usr/trustedkeys/root.d", "etc/trustedkeys/prefix.d/a.b", "etc/trustedkeys/prefix.d"]
    {
        let path = host.0.path().join(place).join(&fingerprint);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "no key").unwrap();
        places.push(path);
    }
    assert_eq!(broken(), 3);
    // It is no mask, and none is a key.
    host.system().add(&prefix("a.b"), &key(0)).unwrap();
    assert_eq!((broken(), host.scopes("a.b")), (3, 1));
    host.1.remove(&fingerprint, None).unwrap();
    assert_eq!((broken(), host.scopes("a.b")), (0, 0));
    assert_eq!(fs::read(&places[0]).unwrap(), b"no key", "the system's stays");
    assert!(!places[2].exists());
}

#[test]
fn what_others_can_write_to_is_not_trusted() {
    let host = host();
    let file = host.1.add(&Scope::Root, &key(0)).unwrap();
    let make = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    make(&file, 0o777);
    let found = host.1.load().unwrap();
    assert!(found.keys.is_empty());
    assert!(found.broken[0].problem.contains("others than its owner"), "{found:?}");
    make(&file, 0o644);
    make(file.parent().unwrap(), 0o777);
    let error = host.1.load().unwrap_err().to_string();
    assert!(error.contains("others than its owner"), "{error}");
}

#[test]
fn a_mask_can_not_be_moved_away() {
    for place in ["", "etc", "etc/trustedkeys", "etc/trustedkeys/prefix.d"] {
        let host = host();
        host.system().add(&prefix("a.b"), &key(0)).unwrap();
        host.1.remove(key(0).fingerprint(), None).unwrap();
        assert_eq!(host.scopes("a.b"), 0);
        let directory = host.0.path().join(place);
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = || {
            let error = host.1.load().unwrap_err().to_string();
            assert!(error.contains("others than its owner"), "{place}: {error}");
        };
        refused();
        // Nor does it go unnoticed that it has been.
        let keys = host.0.path().join("etc/trustedkeys");
        fs::rename(keys.join("prefix.d"), keys.join("gone")).unwrap();
        if place != "etc/trustedkeys/prefix.d" {
            refused();
        }
    }
}

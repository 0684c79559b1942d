//! What an image argument means, what limits can be set, and how text of an image is shown.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

use sandbox_image::{Digest, Limit, Limits, Reference, Text};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::PathBuf};

fn parse(argument: &str) -> Result<Reference, String> {
    Reference::parse(argument.as_ref()).map_err(|error| error.to_string())
}

#[test]
fn references_mean_what_they_mean_in_rkt_and_skopeo() {
    let aci = |file: &str| Ok(Reference::Aci { file: PathBuf::from(file) });
    let layout = |directory: &str, name: Option<&str>| {
        Ok(Reference::OciLayout {
            directory: PathBuf::from(directory),
            name: name.map(str::to_owned),
        })
    };
    assert_eq!(parse("oci:/images/debian"), layout("/images/debian", None));
    assert_eq!(parse("oci:debian:13"), layout("debian", Some("13")));
    assert_eq!(parse("oci:debian:a:b"), layout("debian", Some("a:b")));
    assert_eq!(parse("oci:debian:"), layout("debian", None));
    let file = PathBuf::from("a.tar");
    assert_eq!(
        parse("oci-archive:a.tar"),
        Ok(Reference::OciArchive { file: file.clone(), name: None })
    );
    assert_eq!(
        parse("docker-archive:a.tar:x/y:1"),
        Ok(Reference::DockerArchive { file, name: Some("x/y:1".to_owned()) })
    );
    assert_eq!(parse("/any/where"), aci("/any/where"));
    assert_eq!(parse("./x"), aci("./x"));
    assert_eq!(parse("../x"), aci("../x"));
    assert_eq!(parse("x.aci"), aci("x.aci"));
    assert_eq!(parse("file:///x.aci"), aci("/x.aci"));
    // A file that exists: tests run in the package's directory.
    assert_eq!(parse("Cargo.toml"), aci("Cargo.toml"));
    let odd = Reference::parse(OsStr::from_bytes(b"oci:/\xff\n:x")).unwrap();
    assert_eq!(odd.to_string(), "oci:/\u{fffd}\\n:x");
}

#[test]
fn what_servers_have_is_known_by_its_form() {
    for (argument, shown) in [
        ("docker://debian:13", "docker.io/library/debian:13"),
        ("docker:debian", "docker.io/library/debian:latest"),
        ("https://example.com/x.aci", "https://example.com/x.aci"),
        ("http://example.com/x.aci", "http://example.com/x.aci"),
        ("example.com/app:1.0", "example.com/app:1.0"),
        ("example.com/app,channel=beta", "example.com/app,channel=beta"),
        ("debian", "docker.io/library/debian:latest"),
        ("sha512-0123", "sha512-0123"),
    ] {
        assert_eq!(parse(argument).map(|reference| reference.to_string()).as_deref(), Ok(shown));
    }
}

#[test]
fn other_references_are_refused_with_what_is_supported() {
    for argument in ["cimd:docker:v=0:x", "Example.com/app"] {
        let error = parse(argument).unwrap_err();
        assert!(error.contains("what can be fetched is docker://NAME"), "{error}");
        assert!(error.contains(argument), "{error}");
    }
    assert!(parse("").unwrap_err().contains("empty"));
    assert!(parse("oci:").unwrap_err().contains("names no path"));
    assert!(parse("oci::x").unwrap_err().contains("names no path"));
    assert!(parse("file://x.aci").unwrap_err().contains("file:///PATH.aci"));
    assert!(parse("file:///x.tar").unwrap_err().contains("file:///PATH.aci"));
    let error = Reference::parse(OsStr::from_bytes(b"oci:x:\xff")).unwrap_err().to_string();
    assert!(error.contains("not UTF-8"), "{error}");
}

#[test]
fn every_limit_can_be_set_by_its_name() {
    let mut limits = Limits::default();
    for limit in Limit::ALL {
        assert_eq!(limits.get(limit), limit.default_value());
        limits.set_argument(&format!("{}=7", limit.name())).unwrap();
        assert_eq!(limits.get(limit), 7);
        let error = limits.set_argument(&format!("{}=18446744073709551615", limit.name()));
        assert!(error.unwrap_err().to_string().contains(limit.name()));
    }
    limits.set_argument("size=3G").unwrap();
    assert_eq!(limits.get(Limit::Size), 3 << 30);
    for wrong in ["", "size", "size=", "size=G", "size=-1", "size=1.5G", "size=1g", "size= 1"] {
        assert!(limits.set_argument(wrong).is_err(), "{wrong}");
    }
    let unknown = limits.set_argument("sise=1").unwrap_err().to_string();
    assert!(Limit::ALL.iter().all(|limit| unknown.contains(limit.name())), "{unknown}");
}

#[test]
fn text_of_an_image_does_not_reach_the_terminal() {
    let shown = Text::new("a\x1b[31m\u{202e}\r\n\u{9b}\t'\"\\").to_string();
    assert_eq!(shown, "a\\u{1b}[31m\\u{202e}\\r\\n\\u{9b}\\t'\"\\");
    let long = Text::new("x".repeat(100_000)).to_string();
    assert_eq!(long.chars().count(), Text::MAX + 1);
    assert!(Text::new([0xff; 10_000]).to_string().len() < 4 * Text::MAX);
}

#[test]
fn digests_are_written_in_one_way() {
    let hex = "0123456789abcdef".repeat(4);
    let digest: Digest = format!("sha256:{hex}").parse().unwrap();
    assert_eq!(digest.to_string(), format!("sha256:{hex}"));
    assert_eq!(digest.file_name(), format!("sha256-{hex}"));
    assert!(format!("sha512:{hex}{hex}").parse::<Digest>().is_ok());
    for wrong in [
        String::new(),
        hex.clone(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}0"),
        format!("sha512:{hex}"),
        format!("md5:{hex}"),
        format!("sha256:../{}", &hex[3..]),
        format!("SHA256:{hex}"),
    ] {
        assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
    }
}

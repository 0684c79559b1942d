//! Secrets that a service gives out.

use crate::secrets::{SAYS, SECRET, reference_values, tampered};
use crate::service::Service;
use crate::tpm::Measured;
use sandbox_tests::image::Image;
use sandbox_tests::sandbox::{Ended, Run};
use sandbox_tests::tar::Tar;
use serde_json::json;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// A host, and a service that has a secret for one pod on it.
fn served(measured: &Measured) -> Service {
    let record = measured.ran(&measured.image);
    let service = Service::of(measured, reference_values(&record));
    let file = service.at("secrets/team-db");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, SECRET).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = json!({"name": "team-db", "policy": "team", "accept": "warning"});
    let rules = json!([{"policy": "team"}]);
    service.put("service.json", &json!({"version": 1, "rules": rules, "secrets": [secret]}));
    service.reload();
    service
}

/// A pod of an image that wants it.
fn run(measured: &Measured, service: &Service, image: &OsString) -> Run {
    let run = measured.host.run(image);
    service.asked_by(run).with("--secret=db=service:team-db")
}

#[track_caller]
fn is_refused(measured: &Measured, ended: Ended, words: &[&str]) {
    ended.fails_saying(words).never_shows(SECRET);
    measured.has_no_pods();
    let log = fs::read_to_string(measured.log()).unwrap();
    let last = log.split('\u{1e}').next_back().unwrap();
    assert!(last.contains("\"aborted\""), "{last}");
}

/// "Secret released to the genuine pod only: tampered kernel, init, image, command line, volume or
/// policy each get none": by the service's reference values, not by this host's word.
#[test]
fn a_service_gives_the_secret_to_the_genuine_pod_alone() {
    let measured = Measured::new(15);
    let service = served(&measured);
    let genuine = || run(&measured, &service, &measured.image);
    let is_given = || drop(genuine().sh(SAYS).exits(0).prints(SECRET));
    is_given();
    measured.host.never_keeps(SECRET);

    let kernel = tampered("/usr/lib/sandbox/vmlinux", measured.directory.path());
    let kernel = format!("--kernel={}", kernel.display());
    is_refused(&measured, genuine().with(kernel).sh(SAYS), &["kernel"]);

    let initramfs = tampered("/usr/lib/sandbox/initramfs", measured.directory.path());
    let ended = measured.with_initramfs(&initramfs, || genuine().sh(SAYS));
    is_refused(&measured, ended, &["guest-init"]);

    let layer = Tar::new().file("etc/tampered", 0o644, "x").finish();
    let image = Image::tiny_and([layer]).layout(&measured.directory.path().join("tampered-image"));
    is_refused(&measured, run(&measured, &service, &image).sh(SAYS), &["images"]);

    let script = format!("{SAYS} | tee /tmp/x");
    is_refused(&measured, genuine().sh(&script), &["pod-manifest"]);

    let volume = measured.directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let ended = genuine().volume("v", &volume, "", "/v").sh(SAYS);
    is_refused(&measured, ended, &["volumes"]);

    let rules = json!({"version": 2, "rules": [{"require": {"tpm": true}}]});
    let file = measured.host.put("/etc/sandbox/gate.d/all.json", rules.to_string());
    is_refused(&measured, genuine().sh(SAYS), &["host-policy"]);
    fs::remove_file(file).unwrap();
    is_given();
}

/// What a service does not have, or does not give to this pod, ends the pod before its apps start.
#[test]
fn a_secret_that_the_service_does_not_give_starts_nothing() {
    let measured = Measured::new(15);
    let service = served(&measured);
    let other = service.asked_by(measured.host.run(&measured.image));
    let ended = other.with("--secret=db=service:other").sh(SAYS);
    is_refused(&measured, ended, &["does not get its secrets", "other"]);
    // One of two is none.
    let both = run(&measured, &service, &measured.image).with("--secret=other=service");
    is_refused(&measured, both.sh(SAYS), &["does not get its secrets", "other"]);
}

//! Evidence for programs in a pod.

use crate::tpm::{Measured, NONCE};
use sandbox_tests::command::Tool;
use sandbox_tests::image::Image;
use serde_json::{Value, json};
use std::fs;

/// An image with a program that speaks to sockets.
fn image(measured: &Measured) -> std::ffi::OsString {
    let library = "usr/lib/x86_64-linux-gnu";
    let modules = format!("{library}/perl-base");
    let script = "tar --create --dereference --directory / usr/bin/perl \"$1\" \
                  $(ldd /usr/bin/perl | grep -o '/[^ ]*' | sed s,^/,,)";
    let layer = Tool::new("sh").with(["-c", script, "sh", &modules]).run();
    Image::tiny_and([layer]).layout(&measured.directory.path().join("image-with-perl"))
}

/// A script that asks at the socket and prints what comes after the head.
fn ask(target: &str) -> String {
    let socket = "IO::Socket::UNIX->new(\"/run/sandbox/attest.sock\") or die $!";
    format!(
        "perl -MIO::Socket::UNIX -e '$s = {socket}; print $s \"GET {target} HTTP/1.1\\r\\n\\r\\n\"; \
         $s->flush; local $/; $_ = <$s>; s/^(.*?)\\r\\n.*?\\r\\n\\r\\n//s; \
         print STDERR \"$1\\n\"; print'"
    )
}

/// "a program inside asks guest-init for evidence over its own nonce, and can so prove to its peers
/// where it runs": a peer is a machine that has neither the TPM nor the log.
#[test]
fn a_program_proves_to_a_peer_where_it_runs() {
    let measured = Measured::new(15);
    let image = image(&measured);
    let script =
        format!("{}; echo; {}", ask("/v1/pod"), ask(&format!("/v1/evidence?nonce={NONCE}")));
    let saved = measured.directory.path().join("saved");
    let run = measured.host.run(&image).with("--tpm-attest").with("--tenant=blue");
    // A program that is not root may ask, too.
    let run = run.with(format!("--uuid-file-save={}", saved.display())).with("--user=alice");
    let mut pod =
        run.with("--interactive").script(&format!("{script}; echo; read line")).start_open();
    pod.wait_for("\"nonce\"");
    pod.wait_for("\n{");
    let uuid = fs::read_to_string(&saved).unwrap().trim().to_owned();
    drop(pod.stdin.take());
    let ended = pod.end();
    let text = ended.text();
    let mut lines = text.lines();
    let about: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!((&about["pod"], &about["tenant"]), (&json!(uuid), &json!("blue")));
    assert_eq!(ended.stderr, "HTTP/1.1 200 OK\nHTTP/1.1 200 OK\n");

    let evidence = measured.directory.path().join("inside.json");
    fs::write(&evidence, lines.next().unwrap()).unwrap();
    let document: Value = serde_json::from_slice(&fs::read(&evidence).unwrap()).unwrap();
    assert_eq!(document["pod"], uuid.as_str());
    assert_eq!(document["guestKey"], about["guestKey"]);
    let policy = measured.policy(&evidence, json!({}));
    let verify = |evidence: &std::path::Path, nonce: &str| {
        let elsewhere = sandbox_tests::Host::new();
        let nonce = format!("--nonce={nonce}");
        let words = ["attest", "verify", evidence.to_str().unwrap(), "--policy"];
        elsewhere.sandbox(words.into_iter().chain([policy.to_str().unwrap(), &nonce]))
    };
    verify(&evidence, NONCE).exits(0).mentions("passed    nonce");
    // It is over this nonce, and about this key.
    verify(&evidence, &NONCE.replace("00", "ff")).exits(1).mentions("FAILED    nonce");
    let mut changed = document.clone();
    changed["guestKey"] = json!("00".repeat(32));
    let other = measured.directory.path().join("changed.json");
    fs::write(&other, changed.to_string()).unwrap();
    verify(&other, NONCE).exits(1).mentions("FAILED    nonce");
}

/// Who is asked by a hostile pod without end still serves others.
#[test]
fn a_pod_that_asks_without_end_does_not_keep_others_from_the_tpm() {
    let measured = Measured::new(15);
    let image = image(&measured);
    let one = ask(&format!("/v1/evidence?nonce={NONCE}"));
    let script = format!("echo up; while :; do {one} >/dev/null 2>&1; done & read line; kill $!");
    let run = measured.host.run(&image).with("--tpm-attest").with("--interactive");
    let mut greedy = run.script(&script).start_open();
    greedy.wait_for("up");
    for _ in 0..3 {
        measured.sh("echo mine").exits(0).prints("mine\n");
    }
    assert!(greedy.is_alive());
    drop(greedy.stdin.take());
    greedy.end();
    measured.host.sandbox(["attest", "status"]).exits(0).mentions("agrees");
}

/// A pod that nobody has measured has nothing to prove.
#[test]
fn a_pod_that_is_not_measured_has_no_socket() {
    let measured = Measured::new(15);
    let run = measured.host.run(&measured.image);
    run.sh("test -e /run/sandbox || echo none").exits(0).prints("none\n");
}

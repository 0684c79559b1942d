//! Pods whose launch is in the host's TPM: their secrets, and evidence for their apps.

use crate::harness::{Guest, app, exited, shell, started, stderr, stdout};
use crate::{Test, tests};
use sandbox_protocol::evidence::{Header, Kind};
use sandbox_protocol::secret::seal;
use sandbox_protocol::{Measured, Mount, Pod, Secret, ToGuest, Volume, VolumeSource};
use std::io::Write as _;
use std::path::Path;

pub const TESTS: &[Test] = tests![
    secrets_are_files_that_every_app_can_read_and_none_can_change,
    a_secret_has_the_name_that_the_pod_gives_it,
    no_app_starts_before_the_secrets_are_there,
    a_secret_for_another_guest_pod_or_name_starts_nothing,
    more_or_fewer_secrets_than_the_pod_has_start_nothing,
    a_secret_is_on_top_of_a_volume_and_never_in_it,
    a_pod_that_is_not_measured_has_no_key_and_no_socket,
    an_app_learns_which_pod_it_is_in,
    an_app_gets_evidence_over_its_own_nonce,
    evidence_of_many_bytes_comes_whole_to_an_app_that_reads_slowly,
    an_app_without_a_nonce_or_a_request_is_told_so,
    what_the_host_does_not_answer_is_an_error_for_the_app_alone,
    apps_that_ask_at_once_are_answered_one_after_the_other,
    apps_that_say_nothing_do_not_keep_others_from_asking,
];

const POD: &str = "6733c088-b287-4ac0-b6ed-6a8ea5b9ef4b";
const NONCE: &str = "00112233445566778899aabbccddeeff";

fn measured(script: &str, secrets: &[&str]) -> Pod {
    let secret = |name: &&str| Secret { name: name.to_string(), sealed_as: name.to_string() };
    let secrets = secrets.iter().map(secret).collect();
    let measured = Measured { uuid: POD.into(), tenant: "blue".into(), secrets };
    Pod { measured: Some(measured), ..shell(script) }
}

fn start(pod: Pod) -> (Guest, [u8; 32]) {
    let mut guest = Guest::start(pod, &[("root", Path::new("/"))]);
    let key = guest.key();
    (guest, key)
}

/// A program that asks at the socket and prints the answer.
fn ask(target: &str) -> String {
    let socket = "IO::Socket::UNIX->new(\"/run/sandbox/attest.sock\") or die $!";
    format!(
        "perl -MIO::Socket::UNIX -e '$s = {socket}; print $s \"GET {target} HTTP/1.1\\r\\n\\r\\n\"; \
         $s->flush; print while <$s>'"
    )
}

fn evidence() -> String {
    ask(&format!("/v1/evidence?nonce={NONCE}"))
}

fn end(mut guest: Guest) -> String {
    let (output, errors) = (guest.output(stdout(0)), guest.output(stderr(0)));
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    guest.finish();
    assert_eq!(errors, "");
    output
}

fn secrets_are_files_that_every_app_can_read_and_none_can_change() {
    let script = "cd /run/secrets && stat -c '%n %a %u %g %s' * && cat db && \
                  ! (echo x >db) 2>/dev/null && ! touch new 2>/dev/null && ! rm -f db 2>/dev/null && \
                  ! mount -o remount,rw /run/secrets 2>/dev/null && \
                  stat -f -c %T . && cmp key /dev/stdin </dev/null 2>&1 | head -c 3";
    let mut pod = measured(script, &["db", "key"]);
    let mut other = app("other", "cat /run/secrets/db", 1);
    other.user = "65534".into();
    pod.apps.push(other);
    let (mut guest, key) = start(pod);
    let sealed = vec![
        seal(&key, POD, "db", b"swordfish").unwrap(),
        seal(&key, POD, "key", &[7; 65_536]).unwrap(),
    ];
    guest.say(&ToGuest::Secrets { sealed });
    assert_eq!(guest.output(stdout(1)), "swordfish");
    let output = guest.output(stdout(0));
    assert_eq!(output, "db 444 0 0 9\nkey 444 0 0 65536\nswordfishtmpfs\ncmp");
    assert_eq!(guest.output(stderr(0)) + &guest.output(stderr(1)), "");
}

fn no_app_starts_before_the_secrets_are_there() {
    let (mut guest, key) = start(measured("cat /run/secrets/db", &["db"]));
    std::thread::sleep(std::time::Duration::from_millis(300));
    // Signals for apps that do not run yet are for nobody.
    guest.say(&ToGuest::Signal { app: 0, signal: 9 });
    let sealed = vec![seal(&key, POD, "db", b"swordfish").unwrap()];
    guest.say(&ToGuest::Secrets { sealed });
    assert_eq!(end(guest), "swordfish");
}

fn a_secret_has_the_name_that_the_pod_gives_it() {
    let mut pod = measured("cd /run/secrets && echo * && cat db", &[]);
    let secret = Secret { name: "db".into(), sealed_as: "team-db-2".into() };
    pod.measured.as_mut().unwrap().secrets.push(secret);
    let (mut guest, key) = start(pod);
    let sealed = vec![seal(&key, POD, "team-db-2", b"swordfish").unwrap()];
    guest.say(&ToGuest::Secrets { sealed });
    assert_eq!(end(guest), "db\nswordfish");
}

fn a_secret_for_another_guest_pod_or_name_starts_nothing() {
    let (_, other_key) = {
        let (guest, key) = start(measured("true", &["db"]));
        guest.hang_up();
        ((), key)
    };
    let other_pod = POD.replace('6', "7");
    type Seal<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let cases: [Seal; 4] = [
        &|_| seal(&other_key, POD, "db", b"x").unwrap(),
        &|key| seal(key, &other_pod, "db", b"x").unwrap(),
        &|key| seal(key, POD, "dc", b"x").unwrap(),
        &|_| b"swordfish".to_vec(),
    ];
    for case in cases {
        let (mut guest, key) = start(measured("true", &["db"]));
        guest.say(&ToGuest::Secrets { sealed: vec![case(&key)] });
        let failure = guest.failure();
        assert!(
            failure.contains("secret db: ") && failure.contains("not for this pod"),
            "{failure}"
        );
        guest.finish();
    }
}

fn more_or_fewer_secrets_than_the_pod_has_start_nothing() {
    for count in [0, 2] {
        let (mut guest, key) = start(measured("true", &["db"]));
        let sealed = vec![seal(&key, POD, "db", b"x").unwrap(); count];
        guest.say(&ToGuest::Secrets { sealed });
        let failure = guest.failure();
        assert_eq!(failure, format!("{count} secrets came, of 1 that the pod has"));
        guest.finish();
    }
}

fn a_secret_is_on_top_of_a_volume_and_never_in_it() {
    let volume = tempfile::tempdir().unwrap();
    let mut pod = measured("cat /run/secrets/db", &["db"]);
    pod.volumes.push(Volume { name: "run".into(), source: VolumeSource::Share("run".into()) });
    pod.apps[0].mounts.push(Mount { volume: 0, target: b"/run".to_vec(), read_only: false });
    let shares = [("root", Path::new("/")), ("run", volume.path())];
    let mut guest = Guest::start(pod, &shares);
    let key = guest.key();
    let sealed = vec![seal(&key, POD, "db", b"swordfish").unwrap()];
    guest.say(&ToGuest::Secrets { sealed });
    assert_eq!(end(guest), "swordfish");
    let inside = std::fs::read_dir(volume.path().join("secrets")).unwrap();
    assert_eq!(inside.count(), 0);
}

fn a_pod_that_is_not_measured_has_no_key_and_no_socket() {
    let image = Path::new("/");
    let guest =
        Guest::start(shell("ls /run/sandbox /run/secrets 2>&1 | wc -l"), &[("root", image)]);
    assert_eq!(end(guest), "2\n");
}

fn an_app_learns_which_pod_it_is_in() {
    let (guest, key) = start(measured(&ask("/v1/pod"), &[]));
    let answer = end(guest);
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let (head, content) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let content: serde_json::Value = serde_json::from_str(content).unwrap();
    let expected = serde_json::json!({"version": 1, "pod": POD, "tenant": "blue", "guestKey": key});
    assert_eq!(content, expected);
}

fn answer(guest: &mut Guest, kind: Kind, content: &[u8]) {
    let (nonce, mut connection) = guest.question();
    assert_eq!(nonce, (0..16).map(|it| it * 0x11).collect::<Vec<u8>>());
    let header = Header { kind, length: u32::try_from(content.len()).unwrap() };
    connection.write_all(&header.to_bytes()).unwrap();
    connection.write_all(content).unwrap();
}

fn an_app_gets_evidence_over_its_own_nonce() {
    let (mut guest, _) = start(measured(&evidence(), &[]));
    answer(&mut guest, Kind::Evidence, b"{\"a\":1}");
    let output = end(guest);
    assert!(output.starts_with("HTTP/1.1 200 OK\r\n"), "{output}");
    assert!(output.contains("Content-Length: 7\r\n"), "{output}");
    assert!(output.ends_with("\r\n\r\n{\"a\":1}"), "{output}");
}

fn evidence_of_many_bytes_comes_whole_to_an_app_that_reads_slowly() {
    let slowly = evidence().replace("print while", "sleep 1; print while");
    let (mut guest, _) = start(measured(&format!("{slowly} | wc -c"), &[]));
    answer(&mut guest, Kind::Evidence, &vec![b'x'; 3 << 20]);
    let bytes: usize = end(guest).trim().parse().unwrap();
    assert!(bytes > 3 << 20 && bytes < (3 << 20) + 200, "{bytes}");
}

fn an_app_without_a_nonce_or_a_request_is_told_so() {
    let script = [ask("/v1/evidence"), ask("/"), ask("/v1/evidence?nonce=00")]
        .map(|ask| format!("{ask} | head -1"))
        .join("; ");
    let (guest, _) = start(measured(&script, &[]));
    let lines = ["400 Bad Request", "404 Not Found", "400 Bad Request"];
    assert_eq!(end(guest), lines.map(|line| format!("HTTP/1.1 {line}\r\n")).concat());
}

fn what_the_host_does_not_answer_is_an_error_for_the_app_alone() {
    let script = format!("for i in 1 2 3 4; do {}; echo; done", evidence());
    let (mut guest, _) = start(measured(&script, &[]));
    answer(&mut guest, Kind::Refused, b"the TPM \x1bhangs");
    answer(&mut guest, Kind::Busy, b"");
    let (_, mut garbage) = guest.question();
    garbage.write_all(&[9; 100]).unwrap();
    drop(guest.question());
    let output = end(guest);
    let statuses: Vec<_> = output.lines().filter(|line| line.starts_with("HTTP/1.1")).collect();
    assert_eq!(
        statuses,
        [
            "HTTP/1.1 503 Service Unavailable",
            "HTTP/1.1 429 Too Many Requests",
            "HTTP/1.1 502 Bad Gateway",
            "HTTP/1.1 502 Bad Gateway",
        ]
    );
    assert!(output.contains("the TPM") && !output.contains('\x1b'), "{output}");
}

fn apps_that_ask_at_once_are_answered_one_after_the_other() {
    let script = format!("for i in 1 2 3; do {} & done; wait", evidence());
    let (mut guest, _) = start(measured(&script, &[]));
    for _ in 0..3 {
        let (_, mut connection) = guest.question();
        std::thread::sleep(std::time::Duration::from_millis(100));
        connection.write_all(&Header { kind: Kind::Evidence, length: 2 }.to_bytes()).unwrap();
        connection.write_all(b"{}").unwrap();
    }
    assert_eq!(end(guest).matches("200 OK").count(), 3);
}

fn apps_that_say_nothing_do_not_keep_others_from_asking() {
    let silent = "perl -MIO::Socket::UNIX -e \
                  '@s = map { IO::Socket::UNIX->new(\"/run/sandbox/attest.sock\") } 1..14; sleep 99' &";
    let script = format!("{silent} sleep 1; {}; kill $!", ask("/v1/pod"));
    let (guest, _) = start(measured(&script, &[]));
    assert!(end(guest).starts_with("HTTP/1.1 200 OK"));
}

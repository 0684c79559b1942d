//! What measured pods get, against guests that take it as they should and as they shouldn't.

use super::script::{Outcome, Script, limits, pod, watch, watch_measured};
use crate::measure::MeasureError;
use crate::supervisor::inside::Prover;
use crate::supervisor::session::Violation;
use crate::supervisor::trouble::Trouble;
use crate::supervisor::watch::Ending;
use sandbox_protocol::evidence::{Header, Kind, write_question};
use sandbox_protocol::secret::KEY;
use sandbox_protocol::{EVIDENCE_PORT, Measured, Pod, Secret, Text, ToGuest, ToHost};
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const GUEST_KEY: [u8; KEY] = [7; KEY];
const NONCE: [u8; 16] = [9; 16];

/// Proves whatever it is asked.
#[derive(Default)]
struct Fake {
    refuses: bool,
    takes: Duration,
    /// How many questions are being answered, and were at the same time.
    now: AtomicUsize,
    most: AtomicUsize,
    size: usize,
}

impl Prover for Fake {
    fn secrets(&self, guest_key: &[u8; KEY]) -> Result<Vec<Vec<u8>>, MeasureError> {
        assert_eq!(*guest_key, GUEST_KEY);
        thread::sleep(self.takes);
        match self.refuses {
            true => Err(MeasureError::Secret("the kernel is another one".into())),
            false => Ok(vec![b"sealed".to_vec(), b"sealed, too".to_vec()]),
        }
    }

    fn evidence(&self, guest_key: &[u8; KEY], nonce: &[u8]) -> Result<Vec<u8>, MeasureError> {
        assert_eq!((*guest_key, nonce), (GUEST_KEY, &NONCE[..]));
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        thread::sleep(self.takes);
        self.now.fetch_sub(1, Ordering::SeqCst);
        match self.refuses {
            true => Err(MeasureError::Secret("/var/lib/sandbox/attest is gone".into())),
            false => Ok(vec![b'{'; self.size.max(1)]),
        }
    }
}

fn measured(secrets: &[&str]) -> Pod {
    let secret = |name: &&str| Secret { name: name.to_string(), sealed_as: name.to_string() };
    let measured = Measured {
        uuid: "6733c088-b287-4ac0-b6ed-6a8ea5b9ef4b".into(),
        tenant: String::new(),
        secrets: secrets.iter().map(secret).collect(),
    };
    Pod { measured: Some(measured), ..pod(&["a"]) }
}

fn run(secrets: &[&str], fake: Fake, script: impl FnOnce(Script) + Send + 'static) -> Outcome {
    watch_measured(&measured(secrets), Arc::new(fake), limits(), script)
}

fn key() -> ToHost {
    ToHost::Key { public: GUEST_KEY }
}

fn ask(guest: &Script) -> UnixStream {
    let mut stream = guest.connect(EVIDENCE_PORT);
    // One that has been told to come again is not listened to any more.
    let _ = write_question(&mut stream, &NONCE);
    stream
}

/// What comes back: the kind, and all that follows.
fn hear(mut stream: UnixStream) -> (Kind, Vec<u8>) {
    let mut header = [0; Header::LENGTH];
    stream.read_exact(&mut header).unwrap();
    let header = Header::parse(header).unwrap();
    let mut rest = Vec::new();
    // A question that nobody has read makes the end a reset.
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(rest.len(), header.length as usize);
    (header.kind, rest)
}

fn end(mut guest: Script) {
    guest.exited(0, 0);
    guest.finish();
}

#[test]
fn a_guest_gets_its_secrets_for_its_key() {
    let outcome = run(&["db", "key"], Fake::default(), |mut guest| {
        let pod = guest.boot();
        assert_eq!(pod.measured.unwrap().secrets[0].name, "db");
        guest.send(key());
        let sealed = vec![b"sealed".to_vec(), b"sealed, too".to_vec()];
        assert_eq!(guest.receive(), Some(ToGuest::Secrets { sealed }));
        drop(guest.start(0));
        end(guest);
    });
    assert!(matches!(outcome.ending, Ending::Finished), "{:?}", outcome.ending);
}

#[test]
fn a_pod_without_its_secrets_is_ended_with_the_reason() {
    let outcome = run(&["db"], Fake { refuses: true, ..Fake::default() }, |mut guest| {
        guest.boot();
        guest.send(key());
        guest.hung_up();
    });
    let trouble = outcome.trouble();
    assert!(matches!(trouble, Trouble::Secrets(_)), "{trouble:?}");
    assert!(trouble.to_string().contains("the kernel is another one"), "{trouble}");
}

#[test]
fn secrets_have_more_time_than_a_set_up_and_then_it_begins_anew() {
    let mut limits = limits();
    limits.setup = Duration::from_millis(400);
    let fake = Fake { takes: Duration::from_millis(900), ..Fake::default() };
    let outcome = watch_measured(&measured(&["db"]), Arc::new(fake), limits, |mut guest| {
        guest.boot();
        guest.send(key());
        assert!(matches!(guest.receive(), Some(ToGuest::Secrets { .. })));
        guest.hung_up();
    });
    assert!(matches!(outcome.trouble(), Trouble::Setup(_)), "{:?}", outcome.ending);
}

#[test]
fn a_key_out_of_turn_ends_the_pod() {
    let unasked = watch(&pod(&["a"]), "", limits(), |mut guest| {
        guest.boot();
        guest.send(key());
        guest.hung_up();
    });
    let late = run(&[], Fake::default(), |mut guest| {
        guest.boot();
        guest.send(ToHost::Failed { app: Some(0), error: Text::new("") });
        guest.hung_up();
    });
    let twice = run(&["db"], Fake::default(), |mut guest| {
        guest.boot();
        guest.send(key());
        guest.send(key());
        guest.hung_up();
    });
    for outcome in [unasked, late, twice] {
        let violation = Trouble::Violation(Violation::Key).to_string();
        assert_eq!(outcome.trouble().to_string(), violation);
    }
}

#[test]
fn evidence_is_over_the_nonce_and_the_key_of_the_guest() {
    let fake = Fake { size: 300_000, ..Fake::default() };
    let outcome = run(&[], fake, |mut guest| {
        guest.boot();
        guest.send(key());
        drop(guest.start(0));
        assert_eq!(hear(ask(&guest)), (Kind::Evidence, vec![b'{'; 300_000]));
        end(guest);
    });
    assert!(matches!(outcome.ending, Ending::Finished), "{:?}", outcome.ending);
}

#[test]
fn a_question_that_overtakes_the_key_is_answered_when_that_has_come() {
    run(&[], Fake::default(), |mut guest| {
        guest.boot();
        let early = ask(&guest);
        thread::sleep(Duration::from_millis(100));
        guest.send(key());
        assert_eq!(hear(early).0, Kind::Evidence);
        drop(guest.start(0));
        end(guest);
    });
}

#[test]
fn one_question_is_answered_in_a_second() {
    let fake = Arc::new(Fake::default());
    let begin = Instant::now();
    watch_measured(&measured(&[]), fake.clone(), limits(), |mut guest| {
        guest.boot();
        guest.send(key());
        drop(guest.start(0));
        let mut answered = 0;
        while answered < 4 {
            match hear(ask(&guest)).0 {
                Kind::Evidence => answered += 1,
                // The thread of the last one is about to end.
                Kind::Busy => thread::sleep(Duration::from_millis(1)),
                Kind::Refused => panic!("refused"),
            }
        }
        end(guest);
    });
    assert!(begin.elapsed() >= Duration::from_secs(3), "{:?}", begin.elapsed());
    assert_eq!(fake.most.load(Ordering::SeqCst), 1);
}

#[test]
fn questions_at_once_are_told_to_come_again() {
    let fake = Fake { takes: Duration::from_millis(500), ..Fake::default() };
    run(&[], fake, |mut guest| {
        guest.boot();
        guest.send(key());
        drop(guest.start(0));
        let first = ask(&guest);
        let others: Vec<_> = (0..20).map(|_| ask(&guest)).collect();
        assert!(others.into_iter().map(hear).all(|answer| answer == (Kind::Busy, Vec::new())));
        assert_eq!(hear(first).0, Kind::Evidence);
        end(guest);
    });
}

#[test]
fn what_the_host_can_not_answer_says_nothing_of_the_host() {
    run(&[], Fake { refuses: true, ..Fake::default() }, |mut guest| {
        guest.boot();
        guest.send(key());
        drop(guest.start(0));
        let (kind, reason) = hear(ask(&guest));
        let reason = String::from_utf8(reason).unwrap();
        assert_eq!(kind, Kind::Refused);
        assert!(reason.contains("cannot make evidence") && !reason.contains("/var"), "{reason}");
        end(guest);
    });
}

#[test]
fn guests_that_ask_what_is_no_question_hold_up_nobody() {
    let outcome = run(&[], Fake::default(), |mut guest| {
        guest.boot();
        guest.send(key());
        drop(guest.start(0));
        let mut garbage = guest.connect(EVIDENCE_PORT);
        garbage.write_all(&[0xff; 100]).unwrap();
        assert_eq!(garbage.read(&mut [0]).unwrap_or(0), 0);
        // One that says nothing has its time, and the pod goes on and ends.
        let silent = guest.connect(EVIDENCE_PORT);
        guest.exited(0, 0);
        guest.finish();
        drop(silent);
    });
    assert!(matches!(outcome.ending, Ending::Finished), "{:?}", outcome.ending);
}

#[test]
fn a_pod_that_is_not_measured_gets_no_answer() {
    watch(&pod(&["a"]), "", limits(), |mut guest| {
        guest.boot();
        drop(guest.start(0));
        assert_eq!(guest.connect(EVIDENCE_PORT).read(&mut [0]).unwrap(), 0);
        end(guest);
    });
}

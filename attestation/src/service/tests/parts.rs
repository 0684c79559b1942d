//! Documents, heads of requests, limits.

use crate::{
    record::VersionOne,
    service::{
        ChallengeRequest, Document as _, Endpoint, ErrorAnswer, EvidenceRequest, Head, HeadError,
        MAX_HEAD, Rate, SecretName, ServiceSettings,
        limit::{Budget, Limiter, customer},
    },
    verify::tests::machine::Machine,
};
use proptest::prelude::*;
use serde_json::json;
use std::time::{Duration, Instant};

fn head(text: &str) -> Result<Option<(Head, usize)>, HeadError> {
    Head::parse(text.as_bytes())
}

#[test]
fn a_request_is_read_as_it_comes_in() {
    let text = "POST /v1/evidence HTTP/1.1\r\nHost: a\r\nContent-Type: application/json; \
                charset=utf-8\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n";
    for end in 0..text.len() {
        assert_eq!(head(&text[..end]).unwrap(), None, "{end}");
    }
    let found = Head { endpoint: Endpoint::Evidence, length: 12, expects_continue: true };
    assert_eq!(head(text).unwrap(), Some((found, text.len())));
    assert_eq!(head(&format!("{text}{{\"version\"")).unwrap(), Some((found, text.len())));
}

#[test]
fn what_is_not_such_a_request_is_refused() {
    let long = format!("POST /v1/challenge HTTP/1.1\r\nA: {}", "x".repeat(MAX_HEAD));
    let many = format!("POST /v1/challenge HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
    let post = |headers: &str| format!("POST /v1/challenge HTTP/1.1\r\n{headers}\r\n");
    for (text, expected) in [
        (long, HeadError::TooLong),
        (many, HeadError::TooLong),
        ("\u{16}\u{3}\u{1}".to_owned(), HeadError::Malformed),
        ("GET /v1/challenge HTTP/1.1\r\n\r\n".to_owned(), HeadError::Method),
        ("POST / HTTP/1.1\r\n\r\n".to_owned(), HeadError::NotFound),
        ("POST /v1/challenge?x HTTP/1.1\r\n\r\n".to_owned(), HeadError::NotFound),
        ("POST //v1/challenge HTTP/1.1\r\n\r\n".to_owned(), HeadError::NotFound),
        (post(""), HeadError::Length),
        (post("Content-Length: x\r\n"), HeadError::Length),
        (post("Content-Length: +1\r\n"), HeadError::Length),
        (post("Content-Length: -1\r\n"), HeadError::Length),
        (post("Content-Length: 1\r\nContent-Length: 1\r\n"), HeadError::Length),
        (post("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), HeadError::Length),
        (post("Content-Length: 4097\r\n"), HeadError::Body(4096)),
        (post("Content-Length: 99999999999999999999\r\n"), HeadError::Body(4096)),
        (post("Content-Length: 1\r\nExpect: money\r\n"), HeadError::Expectation),
        (post("Content-Length: 1\r\nContent-Type: text/plain\r\n"), HeadError::Type),
    ] {
        assert_eq!(head(&text).unwrap_err(), expected, "{text:.80}");
    }
}

#[test]
fn a_request_with_evidence_is_bounded() {
    let evidence = Machine::new().evidence();
    let names = |count: usize| (0..count).map(|number| format!("s{number}").parse().unwrap());
    let request = |secrets: Vec<SecretName>| EvidenceRequest {
        version: VersionOne,
        evidence: evidence.clone(),
        secrets,
    };
    let most = request(names(64).collect()).to_json().unwrap();
    assert_eq!(EvidenceRequest::parse(&most).unwrap().secrets.len(), 64);
    request(names(65).collect()).to_json().unwrap_err();
    request(names(1).chain(names(1)).collect()).to_json().unwrap_err();
    let text = String::from_utf8(most).unwrap();
    for (from, to) in [
        (r#"{"version":1,"#, r#"{"version":2,"#),
        (r#"{"version":1,"#, r#"{"version":1,"version":1,"#),
        (r#"{"version":1,"#, r#"{"version":1,"more":1,"#),
        (r#""s1""#, r#""S1""#),
        (r#""s1""#, r#""""#),
        (r#""s1""#, r#""../s1""#),
        (r#""secrets":["s0""#, r#""secret":["s0""#),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        assert!(EvidenceRequest::parse(changed.as_bytes()).is_err(), "{to}");
    }
    assert!(EvidenceRequest::parse(&vec![b' '; (16 << 20) + 1]).is_err());
    assert!(ChallengeRequest::parse(&[b' '; 4097]).is_err());
}

#[test]
fn a_limit_is_reached_and_passes() {
    let limiter = Limiter::new();
    let rate = Rate { burst: 2, per_second: 2 };
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let took = [0, 0, 0, 100, 500, 500, 1000, 10_000, 10_000, 10_000]
        .map(|millis| limiter.take(&"a", rate, at(millis)));
    assert_eq!(took, [true, true, false, false, true, false, true, true, true, false]);
    assert!(limiter.take(&"b", rate, at(10_000)));
}

/// Somebody with very many addresses does not make the service forget who is at their limit.
#[test]
fn who_is_at_the_limit_is_not_forgotten_for_others() {
    let limiter = Limiter::new();
    let rate = Rate { burst: 10, per_second: 1 };
    let now = Instant::now();
    while limiter.take(&0, rate, now) {}
    for who in 1..20_000 {
        limiter.take(&who, rate, now);
    }
    assert!(!limiter.take(&0, rate, now));
}

#[test]
fn one_address_gets_its_part_and_no_more() {
    let budget = Budget::new(10, 6);
    let [one, two] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
    let first = budget.take(one, 6).unwrap();
    assert!(budget.take(one, 1).is_none());
    assert!(budget.take(two, 5).is_none());
    let second = budget.take(two, 4).unwrap();
    assert!(budget.take(two, 1).is_none());
    assert!(budget.take(two, usize::MAX).is_none());
    assert_eq!(budget.taken(), 10);
    drop(first);
    assert_eq!(budget.taken(), 4);
    drop(second);
    assert_eq!(budget.taken(), 0);
    let mapped = "::ffff:192.0.2.1".parse().unwrap();
    assert_eq!(customer(mapped), one);
}

proptest! {
    #[test]
    fn any_bytes_are_a_head_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(Some((head, size))) = Head::parse(&bytes) {
            prop_assert!(size <= bytes.len() && head.length <= 16 << 20);
        }
    }

    /// How a request is cut into pieces makes no difference.
    #[test]
    fn a_head_is_the_same_however_it_comes(
        length in 0_usize..5000,
        headers in proptest::collection::vec("[A-Za-z-]{1,12}: [ -~]{0,20}", 0..8),
    ) {
        let headers = headers.join("\r\n");
        let text =
            format!("POST /v1/challenge HTTP/1.1\r\n{headers}\r\nContent-Length: {length}\r\n\r\n");
        let whole = head(&text);
        for end in 1..text.len() {
            match head(&text[..end]) {
                Ok(None) => {}
                early => prop_assert!(early.is_err() || early == whole, "{early:?} of {whole:?}"),
            }
        }
    }

    #[test]
    fn any_bytes_are_a_document_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (ChallengeRequest::parse(&bytes), EvidenceRequest::parse(&bytes));
        let _ = ServiceSettings::parse(&bytes);
    }

    #[test]
    fn what_is_refused_can_be_told(why in "\\PC{0,300}") {
        let answer = ErrorAnswer { version: VersionOne, error: why };
        let json = answer.to_json().unwrap();
        prop_assert_eq!(ErrorAnswer::parse(&json).unwrap(), answer);
    }

    #[test]
    fn the_name_of_a_secret_is_the_name_of_a_file(text in "[a-zA-Z0-9./_-]{0,70}") {
        if let Ok(name) = text.parse::<SecretName>() {
            prop_assert!(!text.contains(['/', '.']) && !text.is_empty() && text.len() <= 64);
            prop_assert_eq!(json!(name), json!(text));
        }
    }
}

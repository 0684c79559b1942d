use super::*;
use proptest::prelude::*;

const NONCE: &str = "00112233445566778899aabbccddeeff";

fn status(bytes: &[u8]) -> String {
    match parse(bytes) {
        Parsed::Refused(response) => {
            let text = String::from_utf8(response).unwrap();
            let (head, content) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", content.len())), "{text}");
            let content: serde_json::Value = serde_json::from_str(content).unwrap();
            assert!(content["error"].is_string());
            head.split(' ').nth(1).unwrap().to_owned()
        }
        other => panic!("{other:?}"),
    }
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

#[test]
fn what_programs_send_is_understood() {
    let evidence = parse(&get(&format!("/v1/evidence?nonce={NONCE}")));
    let nonce: Vec<u8> = (0..16).map(|it| it * 0x11).collect();
    assert_eq!(evidence, Parsed::Request(Request::Evidence(nonce)));
    let upper = parse(&get(&format!("/v1/evidence?nonce={}", NONCE.to_uppercase())));
    assert_eq!(upper, evidence);
    assert_eq!(parse(&get("/v1/pod")), Parsed::Request(Request::Pod));
    assert_eq!(parse(b"GET /v1/pod HTTP/1.0\r\n\r\n"), Parsed::Request(Request::Pod));
}

#[test]
fn the_beginning_of_a_request_is_waited_on() {
    let whole = get("/v1/pod");
    for end in 0..whole.len() {
        assert_eq!(parse(&whole[..end]), Parsed::Incomplete, "{end}");
    }
}

#[test]
fn what_is_no_request_is_answered_with_what_is_wrong() {
    for (target, expected) in [
        ("/", "404"),
        ("/v1/evidence/", "404"),
        ("/v1/../v1/pod", "404"),
        ("http://localhost/v1/pod", "404"),
        ("/v1/pod?x=1", "400"),
        ("/v1/evidence", "400"),
        ("/v1/evidence?nonce=", "400"),
        ("/v1/evidence?nonce=0011", "400"),
        (&format!("/v1/evidence?nonce={NONCE}0"), "400"),
        (&format!("/v1/evidence?nonce={}zz", &NONCE[2..]), "400"),
        (&format!("/v1/evidence?nonce={NONCE}&nonce={NONCE}"), "400"),
        (&format!("/v1/evidence?nonce={}", "00".repeat(65)), "400"),
    ] {
        assert_eq!(status(&get(target)), expected, "{target}");
    }
    assert_eq!(status(b"POST /v1/pod HTTP/1.1\r\n\r\n"), "405");
    assert_eq!(status(b"\0\0\0"), "400");
    assert_eq!(status(b"GET /v1/pod HTTP/2.0\r\n\r\n"), "400");
    let many = format!("GET /v1/pod HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1));
    assert_eq!(status(many.as_bytes()), "431");
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(MAX_REQUEST));
    assert_eq!(status(long.as_bytes()), "431");
}

proptest! {
    #[test]
    fn any_bytes_are_a_beginning_a_request_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        target in "/v1/(pod|evidence)[?nonce=0-9a-f]{0,80}",
    ) {
        let _ = parse(&bytes);
        if let Parsed::Request(Request::Evidence(nonce)) = parse(&get(&target)) {
            prop_assert!((MIN_NONCE..=MAX_NONCE).contains(&nonce.len()));
        }
    }
}

//! What apps of a pod ask guest-init's socket for evidence, which is HTTP.
#![no_main]

use libfuzzer_sys::fuzz_target;
use request::{Parsed, Request};

#[path = "../../../guest-init/src/evidence/request.rs"]
#[allow(dead_code, reason = "responses are made elsewhere")]
mod request;

fuzz_target!(|bytes: &[u8]| {
    let whole = request::parse(bytes);
    match &whole {
        Parsed::Incomplete => assert!(bytes.len() < 8 << 10, "no request is waited on for ever"),
        Parsed::Request(request) => {
            let text = String::from_utf8_lossy(bytes);
            let path = match request {
                Request::Pod => "/v1/pod",
                Request::Evidence(nonce) => {
                    assert!((16..=64).contains(&nonce.len()));
                    let digits: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
                    assert!(text.to_lowercase().contains(&format!("nonce={digits} ")));
                    "/v1/evidence"
                }
            };
            assert!(text.contains(&format!("GET {path}")));
        }
        Parsed::Refused(response) => {
            let response = String::from_utf8(response.clone()).expect("text");
            let (head, content) = response.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 4"), "{head}");
            assert!(head.contains(&format!("Content-Length: {}\r\n", content.len())));
            let content: serde_json::Value = serde_json::from_str(content).expect("JSON");
            assert!(content["error"].is_string());
        }
    }
    // However it arrives in pieces, the answer is the same.
    let step = bytes.len() / 8 + 1;
    for end in (0..bytes.len()).step_by(step) {
        match request::parse(&bytes[..end]) {
            Parsed::Incomplete => {}
            early @ Parsed::Request(_) => assert_eq!(early, whole),
            Parsed::Refused(_) => assert!(matches!(whole, Parsed::Refused(_))),
        }
    }
});

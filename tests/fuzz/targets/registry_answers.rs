//! What a registry or a token server answers, its headers first: lines, and after an empty one the
//! body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_image::{
    format::oci,
    http::Url,
    registry::{parse_artifact, parse_challenges, parse_next, parse_referrers, parse_token},
};

fuzz_target!(|answer: &[u8]| {
    let end = answer.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = match end {
        Some(end) => (&answer[..end], &answer[end + 2..]),
        None => (answer, &[][..]),
    };
    for header in String::from_utf8_lossy(head).lines() {
        for challenge in parse_challenges(header).unwrap_or_default() {
            if let Some(Ok(realm)) = challenge.parameter("realm").map(str::parse::<Url>) {
                check(&realm);
            }
        }
        let Ok(base) = "https://registry.example/v2/a/b?c".parse::<Url>() else { return };
        let next = parse_next(header);
        for location in next.as_deref().into_iter().chain([header]) {
            if let Ok(url) = base.join(location) {
                check(&url);
            }
        }
    }
    if let Ok((token, life)) = parse_token(body) {
        assert!(token.expose().bytes().all(|byte| byte.is_ascii_graphic()) && life <= 3600);
    }
    let _ = parse_referrers(body);
    let _ = parse_artifact(body);
    let _ = oci::parse_index(body, None);
    let _ = oci::parse_manifest(body, None);
});

/// A URL that was accepted can be written and read again, and shows no query.
fn check(url: &Url) {
    assert!(url.path().starts_with('/'));
    assert!(!url.path().split('/').any(|part| part == ".."));
    assert!(!url.host().contains(['/', '@', '?', '#']));
    assert!(url.expose().parse::<Url>().is_ok_and(|again| again == *url));
    let shown = url.shown().to_string();
    assert!(shown.split_once('?').is_none_or(|(_, query)| query == "…" || query == "\\u{2026}"));
}

//! The header `Link` (RFC 8288), as far as it says where the next page of a list is.

use ureq::http::{HeaderMap, header};

/// Where the next page is, as the answer says; it may be relative.
pub(super) fn next_page(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::LINK).iter().take(8);
    values.filter_map(|value| value.to_str().ok()).find_map(parse_next)
}

/// The target of the first link with the relation `next`. Links that are malformed are none.
pub fn parse_next(header: &str) -> Option<String> {
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (target, parameters) = rest.strip_prefix('<')?.split_once('>')?;
        let end = end_of_part(parameters, ',');
        if has_next(&parameters[..end]) {
            return Some(target.to_owned());
        }
        rest = &parameters[end..];
    }
}

/// Where a character is that ends a part: one outside of quotes.
fn end_of_part(text: &str, end: char) -> usize {
    let mut is_quoted = false;
    let mut is_escaped = false;
    for (place, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if character == end && !is_quoted => return place,
            _ => {}
        }
    }
    text.len()
}

fn has_next(mut parameters: &str) -> bool {
    while let Some(rest) = parameters.trim_start().strip_prefix(';') {
        let (parameter, rest) = rest.split_at(end_of_part(rest, ';'));
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("rel")
            && value.split(' ').any(|relation| relation.eq_ignore_ascii_case("next"))
        {
            return true;
        }
        parameters = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn links_to_the_next_page() {
        for (header, target) in [
            ("</v2/x/referrers/y?n=2>; rel=\"next\"", Some("/v2/x/referrers/y?n=2")),
            ("</a>; rel=prev, </b>;REL=next", Some("/b")),
            ("</a>; title=\"x, <y>; rel=next\", </b>; rel=\"up next\"", Some("/b")),
            ("</a>; rel=nextish", None),
            ("</a>", None),
            ("/a; rel=next", None),
            ("</a; rel=next", None),
            ("", None),
        ] {
            assert_eq!(parse_next(header).as_deref(), target, "{header}");
        }
    }

    proptest! {
        #[test]
        fn it_always_ends(header in "[<>;,= \"a-z\\\\]{0,60}") {
            let _ = parse_next(&header);
        }
    }
}

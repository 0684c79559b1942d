//! The head of an HTML page, as far as it is about discovery.
//!
//! Only what stands in the head counts: in the body there may be text of others. So reading ends
//! at the first element that can't be in a head.

use std::{borrow::Cow, ops::ControlFlow};

/// The most elements that a page may have about discovery; later ones don't count.
const MAX_METAS: usize = 256;
/// The most attributes of an element that are looked at.
const MAX_ATTRIBUTES: usize = 32;

/// What an element is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Where images are.
    Image,
    /// Where public keys are.
    Keys,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Image => "ac-discovery",
            Self::Keys => "ac-discovery-pubkeys",
        }
    }
}

/// One element: `<meta name="ac-discovery" content="PREFIX TEMPLATE">`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// What it is about.
    pub kind: Kind,
    /// What the names of images begin with.
    pub prefix: String,
    /// A URL, maybe with gaps.
    pub template: String,
}

/// All elements about discovery in the head of a page, in order. What is malformed is left out, as
/// browsers do.
pub fn metas(page: &str) -> Vec<Meta> {
    let mut metas = Vec::new();
    let mut rest = page;
    while let Some(open) = rest.find('<') {
        rest = &rest[open + 1..];
        match markup(rest, &mut metas) {
            ControlFlow::Continue(after) => rest = after,
            ControlFlow::Break(()) => break,
        }
        if metas.len() >= MAX_METAS {
            break;
        }
    }
    metas
}

/// Reads what follows a `<`, and gives what comes after it; nothing if the head has ended.
fn markup<'a>(rest: &'a str, metas: &mut Vec<Meta>) -> ControlFlow<(), &'a str> {
    let after = |end: &str| match rest.find(end) {
        Some(at) => ControlFlow::Continue(&rest[at + end.len()..]),
        None => ControlFlow::Break(()),
    };
    if let Some(comment) = rest.strip_prefix("!--") {
        // `<!-->` and `<!--->` are whole ones.
        for short in [">", "->"] {
            if let Some(rest) = comment.strip_prefix(short) {
                return ControlFlow::Continue(rest);
            }
        }
        return after("-->");
    }
    if rest.starts_with(['!', '?']) {
        return after(">");
    }
    let (is_end, tag) = match rest.strip_prefix('/') {
        Some(tag) => (true, tag),
        None => (false, rest),
    };
    if !tag.starts_with(|first: char| first.is_ascii_alphabetic()) {
        // Only text.
        return if is_end { after(">") } else { ControlFlow::Continue(rest) };
    }
    let end = tag.find(|c: char| is_space(c) || matches!(c, '/' | '>')).unwrap_or(tag.len());
    let (name, tag) = tag.split_at(end);
    let name = name.to_ascii_lowercase();
    let Some((attributes, rest)) = attributes(tag) else { return ControlFlow::Break(()) };
    match (is_end, name.as_str()) {
        (true, "head" | "html" | "body") => ControlFlow::Break(()),
        (true, _) | (false, "html" | "head" | "base" | "basefont" | "bgsound" | "link") => {
            ControlFlow::Continue(rest)
        }
        (false, "meta") => {
            metas.extend(meta(&attributes));
            ControlFlow::Continue(rest)
        }
        (false, "title" | "script" | "style" | "noscript") => after_text(rest, &name),
        (false, _) => ControlFlow::Break(()),
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

/// What comes after the end tag of an element in which there is only text.
fn after_text<'a>(mut rest: &'a str, name: &str) -> ControlFlow<(), &'a str> {
    while let Some(open) = rest.find("</") {
        rest = &rest[open + 2..];
        let is_name = rest.get(..name.len()).is_some_and(|tag| tag.eq_ignore_ascii_case(name));
        if is_name
            && rest[name.len()..].starts_with(|c: char| is_space(c) || matches!(c, '/' | '>'))
        {
            return ControlFlow::Continue(rest);
        }
    }
    ControlFlow::Break(())
}

type Attributes<'a> = Vec<(String, Cow<'a, str>)>;

/// The attributes of a tag, and what comes after it; nothing if it has no end.
fn attributes(mut rest: &str) -> Option<(Attributes<'_>, &str)> {
    let mut found = Attributes::new();
    loop {
        rest = rest.trim_start_matches(|c| is_space(c) || c == '/');
        if let Some(rest) = rest.strip_prefix('>') {
            return Some((found, rest));
        }
        // A name can begin with an equals sign.
        let first = rest.chars().next()?.len_utf8();
        let end = rest[first..].find(|c: char| is_space(c) || matches!(c, '/' | '>' | '='))?;
        let (name, after) = rest.split_at(first + end);
        let mut value = "";
        rest = after.trim_start_matches(is_space);
        if let Some(after) = rest.strip_prefix('=') {
            let after = after.trim_start_matches(is_space);
            let quote = after.chars().next().filter(|quote| matches!(quote, '"' | '\''));
            (value, rest) = match quote {
                Some(quote) => after[1..].split_once(quote)?,
                None => after.split_at(after.find(|c: char| is_space(c) || c == '>')?),
            };
        }
        // Of two with the same name the first one counts.
        if found.len() < MAX_ATTRIBUTES {
            let name = name.to_ascii_lowercase();
            if !found.iter().any(|(known, _)| *known == name) {
                found.push((name, decoded(value)));
            }
        }
    }
}

fn meta(attributes: &Attributes<'_>) -> Option<Meta> {
    let value = |wanted| attributes.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
    let kind = match value("name")?.as_ref() {
        "ac-discovery" => Kind::Image,
        "ac-discovery-pubkeys" => Kind::Keys,
        _ => return None,
    };
    let mut parts = value("content")?.split_ascii_whitespace();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(prefix), Some(template), None) => {
            Some(Meta { kind, prefix: prefix.to_owned(), template: template.to_owned() })
        }
        _ => None,
    }
}

/// Character references that may be in a URL; others stay what they are.
fn decoded(value: &str) -> Cow<'_, str> {
    if !value.contains('&') {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('&') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        // None of them is longer.
        let end = rest.bytes().take(10).position(|byte| byte == b';');
        match end.and_then(|end| Some((character(&rest[..end])?, end))) {
            Some((character, end)) => {
                text.push(character);
                rest = &rest[end + 1..];
            }
            None => text.push('&'),
        }
    }
    text.push_str(rest);
    Cow::Owned(text)
}

fn character(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let number = match number.strip_prefix(['x', 'X']) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => number.parse(),
        };
        return char::from_u32(number.ok()?).filter(|&character| character != '\0');
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(page: &str) -> Vec<(Kind, String, String)> {
        metas(page).into_iter().map(|meta| (meta.kind, meta.prefix, meta.template)).collect()
    }

    fn image(template: &str) -> Vec<(Kind, String, String)> {
        vec![(Kind::Image, "a.example".into(), template.into())]
    }

    #[test]
    fn the_ways_to_write_an_element() {
        for page in [
            r#"<meta name="ac-discovery" content="a.example https://a/{ext}">"#,
            r#"<!DOCTYPE html><html lang=en><HEAD><title>1 < 2 <meta></title>
               <META CONTENT='  a.example
               https://a/{ext} ' NAME=ac-discovery /></HEAD>"#,
            r#"<head><link rel=x href=/><meta charset=utf-8><meta name="viewport">
               <meta name = "ac-discovery" content = "a.example https://a/{ext}" content="b c">"#,
            r#"a < b <script>if (a < b) "<meta name='ac-discovery' content='x y'>"</script
               ><meta name="ac-discovery"content="a.example https://a/{ext}">"#,
            "<!--><meta name=ac-discovery content='a.example https://a/&#123;ext&#x7D;'>",
        ] {
            assert_eq!(found(page), image("https://a/{ext}"), "{page}");
        }
        let page = "<meta name=ac-discovery content='a.example https://a/?b&amp;c&unknown;&#0;&'>";
        assert_eq!(found(page), image("https://a/?b&c&unknown;&#0;&"));
    }

    #[test]
    fn only_whole_elements_in_the_head_count() {
        let element = r#"<meta name="ac-discovery" content="a.example https://a/{ext}">"#;
        for before in [
            "<body>",
            "</head>",
            "<p>",
            "<!-- ",
            "<!-- <!-- -- >",
            "<title>",
            "<script>",
            "<style></styles>",
            "<noscript>",
            "<template>",
            "<textarea>",
            "<a title='",
            "<meta name=\"",
            "<!doctype ",
            "</ ",
        ] {
            assert_eq!(found(&format!("{before}{element}")), [], "{before}");
        }
        for element in [
            "<meta name=ac-discovery>",
            "<meta name=ac-discovery content='a.example'>",
            "<meta name=ac-discovery content='a.example b c'>",
            "<meta name=ac-discovery content='a.example b'",
            "<meta name=ac-discovery content='a.example b>",
            "<metas name=ac-discovery content='a.example b'>",
            "<meta property=ac-discovery content='a.example b'>",
            "<meta name=AC-discovery content='a.example b'>",
        ] {
            assert_eq!(found(element), [], "{element}");
        }
        assert_eq!(found(&element.repeat(10_000)).len(), MAX_METAS);
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(page in r#"(<|>|!|--|/|=|"|'|&|;|#|x|meta|name|content|head|ß| |script){0,80}"#) {
            metas(&page);
        }

        #[test]
        fn what_is_written_is_read(template in "[a-z{}&<>\"'=/?]{1,20}") {
            let escaped = template.replace('&', "&amp;").replace('"', "&quot;");
            let page = format!("<meta name=ac-discovery content=\"a.example {escaped}\">");
            prop_assert_eq!(found(&page), image(&template));
        }
    }
}

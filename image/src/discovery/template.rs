//! Templates of URLs, as `https://example.com/{name}-{version}.{ext}`.

use super::{AppcName, name::MACHINE};
use crate::http::{Url, percent_encoded};

/// What stands for the version if none was asked for (discovery.md).
const VERSION: (&str, &str) = ("version", "latest");

/// Fills in a template: `{name}`, `{ext}`, and labels by their names. Nothing if it names a label
/// that there is not, or is not a URL then.
pub fn expand(template: &str, name: &AppcName, extension: &str) -> Option<Url> {
    let mut url = String::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let close = open + rest[open..].find('}')?;
        url.push_str(&rest[..open]);
        match &rest[open + 1..close] {
            "name" => url.push_str(name.name()),
            "ext" => url.push_str(extension),
            label => {
                let asked = name.labels().get(label).map(String::as_str);
                let mut defaults = MACHINE.into_iter().chain([VERSION]);
                let mut default = || defaults.find(|(known, _)| *known == label);
                let value = asked.or_else(|| default().map(|(_, value)| value))?;
                // It stays one part of a path or query, whatever is in it.
                url.push_str(&percent_encoded(value, b"+:@"));
            }
        }
        rest = &rest[close + 1..];
        if url.len() > Url::MAX {
            return None;
        }
    }
    url.push_str(rest);
    url.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, name: &str) -> Option<String> {
        let name = AppcName::parse(name).unwrap();
        expand(template, &name, "aci").map(|url| url.expose())
    }

    #[test]
    fn templates() {
        let template = "https://storage.example.com/{os}/{arch}/{name}-{version}.{ext}?torrent";
        assert_eq!(
            filled(template, "example.com/app").unwrap(),
            "https://storage.example.com/linux/amd64/example.com/app-latest.aci?torrent"
        );
        assert_eq!(
            filled(template, "example.com/app:1.0+2,os=x,arch=y").unwrap(),
            "https://storage.example.com/x/y/example.com/app-1.0+2.aci?torrent"
        );
        let channel = "https://a.example/{channel}.{ext}";
        assert_eq!(filled(channel, "example.com/app"), None);
        assert_eq!(
            filled(channel, "example.com/app,channel=a?b#c%d&{ext}").unwrap(),
            "https://a.example/a%3Fb%23c%25d%26%7Bext%7D.aci"
        );
        for template in
            ["", "x", "/{name}.{ext}", "ftp://a/{ext}", "https://a/{ext", "https://u:p@a/{ext}"]
        {
            assert_eq!(filled(template, "example.com/app"), None, "{template}");
        }
    }

    #[test]
    fn a_template_can_not_grow_without_bound() {
        let name = format!("a.b/{}", "x".repeat(900));
        assert_eq!(filled(&format!("https://a/{}", "{name}".repeat(100_000)), &name), None);
    }
}

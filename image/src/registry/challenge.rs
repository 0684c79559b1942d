//! The header `WWW-Authenticate` (RFC 9110, section 11.6.1), strictly.

/// One of the ways in which a server lets itself be convinced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Its name in lower case: `basic`, `bearer`.
    pub scheme: String,
    /// Its parameters, with names in lower case, each once.
    pub parameters: Vec<(String, String)>,
}

/// The header is malformed, or larger than any that is needed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("its WWW-Authenticate is malformed")]
pub struct ChallengeError;

const MAX_LENGTH: usize = 8 << 10;
const MAX_CHALLENGES: usize = 8;
const MAX_PARAMETERS: usize = 16;

impl Challenge {
    /// The value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(parameter, _)| parameter == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Reads the challenges of one header.
///
/// # Errors
/// If there is anything in it that is not in the grammar, a parameter comes twice, or it is long.
pub fn parse_challenges(header: &str) -> Result<Vec<Challenge>, ChallengeError> {
    if header.len() > MAX_LENGTH {
        return Err(ChallengeError);
    }
    let mut rest = Rest(header);
    let mut challenges: Vec<Challenge> = Vec::new();
    // A list, of schemes and of parameters of the last scheme.
    rest.skip_commas();
    let mut needs_parameter = false;
    while !rest.0.is_empty() {
        if let Some((name, value)) = rest.parameter()? {
            let challenge = challenges.last_mut().ok_or(ChallengeError)?;
            let is_twice = challenge.parameter(&name).is_some();
            if is_twice || challenge.parameters.len() == MAX_PARAMETERS {
                return Err(ChallengeError);
            }
            challenge.parameters.push((name, value));
        } else {
            if needs_parameter || challenges.len() == MAX_CHALLENGES {
                return Err(ChallengeError);
            }
            let scheme = rest.token().ok_or(ChallengeError)?.to_ascii_lowercase();
            challenges.push(Challenge { scheme, parameters: Vec::new() });
            // Its first parameter follows without a comma.
            needs_parameter =
                rest.skip_space() && !rest.skip_token68() && !rest.is_at_end_of_item();
            if needs_parameter {
                continue;
            }
        }
        needs_parameter = false;
        if !rest.is_at_end_of_item() {
            return Err(ChallengeError);
        }
        rest.skip_commas();
    }
    Ok(challenges)
}

struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip_space(&mut self) -> bool {
        let rest = self.0.trim_start_matches([' ', '\t']);
        let is_some = rest.len() < self.0.len();
        self.0 = rest;
        is_some
    }

    fn skip_commas(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
    }

    fn is_at_end_of_item(&self) -> bool {
        let rest = self.0.trim_start_matches([' ', '\t']);
        rest.is_empty() || rest.starts_with(',')
    }

    fn take(&mut self, is_part: impl Fn(u8) -> bool) -> &'a str {
        let end = self.0.bytes().position(|byte| !is_part(byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn token(&mut self) -> Option<&'a str> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        Some(self.take(is_part)).filter(|token| !token.is_empty())
    }

    /// Credentials in one word, as some schemes have them.
    fn skip_token68(&mut self) -> bool {
        let before = self.0;
        let word = self.take(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
        self.take(|byte| byte == b'=');
        if !word.is_empty() && self.is_at_end_of_item() {
            return true;
        }
        self.0 = before;
        false
    }

    /// `NAME=VALUE`, if that is what comes.
    fn parameter(&mut self) -> Result<Option<(String, String)>, ChallengeError> {
        let before = self.0;
        let Some(name) = self.token() else { return Err(ChallengeError) };
        self.skip_space();
        let Some(rest) = self.0.strip_prefix('=') else {
            self.0 = before;
            return Ok(None);
        };
        self.0 = rest;
        self.skip_space();
        let value = match self.0.strip_prefix('"') {
            Some(rest) => {
                self.0 = rest;
                self.quoted()?
            }
            None => self.token().ok_or(ChallengeError)?.to_owned(),
        };
        Ok(Some((name.to_ascii_lowercase(), value)))
    }

    /// The rest of a quoted string.
    fn quoted(&mut self) -> Result<String, ChallengeError> {
        let mut value = String::new();
        let mut characters = self.0.char_indices();
        while let Some((place, character)) = characters.next() {
            match character {
                '"' => {
                    self.0 = &self.0[place + 1..];
                    return Ok(value);
                }
                '\\' => {
                    let (_, escaped) = characters.next().ok_or(ChallengeError)?;
                    value.push(escaped);
                }
                _ => value.push(character),
            }
            if value.ends_with(|last: char| last.is_control()) {
                return Err(ChallengeError);
            }
        }
        Err(ChallengeError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Challenge { scheme: scheme.to_owned(), parameters: parameters.iter().map(owned).collect() }
    }

    #[test]
    fn challenges_of_registries() {
        let bearer = "Bearer realm=\"https://auth.example/token\",service=\"registry.example\", \
                      scope=\"repository:a/b:pull,push\"";
        let expected = challenge(
            "bearer",
            &[
                ("realm", "https://auth.example/token"),
                ("service", "registry.example"),
                ("scope", "repository:a/b:pull,push"),
            ],
        );
        assert_eq!(parse_challenges(bearer).unwrap(), [expected]);
        for (header, expected) in [
            ("", vec![]),
            (" , ,", vec![]),
            ("Basic", vec![challenge("basic", &[])]),
            ("Basic realm=x", vec![challenge("basic", &[("realm", "x")])]),
            ("BASIC Realm = \"a \\\"b\\\"\"", vec![challenge("basic", &[("realm", "a \"b\"")])]),
            (
                "Negotiate abc==, Basic realm=\"x\", Other",
                vec![
                    challenge("negotiate", &[]),
                    challenge("basic", &[("realm", "x")]),
                    challenge("other", &[]),
                ],
            ),
            (
                "Bearer realm=\"a\", Basic realm=\"b\",charset=UTF-8",
                vec![
                    challenge("bearer", &[("realm", "a")]),
                    challenge("basic", &[("realm", "b"), ("charset", "UTF-8")]),
                ],
            ),
        ] {
            assert_eq!(parse_challenges(header).unwrap(), expected, "{header}");
        }
    }

    #[test]
    fn malformed_challenges_are_refused() {
        for header in [
            "realm=\"x\"",
            "Bearer realm=\"x",
            "Bearer realm=\"x\\",
            "Bearer realm=\"x\"service=y",
            "Bearer realm=\"x\", realm=\"y\"",
            "Bearer realm=\"x\", REALM=\"y\"",
            "Basic x=y, realm=",
            "Bearer realm=\"a\u{7}b\"",
            "Bearer =x",
            "\"Bearer\"",
            "Bearer realm x y",
            &format!("Bearer realm=\"{}\"", "x".repeat(9000)),
            &"Basic, ".repeat(9),
            &format!("Bearer {}", (0..17).map(|n| format!("p{n}=x, ")).collect::<String>()),
        ] {
            assert_eq!(parse_challenges(header), Err(ChallengeError), "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(parameters in proptest::collection::btree_map("[a-z]{1,8}", "[ -~]{0,20}", 1..8)) {
            let text: Vec<_> = parameters
                .iter()
                .map(|(name, value)| {
                    format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
                })
                .collect();
            let parsed = parse_challenges(&format!("Bearer {}", text.join(", "))).unwrap();
            prop_assert_eq!(parsed.len(), 1);
            prop_assert_eq!(parsed[0].parameters.clone(), parameters.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn nothing_makes_it_stop(header in "[ -~]{0,80}") {
            let _ = parse_challenges(&header);
        }
    }
}

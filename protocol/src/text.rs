use serde::{Deserialize, Serialize};
use std::fmt;

/// Text from an untrusted side.
///
/// It can be shown, never echoed: `Display` replaces control characters and other invisible ones
/// by their escapes, so that it can neither steer a terminal nor forge a line of a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text(String);

impl Text {
    /// The most bytes a text holds; the rest is cut off when it is made.
    pub const MAX: usize = 1024;

    /// Takes at most [`Text::MAX`] bytes of `text`; bytes that are not UTF-8 are replaced.
    pub fn new(text: impl AsRef<[u8]>) -> Self {
        let bytes = text.as_ref();
        let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(Self::MAX)]).into_owned();
        while text.len() > Self::MAX {
            text.pop();
        }
        Self(text)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for character in self.0.chars() {
            match character {
                '\'' | '"' | '\\' => out.write_char(character)?,
                _ => write!(out, "{}", character.escape_debug())?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.0)
    }
}

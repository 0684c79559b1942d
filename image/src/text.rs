use std::fmt;

/// Text from an image, or a path that a user gave, as it may be shown.
///
/// `Display` escapes control characters and other invisible ones, so that the text can neither
/// steer a terminal nor forge a line of a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// The most bytes a text holds; the rest is cut off, and shown as `…`.
    pub const MAX: usize = 256;

    /// The most bytes of a [`Text::message`].
    pub const MAX_MESSAGE: usize = 2048;

    /// Takes at most [`Text::MAX`] bytes of `text`; bytes that are not UTF-8 are replaced.
    pub fn new(text: impl AsRef<[u8]>) -> Self {
        Self::cut(text.as_ref(), Self::MAX)
    }

    /// Takes at most [`Text::MAX_MESSAGE`] bytes of a message that another process wrote.
    pub fn message(text: impl AsRef<[u8]>) -> Self {
        Self::cut(text.as_ref(), Self::MAX_MESSAGE)
    }

    /// Cuts between characters: one of UTF-8 is continued by at most three bytes `0b10…`.
    fn cut(bytes: &[u8], most: usize) -> Self {
        if bytes.len() <= most {
            return Self(String::from_utf8_lossy(bytes).into_owned());
        }
        let begins = |&end: &usize| bytes[end] & 0b1100_0000 != 0b1000_0000;
        let end = (most.saturating_sub(3)..=most).rev().find(begins).unwrap_or(most);
        Self(String::from_utf8_lossy(&bytes[..end]).into_owned() + "…")
    }

    /// The same for a path or another string of the operating system.
    pub fn of_os(text: impl AsRef<std::ffi::OsStr>) -> Self {
        Self::new(std::os::unix::ffi::OsStrExt::as_bytes(text.as_ref()))
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

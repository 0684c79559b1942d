//! What commands print, in the forms that programs have learnt to read from rkt.

mod amount;
mod table;
mod time;

pub use amount::binary_size;
pub use table::table;
pub use time::{elapsed, local_time, nanoseconds};

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use std::io;

/// The form of a listing (`--format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Columns for people.
    #[default]
    Text,
    /// JSON in one line.
    Json,
    /// JSON with an indentation of tabs.
    JsonPretty,
}

impl Format {
    /// What to say about the option.
    pub const HELP: &'static str = "Print JSON instead of text: json or json-pretty";

    /// Reads the value of `--format` as rkt does.
    ///
    /// # Errors
    /// rkt's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "json-pretty" => Ok(Self::JsonPretty),
            _ => Err(format!("Invalid format option: {text}")),
        }
    }
}

/// A value as JSON with an indentation of tabs, if `pretty`, and a line end.
///
/// # Errors
/// If it has keys that are no text.
pub fn json(value: &impl Serialize, pretty: bool) -> io::Result<String> {
    let mut bytes = Vec::new();
    if pretty {
        let indented = PrettyFormatter::with_indent(b"\t");
        value.serialize(&mut Serializer::with_formatter(&mut bytes, indented))?;
    } else {
        serde_json::to_writer(&mut bytes, value)?;
    }
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as value;

    #[test]
    fn json_is_indented_with_tabs_as_rkts() {
        let document = value!({"a": [1], "b": []});
        assert_eq!(json(&document, false).unwrap(), "{\"a\":[1],\"b\":[]}\n");
        assert_eq!(json(&document, true).unwrap(), "{\n\t\"a\": [\n\t\t1\n\t],\n\t\"b\": []\n}\n");
    }

    #[test]
    fn an_unknown_format_is_refused_in_the_words_of_rkt() {
        assert_eq!(Format::parse(""), Ok(Format::Text));
        assert_eq!(Format::parse("json-pretty"), Ok(Format::JsonPretty));
        assert_eq!(Format::parse("xml").unwrap_err(), "Invalid format option: xml");
    }
}

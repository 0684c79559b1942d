//! JSON that means one thing only: no member twice, no member that nobody asked for.

use sandbox_image::Text;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::{collections::HashSet, fmt};

/// A document is not JSON, or not the JSON that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}{problem}")]
pub struct JsonError {
    /// Where in the document, as `transports.docker: `; empty for the whole.
    at: String,
    problem: String,
}

impl JsonError {
    pub(crate) fn at(path: &str, problem: impl Into<String>) -> Self {
        let at = if path.is_empty() { String::new() } else { format!("{}: ", Text::new(path)) };
        Self { at, problem: problem.into() }
    }
}

/// A value, with the members of an object in their order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    String(String),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    /// Parses a document of at most `limit` bytes. The depth is bounded by the JSON library.
    pub(crate) fn parse(document: &[u8], limit: usize) -> Result<Self, JsonError> {
        if document.len() > limit {
            let problem = format!("it has {} bytes, more than {limit}", document.len());
            return Err(JsonError::at("", problem));
        }
        serde_json::from_slice(document)
            .map_err(|error| JsonError::at("", Text::new(error.to_string()).to_string()))
    }

    pub(crate) fn string(self, path: &str) -> Result<String, JsonError> {
        match self {
            Self::String(text) => Ok(text),
            other => Err(other.mismatch("a string", path)),
        }
    }

    pub(crate) fn array(self, path: &str) -> Result<Vec<Self>, JsonError> {
        match self {
            Self::Array(values) => Ok(values),
            other => Err(other.mismatch("a list", path)),
        }
    }

    pub(crate) fn integer(self, path: &str) -> Result<i64, JsonError> {
        match &self {
            Self::Number(number) => {
                number.as_i64().ok_or_else(|| self.clone().mismatch("a whole number", path))
            }
            _ => Err(self.mismatch("a whole number", path)),
        }
    }

    fn mismatch(self, expected: &str, path: &str) -> JsonError {
        let found = match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "another number",
            Self::String(_) => "a string",
            Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        };
        JsonError::at(path, format!("should be {expected}, and is {found}"))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = from.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut seen = HashSet::new();
        let mut members = Vec::new();
        while let Some((name, value)) = from.next_entry::<String, Value>()? {
            if !seen.insert(name.clone()) {
                let problem = format!("the member '{}' is there twice", Text::new(&name));
                return Err(A::Error::custom(problem));
            }
            members.push((name, value));
        }
        Ok(Value::Object(members))
    }
}

/// The members of an object, taken out one by one; what is left over at the end is an error.
#[derive(Debug)]
pub(crate) struct Members {
    path: String,
    members: Vec<(String, Value)>,
}

impl Members {
    /// The members of `value`, which `path` leads to.
    pub(crate) fn of(value: Value, path: &str) -> Result<Self, JsonError> {
        match value {
            Value::Object(members) => Ok(Self { path: path.to_owned(), members }),
            other => Err(other.mismatch("an object", path)),
        }
    }

    /// The path of a member.
    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        let place = self.members.iter().position(|(member, _)| member == name)?;
        Some(self.members.remove(place).1)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(member, _)| member == name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn required(&mut self, name: &str) -> Result<Value, JsonError> {
        self.take(name)
            .ok_or_else(|| JsonError::at(&self.path, format!("the member '{name}' is missing")))
    }

    pub(crate) fn string(&mut self, name: &str) -> Result<String, JsonError> {
        self.required(name)?.string(&self.path_of(name))
    }

    pub(crate) fn optional_string(&mut self, name: &str) -> Result<Option<String>, JsonError> {
        let path = self.path_of(name);
        self.take(name).map(|value| value.string(&path)).transpose()
    }

    /// An object among the members.
    pub(crate) fn object(&mut self, name: &str) -> Result<Self, JsonError> {
        Self::of(self.required(name)?, &self.path_of(name))
    }

    /// All members, for an object whose names are data.
    pub(crate) fn into_entries(self) -> Vec<(String, Value)> {
        self.members
    }

    /// Refuses what has not been taken.
    pub(crate) fn finish(self) -> Result<(), JsonError> {
        match self.members.first() {
            None => Ok(()),
            Some((name, _)) => {
                let problem = format!("the member '{}' is not known here", Text::new(name));
                Err(JsonError::at(&self.path, problem))
            }
        }
    }

    pub(crate) fn problem(&self, problem: impl Into<String>) -> JsonError {
        JsonError::at(&self.path, problem)
    }
}

//! Reading the canonical form.
//!
//! Stricter than readers of JSON are: a struct is an object and never a list, a variant of an enum
//! is a string and never an object with a `null`. So a value that is read would be written in the
//! same way, as long as its own `Deserialize` takes one form only.

use super::{
    NotCanonical,
    scan::{Problem, Progress, Scanner, meaning},
};
use serde::{
    Deserialize, Deserializer,
    de::{
        self, DeserializeSeed, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess,
        Visitor, value::CowStrDeserializer,
    },
    forward_to_deserialize_any,
};
use std::{borrow::Cow, fmt};

/// A text can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not in canonical form.
    #[error("it is not canonical JSON: {0}")]
    NotCanonical(#[from] NotCanonical),
    /// It is, and is something else than expected.
    #[error("{0}")]
    Schema(String),
}

/// The same while reading. Small, as it is a part of every result; where it is the scanner knows.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}", .0.text())]
    NotCanonical(Problem),
    #[error("{0}")]
    Schema(Box<str>),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::NotCanonical(problem)
    }
}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Schema(message.to_string().into())
    }
}

/// Whether `text` is one JSON value in its canonical form. Then no name is twice in an object, and
/// everyone who reads it reads the same.
///
/// # Errors
/// [`NotCanonical`]: where, and what is wrong.
pub fn check(text: &[u8]) -> Result<(), NotCanonical> {
    scan(text, |scanner| {
        scanner.value()?;
        scanner.finish()
    })
}

/// Reads a value in its canonical form.
///
/// # Errors
/// See [`ReadError`].
pub fn from_slice<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, ReadError> {
    read(text, None)
}

/// The same for an object without one of its members, which [`string_member`] has read.
pub(crate) fn from_slice_without<'a, T: Deserialize<'a>>(
    text: &'a [u8],
    without: &str,
) -> Result<T, ReadError> {
    read(text, Some(without))
}

/// The value of a string in an object. What comes after it is not looked at.
pub(crate) fn string_member<'a>(
    text: &'a [u8],
    name: &str,
) -> Result<Option<Cow<'a, str>>, NotCanonical> {
    scan(text, |scanner| {
        if scanner.peek() != Some(b'{') {
            return Ok(None);
        }
        scanner.enter()?;
        let mut progress = Progress::default();
        while let Some(found) = scanner.member(&mut progress)? {
            if found != name {
                scanner.value()?;
            } else if scanner.peek() == Some(b'"') {
                return Ok(Some(meaning(scanner.string()?)));
            } else {
                break;
            }
        }
        Ok(None)
    })
}

fn scan<'a, T>(
    text: &'a [u8],
    with: impl FnOnce(&mut Scanner<'a>) -> Result<T, Problem>,
) -> Result<T, NotCanonical> {
    let mut scanner = Scanner::new(utf8(text)?);
    let found = with(&mut scanner);
    found.map_err(|problem| NotCanonical { at: scanner.at(), problem: problem.text() })
}

fn read<'a, T: Deserialize<'a>>(text: &'a [u8], without: Option<&str>) -> Result<T, ReadError> {
    let mut reader = Reader { scanner: Scanner::new(utf8(text)?), without };
    let value = T::deserialize(&mut reader).and_then(|value| {
        reader.scanner.finish()?;
        Ok(value)
    });
    value.map_err(|failure| match failure {
        Failure::Schema(problem) => ReadError::Schema(problem.into()),
        Failure::NotCanonical(problem) => {
            NotCanonical { at: reader.scanner.at(), problem: problem.text() }.into()
        }
    })
}

fn utf8(text: &[u8]) -> Result<&str, NotCanonical> {
    let problem = Problem::Utf8.text();
    str::from_utf8(text).map_err(|error| NotCanonical { at: error.valid_up_to(), problem })
}

struct Reader<'a, 'w> {
    scanner: Scanner<'a>,
    /// A member of the outermost object that is passed over.
    without: Option<&'w str>,
}

impl Reader<'_, '_> {
    fn expect(&self, begin: u8, what: &str) -> Result<(), Failure> {
        if self.scanner.peek() == Some(begin) {
            return Ok(());
        }
        Err(Failure::custom(format!("expected {what}")))
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de, '_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.scanner.peek() {
            Some(b'"') => match meaning(self.scanner.string()?) {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            Some(b'{') => {
                let mut members = Members::new(self)?;
                let value = visitor.visit_map(&mut members)?;
                members.finish()?;
                Ok(value)
            }
            Some(b'[') => {
                let mut elements = Elements::new(self)?;
                let value = visitor.visit_seq(&mut elements)?;
                elements.finish()?;
                Ok(value)
            }
            Some(b'-' | b'0'..=b'9') => match self.scanner.number()? {
                (false, size) => visitor.visit_u64(size),
                (true, size) => visitor.visit_i64(-i64::try_from(size).unwrap_or(i64::MAX)),
            },
            _ if self.scanner.word("null") => visitor.visit_unit(),
            _ if self.scanner.word("true") => visitor.visit_bool(true),
            _ if self.scanner.word("false") => visitor.visit_bool(false),
            _ => Err(Problem::Value.into()),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.scanner.word("null") { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.expect(b'{', "an object")?;
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if self.scanner.peek() == Some(b'"') {
            let variant = meaning(self.scanner.string()?);
            return visitor.visit_enum(CowStrDeserializer::new(variant));
        }
        self.expect(b'{', "a string, or an object with one member")?;
        let mut members = Members::new(self)?;
        let value = visitor.visit_enum(Variant(&mut members))?;
        members.finish()?;
        Ok(value)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.scanner.value()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier
    }
}

/// The members of an object.
struct Members<'r, 'a, 'w> {
    reader: &'r mut Reader<'a, 'w>,
    progress: Progress<'a>,
    without: Option<&'w str>,
    ended: bool,
}

impl<'r, 'a, 'w> Members<'r, 'a, 'w> {
    fn new(reader: &'r mut Reader<'a, 'w>) -> Result<Self, Failure> {
        reader.scanner.enter()?;
        let without = reader.without.take();
        Ok(Self { reader, progress: Progress::default(), without, ended: false })
    }

    /// The next name, as it is written; nothing at the end, and after it.
    fn name(&mut self) -> Result<Option<&'a str>, Failure> {
        if self.ended {
            return Ok(None);
        }
        let scanner = &mut self.reader.scanner;
        let mut name = scanner.member(&mut self.progress)?;
        if name.is_some() && name == self.without {
            scanner.value()?;
            name = scanner.member(&mut self.progress)?;
        }
        self.ended = name.is_none();
        Ok(name)
    }

    /// Whoever reads an object may not leave anything of it.
    fn finish(mut self) -> Result<(), Failure> {
        match self.name()? {
            None => Ok(()),
            Some(_) => Err(Failure::custom("there are more members than expected")),
        }
    }
}

impl<'a> MapAccess<'a> for &mut Members<'_, 'a, '_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'a>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Failure> {
        let Some(name) = self.name()? else { return Ok(None) };
        seed.deserialize(CowStrDeserializer::new(meaning(name))).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        seed.deserialize(&mut *self.reader)
    }
}

/// The elements of a list.
struct Elements<'r, 'a, 'w> {
    reader: &'r mut Reader<'a, 'w>,
    progress: Progress<'a>,
    ended: bool,
}

impl<'r, 'a, 'w> Elements<'r, 'a, 'w> {
    fn new(reader: &'r mut Reader<'a, 'w>) -> Result<Self, Failure> {
        reader.scanner.enter()?;
        Ok(Self { reader, progress: Progress::default(), ended: false })
    }

    fn goes_on(&mut self) -> Result<bool, Failure> {
        self.ended = self.ended || !self.reader.scanner.element(&mut self.progress)?;
        Ok(!self.ended)
    }

    fn finish(mut self) -> Result<(), Failure> {
        match self.goes_on()? {
            false => Ok(()),
            true => Err(Failure::custom("there are more elements than expected")),
        }
    }
}

impl<'a> SeqAccess<'a> for &mut Elements<'_, 'a, '_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'a>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Failure> {
        match self.goes_on()? {
            true => seed.deserialize(&mut *self.reader).map(Some),
            false => Ok(None),
        }
    }
}

/// A variant of an enum that has a value: an object with its name and the value.
struct Variant<'m, 'r, 'a, 'w>(&'m mut Members<'r, 'a, 'w>);

impl<'a> EnumAccess<'a> for Variant<'_, '_, 'a, '_> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'a>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        let name = self.0.name()?;
        let name = name.ok_or_else(|| Failure::custom("expected the name of a variant"))?;
        let variant = seed.deserialize(CowStrDeserializer::<Failure>::new(meaning(name)))?;
        Ok((variant, self))
    }
}

impl<'a> VariantAccess<'a> for Variant<'_, '_, 'a, '_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        Err(Failure::custom("a variant without a value is written as a string"))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<T::Value, Failure> {
        seed.deserialize(&mut *self.0.reader)
    }

    fn tuple_variant<V: Visitor<'a>>(self, _: usize, _: V) -> Result<V::Value, Failure> {
        Err(Failure::custom("variants with several values are not read"))
    }

    fn struct_variant<V: Visitor<'a>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        Deserializer::deserialize_struct(&mut *self.0.reader, "", fields, visitor)
    }
}

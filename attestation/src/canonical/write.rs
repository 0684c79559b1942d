//! Writing the canonical form.

use super::{
    CanonicalError, MAX_NUMBER,
    scan::{Written, meaning},
};
use serde::ser::{self, Impossible, Serialize, Serializer};
use std::{cmp::Ordering, fmt, fmt::Write as _, ops::Range};

/// The canonical form of a value.
///
/// # Errors
/// See [`CanonicalError`].
pub fn to_vec(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, CanonicalError> {
    let mut writer = Writer { out: String::with_capacity(1024) };
    value.serialize(&mut writer)?;
    Ok(writer.out.into_bytes())
}

struct Writer {
    out: String,
}

impl Writer {
    /// §3.2.2.2: what has to be escaped is, in the shortest form, hexadecimal digits in lower case;
    /// the rest is written as it is.
    fn string(&mut self, text: &str) {
        let out = &mut self.out;
        out.push('"');
        let mut rest = text;
        loop {
            let special = |byte: u8| byte < 0x20 || matches!(byte, b'"' | b'\\');
            let plain = rest.bytes().position(special).unwrap_or(rest.len());
            out.push_str(&rest[..plain]);
            let Some(&byte) = rest.as_bytes().get(plain) else { break };
            rest = &rest[plain + 1..];
            match byte {
                b'"' => out.push_str("\\\""),
                b'\\' => out.push_str("\\\\"),
                0x08 => out.push_str("\\b"),
                0x09 => out.push_str("\\t"),
                0x0a => out.push_str("\\n"),
                0x0c => out.push_str("\\f"),
                0x0d => out.push_str("\\r"),
                // Writing to a string does not fail.
                _ => drop(write!(out, "\\u{byte:04x}")),
            }
        }
        out.push('"');
    }

    fn number(&mut self, number: impl fmt::Display, size: u64) -> Result<(), CanonicalError> {
        if size > MAX_NUMBER {
            return Err(CanonicalError::Number(number.to_string()));
        }
        // Writing to a string does not fail.
        let _ = write!(self.out, "{number}");
        Ok(())
    }

    fn object(&mut self, in_variant: bool) -> Object<'_> {
        let start = self.out.len();
        self.out.push('{');
        Object { writer: self, start, members: Vec::new(), sorted: true, in_variant }
    }

    fn list(&mut self) -> List<'_> {
        self.out.push('[');
        List { writer: self, first: true }
    }

    /// The beginning of `{"variant":…}`, as which an enum's variant with values is written.
    fn variant(&mut self, variant: &str) {
        self.out.push('{');
        self.string(variant);
        self.out.push(':');
    }
}

impl<'a> Serializer for &'a mut Writer {
    type Ok = ();
    type Error = CanonicalError;
    type SerializeSeq = List<'a>;
    type SerializeTuple = List<'a>;
    type SerializeTupleStruct = List<'a>;
    type SerializeTupleVariant = Impossible<(), CanonicalError>;
    type SerializeMap = Object<'a>;
    type SerializeStruct = Object<'a>;
    type SerializeStructVariant = Object<'a>;

    fn serialize_bool(self, value: bool) -> Result<(), CanonicalError> {
        self.out.push_str(if value { "true" } else { "false" });
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), CanonicalError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), CanonicalError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), CanonicalError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), CanonicalError> {
        self.number(value, value.unsigned_abs())
    }

    fn serialize_u8(self, value: u8) -> Result<(), CanonicalError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), CanonicalError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), CanonicalError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), CanonicalError> {
        self.number(value, value)
    }

    fn serialize_f32(self, value: f32) -> Result<(), CanonicalError> {
        Err(CanonicalError::Number(value.to_string()))
    }

    fn serialize_f64(self, value: f64) -> Result<(), CanonicalError> {
        Err(CanonicalError::Number(value.to_string()))
    }

    fn serialize_char(self, value: char) -> Result<(), CanonicalError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), CanonicalError> {
        self.string(value);
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), CanonicalError> {
        Err(ser::Error::custom("bytes have no form in JSON"))
    }

    fn serialize_none(self) -> Result<(), CanonicalError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CanonicalError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), CanonicalError> {
        self.out.push_str("null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CanonicalError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), CanonicalError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), CanonicalError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), CanonicalError> {
        self.variant(variant);
        value.serialize(&mut *self)?;
        self.out.push('}');
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a>, CanonicalError> {
        Ok(self.list())
    }

    fn serialize_tuple(self, _: usize) -> Result<List<'a>, CanonicalError> {
        Ok(self.list())
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<List<'a>, CanonicalError> {
        Ok(self.list())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, CanonicalError> {
        Err(ser::Error::custom(format!("the variant {variant} is a tuple")))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Object<'a>, CanonicalError> {
        Ok(self.object(false))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Object<'a>, CanonicalError> {
        Ok(self.object(false))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Object<'a>, CanonicalError> {
        self.variant(variant);
        Ok(self.object(true))
    }
}

/// A list that is being written.
struct List<'a> {
    writer: &'a mut Writer,
    first: bool,
}

impl List<'_> {
    fn element(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), CanonicalError> {
        if !std::mem::take(&mut self.first) {
            self.writer.out.push(',');
        }
        value.serialize(&mut *self.writer)
    }

    fn finish(self) {
        self.writer.out.push(']');
    }
}

/// An object that is being written: in the order in which its members come, and at the end, if that
/// was not the right one, sorted.
struct Object<'a> {
    writer: &'a mut Writer,
    /// Where its bracket is.
    start: usize,
    members: Vec<Member>,
    sorted: bool,
    in_variant: bool,
}

struct Member {
    /// The name, without its quotation marks.
    name: Range<usize>,
    /// The whole, without commas.
    whole: Range<usize>,
}

impl Object<'_> {
    fn name(&mut self, name: &(impl Serialize + ?Sized)) -> Result<(), CanonicalError> {
        if !self.members.is_empty() {
            self.writer.out.push(',');
        }
        let start = self.writer.out.len();
        name.serialize(&mut *self.writer)?;
        let out = &mut self.writer.out;
        if !out[start..].starts_with('"') {
            return Err(ser::Error::custom("a name in an object that is not a string"));
        }
        let name = start + 1..out.len() - 1;
        out.push(':');
        if let Some(last) = self.members.last() {
            let [last, name] = [&last.name, &name].map(|it| Written::new(&out[it.clone()]));
            self.sorted &= last.compare(name) == Ordering::Less;
        }
        self.members.push(Member { name, whole: start..start });
        Ok(())
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), CanonicalError> {
        value.serialize(&mut *self.writer)?;
        if let Some(member) = self.members.last_mut() {
            member.whole.end = self.writer.out.len();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), CanonicalError> {
        if !self.sorted {
            self.sort()?;
        }
        self.writer.out.push_str(if self.in_variant { "}}" } else { "}" });
        Ok(())
    }

    fn sort(&mut self) -> Result<(), CanonicalError> {
        let written = self.writer.out.split_off(self.start + 1);
        let place = |range: &Range<usize>| range.start - self.start - 1..range.end - self.start - 1;
        let name = |member: &Member| Written::new(&written[place(&member.name)]);
        self.members.sort_by(|one, other| name(one).compare(name(other)));
        let mut twice =
            self.members.windows(2).filter(|pair| name(&pair[0]).compare(name(&pair[1])).is_eq());
        if let Some([member, ..]) = twice.next() {
            let name = meaning(&written[place(&member.name)]);
            return Err(ser::Error::custom(format!("the name {name} is there twice")));
        }
        for (index, Member { whole, .. }) in self.members.iter().enumerate() {
            if index > 0 {
                self.writer.out.push(',');
            }
            self.writer.out.push_str(&written[place(whole)]);
        }
        Ok(())
    }
}

impl ser::SerializeSeq for List<'_> {
    type Ok = ();
    type Error = CanonicalError;

    fn serialize_element<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
    ) -> Result<(), CanonicalError> {
        self.element(value)
    }

    fn end(self) -> Result<(), CanonicalError> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeTuple for List<'_> {
    type Ok = ();
    type Error = CanonicalError;

    fn serialize_element<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
    ) -> Result<(), CanonicalError> {
        self.element(value)
    }

    fn end(self) -> Result<(), CanonicalError> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeTupleStruct for List<'_> {
    type Ok = ();
    type Error = CanonicalError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CanonicalError> {
        self.element(value)
    }

    fn end(self) -> Result<(), CanonicalError> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeMap for Object<'_> {
    type Ok = ();
    type Error = CanonicalError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), CanonicalError> {
        self.name(name)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CanonicalError> {
        self.value(value)
    }

    fn end(self) -> Result<(), CanonicalError> {
        self.finish()
    }
}

impl ser::SerializeStruct for Object<'_> {
    type Ok = ();
    type Error = CanonicalError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), CanonicalError> {
        self.name(name)?;
        self.value(value)
    }

    fn end(self) -> Result<(), CanonicalError> {
        self.finish()
    }
}

impl ser::SerializeStructVariant for Object<'_> {
    type Ok = ();
    type Error = CanonicalError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), CanonicalError> {
        self.name(name)?;
        self.value(value)
    }

    fn end(self) -> Result<(), CanonicalError> {
        self.finish()
    }
}

impl ser::Error for CanonicalError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Json(message.to_string())
    }
}

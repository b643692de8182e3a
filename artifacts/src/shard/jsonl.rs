//! One JSON object a line, one document in each.

use std::fmt;
use std::io::Read;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::lines::Lines;
use super::text::BYTE_ORDER_MARK;
use super::{Document, Error, Options, Refusal, Source};

/// The documents of a `.jsonl` file. Blank lines are passed over.
pub(super) struct JsonLines<R> {
    lines: Lines<R>,
    field: String,
    longest: u64,
    documents: u64,
}

impl<R: Read> JsonLines<R> {
    pub(super) fn new(source: Source<R>, options: &Options) -> Self {
        let lines = Lines::new(source, options.longest_line);
        Self { lines, field: options.field.clone(), longest: options.longest_document, documents: 0 }
    }

    fn document(&mut self) -> Result<Option<Document>, Error> {
        while self.lines.advance()? {
            let line = match self.lines.line() {
                first if self.lines.number() == 1 => first.strip_prefix(BYTE_ORDER_MARK).unwrap_or(first),
                line => line,
            };
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let text = self.text(line)?;
            self.documents += 1;
            return Ok(Some(Document::Text(text)));
        }
        if self.documents == 0 {
            return Err(Refusal::Empty { path: self.lines.path().to_owned() }.into());
        }
        Ok(None)
    }

    /// The document in a line.
    fn text(&self, bytes: &[u8]) -> Result<String, Refusal> {
        let path = || self.lines.path().to_owned();
        let (line, byte) = (self.lines.number(), self.lines.byte());
        let text = std::str::from_utf8(bytes).map_err(|broken| {
            let before = self.lines.line().len() - bytes.len() + broken.valid_up_to();
            Refusal::BrokenUtf8 { path: path(), line, byte: byte + before as u64 }
        })?;
        let json = |error: serde_json::Error| Refusal::Json {
            path: path(),
            line,
            column: error.column() as u64,
            byte,
            why: without_place(&error),
        };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let found = Field(&self.field).deserialize(&mut deserializer).map_err(json)?;
        deserializer.end().map_err(json)?;
        let field = || self.field.clone();
        match found {
            Some(Found::Text(text)) if text.len() as u64 > self.longest => {
                Err(Refusal::LongDocument { path: path(), line, longest: self.longest })
            }
            Some(Found::Text(text)) => Ok(text),
            Some(Found::Other(found)) => {
                Err(Refusal::NotText { path: path(), line, byte, field: field(), found })
            }
            None => Err(Refusal::MissingField { path: path(), line, byte, field: field() }),
        }
    }
}

impl<R: Read> Iterator for JsonLines<R> {
    type Item = Result<Document, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.document().transpose()
    }
}

/// What serde_json says, without its own line and column: it sees one line only.
fn without_place(error: &serde_json::Error) -> String {
    let said = error.to_string();
    said.rfind(" at line ").map_or(said.as_str(), |end| &said[..end]).to_owned()
}

/// Takes one field out of an object, and builds nothing of the others. A field that is there twice counts as the last
/// one, as in most readers of JSON.
struct Field<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<Found>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<Found>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "an object with a field `{}`", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = object.next_key::<String>()? {
            if name == self.0 {
                found = Some(object.next_value()?);
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// What a field holds. Of anything but text only the kind is kept: a line of a million small arrays is not to become a
/// million objects in memory.
enum Found {
    Text(String),
    Other(&'static str),
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Kind)
    }
}

struct Kind;

impl<'de> Visitor<'de> for Kind {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        Ok(Found::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Found, E> {
        Ok(Found::Text(text))
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Other("null"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(Found::Other("a boolean"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
        Ok(Found::Other("a number"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::Other("a number"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Found, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Found, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Found::Other("an object"))
    }
}

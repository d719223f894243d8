//! JSON that is passed on as it came: its text is checked, its parts are only looked at.
//!
//! Requests and answers are mostly ciphertext, which nobody here reads. To take it apart and write
//! it again would cost more than all the rest of an invocation.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Error, Map, Value};

/// The text of one JSON value.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(transparent)]
pub(crate) struct Json(Box<RawValue>);

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

/// What kind of value it is, as far as OpenWhisk tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    Other,
}

impl Json {
    /// Checks that `bytes` are one value and nothing else, and keeps them.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map(Self)
    }

    /// `{}`.
    pub(crate) fn empty() -> Self {
        Self(RawValue::from_string("{}".to_owned()).unwrap_or_default())
    }

    /// An object with one field. A value without a JSON form becomes null; none is given here.
    pub(crate) fn object<T: Serialize + ?Sized>(name: &str, value: &T) -> Self {
        let fields = std::collections::BTreeMap::from([(name, value)]);
        Self(to_raw_value(&fields).unwrap_or_default())
    }

    pub(crate) fn text(&self) -> &str {
        self.0.get()
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.text().as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            _ => Kind::Other,
        }
    }

    /// The last field of an object whose name is `wanted`; an error if it is no object.
    pub(crate) fn find(&self, wanted: impl Fn(&str) -> bool) -> Result<Option<&RawValue>, Error> {
        let mut text = serde_json::Deserializer::from_str(self.text());
        Find(wanted).deserialize(&mut text)
    }
}

impl From<&Map<String, Value>> for Json {
    fn from(object: &Map<String, Value>) -> Self {
        // Names are text, so it has a JSON form.
        Self(to_raw_value(object).unwrap_or_default())
    }
}

struct Find<F>(F);

impl<'de, F: Fn(&str) -> bool> DeserializeSeed<'de> for Find<F> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, F: Fn(&str) -> bool> Visitor<'de> for Find<F> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(wanted) = fields.next_key_seed(Name(&self.0))? {
            if wanted {
                found = Some(fields.next_value()?);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// The name of a field, which is not kept.
struct Name<'f, F>(&'f F);

impl<'de, F: Fn(&str) -> bool> DeserializeSeed<'de> for Name<'_, F> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl<F: Fn(&str) -> bool> Visitor<'_> for Name<'_, F> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<bool, E> {
        Ok((self.0)(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(text: &'a Json, name: &str) -> Option<&'a str> {
        text.find(|it| it == name).unwrap().map(RawValue::get)
    }

    #[test]
    fn what_is_not_one_json_value_is_refused() {
        for bad in ["", "{", "{}x", "{\"a\":}", "[1,]", "nul", "\"\\q\""] {
            assert!(Json::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Json::parse(b"{\"a\":\"\xff\"}").is_err(), "no UTF-8");
        for (text, kind) in [
            (" {} ", Kind::Object),
            ("\n[1]", Kind::Array),
            ("7", Kind::Other),
            ("\"{\"", Kind::Other),
        ] {
            assert_eq!(Json::parse(text.as_bytes()).unwrap().kind(), kind, "{text}");
        }
    }

    #[test]
    fn only_the_top_level_is_looked_at_and_the_last_field_of_a_name_counts() {
        let text = br#"{"a":{"error":1},"error":null,"b":"error","\u0065rror":[2]}"#;
        let json = Json::parse(text).unwrap();
        assert_eq!(find(&json, "error"), Some("[2]"));
        assert_eq!(find(&json, "a"), Some("{\"error\":1}"));
        assert_eq!(find(&json, "c"), None);
        let null = Json::parse(b"{\"error\":null}").unwrap();
        assert_eq!(find(&null, "error"), Some("null"));
        assert!(Json::parse(b"[]").unwrap().find(|_| true).is_err());
        assert_eq!(find(&Json::empty(), "a"), None);
        assert_eq!(Json::object("a", "b").text(), "{\"a\":\"b\"}");
    }
}

//! The serde side of [`Properties::parse`](super::Properties::parse): a struct is read from string pairs.

use serde::{
    de::{self, DeserializeSeed, Deserializer, MapAccess, Unexpected, Visitor, value},
    forward_to_deserialize_any,
};

use super::{Properties, is_truthy};

/// An error of serde's, which only ever has a text.
type Error = value::Error;

/// Reads a struct, its fields found without case.
pub(super) struct PropertiesDeserializer<'a>(pub(super) &'a Properties);

impl<'de> Deserializer<'de> for PropertiesDeserializer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("component metadata can only be read into a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Fields { properties: self.0, fields: fields.iter(), value: None })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Walks the struct's fields (aliases included) and yields those that have a value.
struct Fields<'a> {
    properties: &'a Properties,
    fields: std::slice::Iter<'static, &'static str>,
    value: Option<(&'static str, &'a str)>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        for field in self.fields.by_ref() {
            if let Some(value) = self.properties.get(field) {
                self.value = Some((field, value));
                return seed.deserialize(value::StrDeserializer::new(field)).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (name, text) =
            self.value.take().ok_or_else(|| de::Error::custom("a value was asked for before its key"))?;
        seed.deserialize(Text(text)).map_err(|error| de::Error::custom(format!("metadata {name}: {error}")))
    }
}

/// One value: text that reads as whatever the field wants.
struct Text<'a>(&'a str);

macro_rules! numbers {
    ($($method:ident => $visit:ident),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0.trim().parse() {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(de::Error::invalid_value(Unexpected::Other(&format!("{:?}", self.0)), &"a number"))
                    .map_err(plain),
            }
        })*
    };
}

/// serde says `invalid value: other, expected`; ours reads without the word in the middle.
fn plain(error: Error) -> Error {
    de::Error::custom(error.to_string().replacen("invalid value: ", "invalid value ", 1))
}

impl<'de> Deserializer<'de> for Text<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(is_truthy(self.0))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        // Variants are words of a setting, compared without case like everything else here.
        let word = variants.iter().find(|variant| variant.eq_ignore_ascii_case(self.0)).copied().unwrap_or(self.0);
        value::StrDeserializer::<Error>::new(word).deserialize_enum(name, variants, visitor)
    }

    numbers! {
        deserialize_i8 => visit_i8, deserialize_i16 => visit_i16, deserialize_i32 => visit_i32,
        deserialize_i64 => visit_i64, deserialize_u8 => visit_u8, deserialize_u16 => visit_u16,
        deserialize_u32 => visit_u32, deserialize_u64 => visit_u64, deserialize_f32 => visit_f32,
        deserialize_f64 => visit_f64,
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

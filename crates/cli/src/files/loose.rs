//! Decodes keys and values of unknown types into JSON.

use std::fmt;

use fluxmap::codec::{Codec, CodecError};
use fluxmap::inspect::Identity;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Turns an encoded key or value into JSON.
pub(super) type ToJson = fn(&[u8]) -> Result<Value, CodecError>;

/// The functions that turn the keys and the values of a database into JSON; `None` if decoding needs their
/// Rust types.
///
/// MessagePack describes its own structure. Postcard does not, so its values can be decoded only if the
/// name of the type is a common one, such as `String`.
pub(super) fn converters(identity: &Identity) -> Option<(ToJson, ToJson)> {
    match identity.codec {
        Codec::MessagePack => Some((self_describing, self_describing)),
        Codec::Postcard => Some((postcard(&identity.key_type)?, postcard(&identity.value_type)?)),
        _ => None,
    }
}

fn self_describing(bytes: &[u8]) -> Result<Value, CodecError> {
    Codec::MessagePack.decode::<Loose>(bytes).map(|loose| loose.0)
}

fn postcard(type_name: &str) -> Option<ToJson> {
    fn read<T: DeserializeOwned + Into<Value>>(bytes: &[u8]) -> Result<Value, CodecError> {
        Codec::Postcard.decode::<T>(bytes).map(Into::into)
    }

    Some(match type_name {
        "String" | "&str" | "Box<str>" | "Arc<str>" => read::<String>,
        "bool" => read::<bool>,
        "u8" => read::<u8>,
        "u16" => read::<u16>,
        "u32" => read::<u32>,
        "u64" | "usize" => read::<u64>,
        "i8" => read::<i8>,
        "i16" => read::<i16>,
        "i32" => read::<i32>,
        "i64" | "isize" => read::<i64>,
        "f32" => read::<f32>,
        "f64" => read::<f64>,
        "Vec<u8>" => read::<Vec<u8>>,
        "Vec<String>" => read::<Vec<String>>,
        "Option<String>" => read::<Option<String>>,
        "()" => read::<()>,
        _ => return None,
    })
}

/// Any value that MessagePack can hold. Bytes become a list of numbers, and keys of maps become text.
struct Loose(Value);

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor).map(Loose)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        // JSON has no infinity and no NaN: write them as text.
        Ok(Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(Loose(element)) = sequence.next_element()? {
            elements.push(element);
        }
        Ok(elements.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((Loose(key), Loose(value))) = map.next_entry()? {
            let key = match key {
                Value::String(text) => text,
                other => other.to_string(),
            };
            members.insert(key, value);
        }
        Ok(members.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn messagepack(value: impl Serialize) -> Value {
        let mut bytes = Vec::new();
        Codec::MessagePack.encode(&value, &mut bytes).unwrap();
        self_describing(&bytes).unwrap()
    }

    #[test]
    fn messagepack_shows_itself() {
        #[derive(Serialize)]
        struct User {
            name: &'static str,
            age: Option<u8>,
            tags: BTreeMap<u32, (bool, f64)>,
            picture: Vec<u8>,
        }

        let tags = BTreeMap::from([(7, (true, f64::INFINITY))]);
        let user = messagepack(User { name: "ada", age: None, tags, picture: vec![1, 2] });
        let expected =
            json!({ "name": "ada", "age": null, "tags": { "7": [true, "inf"] }, "picture": [1, 2] });
        assert_eq!(user, expected);
        assert_eq!(messagepack(-5), json!(-5));
    }

    #[test]
    fn postcard_needs_a_type_that_everybody_knows() {
        let mut bytes = Vec::new();
        Codec::Postcard.encode("ada", &mut bytes).unwrap();
        assert_eq!(postcard("String").unwrap()(&bytes).unwrap(), json!("ada"));
        assert!(postcard("u8").unwrap()(&bytes).is_err(), "too long");
        assert!(postcard("User").is_none());
    }
}

//! Wraps the codec's deserializer, for four reasons:
//!
//! - it bounds the depth and counts elements ([`guard`](super::guard));
//! - it believes no length for which the input is too short;
//! - it lets no sequence of MessagePack end before all of it was read, so that an array of bytes is not
//!   read as a shorter one;
//! - it presents bytes as a sequence to types that ask for any kind of value. These are serde's buffers,
//!   for untagged and internally tagged enums and `flatten`, and `serde_json::Value`. A buffer that held
//!   bytes could not become a `Vec<u8>` again, and would become a `String` if that is tried first.

use super::guard::ValuePlace;
use serde::de::value::SeqDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use std::fmt;

/// A wrapped deserializer, visitor, seed, or access to elements.
pub(super) struct WatchedDeserializer<'a, I> {
    pub(super) inner: I,
    pub(super) place: ValuePlace<'a>,
}

/// A visitor, and the kind of value that was asked for.
struct Asked<'a, V> {
    visitor: V,
    place: ValuePlace<'a>,
    what: AskedFor,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AskedFor {
    /// Any kind of value.
    Any,
    /// A sequence or map of any length.
    Many,
    /// Any other kind.
    Other,
}

macro_rules! scalars {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        }
    )*};
}

macro_rules! ask {
    ($what:expr; $($method:ident($($name:ident: $type:ty),*))*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($name,)* Asked { visitor, place: self.place, what: $what })
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for WatchedDeserializer<'_, D> {
    type Error = D::Error;

    scalars! {
        deserialize_bool deserialize_f32 deserialize_f64
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }
    ask! { AskedFor::Any; deserialize_any() }
    ask! { AskedFor::Many; deserialize_seq() deserialize_map() }
    ask! { AskedFor::Other;
        deserialize_char() deserialize_str() deserialize_string() deserialize_bytes() deserialize_byte_buf()
        deserialize_option() deserialize_unit() deserialize_identifier() deserialize_ignored_any()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(length: usize)
        deserialize_tuple_struct(name: &'static str, length: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! plain {
    ($($method:ident($type:ty))*) => {$(
        #[inline]
        fn $method<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.visitor.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Asked<'_, V> {
    fn visit_sequence<E: serde::de::Error>(self, bytes: &[u8]) -> Result<V::Value, E> {
        self.visitor.visit_seq(SeqDeserializer::new(bytes.iter().copied()))
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Asked<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    plain! {
        visit_bool(bool) visit_char(char) visit_f32(f32) visit_f64(f64)
        visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64) visit_i128(i128)
        visit_u8(u8) visit_u16(u16) visit_u32(u32) visit_u64(u64) visit_u128(u128)
        visit_str(&str) visit_borrowed_str(&'de str) visit_string(String)
    }

    #[inline]
    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<V::Value, E> {
        match self.what {
            AskedFor::Any => self.visit_sequence(bytes),
            _ => self.visitor.visit_bytes(bytes),
        }
    }

    #[inline]
    fn visit_borrowed_bytes<E: serde::de::Error>(self, bytes: &'de [u8]) -> Result<V::Value, E> {
        match self.what {
            AskedFor::Any => self.visit_sequence(bytes),
            _ => self.visitor.visit_borrowed_bytes(bytes),
        }
    }

    #[inline]
    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<V::Value, E> {
        match self.what {
            AskedFor::Any => self.visit_sequence(&bytes),
            _ => self.visitor.visit_byte_buf(bytes),
        }
    }

    #[inline]
    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    #[inline]
    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let place = self.place.deeper().map_err(D::Error::custom)?;
        self.visitor.visit_some(WatchedDeserializer { inner, place })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let place = self.place.deeper().map_err(D::Error::custom)?;
        self.visitor.visit_newtype_struct(WatchedDeserializer { inner, place })
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let mut elements = Elements { inner, place: self.place, counted: self.what == AskedFor::Many };
        let value = self.visitor.visit_seq(&mut elements)?;
        // Not in postcard, where the aliases of a struct's fields count as further fields.
        let left_over = elements.inner.size_hint() != Some(0) && !self.place.account.is_postcard();
        if left_over && elements.inner.next_element::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom("there are more elements than the type has room for"));
        }
        Ok(value)
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let counted = self.what == AskedFor::Many;
        self.visitor.visit_map(Elements { inner, place: self.place, counted })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(WatchedDeserializer { inner, place: self.place })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for WatchedDeserializer<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let place = self.place.deeper().map_err(D::Error::custom)?;
        self.inner.deserialize(WatchedDeserializer { inner, place })
    }
}

/// The elements of a sequence, tuple or map.
struct Elements<'a, A> {
    inner: A,
    place: ValuePlace<'a>,
    counted: bool,
}

impl<'a, A> Elements<'a, A> {
    #[inline]
    fn count<E: serde::de::Error>(&self, one_more: bool) -> Result<(), E> {
        let account = self.place.account;
        if self.counted && one_more {
            account.count_element().map_err(|why| E::custom(account.refuse(why)))?;
        }
        Ok(())
    }

    #[inline]
    fn seed<S>(&self, inner: S) -> WatchedDeserializer<'a, S> {
        WatchedDeserializer { inner, place: self.place }
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let element = self.inner.next_element_seed(self.seed(seed))?;
        self.count(element.is_some())?;
        Ok(element)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint().map(|claimed| claimed.min(self.place.account.input))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let key = self.inner.next_key_seed(self.seed(seed))?;
        self.count(key.is_some())?;
        Ok(key)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.seed(seed);
        self.inner.next_value_seed(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint().map(|claimed| claimed.min(self.place.account.input))
    }
}

impl<'de, 'a, A: EnumAccess<'de>> EnumAccess<'de> for WatchedDeserializer<'a, A> {
    type Error = A::Error;
    type Variant = WatchedDeserializer<'a, A::Variant>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let place = self.place;
        let (value, inner) = self.inner.variant_seed(WatchedDeserializer { inner: seed, place })?;
        Ok((value, WatchedDeserializer { inner, place }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for WatchedDeserializer<'_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(WatchedDeserializer { inner: seed, place: self.place })
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(length, Asked { visitor, place: self.place, what: AskedFor::Other })
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Asked { visitor, place: self.place, what: AskedFor::Other })
    }
}

//! Wraps the codec's serializer, for four reasons:
//!
//! - it bounds the depth and counts elements ([`guard`](super::guard));
//! - in MessagePack, it writes a sequence or an array of `u8` as bytes. The modes of `rmp-serde` for
//!   this guess from the first element, and fail for a `Vec` of an untagged enum that starts with a
//!   byte;
//! - it refuses values that MessagePack would read back as `None`;
//! - in postcard, it refuses a value with a field left out: the next field would be read in its place.

use super::byte::Byte;
use super::guard::{ByteSink, Refusal, ValuePlace};
use super::tuple::Tuple;
use serde::Serialize;
use serde::ser::{self, Error as _, Serializer};
use std::any::type_name;
use std::fmt;

/// A wrapped serializer.
pub(super) struct WatchedSerializer<'a, S> {
    pub(super) inner: S,
    pub(super) place: ValuePlace<'a>,
    /// Whether the value is directly inside of `Some`.
    pub(super) in_some: bool,
}

/// A value one level down.
pub(super) struct Below<'v, 'a, T: ?Sized> {
    pub(super) value: &'v T,
    pub(super) place: ValuePlace<'a>,
    pub(super) in_some: bool,
}

impl<T: Serialize + ?Sized> Serialize for Below<'_, '_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        let place = self.place.deeper().map_err(S::Error::custom)?;
        self.value.serialize(WatchedSerializer { inner, place, in_some: self.in_some })
    }
}

impl<'a, S: Serializer> WatchedSerializer<'a, S> {
    #[inline]
    fn below<'v, T: ?Sized>(&self, value: &'v T) -> Below<'v, 'a, T> {
        Below { value, place: self.place, in_some: false }
    }

    /// Refuses nil directly inside of `Some`, because it would be read back as `None`.
    #[inline]
    fn nothing(&self) -> Result<(), S::Error> {
        if self.in_some && !self.place.account.is_postcard() {
            return Err(S::Error::custom(self.place.account.refuse(Refusal::SomeOfNothing)));
        }
        Ok(())
    }
}

/// Runs of bytes in this range of lengths are written a piece at a time: those for which MessagePack
/// uses a length of four bytes.
const LONG: usize = 1 << 16;
const LONGEST: usize = u32::MAX as usize;

impl<S: Serializer> WatchedSerializer<'_, S> {
    /// Writes `length` bytes as `serialize_bytes` would. That method needs them in one piece, which
    /// takes a copy of a large value. The serializer is therefore given an empty run, and the bytes that
    /// it writes for that are muted.
    fn long_bytes<I>(self, items: I, length: usize, output: &dyn ByteSink) -> Result<S::Ok, S::Error>
    where
        I: Iterator,
        I::Item: Serialize,
    {
        let refused = || S::Error::custom("no more is taken");
        let put = |bytes: &[u8]| if output.put(bytes) { Ok(()) } else { Err(refused()) };
        let (header, header_length) = self.place.account.bytes_header(length);
        if !output.expect(header_length + length) {
            return Err(refused());
        }
        put(&header[..header_length])?;
        let (mut piece, mut filled, mut left) = ([0; 4096], 0, length);
        for item in items {
            piece[filled] = item.serialize(Byte).map_err(S::Error::custom)?;
            filled += 1;
            if filled == piece.len() {
                put(&piece)?;
                left = left.saturating_sub(filled);
                filled = 0;
            }
        }
        put(&piece[..filled])?;
        if left != filled {
            return Err(S::Error::custom("it has fewer or more elements than it announced"));
        }
        output.mute(true);
        let nothing = self.inner.serialize_bytes(&[]);
        output.mute(false);
        nothing
    }
}

/// Returns whether `T` is `u8` or a reference to one. If a later compiler spelled the name differently,
/// the encoding would only be longer.
#[inline]
pub(super) fn is_byte<T: ?Sized>() -> bool {
    matches!(type_name::<T>(), "u8" | "&u8")
}

macro_rules! pass_on {
    ($($method:ident($type:ty))*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        }
    )*};
}

impl<'a, S: Serializer> Serializer for WatchedSerializer<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Counted<'a, S::SerializeSeq>;
    type SerializeTuple = Tuple<'a, S>;
    type SerializeTupleStruct = FieldSerializer<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = FieldSerializer<'a, S::SerializeTupleVariant>;
    type SerializeMap = Counted<'a, S::SerializeMap>;
    type SerializeStruct = FieldSerializer<'a, S::SerializeStruct>;
    type SerializeStructVariant = FieldSerializer<'a, S::SerializeStructVariant>;

    pass_on! {
        serialize_bool(bool) serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_u128(u128)
        serialize_f32(f32) serialize_f64(f64)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.nothing()?;
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let below = Below { in_some: true, ..self.below(value) };
        self.inner.serialize_some(&below)
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.nothing()?;
        self.inner.serialize_unit()
    }

    // Write nil: `rmp-serde` writes an empty array, which an untagged enum does not accept as a unit
    // struct.
    fn serialize_unit_struct(self, _name: &'static str) -> Result<S::Ok, S::Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        // `rmp-serde` writes an extension type with a header of its own, from a buffer.
        let is_extension = name == rmp_serde::MSGPACK_EXT_STRUCT_NAME;
        let place = if is_extension { self.place.buffered() } else { self.place };
        let below = Below { value, place, in_some: self.in_some };
        self.inner.serialize_newtype_struct(name, &below)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let below = self.below(value);
        self.inner.serialize_newtype_variant(name, index, variant, &below)
    }

    fn collect_seq<I>(self, items: I) -> Result<S::Ok, S::Error>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        let items = items.into_iter();
        if is_byte::<I::Item>()
            && let (length @ LONG..=LONGEST, Some(most)) = items.size_hint()
            && length == most
            && let Some(output) = self.place.output()
        {
            return self.long_bytes(items, length, output);
        }
        if is_byte::<I::Item>() {
            // In postcard, bytes and a sequence of `u8` have the same encoding.
            let mut bytes = Vec::with_capacity(items.size_hint().0);
            for item in items {
                bytes.push(item.serialize(Byte).map_err(S::Error::custom)?);
            }
            return self.inner.serialize_bytes(&bytes);
        }
        let length = match items.size_hint() {
            (low, Some(high)) if low == high => Some(low),
            _ => None,
        };
        let mut seq = self.serialize_seq(length)?;
        for item in items {
            ser::SerializeSeq::serialize_element(&mut seq, &item)?;
        }
        ser::SerializeSeq::end(seq)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let place = if length.is_some() { self.place } else { self.place.buffered() };
        Ok(Counted(FieldSerializer { inner: self.inner.serialize_seq(length)?, place }))
    }

    fn serialize_tuple(self, length: usize) -> Result<Self::SerializeTuple, S::Error> {
        Tuple::new(self.inner, self.place, length)
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        Ok(FieldSerializer { inner: self.inner.serialize_tuple_struct(name, length)?, place: self.place })
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let inner = self.inner.serialize_tuple_variant(name, index, variant, length)?;
        Ok(FieldSerializer { inner, place: self.place })
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let place = if length.is_some() { self.place } else { self.place.buffered() };
        Ok(Counted(FieldSerializer { inner: self.inner.serialize_map(length)?, place }))
    }

    fn serialize_struct(self, name: &'static str, length: usize) -> Result<Self::SerializeStruct, S::Error> {
        Ok(FieldSerializer { inner: self.inner.serialize_struct(name, length)?, place: self.place })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let inner = self.inner.serialize_struct_variant(name, index, variant, length)?;
        Ok(FieldSerializer { inner, place: self.place })
    }
}

/// The fields of a struct or variant, or the elements of a tuple struct.
pub(super) struct FieldSerializer<'a, C> {
    inner: C,
    place: ValuePlace<'a>,
}

impl<'a, C> FieldSerializer<'a, C> {
    #[inline]
    fn below<'v, T: ?Sized>(&self, value: &'v T) -> Below<'v, 'a, T> {
        Below { value, place: self.place, in_some: false }
    }

    /// Called for a field that `skip_serializing_if` left out.
    fn left_out<E: ser::Error>(&self) -> Result<(), E> {
        if self.place.account.is_postcard() {
            return Err(E::custom(self.place.account.refuse(Refusal::FieldLeftOut)));
        }
        Ok(())
    }
}

macro_rules! unnamed_fields {
    ($($trait:ident)*) => {$(
        impl<C: ser::$trait> ser::$trait for FieldSerializer<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                let below = self.below(value);
                self.inner.serialize_field(&below)
            }

            #[inline]
            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}
unnamed_fields!(SerializeTupleStruct SerializeTupleVariant);

macro_rules! named_fields {
    ($($trait:ident)*) => {$(
        impl<C: ser::$trait> ser::$trait for FieldSerializer<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), C::Error> {
                let below = self.below(value);
                self.inner.serialize_field(name, &below)
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), C::Error> {
                self.left_out()?;
                self.inner.skip_field(name)
            }

            #[inline]
            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}
named_fields!(SerializeStruct SerializeStructVariant);

/// The elements of a sequence or map of any length.
pub(super) struct Counted<'a, C>(FieldSerializer<'a, C>);

impl<C> Counted<'_, C> {
    #[inline]
    fn count<E: ser::Error>(&self) -> Result<(), E> {
        let account = self.0.place.account;
        account.count_element().map_err(|why| E::custom(account.refuse(why)))
    }
}

impl<C: ser::SerializeSeq> ser::SerializeSeq for Counted<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.count()?;
        let below = self.0.below(value);
        self.0.inner.serialize_element(&below)
    }

    #[inline]
    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.inner.end()
    }
}

impl<C: ser::SerializeMap> ser::SerializeMap for Counted<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.count()?;
        let below = self.0.below(key);
        self.0.inner.serialize_key(&below)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        let below = self.0.below(value);
        self.0.inner.serialize_value(&below)
    }

    #[inline]
    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.inner.end()
    }
}

//! Tuples and arrays, which serde does not distinguish: in MessagePack, arrays of bytes are written as
//! bytes.

use super::byte::Byte;
use super::guard::ValuePlace;
use super::write::{Below, is_byte};
use serde::Serialize;
use serde::ser::{self, Error as _, Serializer};

/// Tuples and arrays with a length in this range are written as bytes: shorter ones gain nothing, and
/// serde supports arrays of up to 32 elements only.
const SHORTEST: usize = 8;
const LONGEST: usize = 32;

/// A tuple or array: handled as bytes until an element is not a `u8`.
pub(super) struct Tuple<'a, S: Serializer> {
    place: ValuePlace<'a>,
    state: State<S>,
}

impl<'a, S: Serializer> Tuple<'a, S> {
    pub(super) fn new(serializer: S, place: ValuePlace<'a>, length: usize) -> Result<Tuple<'a, S>, S::Error> {
        let state = if (SHORTEST..=LONGEST).contains(&length) && !place.account.is_postcard() {
            State::Bytes(Some(Bytes { serializer, length, bytes: [0; LONGEST], filled: 0 }))
        } else {
            State::Elements(serializer.serialize_tuple(length)?)
        };
        Ok(Tuple { place, state })
    }
}

enum State<S: Serializer> {
    /// `None` only within `serialize_element`, and after that has failed.
    Bytes(Option<Bytes<S>>),
    Elements(S::SerializeTuple),
}

struct Bytes<S> {
    serializer: S,
    length: usize,
    bytes: [u8; LONGEST],
    filled: usize,
}

impl<S: Serializer> Bytes<S> {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> bool {
        if !is_byte::<T>() || self.filled == LONGEST {
            return false;
        }
        let Ok(byte) = value.serialize(Byte) else { return false };
        self.bytes[self.filled] = byte;
        self.filled += 1;
        true
    }

    /// Converts to an ordinary tuple that began with bytes.
    fn into_elements(self) -> Result<S::SerializeTuple, S::Error> {
        let mut tuple = self.serializer.serialize_tuple(self.length)?;
        for byte in &self.bytes[..self.filled] {
            ser::SerializeTuple::serialize_element(&mut tuple, byte)?;
        }
        Ok(tuple)
    }
}

impl<S: Serializer> ser::SerializeTuple for Tuple<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        if let State::Bytes(bytes) = &mut self.state {
            if bytes.as_mut().is_some_and(|bytes| bytes.push(value)) {
                return Ok(());
            }
            let Some(bytes) = bytes.take() else { return Err(S::Error::custom("an element failed before")) };
            self.state = State::Elements(bytes.into_elements()?);
        }
        let State::Elements(elements) = &mut self.state else { return Ok(()) };
        elements.serialize_element(&Below { value, place: self.place, in_some: false })
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        match self.state {
            State::Elements(elements) => elements.end(),
            State::Bytes(Some(bytes)) if bytes.filled == bytes.length => {
                bytes.serializer.serialize_bytes(&bytes.bytes[..bytes.filled])
            }
            State::Bytes(_) => Err(S::Error::custom("the tuple has fewer elements than it announced")),
        }
    }
}

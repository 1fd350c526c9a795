//! The codec's functions for the keys and values of one database.

use super::shape::shape;
use super::{Codec, CodecError, EncodeError, Stored, type_name};
use std::fmt;
use std::sync::Arc;

type Encode<T> = fn(Codec, &T, &mut Vec<u8>, usize) -> Result<(), EncodeError>;
type Decode<T> = fn(Codec, &[u8]) -> Result<T, CodecError>;
type Check = fn(Codec, &[u8]) -> Result<(), CodecError>;

/// The functions that write and read `K` and `V`, captured where their bounds are known. The rest of a
/// database then needs no bounds of `serde`.
pub(crate) struct Coder<K, V> {
    codec: Codec,
    key: Functions<K>,
    value: Functions<V>,
}

struct Functions<T> {
    encode: Encode<T>,
    decode: Decode<T>,
    check: Check,
    name: Arc<str>,
    shape: fn() -> String,
}

impl<T: Stored> Functions<T> {
    fn new() -> Functions<T> {
        Functions {
            encode: |codec, value, into, longest| codec.encode_within(value, into, longest),
            decode: |codec, bytes| codec.decode(bytes),
            check: |codec, bytes| codec.check::<T>(bytes),
            name: type_name::<T>().into(),
            shape: shape::<T>,
        }
    }
}

impl<T> Clone for Functions<T> {
    fn clone(&self) -> Functions<T> {
        Functions { name: self.name.clone(), ..*self }
    }
}

impl<K: Stored, V: Stored> Coder<K, V> {
    /// Creates a coder with the default codec.
    pub(crate) fn new() -> Coder<K, V> {
        Coder { codec: Codec::default(), key: Functions::new(), value: Functions::new() }
    }
}

impl<K, V> Coder<K, V> {
    /// Returns a coder for the same types with another codec.
    pub(crate) fn with_codec(self, codec: Codec) -> Coder<K, V> {
        Coder { codec, ..self }
    }

    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    /// Appends the key to `into`, which may become `longest` bytes long; see
    /// [`Codec::encode`].
    pub(crate) fn encode_key(&self, key: &K, into: &mut Vec<u8>, longest: usize) -> Result<(), EncodeError> {
        (self.key.encode)(self.codec, key, into, longest)
    }

    /// Appends the value to `into`, which may become `longest` bytes long; see
    /// [`Codec::encode`].
    pub(crate) fn encode_value(
        &self,
        value: &V,
        into: &mut Vec<u8>,
        longest: usize,
    ) -> Result<(), EncodeError> {
        (self.value.encode)(self.codec, value, into, longest)
    }

    /// See [`Codec::decode`].
    pub(crate) fn decode_key(&self, bytes: &[u8]) -> Result<K, CodecError> {
        (self.key.decode)(self.codec, bytes)
    }

    /// See [`Codec::decode`].
    pub(crate) fn decode_value(&self, bytes: &[u8]) -> Result<V, CodecError> {
        (self.value.decode)(self.codec, bytes)
    }

    /// See [`Codec::check`].
    pub(crate) fn check_value(&self, bytes: &[u8]) -> Result<(), CodecError> {
        (self.value.check)(self.codec, bytes)
    }

    /// Returns the error for a key that differs from the original after decoding.
    pub(crate) fn comes_back_different(&self) -> CodecError {
        let problem = "it reads back as another key; do not leave out fields by which keys are compared";
        CodecError {
            codec: self.codec,
            type_name: self.key_type().to_string(),
            problem: problem.to_string(),
            attempt: "cannot restore",
        }
    }

    /// Returns the name of `K`, without its modules.
    pub(crate) fn key_type(&self) -> &str {
        &self.key.name
    }

    /// Returns the name of `V`, without its modules.
    pub(crate) fn value_type(&self) -> &str {
        &self.value.name
    }
}

impl<K, V> Coder<K, V> {
    /// Returns the shapes of `K` and `V`, if the codec needs them to recognize the types.
    pub(crate) fn shapes(&self) -> Option<(String, String)> {
        match self.codec {
            Codec::MessagePack => None,
            Codec::Postcard => Some(((self.key.shape)(), (self.value.shape)())),
        }
    }
}

impl<K, V> Clone for Coder<K, V> {
    fn clone(&self) -> Coder<K, V> {
        Coder { codec: self.codec, key: self.key.clone(), value: self.value.clone() }
    }
}

impl<K, V> fmt::Debug for Coder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Coder<{}, {}>", self.key_type(), self.value_type())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[test]
    fn writes_and_reads_keys_and_values() {
        for codec in [Codec::MessagePack, Codec::Postcard] {
            let coder = Coder::<String, (u8, Vec<u32>)>::new().with_codec(codec).clone();
            assert_eq!(format!("{coder:?}"), "Coder<String, (u8, Vec<u32>)>");
            assert_eq!(coder.codec(), codec);
            let (mut key, mut value) = (Vec::new(), Vec::new());
            coder.encode_key(&"a".to_string(), &mut key, 100).unwrap();
            coder.encode_value(&(7, vec![1, 1000]), &mut value, 100).unwrap();
            coder.check_value(&value).unwrap();
            assert_eq!(coder.decode_key(&key).unwrap(), "a");
            assert_eq!(coder.decode_value(&value).unwrap(), (7, vec![1, 1000]));
            assert!(coder.decode_value(&key).is_err());
        }
    }

    #[test]
    fn is_sent_and_shared_whatever_the_types() {
        fn shared<T: Send + Sync + Clone + fmt::Debug>() {}
        shared::<Coder<Rc<u8>, Cell<u8>>>();
    }
}

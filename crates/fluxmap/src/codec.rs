//! How keys and values are encoded as bytes, and decoded.
//!
//! # Which codec?
//!
//! [`Codec::MessagePack`], the default, writes the names of fields and the kind of each value. Types may
//! change: a field may be added with `#[serde(default)]`, removed, or moved, and untagged enums,
//! `flatten` and `serde_json::Value` can be read back.
//!
//! [`Codec::Postcard`] is smaller and faster, and writes nothing but the values, in the order of the
//! fields. It is for types that do not change. It cannot read back types whose `Deserialize` asks for
//! the kind of the next value, and **takes a struct whose fields were reordered for the old one**, as
//! the table shows.
//!
//! ```
//! use fluxmap::codec::Codec;
//!
//! let mut bytes = Vec::new();
//! Codec::MessagePack.encode(&("ada", 36), &mut bytes)?;
//! assert_eq!(Codec::MessagePack.decode::<(String, u8)>(&bytes)?, ("ada".to_string(), 36));
//! # Ok::<(), fluxmap::codec::CodecError>(())
//! ```
//!
//! # Which types can be read back?
//!
//! "equal": the decoded value equals the encoded one. "refused by `encode`" and "refused by `check`"
//! (and by [`Codec::decode`], which would be too late): an error that says what to use instead. The
//! lower part is about types that changed: "read" if the old bytes give the expected value, "refused by
//! `decode`" if they give an error, and "mistaken" if they give another value. A test compares this
//! table with the actual results.
//!
//! | type | MessagePack | Postcard |
//! |---|---|---|
//! | struct | equal | equal |
//! | tuple struct | equal | equal |
//! | unit struct | equal | equal |
//! | newtype struct | equal | equal |
//! | `transparent` | equal | equal |
//! | `flatten` | equal | refused by `encode` |
//! | `skip_serializing_if` that skips | equal | refused by `encode` |
//! | `skip_serializing_if` that does not skip | equal | equal |
//! | `alias` | equal | equal |
//! | `serde_bytes` | equal | equal |
//! | `Cow` | equal | equal |
//! | recursive, within the limit | equal | equal |
//! | recursive, too deep | refused by `encode` | refused by `encode` |
//! | `Serialize` and `Deserialize` that disagree | refused by `check` | refused by `check` |
//! | enum | equal | equal |
//! | untagged enum | equal | refused by `check` |
//! | untagged enum, text before bytes | equal | refused by `check` |
//! | `Vec` of an untagged enum | equal | refused by `check` |
//! | internally tagged enum | equal | refused by `check` |
//! | internally tagged enum with bytes | equal | refused by `check` |
//! | internally tagged enum with `IpAddr` | equal | refused by `check` |
//! | internally tagged enum with `i128` | refused by `check` | refused by `check` |
//! | adjacently tagged enum | equal | refused by `check` |
//! | integers | equal | equal |
//! | wide integers | equal | equal |
//! | `i128`, `u128` | equal | equal |
//! | `f32`, `f64` | equal | equal |
//! | `bool`, `char`, `()` | equal | equal |
//! | `String` | equal | equal |
//! | `Option` | equal | equal |
//! | `Option<Option>`: `None`, `Some(Some)` | equal | equal |
//! | `Option<Option>`: `Some(None)` | refused by `encode` | equal |
//! | `Option<()>`: `Some(())` | refused by `encode` | equal |
//! | `Option<Value>`: `Some(Value::Null)` | refused by `encode` | refused by `check` |
//! | `Box` | equal | equal |
//! | `Duration`, `SystemTime` | equal | equal |
//! | `IpAddr` | equal | equal |
//! | `serde_json::Value` | equal | refused by `check` |
//! | `Vec<u8>` | equal | equal |
//! | `[u8; N]` | equal | equal |
//! | tuple | equal | equal |
//! | `Vec<T>` | equal | equal |
//! | `VecDeque<u8>`, `BTreeSet<u8>` | equal | equal |
//! | `BTreeMap<u32, _>` | equal | equal |
//! | `BTreeMap<(u8, String), _>` | equal | equal |
//! | `HashMap` | equal | equal |
//! | `HashMap` with keys of bytes | equal | equal |
//! | `HashSet` | equal | equal |
//! | `HashSet<u8>` | equal | equal |
//! | nested collections | equal | equal |
//! | field added with `#[serde(default)]` | read | refused by `decode` |
//! | field added without a default | refused by `decode` | refused by `decode` |
//! | last field removed | read | refused by `decode` |
//! | first field removed | read | refused by `decode` |
//! | fields reordered | read | **mistaken** |
//! | field renamed | refused by `decode` | read |
//! | field renamed, with `alias` | read | read |
//! | integer made wider | read | read |
//! | field made an `Option` | read | refused by `decode` |
//! | struct read as `serde_json::Value` | read | refused by `decode` |
//! | variant added at the end | read | read |
//! | variants reordered | read | **mistaken** |
//! | `Vec<u8>` read with `serde_bytes` | read | read |
//! | `[u8; 16]` read as `[u8; 15]` | refused by `decode` | refused by `decode` |
//!
//! `Arc` and `Rc` (`Arc<str>`, `Arc<[u8]>`, …) are like the types that they contain, with serde's feature
//! `rc`; without it they are neither `Serialize` nor `Deserialize`.
//!
//! Whether `encode` refuses depends on each value. In the table, "refused by `check`" means that every
//! value of the type is refused. If that type is only one variant of an enum, or inside of an `Option`,
//! then only values that contain it are refused: with such types, check each value, not just the first.
//!
//! # How values are written
//!
//! MessagePack: structs as maps with the names of their fields, enums as in JSON.
//! Sequences of `u8` (`Vec<u8>`, `HashSet<u8>`, …), and arrays and tuples of 8 to 32
//! of them, are written as bytes, with `serde_bytes` or without. The format counts
//! as human-readable, which concerns a few types: an `IpAddr` or `Uuid` is written
//! as text. That is longer, but serde's buffers (for internally tagged and untagged enums and `flatten`)
//! treat all formats as human-readable and could not read any other form.
//!
//! Types that serialize as bytes and accept any kind of value, such as `ciborium::Value` and
//! `rmpv::Value`, read a sequence of numbers instead; `check` refuses that.
//!
//! # Types that differ in their fields only
//!
//! The table is about one encoding and one decoding. A durable database does more: with postcard, it
//! keeps the names of all fields and variants in its files, with their order and kinds. It refuses to
//! open with a type that would misread the files, be that an older version of the same type or another
//! type of that name. New variants at the end of an enum and integers of another width are accepted. See
//! [`DatabaseBuilder::check_fields`](crate::DatabaseBuilder::check_fields).
//!
//! # Limits
//!
//! A value may nest 128 levels deep, in either codec: each struct, enum, option, sequence and map inside
//! another one counts as a level. `encode` refuses more levels, because reading them could exhaust the
//! stack. The encoding of a value may take 4 GiB. In postcard, at most 65,536 elements of sequences may
//! take no bytes (such as `()`).
//!
//! `decode` returns a value or an error, whatever bytes it is given; it allocates in proportion to the
//! number of bytes, not to the lengths that they claim.

mod byte;
mod canonical;
mod coder;
mod error;
mod guard;
mod name;
mod output;
mod read;
mod shape;
mod tuple;
mod write;

pub(crate) use coder::Coder;
pub use error::CodecError;
pub(crate) use error::EncodeError;
pub(crate) use name::type_name;
pub(crate) use shape::is_readable;

use error::postcard_text;
use guard::{Account, READ_DEPTH, Refusal, ValuePlace, WRITE_DEPTH};
use output::{Output, OutputWriter, Stopped};
use rmp_serde::decode::Error as RmpError;
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned};
use std::fmt;
use std::io::ErrorKind;

/// A type that can be written to files and read back. Implemented for every type that qualifies: derive
/// serde's `Serialize` and `Deserialize`. `Arc` and `Rc` qualify with serde's feature `rc`.
#[diagnostic::on_unimplemented(
    message = "a durable database cannot store `{Self}`, because it is not `Serialize` and `DeserializeOwned`",
    label = "`{Self}` cannot be stored in files",
    note = "for a type of your own: `#[derive(serde::Serialize, serde::Deserialize)]`",
    note = "for `Arc<str>`, `Arc<[u8]>` and other types with an `Arc`: turn on the feature `rc` of serde in your `Cargo.toml`"
)]
pub trait Stored: Serialize + DeserializeOwned {}
// So that the compiler shows the message above instead of the bounds of this implementation.
#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Stored for T {}

/// The encoding of keys and values; see the [module's documentation](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// [MessagePack](https://msgpack.org) with named fields: lets types change, and supports all of
    /// serde's attributes.
    #[default]
    MessagePack,
    /// [postcard](https://postcard.jamesmunns.com/wire-format): small and fast, for types that do not
    /// change.
    Postcard,
}

impl Codec {
    /// Returns the number that stands for this codec in the headers of files.
    pub fn id(self) -> u8 {
        match self {
            Codec::MessagePack => 1,
            Codec::Postcard => 2,
        }
    }

    /// Returns the codec with this number, if there is one.
    ///
    /// ```
    /// # use fluxmap::codec::Codec;
    /// assert_eq!(Codec::from_id(Codec::Postcard.id()), Some(Codec::Postcard));
    /// assert_eq!(Codec::from_id(0), None);
    /// ```
    pub fn from_id(id: u8) -> Option<Codec> {
        match id {
            1 => Some(Codec::MessagePack),
            2 => Some(Codec::Postcard),
            _ => None,
        }
    }

    /// Appends `value` to `into`.
    ///
    /// ```
    /// # use fluxmap::codec::Codec;
    /// let mut bytes = vec![0xff];
    /// Codec::Postcard.encode("hi", &mut bytes)?;
    /// assert_eq!(bytes, [0xff, 2, b'h', b'i']);
    ///
    /// // MessagePack could not tell this from `None`.
    /// assert!(Codec::MessagePack.encode(&Some(None::<u8>), &mut bytes).is_err());
    /// assert_eq!(bytes.len(), 4);
    /// # Ok::<(), fluxmap::codec::CodecError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the codec cannot write the value, if the value could not be read back, if it nests too deep,
    /// or if its `Serialize` fails. On an error, and also if `Serialize` panics, `into` is unchanged.
    pub fn encode<T: Serialize + ?Sized>(self, value: &T, into: &mut Vec<u8>) -> Result<(), CodecError> {
        let longest = into.len().saturating_add(u32::MAX as usize);
        self.encode_within(value, into, longest).map_err(|error| match error {
            EncodeError::Codec(error) => error,
            EncodeError::TooLong(_) => self.error::<T>("cannot write", "it takes more than 4 GiB".to_owned()),
        })
    }

    /// Like [`encode`](Self::encode), but fails if `into` would become longer than `longest`, as soon as
    /// that is known.
    pub(crate) fn encode_within<T: Serialize + ?Sized>(
        self,
        value: &T,
        into: &mut Vec<u8>,
        longest: usize,
    ) -> Result<(), EncodeError> {
        let start = into.len();
        let mut appended = Appended { start, keep: false, into };
        let output = Output::append(appended.into, longest);
        let account = Account::of_writing(self, &output);
        let written = self.serialize(value, &account, &output);
        let (refusal, stopped) = (account.refusal(), output.stopped());
        let length = output.length() - start;
        let problem = match (written, refusal, stopped) {
            (_, _, Some(Stopped::TooLong(bytes))) => return Err(EncodeError::TooLong(bytes)),
            (Err(_), Some(refusal), _) => refusal.text().to_owned(),
            (Err(text), None, _) => text,
            (Ok(()), ..) if !account.may_be_read_from(length) => Refusal::TooManyElements.text().to_owned(),
            (Ok(()), ..) => {
                appended.keep = true;
                return Ok(());
            }
        };
        Err(EncodeError::Codec(self.error::<T>("cannot write", problem)))
    }

    fn serialize<T: Serialize + ?Sized>(
        self,
        value: &T,
        account: &Account<'_>,
        output: &Output<'_>,
    ) -> Result<(), String> {
        let place = ValuePlace::top(account, WRITE_DEPTH);
        match self {
            Codec::MessagePack => {
                let serializer = rmp_serde::Serializer::new(OutputWriter(output));
                let mut serializer = serializer.with_struct_map().with_human_readable();
                let watched = write::WatchedSerializer { inner: &mut serializer, place, in_some: false };
                value.serialize(watched).map_err(|error| error.to_string())
            }
            Codec::Postcard => {
                let mut serializer = postcard::Serializer { output: OutputWriter(output) };
                let watched = write::WatchedSerializer { inner: &mut serializer, place, in_some: false };
                value.serialize(watched).map_err(|error| postcard_text(&error))
            }
        }
    }

    /// Decodes the value that `bytes` encode, all of them.
    ///
    /// ```
    /// # use fluxmap::codec::Codec;
    /// assert_eq!(Codec::Postcard.decode::<String>(&[2, b'h', b'i'])?, "hi");
    /// assert!(Codec::Postcard.decode::<String>(&[2, b'h']).is_err());
    /// assert!(Codec::Postcard.decode::<String>(&[2, b'h', b'i', 0]).is_err());
    /// # Ok::<(), fluxmap::codec::CodecError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If `bytes` are not the encoding of a `T`, or contain more than that, or if the codec cannot read
    /// a `T`.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, CodecError> {
        let account = Account::of_reading(self, bytes.len());
        let place = ValuePlace::top(&account, READ_DEPTH);
        let read = match self {
            Codec::MessagePack => {
                let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
                T::deserialize(read::WatchedDeserializer { inner: &mut deserializer, place })
                    .map_err(|error| error.to_string())
                    .and_then(|value| match bool::deserialize(&mut deserializer) {
                        // An end of input here means that all bytes have been read.
                        Err(RmpError::InvalidMarkerRead(end)) if end.kind() == ErrorKind::UnexpectedEof => {
                            Ok(value)
                        }
                        _ => Err(MORE_BYTES.to_owned()),
                    })
            }
            Codec::Postcard => {
                let mut deserializer = postcard::Deserializer::from_bytes(bytes);
                let value = T::deserialize(read::WatchedDeserializer { inner: &mut deserializer, place });
                let rest = deserializer.finalize();
                match (value, rest) {
                    (Ok(value), Ok([])) => Ok(value),
                    (Ok(_), Ok(_)) => Err(MORE_BYTES.to_owned()),
                    (Err(error), _) | (_, Err(error)) => Err(postcard_text(&error)),
                }
            }
        };
        read.map_err(|text| {
            self.error::<T>(
                "cannot read",
                account.refusal().map_or(text, |refusal| refusal.text().to_owned()),
            )
        })
    }

    /// Checks that `bytes`, an encoded `T`, can be read back unchanged: decodes them, encodes the
    /// result, and compares.
    ///
    /// ```
    /// # use fluxmap::codec::Codec;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// #[serde(tag = "shape")]
    /// enum Shape { Circle { radius: u32 } }
    ///
    /// let mut bytes = Vec::new();
    /// Codec::Postcard.encode(&Shape::Circle { radius: 3 }, &mut bytes)?;
    /// let refused = Codec::Postcard.check::<Shape>(&bytes).unwrap_err();
    /// assert!(refused.to_string().contains("use Codec::MessagePack"));
    /// # Ok::<(), fluxmap::codec::CodecError>(())
    /// ```
    ///
    /// Hash maps and hash sets are read back in another order. So the order of elements is not compared:
    /// in MessagePack, that of the entries of each map and of the elements of each sequence; in
    /// postcard, which does not record where elements begin, that of all bytes. (Bytes that are
    /// identical are not compared any further.)
    ///
    /// Therefore the check cannot detect three things: a `Deserialize` that changes only the order (in
    /// postcard: of bytes); the loss of data that is not in the bytes, such as a field with
    /// `#[serde(skip)]` or a variant of an untagged enum that looks like an earlier one; and failures of
    /// other values of the type.
    ///
    /// # Errors
    ///
    /// If the bytes cannot be decoded, or encode to something else afterwards.
    pub fn check<T: Serialize + DeserializeOwned>(self, bytes: &[u8]) -> Result<(), CodecError> {
        let value: T = self.decode(bytes)?;
        // Compare while encoding: a second copy is needed only if the order differs.
        let output = Output::compare(bytes);
        let written = self.serialize(&value, &Account::of_writing(self, &output), &output);
        if written.is_ok() && output.is_same() {
            return Ok(());
        }
        let mut again = Vec::with_capacity(bytes.len());
        self.encode(&value, &mut again)?;
        if canonical::same_but_for_order(self, bytes, &again) {
            return Ok(());
        }
        let what = "it reads back as another value; look at its `Serialize` and `Deserialize`, \
                    or at attributes such as `with`, `skip_serializing` and `untagged`";
        Err(self.error::<T>("cannot restore", what.to_owned()))
    }

    fn error<T: ?Sized>(self, attempt: &'static str, problem: String) -> CodecError {
        CodecError { codec: self, attempt, type_name: type_name::<T>(), problem }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Codec::MessagePack => "MessagePack",
            Codec::Postcard => "postcard",
        })
    }
}

const MORE_BYTES: &str = "there are more bytes than the value takes; the bytes were written for another type";

/// Bytes appended to a vector. They are removed again on drop, unless `keep` is set.
struct Appended<'a> {
    into: &'a mut Vec<u8>,
    start: usize,
    keep: bool,
}

impl Drop for Appended<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.into.truncate(self.start);
        }
    }
}

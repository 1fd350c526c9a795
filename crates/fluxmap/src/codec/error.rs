//! Errors of encoding and decoding.

use super::Codec;

/// A value could not be written, or bytes could not be read.
///
/// ```
/// # use fluxmap::codec::Codec;
/// let error = Codec::MessagePack.decode::<Vec<u32>>(b"\xc3").unwrap_err();
/// assert!(error.to_string().starts_with("MessagePack cannot read a `Vec<u32>`: "));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{codec} {attempt} a `{type_name}`: {problem}")]
#[non_exhaustive]
pub struct CodecError {
    /// The codec.
    pub codec: Codec,
    /// The type that was to be written or read, without its modules.
    pub type_name: String,
    /// The problem, and how to solve it.
    pub problem: String,
    pub(super) attempt: &'static str,
}

/// The reason why a value was not encoded.
#[derive(Clone, Debug)]
pub(crate) enum EncodeError {
    Codec(CodecError),
    /// The encoding, with the bytes before it, would have been longer than allowed: at least this many
    /// bytes.
    TooLong(usize),
}

/// Explains an error of postcard.
pub(super) fn postcard_text(error: &postcard::Error) -> String {
    match error {
        postcard::Error::WontImplement => "the type asks for the kind of the next value, which postcard does not write \
             (tagged and untagged enums, `flatten` and `serde_json::Value` ask); use Codec::MessagePack"
            .to_owned(),
        postcard::Error::SerializeSeqLengthUnknown => {
            "the type does not tell lengths beforehand (one with `flatten` does not), but postcard writes them \
             first; use Codec::MessagePack"
                .to_owned()
        }
        postcard::Error::SerdeSerCustom => "its `Serialize` returned an error".to_owned(),
        postcard::Error::SerdeDeCustom => {
            "its `Deserialize` did not accept the bytes; they were written for another type or variant, \
             or are damaged"
                .to_owned()
        }
        other => other.to_string(),
    }
}

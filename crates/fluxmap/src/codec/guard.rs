//! Limits of one encoding or decoding, for both directions.
//!
//! Neither `rmp-serde` nor `postcard` bounds how deep a value nests when writing, and neither does in
//! all cases when reading. Moreover, `postcard` reads sequences of elements that take no bytes for as
//! long as a damaged length demands. The wrappers in [`write`](super::write) and [`read`](super::read)
//! stand between serde and the codec and check the limits here before each step:
//!
//! - G1: nothing is written that nests deeper than can be read back.
//! - G2: nothing is written that has more elements than can be read back.

use super::Codec;
use super::output::Output;
use std::cell::Cell;

/// How deep a value may nest when it is written.
pub(super) const WRITE_DEPTH: u32 = 128;
/// How deep a value may nest when it is read. This is somewhat deeper, for types that are read through
/// more layers than they were written through (G1).
pub(super) const READ_DEPTH: u32 = 160;
/// How many elements of sequences and maps may take no bytes at all. Every other element takes at least
/// one byte (G2).
const EMPTY_ELEMENTS: u64 = 65_536;

/// The reason why the wrappers, not the codec, refused a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    TooDeep,
    TooManyElements,
    SomeOfNothing,
    FieldLeftOut,
}

impl Refusal {
    pub(super) fn text(self) -> &'static str {
        match self {
            Refusal::TooDeep => {
                "it nests more than 128 levels deep, and reading it back could exhaust the stack; \
                 flatten it, for example into a list of nodes that refer to each other by number"
            }
            Refusal::TooManyElements => {
                "it has more than 65536 elements that take no bytes, such as `()`; store their number instead"
            }
            Refusal::SomeOfNothing => {
                "MessagePack cannot tell `Some(None)`, `Some(())` or `Some(Value::Null)` from `None`; \
                 use an enum of your own instead of the outer `Option`, or Codec::Postcard"
            }
            Refusal::FieldLeftOut => {
                "`skip_serializing_if` left a field out, and the next one would be read in its place; remove that attribute, \
                 or use Codec::MessagePack"
            }
        }
    }
}

/// The counters and the result of one call of `encode` or `decode`.
pub(super) struct Account<'a> {
    pub(super) codec: Codec,
    /// The target of the serializer.
    output: Option<&'a dyn ByteSink>,
    refusal: Cell<Option<Refusal>>,
    elements: Cell<u64>,
    max_elements: u64,
    /// The number of bytes to read: a claimed length beyond it is not believed.
    pub(super) input: usize,
}

/// Receives long runs of bytes without the serializer, which would need them in one piece.
pub(super) trait ByteSink {
    /// Makes room for this many bytes; false if they are too many.
    fn expect(&self, more: usize) -> bool;
    /// Receives some bytes; false if they are too many, or differ from the expected ones.
    fn put(&self, bytes: &[u8]) -> bool;
    /// Sets whether all further bytes are ignored.
    fn mute(&self, is_muted: bool);
}

impl<'a> Account<'a> {
    pub(super) fn of_writing(codec: Codec, output: &'a Output<'_>) -> Account<'a> {
        Account { output: Some(output), ..Account::new(codec) }
    }

    fn new(codec: Codec) -> Account<'a> {
        Account {
            codec,
            output: None,
            refusal: Cell::new(None),
            elements: Cell::new(0),
            max_elements: u64::MAX,
            input: usize::MAX,
        }
    }

    pub(super) fn of_reading(codec: Codec, input: usize) -> Account<'a> {
        let max_elements = Account::max_elements(input);
        Account { max_elements, input, ..Account::new(codec) }
    }

    fn max_elements(bytes: usize) -> u64 {
        bytes as u64 + EMPTY_ELEMENTS
    }

    pub(super) fn is_postcard(&self) -> bool {
        self.codec == Codec::Postcard
    }

    /// Returns the header of a run of `length` bytes (at least 2^16), and the length of the header.
    pub(super) fn bytes_header(&self, length: usize) -> ([u8; 10], usize) {
        let mut header = [0; 10];
        if !self.is_postcard() {
            header[0] = 0xc6;
            header[1..5].copy_from_slice(&(length as u32).to_be_bytes());
            return (header, 5);
        }
        let (mut rest, mut filled) = (length as u64, 0);
        while rest >= 0x80 {
            header[filled] = rest as u8 | 0x80;
            rest >>= 7;
            filled += 1;
        }
        header[filled] = rest as u8;
        (header, filled + 1)
    }

    /// Returns why the wrappers refused, if they did. The codec's error cannot carry the reason:
    /// postcard drops the text of foreign errors.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal.get()
    }

    /// Records the reason; the caller returns an error of the codec.
    pub(super) fn refuse(&self, why: Refusal) -> &'static str {
        self.refusal.set(Some(why));
        why.text()
    }

    /// Counts an element of a sequence or map. In MessagePack each takes at least a byte, so only
    /// postcard needs the count.
    #[inline]
    pub(super) fn count_element(&self) -> Result<(), Refusal> {
        if self.is_postcard() {
            let elements = self.elements.get() + 1;
            if elements > self.max_elements {
                return Err(Refusal::TooManyElements);
            }
            self.elements.set(elements);
        }
        Ok(())
    }

    /// Returns whether the written elements can be read back from `bytes` bytes (G2).
    pub(super) fn may_be_read_from(&self, bytes: usize) -> bool {
        self.elements.get() <= Account::max_elements(bytes)
    }
}

/// A place in the value that is being written or read.
#[derive(Clone, Copy)]
pub(super) struct ValuePlace<'a> {
    pub(super) account: &'a Account<'a>,
    /// The number of levels that may follow below this one.
    levels: u32,
    /// Whether the serializer writes directly to the output here, and not to a buffer of its own first.
    is_direct: bool,
}

impl<'a> ValuePlace<'a> {
    pub(super) fn top(account: &'a Account<'a>, levels: u32) -> ValuePlace<'a> {
        ValuePlace { account, levels, is_direct: true }
    }

    /// Returns the same place, within a buffer of the serializer.
    pub(super) fn buffered(self) -> ValuePlace<'a> {
        ValuePlace { is_direct: false, ..self }
    }

    /// Returns the output, if bytes may be written to it without the serializer.
    pub(super) fn output(self) -> Option<&'a dyn ByteSink> {
        self.account.output.filter(|_| self.is_direct)
    }

    /// Returns the place one level down, or the text of the error.
    #[inline]
    pub(super) fn deeper(self) -> Result<ValuePlace<'a>, &'static str> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(ValuePlace { levels, ..self }),
            None => Err(self.account.refuse(Refusal::TooDeep)),
        }
    }
}

//! The target of encoded bytes: appends them to a vector, up to a limit, or compares them with existing
//! bytes.
//!
//! Both stop as soon as the result is known: an encoding that becomes too long is not finished, and
//! comparing takes no memory.

use super::guard::ByteSink;
use std::cell::{Cell, RefCell};
use std::io;

/// Receives the bytes that a serializer writes.
pub(super) struct Output<'o> {
    target: RefCell<Target<'o>>,
    /// Whether all further bytes are ignored.
    is_muted: Cell<bool>,
    stopped: Cell<Option<Stopped>>,
}

enum Target<'o> {
    /// Appends to the vector, which may become this long.
    Append { into: &'o mut Vec<u8>, longest: usize },
    /// Compares with the bytes that are still expected.
    Compare { rest: &'o [u8] },
}

/// The reason why no more bytes are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The result takes at least this many bytes.
    TooLong(usize),
    Differs,
}

impl<'o> Output<'o> {
    pub(super) fn append(into: &'o mut Vec<u8>, longest: usize) -> Self {
        Self::to(Target::Append { into, longest })
    }

    pub(super) fn compare(rest: &'o [u8]) -> Self {
        Self::to(Target::Compare { rest })
    }

    fn to(target: Target<'o>) -> Self {
        Output { target: RefCell::new(target), is_muted: Cell::new(false), stopped: Cell::new(None) }
    }

    /// Receives some bytes.
    #[inline]
    pub(super) fn put(&self, bytes: &[u8]) -> Result<(), Stopped> {
        if self.is_muted.get() {
            return Ok(());
        }
        match &mut *self.target.borrow_mut() {
            Target::Append { into, longest } => match into.len().checked_add(bytes.len()) {
                Some(length) if length <= *longest => into.extend_from_slice(bytes),
                length => return self.stop(Stopped::TooLong(length.unwrap_or(usize::MAX))),
            },
            Target::Compare { rest } => match rest.strip_prefix(bytes) {
                Some(behind) => *rest = behind,
                None => return self.stop(Stopped::Differs),
            },
        }
        Ok(())
    }

    fn stop(&self, why: Stopped) -> Result<(), Stopped> {
        self.stopped.set(Some(why));
        Err(why)
    }

    /// Returns the present length of the vector.
    pub(super) fn length(&self) -> usize {
        match &*self.target.borrow() {
            Target::Append { into, .. } => into.len(),
            Target::Compare { .. } => 0,
        }
    }

    /// Returns why the output stopped, if it did.
    pub(super) fn stopped(&self) -> Option<Stopped> {
        self.stopped.get()
    }

    /// Returns whether all expected bytes came, and no others.
    pub(super) fn is_same(&self) -> bool {
        self.stopped().is_none() && matches!(&*self.target.borrow(), Target::Compare { rest: [] })
    }
}

impl ByteSink for Output<'_> {
    fn expect(&self, more: usize) -> bool {
        if let Target::Append { into, longest } = &mut *self.target.borrow_mut() {
            match into.len().checked_add(more) {
                Some(length) if length <= *longest => into.reserve(more),
                length => return self.stop(Stopped::TooLong(length.unwrap_or(usize::MAX))).is_ok(),
            }
        }
        true
    }

    fn put(&self, bytes: &[u8]) -> bool {
        self.put(bytes).is_ok()
    }

    fn mute(&self, is_muted: bool) {
        self.is_muted.set(is_muted);
    }
}

/// A writer for the serializers, which need to own one.
pub(super) struct OutputWriter<'w, 'o>(pub(super) &'w Output<'o>);

impl io::Write for OutputWriter<'_, '_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        // The caller asks for the reason afterwards, with `stopped`.
        self.0.put(bytes).map_err(|_| io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl postcard::ser_flavors::Flavor for OutputWriter<'_, '_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.put(bytes).map_err(|_| postcard::Error::SerializeBufferFull)
    }

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use crate::codec::{Codec, EncodeError};
    use serde::{Serialize, Serializer};
    use std::cell::Cell;
    use std::collections::BTreeMap;

    /// Bytes in one piece, serialized either in the usual way or as a sequence.
    #[derive(Clone, Copy)]
    struct Bytes<'b>(&'b [u8], bool);

    impl Serialize for Bytes<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if self.1 { serializer.serialize_bytes(self.0) } else { serializer.collect_seq(self.0) }
        }
    }

    #[derive(Serialize)]
    struct Named<'b> {
        before: u8,
        bytes: Option<Bytes<'b>>,
        variant: Variant<'b>,
    }

    #[derive(Serialize)]
    enum Variant<'b> {
        One(Bytes<'b>),
    }

    #[derive(Serialize)]
    struct Flat<'b> {
        #[serde(flatten)]
        rest: BTreeMap<&'static str, Bytes<'b>>,
        after: u8,
    }

    /// Serializes like a flattened struct, whose length is unknown.
    struct Uncounted<'b>(Bytes<'b>);

    impl Serialize for Uncounted<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq([self.0, self.0].into_iter().filter(|_| true))
        }
    }

    #[test]
    fn long_runs_of_bytes_are_written_as_others_are_wherever_they_are() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n / 3) as u8).collect();
        for length in [0, 255, 65_535, 65_536, 65_537, 200_000] {
            let of = |in_one_piece| Bytes(&bytes[..length], in_one_piece);
            for codec in [Codec::MessagePack, Codec::Postcard] {
                let same = |encode: &dyn Fn(Bytes<'_>, &mut Vec<u8>)| {
                    let [mut expected, mut found] = [vec![7], vec![7]];
                    encode(of(true), &mut expected);
                    encode(of(false), &mut found);
                    assert!(expected == found && found.len() > length, "{codec}, {length} bytes");
                };
                same(&|bytes, into| codec.encode(&bytes, into).expect("it can be written"));
                same(&|bytes, into| {
                    let named = Named { before: 1, bytes: Some(bytes), variant: Variant::One(bytes) };
                    codec.encode(&(named, [bytes, bytes], 5), into).expect("it can be written");
                });
                if codec == Codec::MessagePack {
                    same(&|bytes, into| {
                        let flat = Flat { rest: [("a", bytes), ("b", bytes)].into(), after: 1 };
                        codec.encode(&(flat, Uncounted(bytes)), into).expect("it can be written");
                    });
                }
            }
        }
    }

    #[test]
    fn what_becomes_too_long_is_not_encoded_to_the_end() {
        let seen = Cell::new(0_u64);
        struct Many<'s>(&'s Cell<u64>);
        impl Serialize for Many<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq((0..1_000_000_u64).map(|n| {
                    self.0.set(self.0.get() + 1);
                    n + 1_000_000
                }))
            }
        }
        for codec in [Codec::MessagePack, Codec::Postcard] {
            seen.set(0);
            let mut into = vec![7; 50];
            let refused = codec.encode_within(&Many(&seen), &mut into, 1000);
            assert!(matches!(refused, Err(EncodeError::TooLong(1001..1010))), "{refused:?}");
            assert!((190..500).contains(&seen.get()), "{} elements", seen.get());
            assert_eq!(into, [7; 50], "it is as it was");
            codec.encode_within(&vec![1_u8; 900], &mut into, 1000).expect("it fits");
        }
    }

    #[test]
    fn a_run_that_lies_about_its_length_is_refused() {
        struct Liar(Vec<u8>);
        impl Serialize for Liar {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                struct Claim<I>(I, usize);
                impl<I: Iterator> Iterator for Claim<I> {
                    type Item = I::Item;
                    fn next(&mut self) -> Option<I::Item> {
                        self.0.next()
                    }
                    fn size_hint(&self) -> (usize, Option<usize>) {
                        (self.1, Some(self.1))
                    }
                }
                serializer.collect_seq(Claim(self.0.iter(), 100_000))
            }
        }
        for codec in [Codec::MessagePack, Codec::Postcard] {
            for length in [0, 99_999, 100_001, 100_000 + 4096, 300_000] {
                let mut into = Vec::new();
                assert!(codec.encode(&Liar(vec![1; length]), &mut into).is_err(), "{length}");
            }
            codec.encode(&Liar(vec![1; 100_000]), &mut Vec::new()).expect("it tells the truth");
        }
    }
}

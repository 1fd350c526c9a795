//! The encoded bytes themselves, where their form matters.

use crate::codecs::types::*;
use fluxmap::codec::Codec;
use serde::Serialize;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn encoded<T: Serialize + ?Sized>(codec: Codec, value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec.encode(value, &mut bytes).unwrap();
    bytes
}

fn refused<T: Serialize>(codec: Codec, value: &T) -> String {
    codec.encode(value, &mut Vec::new()).unwrap_err().to_string()
}

#[test]
fn bytes_are_compact() {
    let hundred = vec![200u8; 100];
    let message_pack = Codec::MessagePack;
    assert_eq!(encoded(message_pack, &hundred).len(), 102);
    assert_eq!(encoded(message_pack, &hundred[..]).len(), 102);
    assert_eq!(encoded(message_pack, &WithBytes { data: hundred.clone() }).len(), 102 + 6);
    assert_eq!(encoded(message_pack, &Some(hundred.clone())).len(), 102);
    assert_eq!(encoded(message_pack, &[200u8; 32]).len(), 34);
    assert_eq!(encoded(message_pack, &[1u8; 4]).len(), 5);
    assert_eq!(encoded(Codec::Postcard, &hundred), postcard::to_stdvec(&hundred).unwrap());
    assert_eq!(encoded(Codec::Postcard, &[200u8; 32]).len(), 32);
}

/// Bytes that are written today must be readable for ever, because they are stored in files.
#[test]
fn the_format_stays() {
    let old = Old { a: 1, b: 300 };
    assert_eq!(encoded(Codec::MessagePack, &old), b"\x82\xa1a\x01\xa1b\xcd\x01\x2c");
    assert_eq!(encoded(Codec::Postcard, &old), b"\x01\xac\x02");
    assert_eq!(encoded(Codec::MessagePack, &External::Tuple(1, "x".into())), b"\x81\xa5Tuple\x92\x01\xa1x");
    assert_eq!(encoded(Codec::MessagePack, &(Unit, None::<u8>, ())), b"\x93\xc0\xc0\xc0");
    assert_eq!(encoded(Codec::MessagePack, &vec![1u8, 2]), b"\xc4\x02\x01\x02");
    for (codec, id) in [(Codec::MessagePack, 1), (Codec::Postcard, 2)] {
        assert_eq!((codec.id(), Codec::from_id(id)), (id, Some(codec)));
    }
    assert!((0..=255).filter(|id| Codec::from_id(*id).is_some()).eq([1, 2]));
}

/// Other programs, and future versions, may write bytes as arrays of numbers.
#[test]
fn bytes_written_as_numbers_are_read() {
    let numbers = b"\x92\x01\xcc\xc8";
    assert_eq!(Codec::MessagePack.decode::<Vec<u8>>(numbers).unwrap(), [1, 200]);
    assert_eq!(Codec::MessagePack.decode::<[u8; 2]>(numbers).unwrap(), [1, 200]);
    let json: serde_json::Value = Codec::MessagePack.decode(b"\xc4\x02\x01\xc8").unwrap();
    assert_eq!(json, serde_json::json!([1, 200]));
}

#[test]
fn errors_say_what_to_do() {
    let flattened = Outer { id: 1, inner: Inner { data: vec![], note: None }, rest: Default::default() };
    let error = refused(Codec::Postcard, &flattened);
    assert!(error.starts_with("postcard cannot write a `Outer`: "), "{error}");
    assert!(error.contains("use Codec::MessagePack"), "{error}");
    let error = refused(Codec::Postcard, &Skips { note: None, n: 1 });
    assert!(error.contains("skip_serializing_if"), "{error}");
    let error = refused(Codec::MessagePack, &Some(None::<u8>));
    assert!(error.contains("`Some(None)`"), "{error}");
    let error = refused(Codec::MessagePack, &chain(1000));
    assert!(error.contains("128 levels"), "{error}");
    let error = Codec::Postcard.check::<serde_json::Value>(&encoded(Codec::Postcard, &json())).unwrap_err();
    assert!(error.to_string().contains("use Codec::MessagePack"), "{error}");
}

#[test]
fn a_panic_while_writing_leaves_nothing_behind() {
    struct Panics;
    impl Serialize for Panics {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("while writing")
        }
    }
    for codec in crate::codecs::matrix::CODECS {
        let mut into = vec![1, 2, 3];
        let result = catch_unwind(AssertUnwindSafe(|| codec.encode(&("some text", Panics), &mut into)));
        assert!(result.is_err());
        assert_eq!(into, [1, 2, 3]);
    }
}

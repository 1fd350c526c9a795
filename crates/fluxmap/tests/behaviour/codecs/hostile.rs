//! Input that no codec wrote, and values that are too deep or too long to be written.

use crate::codecs::matrix::CODECS;
use crate::codecs::types::*;
use fluxmap::codec::{Codec, Stored};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Arrays nested `depth` levels deep.
fn arrays(depth: usize) -> Value {
    (1..depth).fold(Value::Array(vec![]), |inner, _| Value::Array(vec![inner]))
}

/// A value that nests up to the limit is written, and read within the 2 MiB of stack that a thread
/// has. A value that nests one level deeper is refused, and so is one that nests far deeper.
#[test]
fn the_deepest_values_come_back() {
    #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    #[serde(tag = "type")]
    enum Tagged {
        Leaf,
        Node { next: Box<Tagged> },
    }
    #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Node { next: Vec<Either> },
    }
    deepest(Codec::MessagePack, arrays, 128);
    deepest(
        Codec::MessagePack,
        |n| (1..n).fold(Tagged::Leaf, |next, _| Tagged::Node { next: Box::new(next) }),
        60,
    );
    deepest(
        Codec::MessagePack,
        |n| (1..n).fold(Either::Number(1), |next, _| Either::Node { next: vec![next] }),
        60,
    );
    for codec in CODECS {
        deepest(codec, chain, 40);
        deepest(codec, link, 100);
    }
}

/// Finds the largest size that the codec writes, and expects it to be read.
fn deepest<T: Stored + PartialEq + std::fmt::Debug>(
    codec: Codec,
    make: impl Fn(usize) -> T,
    at_least: usize,
) {
    let mut bytes = Vec::new();
    let mut size = 1;
    while codec.encode(&make(size + 1), &mut Vec::new()).is_ok() {
        size += 1;
    }
    assert!(size >= at_least, "only {size} of {at_least}");
    codec.encode(&make(size), &mut bytes).unwrap();
    codec.check::<T>(&bytes).unwrap();
    assert_eq!(codec.decode::<T>(&bytes).unwrap(), make(size));
}

#[test]
fn bytes_that_nest_too_deep_are_refused() {
    let deep = 1_000_000;
    assert!(Codec::MessagePack.decode::<Value>(&vec![0x91; deep]).is_err());
    assert!(Codec::MessagePack.decode::<Untagged>(&vec![0x91; deep]).is_err());
    assert!(Codec::MessagePack.decode::<Link>(&b"\x81\xa4Next".repeat(deep)).is_err());
    assert!(Codec::MessagePack.decode::<Chain>(&b"\x81\xa4next".repeat(deep)).is_err());
    assert!(
        Codec::MessagePack
            .decode::<Removed>(&[b"\x82\xa1a\x01\xa1x".to_vec(), vec![0x91; deep]].concat())
            .is_err()
    );
    for levels in [vec![1; deep], vec![1; 161]] {
        let error = Codec::Postcard.decode::<Chain>(&levels).unwrap_err();
        assert!(error.to_string().contains("128 levels"), "{error}");
        assert!(Codec::Postcard.decode::<Link>(&levels).is_err());
    }
}

/// Headers claim lengths of 4 GiB and more, with no data behind them. A decoder that allocated
/// gigabytes for them would show as a test that takes long, or is killed.
#[test]
fn claimed_lengths_are_not_believed() {
    for marker in [0xc6, 0xc9, 0xdb, 0xdd, 0xdf] {
        let bytes = [marker, 0xff, 0xff, 0xff, 0xff, 0, 0, 0];
        refuses_all(Codec::MessagePack, &bytes);
        assert!(Codec::MessagePack.decode::<Vec<()>>(&bytes).is_err());
    }
    let bytes = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    refuses_all(Codec::Postcard, &bytes);
    // The elements take no bytes: without a limit, decoding them would take centuries.
    let error = Codec::Postcard.decode::<Vec<()>>(&bytes).unwrap_err();
    assert!(error.to_string().contains("65536 elements"), "{error}");
}

fn refuses_all(codec: Codec, bytes: &[u8]) {
    assert!(codec.decode::<Vec<u8>>(bytes).is_err());
    assert!(codec.decode::<String>(bytes).is_err());
    assert!(codec.decode::<Vec<[u64; 32]>>(bytes).is_err());
    assert!(codec.decode::<HashMap<u64, [u64; 32]>>(bytes).is_err());
    assert!(codec.decode::<BTreeMap<String, Vec<String>>>(bytes).is_err());
    assert!(codec.decode::<Value>(bytes).is_err());
    assert!(codec.decode::<Untagged>(bytes).is_err());
    assert!(codec.decode::<WithBytes>(bytes).is_err());
    assert!(codec.decode::<Vec<Unit>>(bytes).is_err());
}

#[test]
fn many_elements_of_no_bytes() {
    for (elements, fits) in [(60_000, true), (70_000, false)] {
        let value = vec![(); elements];
        let mut bytes = Vec::new();
        assert_eq!(Codec::Postcard.encode(&value, &mut bytes).is_ok(), fits);
        if fits {
            assert_eq!(Codec::Postcard.decode::<Vec<()>>(&bytes).unwrap(), value);
        }
        let mut bytes = Vec::new();
        Codec::MessagePack.encode(&value, &mut bytes).unwrap();
        assert_eq!(Codec::MessagePack.decode::<Vec<()>>(&bytes).unwrap(), value);
    }
    // This many elements are accepted, because each takes a byte.
    let mut bytes = Vec::new();
    Codec::Postcard.encode(&vec![Vec::<()>::new(); 200_000], &mut bytes).unwrap();
    assert_eq!(Codec::Postcard.decode::<Vec<Vec<()>>>(&bytes).unwrap().len(), 200_000);
}

/// Decodes every proper prefix of an encoding, the encoding with one more byte, with every bit
/// flipped, and random bytes. Each must give a value or an error, never a panic. Prefixes and
/// extensions must be errors.
fn survives<T: Stored>(codec: Codec, value: &T) {
    let mut bytes = Vec::new();
    codec.encode(value, &mut bytes).unwrap();
    for length in 0..bytes.len() {
        assert!(codec.decode::<T>(&bytes[..length]).is_err(), "a prefix of {length} bytes was read");
    }
    for more in 0..=255 {
        bytes.push(more);
        assert!(codec.decode::<T>(&bytes).is_err(), "{more:#04x} at the end was not noticed");
        bytes.pop();
    }
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let _ = codec.check::<T>(&bytes);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    let mut random = SmallRng::seed_from_u64(1);
    for _ in 0..2000 {
        let mut mutated = bytes.clone();
        for _ in 0..random.random_range(1..5) {
            let at = random.random_range(0..mutated.len());
            mutated[at] = random.random();
        }
        let _ = codec.check::<T>(&mutated);
        let noise: Vec<u8> = (0..random.random_range(0..64)).map(|_| random.random()).collect();
        let _ = codec.check::<T>(&noise);
    }
}

#[test]
fn damaged_bytes_do_no_harm() {
    for codec in CODECS {
        survives(codec, &plain());
        survives(codec, &hash_map(10));
        survives(codec, &(1u8, i128::MIN, 1.5f32, 'ß', Some(vec![1u8, 2]), [7u8; 16]));
        survives(
            codec,
            &vec![External::Struct { a: -1, b: None }, External::Tuple(1, "x".into()), External::Unit],
        );
        survives(codec, &BTreeMap::from([((1u8, "x".to_string()), vec![Some(1u32)])]));
        survives(codec, &chain(20));
    }
    survives(Codec::MessagePack, &json());
    survives(Codec::MessagePack, &vec![Untagged::Bytes(vec![1, 2]), Untagged::Map([(1, "x".into())].into())]);
    survives(Codec::MessagePack, &Internal::Bytes { data: vec![1, 2], key: [9; 16] });
    survives(
        Codec::MessagePack,
        &Outer { id: 1, inner: Inner { data: vec![1], note: None }, rest: [].into() },
    );
}

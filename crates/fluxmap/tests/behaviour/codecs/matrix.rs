//! The outcome for each type in each codec, as the table of `src/codec.rs` lists it.

use crate::codecs::types::*;
use fluxmap::codec::{Codec, Stored};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) const CODECS: [Codec; 2] = [Codec::MessagePack, Codec::Postcard];

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) outcomes: [&'static str; 2],
}

/// Writes and reads a value as the same type. All values must have the same outcome, and none may
/// come back different without an error.
fn same<T: Stored + PartialEq + Debug>(name: &'static str, values: &[T]) -> Row {
    let outcomes = CODECS.map(|codec| {
        let outcomes: BTreeSet<_> = values.iter().map(|value| outcome(codec, value)).collect();
        assert_eq!(outcomes.len(), 1, "{name} in {codec}: {outcomes:?}");
        *outcomes.first().unwrap()
    });
    Row { name, outcomes }
}

fn outcome<T: Stored + PartialEq + Debug>(codec: Codec, value: &T) -> &'static str {
    let mut bytes = vec![7];
    if let Err(error) = codec.encode(value, &mut bytes) {
        assert_eq!(bytes, [7], "{codec} left something behind: {error}");
        println!("{error}");
        return "refused by `encode`";
    }
    let bytes = &bytes[1..];
    let read = codec.decode::<T>(bytes);
    match codec.check::<T>(bytes) {
        Err(error) => {
            println!("{error}");
            assert_ne!(read.as_ref(), Ok(value), "is refused, but comes back");
            "refused by `check`"
        }
        Ok(()) => {
            assert_eq!(
                read.as_ref(),
                Ok(value),
                "{codec} gave something else without an error: {bytes:02x?}"
            );
            "equal"
        }
    }
}

/// Writes a value as `Old` and reads it as `New`.
fn changed<Old: Stored, New: Stored + PartialEq + Debug>(name: &'static str, old: Old, expected: New) -> Row {
    let outcomes = CODECS.map(|codec| {
        let mut bytes = Vec::new();
        codec.encode(&old, &mut bytes).unwrap();
        match codec.decode::<New>(&bytes) {
            Err(_) => "refused by `decode`",
            Ok(new) if new == expected => "read",
            Ok(_) => "**mistaken**",
        }
    });
    Row { name, outcomes }
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = structs();
    rows.extend(enums());
    rows.extend(values());
    rows.extend(collections());
    rows.extend(evolution());
    rows
}

fn structs() -> Vec<Row> {
    let inner = Inner { data: vec![1, 200, 3], note: None };
    let rest: BTreeMap<_, _> =
        [("more".to_string(), json()), ("null".to_string(), serde_json::Value::Null)].into();
    vec![
        same("struct", &[plain()]),
        same("tuple struct", &[Pair(200, "x".into())]),
        same("unit struct", &[Unit]),
        same("newtype struct", &[Newtype(0), Newtype(u64::MAX)]),
        same("`transparent`", &[Transparent { inner: vec![0, 128] }]),
        same(
            "`flatten`",
            &[Outer { id: 1, inner: inner.clone(), rest: [].into() }, Outer { id: 1, inner, rest }],
        ),
        same("`skip_serializing_if` that skips", &[Skips { note: None, n: 1 }]),
        same("`skip_serializing_if` that does not skip", &[Skips { note: Some("x".into()), n: 1 }]),
        same("`alias`", &[Aliased { a: 1, z: 2 }]),
        same("`serde_bytes`", &[WithBytes { data: vec![] }, WithBytes { data: vec![1, 200] }]),
        same("`Cow`", &[Lent { text: Cow::Borrowed("x"), bytes: Cow::Borrowed(&[0, 255]) }]),
        same("recursive, within the limit", &[chain(40)]),
        same("recursive, too deep", &[chain(100), chain(3000)]),
        same("`Serialize` and `Deserialize` that disagree", &[Liar(1), Liar(2)]),
    ]
}

fn enums() -> Vec<Row> {
    let with_unit = [Internal::Unit, Internal::Struct { a: -1, b: None }, Internal::New(plain())];
    let with_bytes = [
        Internal::Bytes { data: vec![], key: [200; 16] },
        Internal::Bytes { data: b"text".to_vec(), key: [1; 16] },
    ];
    let untagged = [
        Untagged::Number(5),
        Untagged::Text("abc".into()),
        Untagged::Bytes(b"abc".to_vec()),
        Untagged::Struct { a: 1, b: Some(2) },
        Untagged::Unit(Unit),
        Untagged::Map([(1, "x".into())].into()),
    ];
    vec![
        same(
            "enum",
            &[
                External::Unit,
                External::New(1),
                External::Bytes(vec![1, 255]),
                External::Tuple(1, "x".into()),
                External::Struct { a: -1, b: None },
            ],
        ),
        same("untagged enum", &untagged),
        same(
            "untagged enum, text before bytes",
            &[TextFirst::Text("abc".into()), TextFirst::Bytes(b"abc".to_vec())],
        ),
        same("`Vec` of an untagged enum", &[vec![ByteFirst::Byte(1), ByteFirst::Text("x".into())]]),
        same("internally tagged enum", &with_unit),
        same("internally tagged enum with bytes", &with_bytes),
        same(
            "internally tagged enum with `IpAddr`",
            &[InternalAddress::Address { ip: [127, 0, 0, 1].into() }],
        ),
        same(
            "internally tagged enum with `i128`",
            &[InternalLong::Long { n: 1 }, InternalLong::Long { n: i128::MIN }],
        ),
        same(
            "adjacently tagged enum",
            &[
                Adjacent::Unit,
                Adjacent::New(1),
                Adjacent::Bytes(vec![1, 255]),
                Adjacent::Tuple(1, "x".into()),
                Adjacent::Struct { a: -1, b: Some(0) },
            ],
        ),
    ]
}

fn values() -> Vec<Row> {
    let text: String = (0..=0x10ffff).step_by(97).filter_map(char::from_u32).collect();
    let floats = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.1, f64::MIN_POSITIVE, f64::MAX];
    let floats: Vec<_> = floats.into_iter().map(|f| Floats(f as f32, f)).collect();
    vec![
        same("integers", &[(u8::MAX, i8::MIN, u16::MAX, i16::MIN), (0, 0, 0, 0), (1, -1, 1, -1)]),
        same("wide integers", &[(u32::MAX, i32::MIN, u64::MAX, i64::MIN), (0, 0, 0, 0), (1, -1, 1, -1)]),
        same("`i128`, `u128`", &[(i128::MIN, u128::MAX), (0, 0), (-1, 1), (i128::MAX, 1 << 64)]),
        same("`f32`, `f64`", &floats),
        same("`bool`, `char`, `()`", &[(true, '\u{10ffff}', ()), (false, '\0', ())]),
        same("`String`", &[String::new(), "x".repeat(70_000), text]),
        same("`Option`", &[None, Some(0), Some(u64::MAX)]),
        same("`Option<Option>`: `None`, `Some(Some)`", &[None, Some(Some(1))]),
        same("`Option<Option>`: `Some(None)`", &[Some(None::<u8>)]),
        same("`Option<()>`: `Some(())`", &[Some(())]),
        same("`Option<Value>`: `Some(Value::Null)`", &[Some(serde_json::Value::Null)]),
        same("`Box`", &[Box::new(plain())]),
        same(
            "`Duration`, `SystemTime`",
            &[(Duration::new(u64::MAX, 1), UNIX_EPOCH + Duration::new(1 << 40, 5))],
        ),
        same("`IpAddr`", &[IpAddr::from([1, 2, 3, 4]), IpAddr::from([0xffff; 8])]),
        same(
            "`serde_json::Value`",
            &[json(), serde_json::Value::Null, serde_json::json!([]), serde_json::json!(0.5)],
        ),
    ]
}

fn collections() -> Vec<Row> {
    let every_byte: Vec<u8> = (0..=255).collect();
    let by_pair: BTreeMap<_, _> =
        [((1u8, "x".to_string()), vec![1u8]), ((200, String::new()), vec![])].into();
    let nested = vec![BTreeMap::from([(1u32, vec![Some((1u8, 'x'))]), (2, vec![])]), BTreeMap::new()];
    vec![
        same("`Vec<u8>`", &[vec![], vec![0], every_byte.clone(), every_byte.repeat(1000)]),
        same("`[u8; N]`", &[([0; 0], [1; 3], [200; 8], [7; 16], [255u8; 32])]),
        same("tuple", &[(1u8, 2u8, 3u8, 4u8, 5u8, 6u8, 7u8, 300u16), (0, 0, 0, 0, 0, 0, 0, 0)]),
        same("`Vec<T>`", &[vec![], vec![1, u32::MAX], (0..70_000).collect()]),
        same("`VecDeque<u8>`, `BTreeSet<u8>`", &[(VecDeque::from(vec![1, 200]), BTreeSet::from([1, 200]))]),
        same("`BTreeMap<u32, _>`", &[BTreeMap::from([(1, "x".to_string()), (u32::MAX, String::new())])]),
        same("`BTreeMap<(u8, String), _>`", &[by_pair]),
        same("`HashMap`", &[hash_map(0), hash_map(1), hash_map(100)]),
        same(
            "`HashMap` with keys of bytes",
            &[HashMap::from([([1u8; 16], 1), ([200; 16], 2), ([3; 16], 3)])],
        ),
        same("`HashSet`", &[HashSet::new(), (0..100u32).collect::<HashSet<_>>()]),
        same("`HashSet<u8>`", &[(0..=255u8).collect::<HashSet<_>>()]),
        same("nested collections", &[nested]),
    ]
}

fn evolution() -> Vec<Row> {
    let old = Old { a: 1, b: 2 };
    let time = SystemTime::UNIX_EPOCH;
    vec![
        changed("field added with `#[serde(default)]`", old.clone(), Added { a: 1, b: 2, c: vec![] }),
        changed("field added without a default", old.clone(), AddedAll { a: 1, b: 2, c: 0 }),
        changed("last field removed", old.clone(), Removed { a: 1 }),
        changed("first field removed", old.clone(), RemovedFirst { b: 2 }),
        changed("fields reordered", old.clone(), Reordered { b: 2, a: 1 }),
        changed("field renamed", old.clone(), Renamed { a: 1, z: 2 }),
        changed("field renamed, with `alias`", old.clone(), Aliased { a: 1, z: 2 }),
        changed("integer made wider", old.clone(), Wider { a: 1, b: 2 }),
        changed("field made an `Option`", old.clone(), Optional { a: 1, b: Some(2) }),
        changed("struct read as `serde_json::Value`", old, serde_json::json!({"a": 1, "b": 2})),
        changed("variant added at the end", (OldEnum::A, OldEnum::B), (VariantAdded::A, VariantAdded::B)),
        changed("variants reordered", (OldEnum::A, OldEnum::B), (VariantsReordered::A, VariantsReordered::B)),
        changed(
            "`Vec<u8>` read with `serde_bytes`",
            WithoutBytes { data: vec![1, 200] },
            WithBytes { data: vec![1, 200] },
        ),
        changed("`[u8; 16]` read as `[u8; 15]`", ([9u8; 16], time), ([9u8; 15], time)),
    ]
}

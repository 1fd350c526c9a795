//! The types of the outcome table.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

macro_rules! stored {
    ($($item:item)*) => {$(
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        $item
    )*};
}

stored! {
    pub(crate) struct Plain { pub(crate) name: String, pub(crate) age: u8, pub(crate) tags: Vec<String> }
    pub(crate) struct Pair(pub(crate) u8, pub(crate) String);
    pub(crate) struct Unit;
    pub(crate) struct Newtype(pub(crate) u64);
    #[serde(transparent)]
    pub(crate) struct Transparent { pub(crate) inner: Vec<u8> }

    pub(crate) enum External { Unit, New(u64), Bytes(Vec<u8>), Tuple(u8, String), Struct { a: i32, b: Option<u8> } }
    #[serde(untagged)]
    pub(crate) enum Untagged {
        Number(u64), Text(String), Bytes(Vec<u8>), Struct { a: i32, b: Option<u8> }, Unit(Unit),
        Map(BTreeMap<u32, String>),
    }
    #[serde(untagged)]
    pub(crate) enum TextFirst { Text(String), #[serde(with = "serde_bytes")] Bytes(Vec<u8>) }
    #[serde(untagged)]
    pub(crate) enum ByteFirst { Byte(u8), Text(String) }
    #[serde(tag = "type")]
    pub(crate) enum Internal { Unit, New(Plain), Bytes { data: Vec<u8>, key: [u8; 16] }, Struct { a: i32, b: Option<u8> } }
    #[serde(tag = "type")]
    pub(crate) enum InternalAddress { Address { ip: IpAddr } }
    #[serde(tag = "type")]
    pub(crate) enum InternalLong { Long { n: i128 } }
    #[serde(tag = "t", content = "c")]
    pub(crate) enum Adjacent { Unit, New(u64), Bytes(Vec<u8>), Tuple(u8, String), Struct { a: i32, b: Option<u8> } }

    pub(crate) struct Outer { pub(crate) id: u32, #[serde(flatten)] pub(crate) inner: Inner, #[serde(flatten)] pub(crate) rest: BTreeMap<String, Value> }
    pub(crate) struct Inner { pub(crate) data: Vec<u8>, pub(crate) note: Option<String> }

    pub(crate) struct Skips { #[serde(default, skip_serializing_if = "Option::is_none")] pub(crate) note: Option<String>, pub(crate) n: u32 }
    pub(crate) struct WithBytes { #[serde(with = "serde_bytes")] pub(crate) data: Vec<u8> }
    pub(crate) struct WithoutBytes { pub(crate) data: Vec<u8> }
    pub(crate) struct Lent<'a> { pub(crate) text: Cow<'a, str>, pub(crate) bytes: Cow<'a, [u8]> }
    pub(crate) struct Chain { pub(crate) next: Option<Box<Chain>> }
    pub(crate) enum Link { End, Next(Box<Link>) }

    pub(crate) struct Old { pub(crate) a: u32, pub(crate) b: u32 }
    pub(crate) struct Added { pub(crate) a: u32, pub(crate) b: u32, #[serde(default)] pub(crate) c: Vec<u8> }
    pub(crate) struct AddedAll { pub(crate) a: u32, pub(crate) b: u32, pub(crate) c: u8 }
    pub(crate) struct Removed { pub(crate) a: u32 }
    pub(crate) struct RemovedFirst { pub(crate) b: u32 }
    pub(crate) struct Reordered { pub(crate) b: u32, pub(crate) a: u32 }
    pub(crate) struct Renamed { pub(crate) a: u32, pub(crate) z: u32 }
    pub(crate) struct Aliased { pub(crate) a: u32, #[serde(alias = "b")] pub(crate) z: u32 }
    pub(crate) struct Wider { pub(crate) a: u64, pub(crate) b: u64 }
    pub(crate) struct Optional { pub(crate) a: u32, pub(crate) b: Option<u32> }
    pub(crate) enum OldEnum { A, B }
    pub(crate) enum VariantAdded { A, B, C }
    pub(crate) enum VariantsReordered { B, A }
}

/// Compares floats by their bits, so that NaN equals NaN and -0.0 differs from 0.0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Floats(pub(crate) f32, pub(crate) f64);

impl PartialEq for Floats {
    fn eq(&self, other: &Floats) -> bool {
        (self.0.to_bits(), self.1.to_bits()) == (other.0.to_bits(), other.1.to_bits())
    }
}

/// Writes a number other than the one it holds, so that it never reads back as it was.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Liar(pub(crate) u32);

impl Serialize for Liar {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct("Liar", &(self.0 + 1))
    }
}

pub(crate) fn json() -> Value {
    serde_json::json!({
        "z": [1, -1, u64::MAX, i64::MIN, 1.5, 1e300, null, true, "text", {"nested": [[], {}]}],
        "a": {"bytes": [1, 2, 255], "": "empty key"},
    })
}

pub(crate) fn plain() -> Plain {
    Plain { name: "Ada 🦀 \u{0} \u{10ffff}".into(), age: 36, tags: vec!["a".into(), String::new()] }
}

/// A map of `size` entries. The matrix uses several sizes, so that the order of the entries
/// differs.
pub(crate) fn hash_map(size: u32) -> HashMap<String, u32> {
    (0..size).map(|n| (format!("key {n}"), n)).collect()
}

pub(crate) fn chain(length: usize) -> Chain {
    let mut chain = Chain { next: None };
    for _ in 1..length {
        chain = Chain { next: Some(Box::new(chain)) };
    }
    chain
}

pub(crate) fn link(length: usize) -> Link {
    (0..length).fold(Link::End, |link, _| Link::Next(Box::new(link)))
}

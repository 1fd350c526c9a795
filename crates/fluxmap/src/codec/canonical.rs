//! Compares two encodings, ignoring the order of elements.

use super::Codec;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Returns whether `one` and `other` differ at most in the order of elements. MessagePack records where
/// elements begin and end; for postcard, the bytes are counted.
pub(super) fn same_but_for_order(codec: Codec, one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    match codec {
        Codec::MessagePack => match (codec.decode::<Tree>(one), codec.decode::<Tree>(other)) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        },
        Codec::Postcard => count_bytes(one) == count_bytes(other),
    }
}

fn count_bytes(bytes: &[u8]) -> [usize; 256] {
    let mut counts = [0; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    counts
}

/// A MessagePack value, with the elements of every sequence and map sorted.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Tree {
    Nil,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(u64),
    Text(String),
    Sequence(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(Builder)
    }
}

struct Builder;

impl<'de> Visitor<'de> for Builder {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nil)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Signed(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Unsigned(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value.to_bits()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Tree, D::Error> {
        Tree::deserialize(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Tree, A::Error> {
        let mut sorted = Vec::new();
        while let Some(element) = elements.next_element()? {
            sorted.push(element);
        }
        sorted.sort_unstable();
        Ok(Tree::Sequence(sorted))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut sorted = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            sorted.push(entry);
        }
        sorted.sort_unstable();
        Ok(Tree::Map(sorted))
    }
}

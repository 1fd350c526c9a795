use super::*;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

#[derive(Serialize, Deserialize)]
struct Item {
    price: u32,
    stock: u32,
}

mod other {
    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Item {
        stock: u32,
        price: u32,
    }
}

#[derive(Serialize, Deserialize)]
struct Pair<T>(T, i64);

#[derive(Serialize, Deserialize)]
struct Metres(f64);

#[derive(Serialize, Deserialize)]
enum Expression {
    Sum(Box<Expression>, Box<Expression>),
    Negated(Box<Expression>),
    Number { value: i32 },
    Nothing,
}

#[derive(Serialize, Deserialize)]
struct Node {
    next: Option<Box<Node>>,
    others: Vec<Node>,
    by_name: BTreeMap<String, Node>,
    item: Item,
}

#[derive(Serialize, Deserialize)]
enum Outer {
    None,
    Inner(Inner),
    Also { inner: Inner },
}

#[derive(Serialize, Deserialize)]
enum Inner {
    A,
    B(u8),
    C(Item),
}

/// Accepts only the text of a day.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[derive(Clone)]
struct Day(String);

impl TryFrom<String> for Day {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_day = text.len() == 10 && text.split('-').count() == 3;
        is_day.then_some(Day(text)).ok_or("no day")
    }
}

impl From<Day> for String {
    fn from(day: Day) -> String {
        day.0
    }
}

/// Accepts nothing.
struct Never;

impl<'de> Deserialize<'de> for Never {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).and_then(|_| Err(serde::de::Error::custom("never")))
    }
}

#[derive(Deserialize)]
struct WithNever {
    #[allow(dead_code)]
    before: u8,
    #[allow(dead_code)]
    never: Never,
    #[allow(dead_code)]
    after: bool,
}

#[derive(Deserialize)]
struct Panics {
    #[allow(dead_code)]
    before: u8,
    #[serde(deserialize_with = "panics")]
    #[allow(dead_code)]
    panics: u8,
}

fn panics<'de, D: Deserializer<'de>>(_: D) -> Result<u8, D::Error> {
    panic!("it is to panic")
}

#[test]
fn shapes_are_the_names_and_kinds_of_all_fields_and_variants() {
    let shapes = [
        (shape::<u64>(), "uint"),
        (shape::<String>(), "text"),
        (shape::<Item>(), "{price:uint,stock:uint}"),
        (shape::<other::Item>(), "{stock:uint,price:uint}"),
        (shape::<Vec<(u8, Option<Item>)>>(), "[(u8,?{price:uint,stock:uint})]"),
        (shape::<Pair<Metres>>(), "(f64,int)"),
        (shape::<(Pair<u8>, Pair<bool>)>(), "((u8,int),(bool,int))"),
        (shape::<[u8; 3]>(), "(u8,u8,u8)"),
        (shape::<HashSet<Vec<u8>>>(), "[[u8]]"),
        (shape::<serde_bytes::ByteBuf>(), "[u8]"),
        (shape::<BTreeMap<String, ()>>(), "map(text,())"),
        (shape::<Result<u8, String>>(), "<Ok u8|Err text>"),
        (shape::<Duration>(), "{secs:uint,nanos:uint}"),
        (shape::<SystemTime>(), "{secs_since_epoch:uint,nanos_since_epoch:uint}"),
        (
            shape::<(NonZeroU32, IpAddr, bool)>(),
            "(uint,<V4 (u8,u8,u8,u8)|V6 (u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8)>,bool)",
        ),
        (shape::<Expression>(), "<Sum (@0,@0)|Negated @0|Number {value:int}|Nothing >"),
        (shape::<Node>(), "{next:?@0,others:[@0],by_name:map(text,@0),item:{price:uint,stock:uint}}"),
        (
            shape::<Outer>(),
            "<None |Inner <A |B u8|C {price:uint,stock:uint}>|Also {inner:<A |B u8|C {price:uint,stock:uint}>}>",
        ),
        (shape::<(Day, Item)>(), "(text,{price:uint,stock:uint})"),
        (shape::<WithNever>(), "{before:u8,never:text,after:_}"),
        (shape::<Panics>(), "{before:u8,panics:_}"),
        (shape::<serde_json::Value>(), "_"),
    ];
    for (found, expected) in shapes {
        assert_eq!(found, expected);
    }
}

#[test]
fn a_shape_is_readable_by_itself_and_with_more_variants_at_the_end() {
    let readable = [
        ("{a:uint}", "{a:uint}"),
        ("<A |B u8>", "<A |B u8|C {x:<D |E >}>"),
        ("[<A >]", "[<A |B (u8,u8)>]"),
        ("(<A <X >>,u8)", "(<A <X |Y >|B >,u8)"),
        ("{a:_,b:u8}", "{a:[(u8,u8)],b:u8}"),
        ("{a:[u8],b:u8}", "{a:_,b:u8}"),
        ("_", "<A |B >"),
    ];
    let refused = [
        ("{a:uint,b:uint}", "{b:uint,a:uint}"),
        ("<A |B u8>", "<A >"),
        ("<A |B u8>", "<B u8|A >"),
        ("<A |B u8>", "<A |C |B u8>"),
        ("{a:uint}", "{a:int}"),
        ("{a:uint}", "{a:uint,b:uint}"),
        ("{a:_,b:u8}", "{a:[u8],c:u8}"),
        ("?uint", "uint"),
        ("", "u8"),
    ];
    for (old, new) in readable {
        assert!(is_readable(old, new), "{old} {new}");
    }
    for (old, new) in refused {
        assert!(!is_readable(old, new), "{old} {new}");
    }
}

//! The deserializer that finds out what a type asks for.

use super::{ROOT, ShapeId, ShapeKind, ShapeProgress, State};
use serde::de::value::{Error, U32Deserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use std::any::type_name;
use std::cell::{RefCell, RefMut};
use std::mem;

/// The number of questions that are answered in one run.
const MOST_STEPS: usize = 10_000;
/// How deep a run goes.
const MOST_DEPTH: usize = 64;
/// The number of elements of a tuple or array that are distinguished; further ones are like the last.
const MOST_ELEMENTS: usize = 32;

/// Texts that types such as times, addresses and number types may accept.
const TEXTS: [&str; 9] = [
    "1",
    "a",
    "1970-01-01T00:00:00Z",
    "1970-01-01",
    "00:00:00",
    "00000000-0000-0000-0000-000000000000",
    "127.0.0.1",
    "127.0.0.1:1",
    "http://a.b/",
];
/// Lengths of byte strings to try.
const LENGTHS: [usize; 8] = [16, 0, 4, 8, 12, 20, 32, 64];
/// Numbers to try.
const NUMBERS: [u8; 3] = [1, 0, 2];

/// The knowledge about a type.
pub(super) struct Probe(RefCell<State>);

impl Probe {
    pub(super) fn new() -> Self {
        Probe(RefCell::new(State::new()))
    }

    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// Finds out more; returns whether the type accepted all values that it was given.
    pub(super) fn run<T: DeserializeOwned>(&self) -> bool {
        T::deserialize(PlaceDeserializer { probe: self, node: ROOT }).is_ok()
    }
}

/// The deserializer for one place in the type.
#[derive(Clone, Copy)]
struct PlaceDeserializer<'p> {
    probe: &'p Probe,
    node: ShapeId,
}

fn end<R>() -> Result<R, Error> {
    Err(Error::custom("no more is known"))
}

impl<'p> PlaceDeserializer<'p> {
    fn state(self) -> RefMut<'p, State> {
        self.probe.state()
    }

    fn at(self, node: ShapeId) -> PlaceDeserializer<'p> {
        PlaceDeserializer { node, ..self }
    }

    /// Records what is asked for here, if that is not known, and counts the question.
    fn note(self, kind: impl FnOnce(&mut State) -> ShapeKind) -> Result<RefMut<'p, State>, Error> {
        let mut state = self.state();
        state.steps += 1;
        if state.steps > MOST_STEPS {
            return end();
        }
        if matches!(state.nodes[self.node].kind, ShapeKind::Unknown) {
            let kind = kind(&mut state);
            state.nodes[self.node].kind = kind;
        }
        Ok(state)
    }

    /// Handles a value without parts: passes the candidate to try to the visitor.
    fn leaf<R>(
        self,
        name: &'static str,
        candidates: usize,
        visit: impl FnOnce(usize) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut state = self.note(|_| ShapeKind::Leaf { name, candidates })?;
        state.last_leaf = Some(self.node);
        let candidate = state.nodes[self.node].candidate.min(candidates - 1);
        drop(state);
        let read = visit(candidate);
        if read.is_err() {
            let mut state = self.state();
            state.has_progress |= state.try_next(self.node);
        }
        read
    }

    /// Continues in the content of this place, which may lead back to a type around it.
    fn closable<R>(self, go_on: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        let mut state = self.state();
        state.depth += 1;
        if state.depth > MOST_DEPTH {
            state.is_recursing = true;
            return end();
        }
        drop(state);
        let read = go_on();
        let mut state = self.state();
        state.depth -= 1;
        if read.is_err() && mem::take(&mut state.is_recursing) {
            state.nodes[self.node].closed = true;
            state.has_progress = true;
        }
        read
    }

    /// Continues in a struct, whose content has a place of its own.
    fn within<R>(
        self,
        key: (&'static str, &'static str),
        go_on: impl FnOnce(PlaceDeserializer<'p>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut state = self.note(|state| ShapeKind::Named(state.name(key, &[""], false)))?;
        // The kind is the same in all runs, unless the type asks for something else each time.
        let ShapeKind::Named(named) = state.nodes[self.node].kind else { return end() };
        if state.named[named].open > 0 {
            state.is_recursing = true;
            return end();
        }
        state.named[named].open += 1;
        let inner = state.named[named].parts[0].node;
        drop(state);
        let read = go_on(self.at(inner));
        self.state().named[named].open -= 1;
        read
    }

    fn tuple<'de, V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let told_apart = len.min(MOST_ELEMENTS);
        let state = self.note(|state| ShapeKind::Tuple((0..told_apart).map(|_| state.add()).collect()))?;
        let ShapeKind::Tuple(nodes) = &state.nodes[self.node].kind else { return end() };
        let nodes = nodes.clone();
        drop(state);
        visitor.visit_seq(Parts { at: self, nodes, next: 0, len })
    }

    fn fields<'de, V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let state =
            self.note(|state| ShapeKind::Fields(fields.iter().map(|name| (*name, state.add())).collect()))?;
        let ShapeKind::Fields(known) = &state.nodes[self.node].kind else { return end() };
        let nodes: Vec<ShapeId> = known.iter().map(|(_, node)| *node).collect();
        drop(state);
        let len = nodes.len();
        visitor.visit_seq(Parts { at: self, nodes, next: 0, len })
    }
}

/// The elements of a tuple, an array or a struct, or the single one of a sequence or map.
struct Parts<'p> {
    at: PlaceDeserializer<'p>,
    nodes: Vec<ShapeId>,
    next: usize,
    len: usize,
}

impl<'p> Parts<'p> {
    fn next(&mut self) -> Option<PlaceDeserializer<'p>> {
        if self.next == self.len {
            return None;
        }
        let node = *self.nodes.get(self.next.min(self.nodes.len().checked_sub(1)?))?;
        self.next += 1;
        Some(self.at.at(node))
    }
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next().map(|at| seed.deserialize(at)).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.len - self.next)
    }
}

impl<'de> MapAccess<'de> for Parts<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next().map(|at| seed.deserialize(at)).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        self.next().map_or_else(end, |at| seed.deserialize(at))
    }
}

/// A chosen variant, and the place of its content.
struct Chosen<'p> {
    at: PlaceDeserializer<'p>,
    number: u32,
}

impl<'de, 'p> EnumAccess<'de> for Chosen<'p> {
    type Error = Error;
    type Variant = PlaceDeserializer<'p>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, PlaceDeserializer<'p>), Error> {
        let number: U32Deserializer<Error> = self.number.into_deserializer();
        Ok((seed.deserialize(number)?, self.at))
    }
}

impl<'de> VariantAccess<'de> for PlaceDeserializer<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.note(|_| ShapeKind::Leaf { name: "", candidates: 1 }).map(drop)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.fields(fields, visitor)
    }
}

/// Numbers that postcard writes alike have one name here: all that are written in a variable length.
macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty, $name:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.leaf($name, NUMBERS.len(), |candidate| visitor.$visit(<$type>::from(NUMBERS[candidate])))
        }
    )*};
}

/// Types that ask for any kind of value stay unknown: postcard cannot read them.
macro_rules! unknown {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
            end()
        }
    )*};
}

impl<'de> Deserializer<'de> for PlaceDeserializer<'_> {
    type Error = Error;

    unknown!(deserialize_any deserialize_identifier deserialize_ignored_any);

    numbers! {
        deserialize_u8 visit_u8 u8, "u8";
        deserialize_u16 visit_u16 u16, "uint";
        deserialize_u32 visit_u32 u32, "uint";
        deserialize_u64 visit_u64 u64, "uint";
        deserialize_u128 visit_u128 u128, "uint";
        deserialize_i16 visit_i16 i16, "int";
        deserialize_i32 visit_i32 i32, "int";
        deserialize_i64 visit_i64 i64, "int";
        deserialize_i128 visit_i128 i128, "int";
        deserialize_f32 visit_f32 f32, "f32";
        deserialize_f64 visit_f64 f64, "f64";
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf("i8", NUMBERS.len(), |candidate| visitor.visit_i8(NUMBERS[candidate] as i8))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf("bool", 2, |candidate| visitor.visit_bool(candidate == 0))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf("char", 2, |candidate| visitor.visit_char(if candidate == 0 { 'a' } else { '1' }))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf("text", TEXTS.len(), |candidate| visitor.visit_str(TEXTS[candidate]))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    /// Bytes are written like a sequence of `u8`.
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf("[u8]", LENGTHS.len(), |candidate| visitor.visit_bytes(&vec![1; LENGTHS[candidate]]))
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf("[u8]", LENGTHS.len(), |candidate| visitor.visit_byte_buf(vec![1; LENGTHS[candidate]]))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let state = self.note(|state| ShapeKind::Option(state.add()))?;
        let ShapeKind::Option(inner) = state.nodes[self.node].kind else { return end() };
        let closed = state.nodes[self.node].closed;
        drop(state);
        match closed {
            true => visitor.visit_none(),
            false => self.closable(|| visitor.visit_some(self.at(inner))),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf("()", 1, |_| visitor.visit_unit())
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    /// A newtype is written like its content.
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.within((name, type_name::<V>()), |at| visitor.visit_newtype_struct(at))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let state = self.note(|state| ShapeKind::Seq(state.add()))?;
        let ShapeKind::Seq(inner) = state.nodes[self.node].kind else { return end() };
        let len = usize::from(!state.nodes[self.node].closed);
        drop(state);
        self.closable(|| visitor.visit_seq(Parts { at: self, nodes: vec![inner], next: 0, len }))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.tuple(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.within((name, type_name::<V>()), |at| at.tuple(len, visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let state = self.note(|state| ShapeKind::Map(state.add(), state.add()))?;
        let ShapeKind::Map(key, value) = state.nodes[self.node].kind else { return end() };
        let len = if state.nodes[self.node].closed { 0 } else { 2 };
        drop(state);
        self.closable(|| visitor.visit_map(Parts { at: self, nodes: vec![key, value], next: 0, len }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.within((name, type_name::<V>()), |at| at.fields(fields, visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let key = (name, type_name::<V>());
        let mut state = self.note(|state| ShapeKind::Named(state.name(key, variants, true)))?;
        let ShapeKind::Named(named) = state.nodes[self.node].kind else { return end() };
        let Some(chosen) = state.choose(named) else {
            state.is_recursing = true;
            return end();
        };
        state.named[named].open += 1;
        let part = &mut state.named[named].parts[chosen];
        let was_open = mem::replace(&mut part.is_open, true);
        let at = self.at(part.node);
        drop(state);
        let read = visitor.visit_enum(Chosen { at, number: chosen as u32 });
        let mut state = self.state();
        state.named[named].open -= 1;
        state.named[named].parts[chosen].is_open = was_open;
        match read {
            Ok(_) => state.named[named].parts[chosen].progress = ShapeProgress::Done,
            Err(_) => drop(state.failing.get_or_insert((named, chosen))),
        }
        read
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

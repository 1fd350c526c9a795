//! The shape of a type: the names and kinds of its fields and variants, in their order.
//!
//! Postcard writes nothing but values, in the order of the fields. Whether bytes were written for
//! the type that is to read them can be told only by what is written down beside them: two types of
//! one name, or two versions of one type, can differ in nothing but that order.
//!
//! The shape is found by handing the type's `Deserialize` made-up values and noting what it asks
//! for. One run shows one variant of each enum, and ends where a value is not taken or a type comes
//! to itself again; so there are several, each of which goes on where the one before knew nothing.
//! What stays unknown (`_`) agrees with everything. So the shapes of two types that differ may agree,
//! and those of one type always do.

use serde::de::value::{Error, U32Deserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use std::any::type_name;
use std::cell::{RefCell, RefMut};
use std::collections::BTreeSet;

/// Runs, of which each finds out something.
const MOST_RUNS: usize = 1000;
/// Questions that are answered in one run.
const MOST_STEPS: usize = 10_000;
/// How deep a run goes.
const MOST_DEPTH: usize = 64;
/// Elements of a tuple or array that are told apart; the others are like the last.
const MOST_ELEMENTS: usize = 32;
/// The length at which a shape breaks off.
const MOST_TEXT: usize = 1 << 16;

/// Texts that types such as times, addresses and numbers of their own may want.
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
/// Lengths of bytes, likewise.
const LENGTHS: [usize; 8] = [16, 0, 4, 8, 12, 20, 32, 64];
/// Numbers, likewise.
const NUMBERS: [u8; 3] = [1, 0, 2];

/// The shape of `T`, in one line.
pub(crate) fn shape<T: DeserializeOwned>() -> String {
    let probe = Probe(RefCell::new(State::new()));
    for _ in 0..MOST_RUNS {
        probe.0.borrow_mut().begin_run();
        // The user's own code, and nothing but a shape depends on it.
        let run = fluxmap_index::contain(|| T::deserialize(At { probe: &probe, node: ROOT }).map(drop));
        // One that panics would do so again.
        if !run.is_some_and(|run| probe.0.borrow_mut().goes_on_after(run.is_ok())) {
            break;
        }
    }
    let state = probe.0.borrow();
    let mut text = String::new();
    state.write(ROOT, &mut Vec::new(), &mut text);
    text
}

/// A place where a type is asked for.
type NodeId = usize;

const ROOT: NodeId = 0;

enum Kind {
    Unknown,
    Leaf { name: &'static str, candidates: usize },
    Option(NodeId),
    Seq(NodeId),
    Map(NodeId, NodeId),
    Tuple(Vec<NodeId>),
    Fields(Vec<(&'static str, NodeId)>),
    Named(usize),
}

struct Node {
    kind: Kind,
    /// To go on here leads back to where one comes from: there is nothing, or no element.
    closed: bool,
    /// Which value is tried.
    candidate: usize,
}

/// A struct or an enum: what is found out of it holds wherever it is.
struct Named {
    /// Its name, and that of its visitor, which has its path and parameters.
    key: (&'static str, &'static str),
    /// How often a run is within it.
    open: usize,
    /// The content of a struct; one for each variant of an enum.
    parts: Vec<Part>,
    is_enum: bool,
}

struct Part {
    name: &'static str,
    node: NodeId,
    progress: Progress,
    /// Whether a run is within it.
    is_open: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    New,
    Done,
    Failed,
}

struct State {
    nodes: Vec<Node>,
    named: Vec<Named>,
    steps: usize,
    depth: usize,
    /// A run came to something that it is within: the nearest place that can be closed will be.
    is_recursing: bool,
    /// The run has changed what the next one does.
    has_progress: bool,
    last_leaf: Option<NodeId>,
    /// The innermost variant that could not be read.
    failing: Option<(usize, usize)>,
}

impl State {
    fn new() -> Self {
        let mut state = State {
            nodes: Vec::new(),
            named: Vec::new(),
            steps: 0,
            depth: 0,
            is_recursing: false,
            has_progress: false,
            last_leaf: None,
            failing: None,
        };
        state.add();
        state
    }

    fn add(&mut self) -> NodeId {
        self.nodes.push(Node { kind: Kind::Unknown, closed: false, candidate: 0 });
        self.nodes.len() - 1
    }

    fn begin_run(&mut self) {
        (self.steps, self.depth, self.last_leaf, self.failing) = (0, 0, None, None);
        (self.is_recursing, self.has_progress) = (false, false);
        for named in &mut self.named {
            named.open = 0;
            named.parts.iter_mut().for_each(|part| part.is_open = false);
        }
    }

    /// Whether another run may find out more.
    fn goes_on_after(&mut self, succeeded: bool) -> bool {
        if succeeded {
            return self.is_unfinished(ROOT, &mut BTreeSet::new());
        }
        if self.has_progress || self.last_leaf.is_some_and(|leaf| self.try_next(leaf)) {
            return true;
        }
        match self.failing {
            Some((named, part)) => {
                self.named[named].parts[part].progress = Progress::Failed;
                true
            }
            None => false,
        }
    }

    /// Has the next run try another value in this place, if there is one.
    fn try_next(&mut self, leaf: NodeId) -> bool {
        let node = &mut self.nodes[leaf];
        let Kind::Leaf { candidates, .. } = node.kind else { return false };
        node.candidate += 1;
        node.candidate < candidates
    }

    fn children(&self, node: NodeId) -> Vec<NodeId> {
        match &self.nodes[node].kind {
            Kind::Unknown | Kind::Leaf { .. } => Vec::new(),
            Kind::Option(inner) | Kind::Seq(inner) => vec![*inner],
            Kind::Map(key, value) => vec![*key, *value],
            Kind::Tuple(nodes) => nodes.clone(),
            Kind::Fields(fields) => fields.iter().map(|(_, node)| *node).collect(),
            Kind::Named(named) => self.named[*named].parts.iter().map(|part| part.node).collect(),
        }
    }

    /// Whether there is a variant below this that has not been tried.
    fn is_unfinished(&self, node: NodeId, seen: &mut BTreeSet<NodeId>) -> bool {
        if !seen.insert(node) {
            return false;
        }
        if let Kind::Named(named) = self.nodes[node].kind {
            let named = &self.named[named];
            if named.is_enum && named.parts.iter().any(|part| part.progress == Progress::New) {
                return true;
            }
        }
        self.children(node).into_iter().any(|child| self.is_unfinished(child, seen))
    }

    /// The struct or enum of this name and visitor.
    fn name(&mut self, key: (&'static str, &'static str), parts: &[&'static str], is_enum: bool) -> usize {
        if let Some(at) = self.named.iter().position(|named| named.key == key) {
            return at;
        }
        let part = |name: &&'static str| {
            let node = self.add();
            Part { name, node, progress: Progress::New, is_open: false }
        };
        let parts = parts.iter().map(part).collect();
        self.named.push(Named { key, open: 0, parts, is_enum });
        self.named.len() - 1
    }

    /// The variant that is to be read: one that may show something new, or else one that is known
    /// to end.
    fn choose(&self, named: usize) -> Option<usize> {
        let Named { parts, open, .. } = &self.named[named];
        let of = |wanted: Progress| parts.iter().position(|part| part.progress == wanted && !part.is_open);
        let unfinished = || {
            let is_unfinished = |part: &Part| self.is_unfinished(part.node, &mut BTreeSet::new());
            parts.iter().position(|part| part.progress == Progress::Done && is_unfinished(part))
        };
        match open {
            0 => of(Progress::New).or_else(unfinished).or_else(|| of(Progress::Done)),
            _ => of(Progress::Done).or_else(|| of(Progress::New)),
        }
    }

    /// Writes what is known, with those types by number that it is within.
    fn write(&self, node: NodeId, within: &mut Vec<usize>, text: &mut String) {
        if text.len() > MOST_TEXT {
            return;
        }
        let list =
            |nodes: &mut dyn Iterator<Item = (&str, NodeId)>, within: &mut Vec<usize>, text: &mut String| {
                for (at, (name, node)) in nodes.enumerate() {
                    text.push_str(if at > 0 { "," } else { "" });
                    text.push_str(name);
                    self.write(node, within, text);
                }
            };
        match &self.nodes[node].kind {
            Kind::Unknown => text.push('_'),
            Kind::Leaf { name, .. } => text.push_str(name),
            Kind::Option(inner) => {
                text.push('?');
                self.write(*inner, within, text);
            }
            Kind::Seq(inner) => {
                text.push('[');
                self.write(*inner, within, text);
                text.push(']');
            }
            Kind::Map(key, value) => {
                text.push_str("map(");
                list(&mut [("", *key), ("", *value)].into_iter(), within, text);
                text.push(')');
            }
            Kind::Tuple(nodes) => {
                text.push('(');
                list(&mut nodes.iter().map(|node| ("", *node)), within, text);
                text.push(')');
            }
            Kind::Fields(fields) => {
                text.push('{');
                for (at, (name, node)) in fields.iter().enumerate() {
                    text.push_str(if at > 0 { "," } else { "" });
                    text.push_str(name);
                    text.push(':');
                    self.write(*node, within, text);
                }
                text.push('}');
            }
            Kind::Named(named) => self.write_named(*named, within, text),
        }
    }

    fn write_named(&self, at: usize, within: &mut Vec<usize>, text: &mut String) {
        if let Some(depth) = within.iter().position(|outer| *outer == at) {
            text.push('@');
            text.push_str(&depth.to_string());
            return;
        }
        within.push(at);
        let Named { parts, is_enum, .. } = &self.named[at];
        text.push_str(if *is_enum { "<" } else { "" });
        for (number, part) in parts.iter().enumerate() {
            if *is_enum {
                text.push_str(if number > 0 { "|" } else { "" });
                text.push_str(part.name);
                text.push(' ');
            }
            self.write(part.node, within, text);
        }
        text.push_str(if *is_enum { ">" } else { "" });
        within.pop();
    }
}

struct Probe(RefCell<State>);

/// What a type is read from: a place in the probe.
#[derive(Clone, Copy)]
struct At<'p> {
    probe: &'p Probe,
    node: NodeId,
}

fn end<R>() -> Result<R, Error> {
    Err(Error::custom("no more is known"))
}

impl<'p> At<'p> {
    fn state(self) -> RefMut<'p, State> {
        self.probe.0.borrow_mut()
    }

    fn at(self, node: NodeId) -> At<'p> {
        At { node, ..self }
    }

    /// Says what is asked for here, if that is not known, and counts the question.
    fn note(self, kind: impl FnOnce(&mut State) -> Kind) -> Result<RefMut<'p, State>, Error> {
        let mut state = self.state();
        state.steps += 1;
        if state.steps > MOST_STEPS {
            return end();
        }
        if matches!(state.nodes[self.node].kind, Kind::Unknown) {
            let kind = kind(&mut state);
            state.nodes[self.node].kind = kind;
        }
        Ok(state)
    }

    /// A value without parts, of which the visitor is offered the one that is to be tried.
    fn leaf<R>(
        self,
        name: &'static str,
        candidates: usize,
        visit: impl FnOnce(usize) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut state = self.note(|_| Kind::Leaf { name, candidates })?;
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

    /// Goes on in what is here, which may lead back to where it is within.
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
        if read.is_err() && std::mem::take(&mut state.is_recursing) {
            state.nodes[self.node].closed = true;
            state.has_progress = true;
        }
        read
    }

    /// Goes on in a struct, whose content has a place of its own.
    fn within<R>(
        self,
        key: (&'static str, &'static str),
        go_on: impl FnOnce(At<'p>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut state = self.note(|state| Kind::Named(state.name(key, &[""], false)))?;
        // The kind is the same in all runs, unless the type asks for something else each time.
        let Kind::Named(named) = state.nodes[self.node].kind else { return end() };
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
        let state = self.note(|state| Kind::Tuple((0..told_apart).map(|_| state.add()).collect()))?;
        let Kind::Tuple(nodes) = &state.nodes[self.node].kind else { return end() };
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
            self.note(|state| Kind::Fields(fields.iter().map(|name| (*name, state.add())).collect()))?;
        let Kind::Fields(known) = &state.nodes[self.node].kind else { return end() };
        let nodes: Vec<NodeId> = known.iter().map(|(_, node)| *node).collect();
        drop(state);
        let len = nodes.len();
        visitor.visit_seq(Parts { at: self, nodes, next: 0, len })
    }
}

/// The elements of a tuple, an array or a struct, or the one of a sequence or map.
struct Parts<'p> {
    at: At<'p>,
    nodes: Vec<NodeId>,
    next: usize,
    len: usize,
}

impl<'p> Parts<'p> {
    fn next(&mut self) -> Option<At<'p>> {
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

/// A variant that was chosen, and the place of its content.
struct Chosen<'p> {
    at: At<'p>,
    number: u32,
}

impl<'de, 'p> EnumAccess<'de> for Chosen<'p> {
    type Error = Error;
    type Variant = At<'p>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, At<'p>), Error> {
        let number: U32Deserializer<Error> = self.number.into_deserializer();
        Ok((seed.deserialize(number)?, self.at))
    }
}

impl<'de> VariantAccess<'de> for At<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.note(|_| Kind::Leaf { name: "", candidates: 1 }).map(drop)
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

/// Numbers that postcard writes alike are alike here: all that are written in a variable length.
macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty, $name:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.leaf($name, NUMBERS.len(), |candidate| visitor.$visit(<$type>::from(NUMBERS[candidate])))
        }
    )*};
}

/// Types that ask what there is: postcard cannot tell them.
macro_rules! unknown {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
            end()
        }
    )*};
}

impl<'de> Deserializer<'de> for At<'_> {
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

    /// Written as a sequence of `u8` is.
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf("[u8]", LENGTHS.len(), |candidate| visitor.visit_bytes(&vec![1; LENGTHS[candidate]]))
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf("[u8]", LENGTHS.len(), |candidate| visitor.visit_byte_buf(vec![1; LENGTHS[candidate]]))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let state = self.note(|state| Kind::Option(state.add()))?;
        let Kind::Option(inner) = state.nodes[self.node].kind else { return end() };
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

    /// Written as what it holds.
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.within((name, type_name::<V>()), |at| visitor.visit_newtype_struct(at))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let state = self.note(|state| Kind::Seq(state.add()))?;
        let Kind::Seq(inner) = state.nodes[self.node].kind else { return end() };
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
        let state = self.note(|state| Kind::Map(state.add(), state.add()))?;
        let Kind::Map(key, value) = state.nodes[self.node].kind else { return end() };
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
        let mut state = self.note(|state| Kind::Named(state.name(key, variants, true)))?;
        let Kind::Named(named) = state.nodes[self.node].kind else { return end() };
        let Some(chosen) = state.choose(named) else {
            state.is_recursing = true;
            return end();
        };
        state.named[named].open += 1;
        let part = &mut state.named[named].parts[chosen];
        let was_open = std::mem::replace(&mut part.is_open, true);
        let at = self.at(part.node);
        drop(state);
        let read = visitor.visit_enum(Chosen { at, number: chosen as u32 });
        let mut state = self.state();
        state.named[named].open -= 1;
        state.named[named].parts[chosen].is_open = was_open;
        match read {
            Ok(_) => state.named[named].parts[chosen].progress = Progress::Done,
            Err(_) => drop(state.failing.get_or_insert((named, chosen))),
        }
        read
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Whether what was written with the shape `old` can be read with the shape `new`: they are the
/// same, but that enums may have got more variants at their end.
pub(crate) fn is_readable(old: &str, new: &str) -> bool {
    let (mut old, mut new) = (old.as_bytes(), new.as_bytes());
    loop {
        match (old, new) {
            ([], []) => return true,
            // What one of them does not know.
            ([b'_', rest @ ..], _) => (old, new) = (rest, skip(new, b"")),
            (_, [b'_', rest @ ..]) => (old, new) = (skip(old, b""), rest),
            ([b'>', ..], [b'|', ..]) => new = skip(new, b"|"),
            ([one, rest @ ..], [other, others @ ..]) if one == other => (old, new) = (rest, others),
            _ => return false,
        }
    }
}

/// What follows the expression at the start, and those that these bytes join to it.
fn skip<'t>(mut text: &'t [u8], joined_by: &[u8]) -> &'t [u8] {
    let mut depth = 0_usize;
    while let [first, rest @ ..] = text {
        match first {
            b'(' | b'[' | b'{' | b'<' => depth += 1,
            b')' | b']' | b'}' | b'>' | b',' | b'|' if depth == 0 && !joined_by.contains(first) => break,
            b')' | b']' | b'}' | b'>' => depth -= 1,
            _ => {}
        }
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests;

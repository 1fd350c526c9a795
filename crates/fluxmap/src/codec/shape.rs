//! The shape of a type: the names and kinds of its fields and variants, in their order.
//!
//! Postcard writes nothing but values, in the order of the fields. So the bytes alone cannot show for
//! which type they were written: two types of one name, or two versions of one type, can differ in
//! nothing but that order. The shape is written down beside them to tell.
//!
//! The shape is found by passing made-up values to the type's `Deserialize` and noting what it asks for.
//! One run shows one variant of each enum, and ends where a value is rejected or a type contains itself
//! again. So there are several runs, each of which continues where the previous one knew nothing. Parts
//! that stay unknown (`_`) match everything. So the shapes of two different types may match, and those
//! of one type always do.

mod probe;
#[cfg(all(test, not(shuttle)))]
mod tests;

use fluxmap_index::contain;
use probe::Probe;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;

/// The most runs, each of which finds out something.
const MOST_RUNS: usize = 1000;
/// The length at which the text of a shape is cut off.
const MOST_TEXT: usize = 1 << 16;

/// Returns the shape of `T`, in one line.
pub(crate) fn shape<T: DeserializeOwned>() -> String {
    let probe = Probe::new();
    for _ in 0..MOST_RUNS {
        probe.state().begin_run();
        // This runs user code, and only the shape depends on it. If it panics, it would panic again in
        // the next run.
        let run = contain(|| probe.run::<T>());
        if !run.is_some_and(|succeeded| probe.state().goes_on_after(succeeded)) {
            break;
        }
    }
    let mut text = String::new();
    probe.state().write(ROOT, &mut Vec::new(), &mut text);
    text
}

/// A place in a type, where one value is asked for.
type ShapeId = usize;

const ROOT: ShapeId = 0;

enum ShapeKind {
    Unknown,
    Leaf { name: &'static str, candidates: usize },
    Option(ShapeId),
    Seq(ShapeId),
    Map(ShapeId, ShapeId),
    Tuple(Vec<ShapeId>),
    Fields(Vec<(&'static str, ShapeId)>),
    Named(usize),
}

struct ShapeNode {
    kind: ShapeKind,
    /// The content here leads back to a type around it: use no value, or no element.
    closed: bool,
    /// The number of the value to try.
    candidate: usize,
}

/// A struct or an enum. Its parts are the same wherever it occurs.
struct Named {
    /// Its name, and the name of its visitor, which contains its path and parameters.
    key: (&'static str, &'static str),
    /// How many times the run is within it.
    open: usize,
    /// The content of a struct, or one part for each variant of an enum.
    parts: Vec<ShapePart>,
    is_enum: bool,
}

struct ShapePart {
    name: &'static str,
    node: ShapeId,
    progress: ShapeProgress,
    /// Whether the run is within it.
    is_open: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ShapeProgress {
    New,
    Done,
    Failed,
}

struct State {
    nodes: Vec<ShapeNode>,
    named: Vec<Named>,
    steps: usize,
    depth: usize,
    /// The run came to a type that it is already within: the nearest place that can be closed will be.
    is_recursing: bool,
    /// Whether this run has changed what the next one does.
    has_progress: bool,
    last_leaf: Option<ShapeId>,
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

    fn add(&mut self) -> ShapeId {
        self.nodes.push(ShapeNode { kind: ShapeKind::Unknown, closed: false, candidate: 0 });
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

    /// Returns whether another run may find out more.
    fn goes_on_after(&mut self, succeeded: bool) -> bool {
        if succeeded {
            return self.is_unfinished(ROOT, &mut BTreeSet::new());
        }
        if self.has_progress || self.last_leaf.is_some_and(|leaf| self.try_next(leaf)) {
            return true;
        }
        match self.failing {
            Some((named, part)) => {
                self.named[named].parts[part].progress = ShapeProgress::Failed;
                true
            }
            None => false,
        }
    }

    /// Makes the next run try another value in this place; returns whether there is one.
    fn try_next(&mut self, leaf: ShapeId) -> bool {
        let node = &mut self.nodes[leaf];
        let ShapeKind::Leaf { candidates, .. } = node.kind else { return false };
        node.candidate += 1;
        node.candidate < candidates
    }

    fn children(&self, node: ShapeId) -> Vec<ShapeId> {
        match &self.nodes[node].kind {
            ShapeKind::Unknown | ShapeKind::Leaf { .. } => Vec::new(),
            ShapeKind::Option(inner) | ShapeKind::Seq(inner) => vec![*inner],
            ShapeKind::Map(key, value) => vec![*key, *value],
            ShapeKind::Tuple(nodes) => nodes.clone(),
            ShapeKind::Fields(fields) => fields.iter().map(|(_, node)| *node).collect(),
            ShapeKind::Named(named) => self.named[*named].parts.iter().map(|part| part.node).collect(),
        }
    }

    /// Returns whether there is a variant below this place that has not been tried.
    fn is_unfinished(&self, node: ShapeId, seen: &mut BTreeSet<ShapeId>) -> bool {
        if !seen.insert(node) {
            return false;
        }
        if let ShapeKind::Named(named) = self.nodes[node].kind {
            let named = &self.named[named];
            if named.is_enum && named.parts.iter().any(|part| part.progress == ShapeProgress::New) {
                return true;
            }
        }
        self.children(node).into_iter().any(|child| self.is_unfinished(child, seen))
    }

    /// Returns the struct or enum of this name and visitor.
    fn name(&mut self, key: (&'static str, &'static str), parts: &[&'static str], is_enum: bool) -> usize {
        if let Some(at) = self.named.iter().position(|named| named.key == key) {
            return at;
        }
        let part = |name: &&'static str| {
            let node = self.add();
            ShapePart { name, node, progress: ShapeProgress::New, is_open: false }
        };
        let parts = parts.iter().map(part).collect();
        self.named.push(Named { key, open: 0, parts, is_enum });
        self.named.len() - 1
    }

    /// Returns the variant to read: one that may show something new, or else one that is known to end.
    fn choose(&self, named: usize) -> Option<usize> {
        let Named { parts, open, .. } = &self.named[named];
        let of =
            |wanted: ShapeProgress| parts.iter().position(|part| part.progress == wanted && !part.is_open);
        let unfinished = || {
            let is_unfinished = |part: &ShapePart| self.is_unfinished(part.node, &mut BTreeSet::new());
            parts.iter().position(|part| part.progress == ShapeProgress::Done && is_unfinished(part))
        };
        match open {
            0 => of(ShapeProgress::New).or_else(unfinished).or_else(|| of(ShapeProgress::Done)),
            _ => of(ShapeProgress::Done).or_else(|| of(ShapeProgress::New)),
        }
    }

    /// Writes what is known, with the numbers of those types that contain the place.
    fn write(&self, node: ShapeId, within: &mut Vec<usize>, text: &mut String) {
        if text.len() > MOST_TEXT {
            return;
        }
        let list =
            |nodes: &mut dyn Iterator<Item = (&str, ShapeId)>, within: &mut Vec<usize>, text: &mut String| {
                for (at, (name, node)) in nodes.enumerate() {
                    text.push_str(if at > 0 { "," } else { "" });
                    text.push_str(name);
                    self.write(node, within, text);
                }
            };
        match &self.nodes[node].kind {
            ShapeKind::Unknown => text.push('_'),
            ShapeKind::Leaf { name, .. } => text.push_str(name),
            ShapeKind::Option(inner) => {
                text.push('?');
                self.write(*inner, within, text);
            }
            ShapeKind::Seq(inner) => {
                text.push('[');
                self.write(*inner, within, text);
                text.push(']');
            }
            ShapeKind::Map(key, value) => {
                text.push_str("map(");
                list(&mut [("", *key), ("", *value)].into_iter(), within, text);
                text.push(')');
            }
            ShapeKind::Tuple(nodes) => {
                text.push('(');
                list(&mut nodes.iter().map(|node| ("", *node)), within, text);
                text.push(')');
            }
            ShapeKind::Fields(fields) => {
                text.push('{');
                for (at, (name, node)) in fields.iter().enumerate() {
                    text.push_str(if at > 0 { "," } else { "" });
                    text.push_str(name);
                    text.push(':');
                    self.write(*node, within, text);
                }
                text.push('}');
            }
            ShapeKind::Named(named) => self.write_named(*named, within, text),
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

/// Returns whether bytes written with the shape `old` can be read with the shape `new`: the shapes are
/// equal, except that enums may have more variants at their end.
pub(crate) fn is_readable(old: &str, new: &str) -> bool {
    let (mut old, mut new) = (old.as_bytes(), new.as_bytes());
    loop {
        match (old, new) {
            ([], []) => return true,
            // One of the two is unknown here.
            ([b'_', rest @ ..], _) => (old, new) = (rest, skip(new, b"")),
            (_, [b'_', rest @ ..]) => (old, new) = (skip(old, b""), rest),
            ([b'>', ..], [b'|', ..]) => new = skip(new, b"|"),
            ([one, rest @ ..], [other, others @ ..]) if one == other => (old, new) = (rest, others),
            _ => return false,
        }
    }
}

/// Returns the rest after the expression at the start, and after those that the bytes in `joined_by`
/// join to it.
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

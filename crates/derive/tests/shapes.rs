//! The sizes that `#[derive(MemSize)]` computes for types of every shape.

use fluxmap::mem::{MemSize, allocated};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// The heap memory that a value owns.
fn heap<T: MemSize>(value: T) -> usize {
    value.mem_size() - size_of::<T>()
}

#[derive(MemSize)]
struct Named {
    id: u64,
    name: String,
    tags: Vec<String>,
}

#[derive(MemSize)]
struct Tuple(u8, String);

#[derive(MemSize)]
struct Unit;

#[derive(MemSize)]
struct Empty {}

#[test]
fn structs() {
    let named = Named { id: 1, name: text(100), tags: vec![text(50), text(60)] };
    assert_eq!(named.id, 1);
    let tags = allocated(2 * size_of::<String>()) + allocated(50) + allocated(60);
    assert_eq!(heap(named), allocated(100) + tags);
    assert_eq!(heap(Tuple(1, text(100))), allocated(100));
    assert_eq!(Unit.mem_size(), 0);
    assert_eq!(Empty {}.mem_size(), 0);
}

#[derive(MemSize)]
enum Shape {
    Point,
    Nothing(),
    Circle { label: String, radius: u32 },
    Path(Vec<u64>, String),
}

#[derive(MemSize)]
enum Never {}

#[test]
fn enums_own_what_the_variant_at_hand_owns() {
    assert_eq!(heap(Shape::Point), 0);
    assert_eq!(heap(Shape::Nothing()), 0);
    assert_eq!(heap(Shape::Circle { label: text(100), radius: 1 }), allocated(100));
    assert_eq!(heap(Shape::Path(vec![1; 10], text(100))), allocated(80) + allocated(100));
    assert_eq!(heap(None::<Never>), 0);
}

trait Name {
    const NAME: &str;
}

impl Name for u64 {
    const NAME: &str = "u64";
}

impl Name for String {
    const NAME: &str = "String";
}

#[derive(MemSize)]
struct Generic<'a, T: Name, U, const N: usize>
where
    U: Clone + 'a,
{
    first: T,
    all: [T; N],
    rest: Option<Box<U>>,
    name: &'a str,
}

#[derive(MemSize)]
enum Either<A, B = String> {
    A(A),
    B(B),
}

#[derive(MemSize)]
struct Unsized<T: ?Sized> {
    name: String,
    rest: T,
}

#[test]
fn generics() {
    let numbers = Generic::<u64, u8, 2> { first: 1, all: [2, 3], rest: None, name: u64::NAME };
    assert_eq!(heap(numbers), 0);
    let all = [text(20), text(30)];
    let texts = Generic { first: text(10), all, rest: Some(Box::new(1_u8)), name: String::NAME };
    assert_eq!(heap(texts), allocated(10) + allocated(20) + allocated(30) + allocated(1));
    assert_eq!(heap(Either::<u64>::A(1)), 0);
    assert_eq!(heap(Either::<u64>::B(text(100))), allocated(100));
    let two: Box<Unsized<[u64]>> = Box::new(Unsized { name: text(100), rest: [1, 2] });
    assert_eq!(heap(two), allocated(24 + 2 * 8) + allocated(100));
}

#[derive(MemSize)]
struct List {
    value: String,
    next: Option<Box<List>>,
}

#[derive(MemSize)]
enum Tree<T> {
    Leaf(T),
    Node(Box<Tree<T>>, Box<Tree<T>>),
}

#[test]
fn types_that_contain_themselves() {
    let list = List { value: text(100), next: Some(Box::new(List { value: text(50), next: None })) };
    assert_eq!(heap(list), allocated(100) + allocated(size_of::<List>()) + allocated(50));
    let leaf = || Box::new(Tree::Leaf(text(100)));
    assert_eq!(heap(Tree::Node(leaf(), leaf())), 2 * (allocated(size_of::<Tree<String>>()) + allocated(100)));
}

/// A type that does not implement `MemSize`.
struct Foreign([u64; 4]);

#[derive(MemSize)]
struct Skips<T> {
    name: String,
    #[mem_size(skip)]
    foreign: Foreign,
    #[mem_size(skip)]
    any: T,
    marker: PhantomData<u8>,
}

#[derive(MemSize)]
#[expect(dead_code, reason = "the skipped fields are never read")]
enum Skipping {
    One(#[mem_size(skip)] Foreign, String),
    Two {
        #[mem_size(skip)]
        name: String,
    },
}

#[test]
fn skipped_fields_count_as_what_they_are_in_place() {
    let skips =
        || Skips { name: text(100), foreign: Foreign([1; 4]), any: Foreign([2; 4]), marker: PhantomData };
    assert_eq!(skips().foreign.0.len() + skips().any.0.len(), 8);
    assert!(skips().mem_size() > size_of::<String>() + 2 * size_of::<Foreign>());
    assert_eq!(heap(skips()), allocated(100));
    assert_eq!(heap(Skipping::One(Foreign([1; 4]), text(100))), allocated(100));
    assert_eq!(heap(Skipping::Two { name: text(50) }), 0);
}

mod prelude {
    pub(crate) mod store {
        pub(crate) use fluxmap::mem;
    }
}

mod scope {
    //! A scope in which the names that generated code might use have another meaning.

    #[allow(dead_code)]
    mod core {}
    #[allow(dead_code)]
    mod fluxmap {}

    #[derive(fluxmap_derive::MemSize)]
    #[mem_size(crate = "crate::prelude::store")]
    pub(super) struct Renamed<Option, Usize>(pub(super) Option, pub(super) Vec<Usize>);

    #[derive(fluxmap_derive::MemSize)]
    #[allow(non_camel_case_types)]
    pub(super) struct r#type {
        pub(super) r#match: String,
    }
}

#[test]
fn names_of_all_kinds() {
    assert_eq!(heap(scope::Renamed(text(100), vec![1_u64])), allocated(100) + allocated(8));
    assert_eq!(heap(scope::r#type { r#match: text(100) }), allocated(100));
}

/// A type whose `MemSize` returns an arbitrary number.
struct Says(usize);

impl MemSize for Says {
    fn mem_size(&self) -> usize {
        self.0
    }
}

#[derive(MemSize)]
struct Wrong(Says, Says, Box<Says>);

#[test]
fn wrong_answers_neither_panic_nor_overflow() {
    for answer in [0, 1, 7, usize::MAX] {
        let wrong = Wrong(Says(answer), Says(answer), Box::new(Says(answer)));
        assert!(wrong.mem_size() >= answer.saturating_sub(size_of::<Says>()));
    }
}

#[test]
fn derived_types_are_elements_like_any_other() {
    let named = || Named { id: 1, name: text(100), tags: Vec::new() };
    assert_eq!(heap(vec![named()]), allocated(size_of::<Named>()) + allocated(100));
    let by_text = heap(HashMap::from([(text(100), named())]));
    assert!(by_text > 2 * allocated(100) + 4 * size_of::<(String, Named)>());
    assert_eq!(heap(Arc::new(named())), allocated(16 + size_of::<Named>()) + allocated(100));
}

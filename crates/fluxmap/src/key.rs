//! The bounds of keys and values, ranges of keys and prefixes.

use fluxmap_index as index;
use fluxmap_index::KeyPrefix;
use std::any::{Any, TypeId};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::Hash;
use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};
use std::sync::Arc;

/// The bounds of keys. Implemented for every type that qualifies.
///
/// `Ord`, `Eq` and `Hash` must agree, as for the maps of the standard library.
///
/// In a durable database, shared keys and values (`Arc<str>`, `Arc<[u8]>`) need serde's feature `rc`.
///
/// Keys that are text, bytes or numbers (`String`, `Vec<u8>`, their boxed and shared forms,
/// `&'static str`, arrays of 16 or 32 bytes, `u16` to `u128`, `i32`, `i64`, `usize`) are found faster in
/// key order than other types, by their first 32 bytes.
pub trait Key: Ord + Hash + Clone + Send + Sync + 'static {}
impl<K: Ord + Hash + Clone + Send + Sync + 'static> Key for K {}

/// The bounds of values. Implemented for every type that qualifies.
pub trait Value: Send + Sync + 'static {}
impl<V: Send + Sync + 'static> Value for V {}

/// A type by which keys can be looked up: any borrowed form of the key, such as `str` for `String`.
/// Implemented for every type that qualifies.
pub trait Query: Ord + Hash {}
impl<Q: Ord + Hash + ?Sized> Query for Q {}

/// One end of a range: a key, a reference to one, or a borrowed form from which a key can be made. Of
/// keys that are tuples there are no borrowed forms: an end is a whole tuple that owns its elements, as
/// in `("ada".to_string(), 2026)..`, or a reference to one. To range over all keys with the same first
/// elements, use a [`Prefix`].
///
/// Implement it for the borrowed forms of your own key types:
///
/// ```
/// use fluxmap::KeyBound;
///
/// #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
/// struct Name(String);
///
/// impl KeyBound<Name> for &str {
///     fn into_key(self) -> Name {
///         Name(self.to_string())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a range of `{K}` keys has no end that is a `{Self}`",
    label = "not an end of a range of `{K}` keys",
    note = "the ends are keys, references to keys, or borrowed forms for which `KeyBound` is implemented, such as `&str` for `String`; a tuple owns its elements: `(\"a\".to_string(), 1)..`"
)]
pub trait KeyBound<K> {
    /// Converts to the key.
    fn into_key(self) -> K;
}

impl<K> KeyBound<K> for K {
    fn into_key(self) -> K {
        self
    }
}

impl<K: Clone> KeyBound<K> for &K {
    fn into_key(self) -> K {
        self.clone()
    }
}

impl KeyBound<String> for &str {
    fn into_key(self) -> String {
        self.to_owned()
    }
}

/// Slices as ends of ranges of keys that own such slices.
macro_rules! bounds_of_lists {
    ($($list:ident),*) => {$(
        impl<T: Clone> KeyBound<$list<[T]>> for &[T] {
            fn into_key(self) -> $list<[T]> {
                self.into()
            }
        }

        impl<T: Clone, const N: usize> KeyBound<$list<[T]>> for &[T; N] {
            fn into_key(self) -> $list<[T]> {
                self.as_slice().into()
            }
        }

        impl KeyBound<$list<str>> for &str {
            fn into_key(self) -> $list<str> {
                self.into()
            }
        }
    )*};
}

bounds_of_lists!(Arc, Box);

impl<T: Clone> KeyBound<Vec<T>> for &[T] {
    fn into_key(self) -> Vec<T> {
        self.to_owned()
    }
}

impl<T: Clone, const N: usize> KeyBound<Vec<T>> for &[T; N] {
    fn into_key(self) -> Vec<T> {
        self.to_vec()
    }
}

/// A range of keys: `"a".."f"`, `10..=20`, `..`, `from..`, `(Bound, Bound)`.
///
/// A range whose end is before its start is empty.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no range of `{K}` keys",
    label = "not a range of `{K}` keys",
    note = "a range is `from..to`, `from..=to`, `from..`, `..to`, `..=to`, `..`, or a pair of `Bound`s"
)]
pub trait KeyRange<K> {
    /// Converts to the two ends.
    fn into_bounds(self) -> (Bound<K>, Bound<K>);
}

impl<K> KeyRange<K> for RangeFull {
    fn into_bounds(self) -> (Bound<K>, Bound<K>) {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

impl<K, B: KeyBound<K>> KeyRange<K> for Range<B> {
    fn into_bounds(self) -> (Bound<K>, Bound<K>) {
        (Bound::Included(self.start.into_key()), Bound::Excluded(self.end.into_key()))
    }
}

impl<K, B: KeyBound<K>> KeyRange<K> for RangeInclusive<B> {
    fn into_bounds(self) -> (Bound<K>, Bound<K>) {
        let (start, end) = self.into_inner();
        (Bound::Included(start.into_key()), Bound::Included(end.into_key()))
    }
}

impl<K, B: KeyBound<K>> KeyRange<K> for RangeFrom<B> {
    fn into_bounds(self) -> (Bound<K>, Bound<K>) {
        (Bound::Included(self.start.into_key()), Bound::Unbounded)
    }
}

impl<K, B: KeyBound<K>> KeyRange<K> for RangeTo<B> {
    fn into_bounds(self) -> (Bound<K>, Bound<K>) {
        (Bound::Unbounded, Bound::Excluded(self.end.into_key()))
    }
}

impl<K, B: KeyBound<K>> KeyRange<K> for RangeToInclusive<B> {
    fn into_bounds(self) -> (Bound<K>, Bound<K>) {
        (Bound::Unbounded, Bound::Included(self.end.into_key()))
    }
}

impl<K, A: KeyBound<K>, B: KeyBound<K>> KeyRange<K> for (Bound<A>, Bound<B>) {
    fn into_bounds(self) -> (Bound<K>, Bound<K>) {
        (self.0.map(KeyBound::into_key), self.1.map(KeyBound::into_key))
    }
}

/// A prefix of keys: text for keys that borrow as `str`, bytes for keys that borrow as `[u8]`, and a
/// tuple of the first elements for keys that are tuples.
///
/// The elements may be borrowed forms, as for the [ends of ranges](KeyBound). Tuples have up to eight
/// elements. All elements together are a key and no prefix: [`get`](crate::Database::get) it.
///
/// ```
/// # use fluxmap::Database;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fluxmap::FluxError> {
/// // Orders by customer, year and number.
/// let orders = Database::<(String, u16, u32), u64>::builder().build().await?;
/// orders.insert(("ada".into(), 2025, 1), 700).await?;
/// orders.insert(("ada".into(), 2026, 1), 800).await?;
/// orders.insert(("bob".into(), 2026, 1), 900).await?;
/// assert_eq!(orders.prefix(("ada",)).count(), 2);
/// assert_eq!(orders.prefix(("ada", 2026)).count(), 1);
/// // The ends of a range are whole keys, which own their elements.
/// assert_eq!(orders.range(("ada".to_string(), 2026, 0)..).count(), 2);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no prefix of `{K}` keys",
    label = "not a prefix of `{K}` keys",
    note = "a prefix is `&str` of keys that borrow as `str`, `&[u8]` of keys that borrow as `[u8]`, and a tuple of the first elements of keys that are tuples, such as `(user,)` of `(u64, u32)`, but not all elements; keys of other types have ranges"
)]
pub trait Prefix<K>: sealed::IntoSpan<K> {}
// A bound on the sealed trait, so that the compiler shows the message above instead of the bounds of the
// implementations below.
#[diagnostic::do_not_recommend]
impl<K, P: sealed::IntoSpan<K>> Prefix<K> for P {}

pub(crate) mod sealed {
    use super::{Arc, Borrow, Key, KeyBound, KeySpan};

    pub trait IntoSpan<K> {
        fn into_span(self) -> KeySpan<K>;
    }

    impl<K: Borrow<str> + Ord> IntoSpan<K> for &str {
        fn into_span(self) -> KeySpan<K> {
            KeySpan(super::SpanKind::Prefix {
                prefix: self.as_bytes().into(),
                bytes_of: |key| key.borrow().as_bytes(),
            })
        }
    }

    impl<K: Borrow<str> + Ord> IntoSpan<K> for &String {
        fn into_span(self) -> KeySpan<K> {
            self.as_str().into_span()
        }
    }

    impl<K: Borrow<[u8]> + Ord> IntoSpan<K> for &[u8] {
        fn into_span(self) -> KeySpan<K> {
            KeySpan(super::SpanKind::Prefix { prefix: self.into(), bytes_of: |key| key.borrow() })
        }
    }

    impl<K: Borrow<[u8]> + Ord> IntoSpan<K> for &Vec<u8> {
        fn into_span(self) -> KeySpan<K> {
            self.as_slice().into_span()
        }
    }

    impl<K: Borrow<[u8]> + Ord, const N: usize> IntoSpan<K> for &[u8; N] {
        fn into_span(self) -> KeySpan<K> {
            self.as_slice().into_span()
        }
    }

    /// Implements prefixes of tuples for the first elements. Each element is given by its type, the type
    /// of its borrowed form, and its index.
    macro_rules! leading {
        ([$($T:ident $P:ident $place:tt),+] $($rest:ident),+) => {
            impl<$($T: Key, $P: KeyBound<$T>,)+ $($rest: Key),+> IntoSpan<($($T,)+ $($rest,)+)> for ($($P,)+) {
                fn into_span(self) -> KeySpan<($($T,)+ $($rest,)+)> {
                    let first = ($(self.$place.into_key(),)+);
                    KeySpan(super::SpanKind::Leading(Arc::new(move |key: &($($T,)+ $($rest,)+)| {
                        ($(&key.$place,)+).cmp(&($(&first.$place,)+))
                    })))
                }
            }
        };
    }

    leading!([A P 0] B);
    leading!([A P 0] B, C);
    leading!([A P 0] B, C, D);
    leading!([A P 0] B, C, D, E);
    leading!([A P 0] B, C, D, E, F);
    leading!([A P 0] B, C, D, E, F, G);
    leading!([A P 0] B, C, D, E, F, G, H);
    leading!([A P 0, B Q 1] C);
    leading!([A P 0, B Q 1] C, D);
    leading!([A P 0, B Q 1] C, D, E);
    leading!([A P 0, B Q 1] C, D, E, F);
    leading!([A P 0, B Q 1] C, D, E, F, G);
    leading!([A P 0, B Q 1] C, D, E, F, G, H);
    leading!([A P 0, B Q 1, C R 2] D);
    leading!([A P 0, B Q 1, C R 2] D, E);
    leading!([A P 0, B Q 1, C R 2] D, E, F);
    leading!([A P 0, B Q 1, C R 2] D, E, F, G);
    leading!([A P 0, B Q 1, C R 2] D, E, F, G, H);
    leading!([A P 0, B Q 1, C R 2, D S 3] E);
    leading!([A P 0, B Q 1, C R 2, D S 3] E, F);
    leading!([A P 0, B Q 1, C R 2, D S 3] E, F, G);
    leading!([A P 0, B Q 1, C R 2, D S 3] E, F, G, H);
    leading!([A P 0, B Q 1, C R 2, D S 3, E T 4] F);
    leading!([A P 0, B Q 1, C R 2, D S 3, E T 4] F, G);
    leading!([A P 0, B Q 1, C R 2, D S 3, E T 4] F, G, H);
    leading!([A P 0, B Q 1, C R 2, D S 3, E T 4, F U 5] G);
    leading!([A P 0, B Q 1, C R 2, D S 3, E T 4, F U 5] G, H);
    leading!([A P 0, B Q 1, C R 2, D S 3, E T 4, F U 5, G W 6] H);
}

/// A set of neighbouring keys: a range or a prefix, in one owned type, so that there is one kind of scan
/// internally.
#[derive(Clone)]
pub struct KeySpan<K>(SpanKind<K>);

#[derive(Clone)]
enum SpanKind<K> {
    Range {
        lower: Bound<K>,
        upper: Bound<K>,
    },
    Prefix {
        prefix: Box<[u8]>,
        bytes_of: fn(&K) -> &[u8],
    },
    /// The keys whose first elements are equal to given ones.
    Leading(Leading<K>),
}

/// Compares the first elements of a key with those that are looked for.
type Leading<K> = Arc<dyn Fn(&K) -> Ordering + Send + Sync>;

impl<K: Ord> KeySpan<K> {
    pub(crate) fn range(range: impl KeyRange<K>) -> Self {
        let (lower, upper) = range.into_bounds();
        KeySpan(SpanKind::Range { lower, upper })
    }

    pub(crate) fn prefix(prefix: impl Prefix<K>) -> Self {
        prefix.into_span()
    }
}

impl<K: Ord + 'static> index::Span<K> for KeySpan<K> {
    fn is_before(&self, key: &K) -> bool {
        match &self.0 {
            SpanKind::Range { lower, .. } => is_below(key, lower),
            SpanKind::Prefix { prefix, bytes_of, .. } => *bytes_of(key) < **prefix,
            SpanKind::Leading(compare) => compare(key).is_lt(),
        }
    }

    fn is_after(&self, key: &K) -> bool {
        match &self.0 {
            SpanKind::Range { upper, .. } => is_above(key, upper),
            SpanKind::Prefix { prefix, bytes_of, .. } => {
                let bytes = bytes_of(key);
                *bytes > **prefix && !bytes.starts_with(prefix)
            }
            SpanKind::Leading(compare) => compare(key).is_gt(),
        }
    }

    fn prefixes(&self) -> Option<[KeyPrefix; 2]> {
        match &self.0 {
            SpanKind::Range { lower, upper } => prefixes_of(lower, upper),
            SpanKind::Prefix { prefix, .. } => {
                has_prefix::<K>().then(|| [KeyPrefix::of(prefix), KeyPrefix::last_of(prefix)])
            }
            // Tuples have no key prefixes.
            SpanKind::Leading(_) => None,
        }
    }
}

/// Returns the key prefixes at the ends of a range, if the keys have key prefixes.
fn prefixes_of<K: 'static>(lower: &Bound<K>, upper: &Bound<K>) -> Option<[KeyPrefix; 2]> {
    let end = |bound: &Bound<K>, unbounded| match bound {
        Bound::Unbounded => unbounded,
        Bound::Included(key) | Bound::Excluded(key) => prefix_of(key).unwrap_or(unbounded),
    };
    has_prefix::<K>().then(|| [end(lower, KeyPrefix::LEAST), end(upper, KeyPrefix::GREATEST)])
}

/// Defines the key types that are ordered as certain bytes of them are, and these bytes.
macro_rules! prefixes {
    ($($type:ty: $key:ident => $bytes:expr),* $(,)?) => {
        /// Returns whether the index distinguishes keys of this type by their first bytes.
        fn has_prefix<K: 'static>() -> bool {
            let key = TypeId::of::<K>();
            $(key == TypeId::of::<$type>())||*
        }

        /// Returns the first bytes of a key, if its type is ordered as its bytes are.
        pub(crate) fn prefix_of<K: 'static>(key: &K) -> Option<KeyPrefix> {
            let key: &dyn Any = key;
            $(
                if let Some($key) = key.downcast_ref::<$type>() {
                    return Some(KeyPrefix::of($bytes));
                }
            )*
            None
        }
    };
}

prefixes! {
    String: text => text.as_bytes(),
    Box<str>: text => text.as_bytes(),
    Arc<str>: text => text.as_bytes(),
    &'static str: text => text.as_bytes(),
    Vec<u8>: bytes => bytes,
    Box<[u8]>: bytes => bytes,
    Arc<[u8]>: bytes => bytes,
    [u8; 16]: bytes => bytes,
    [u8; 32]: bytes => bytes,
    u16: number => &number.to_be_bytes(),
    u32: number => &number.to_be_bytes(),
    u64: number => &number.to_be_bytes(),
    u128: number => &number.to_be_bytes(),
    usize: number => &number.to_be_bytes(),
    i32: number => &(number ^ i32::MIN).to_be_bytes(),
    i64: number => &(number ^ i64::MIN).to_be_bytes(),
}

fn is_below<K: Ord>(key: &K, lower: &Bound<K>) -> bool {
    match lower {
        Bound::Unbounded => false,
        Bound::Included(from) => key < from,
        Bound::Excluded(from) => key <= from,
    }
}

fn is_above<K: Ord>(key: &K, upper: &Bound<K>) -> bool {
    match upper {
        Bound::Unbounded => false,
        Bound::Included(to) => key > to,
        Bound::Excluded(to) => key >= to,
    }
}

/// The part of a span between two bounds. All parts share the span.
#[derive(Clone)]
pub(crate) struct SpanPart<K> {
    pub(crate) span: Arc<KeySpan<K>>,
    pub(crate) lower: Bound<K>,
    pub(crate) upper: Bound<K>,
}

impl<K> SpanPart<K> {
    pub(crate) fn whole(span: impl Into<Arc<KeySpan<K>>>) -> Self {
        SpanPart { span: span.into(), lower: Bound::Unbounded, upper: Bound::Unbounded }
    }
}

impl<K: Ord + 'static> index::Span<K> for SpanPart<K> {
    fn is_before(&self, key: &K) -> bool {
        is_below(key, &self.lower) || self.span.is_before(key)
    }

    fn is_after(&self, key: &K) -> bool {
        is_above(key, &self.upper) || self.span.is_after(key)
    }

    fn prefixes(&self) -> Option<[KeyPrefix; 2]> {
        let [lower, upper] = prefixes_of(&self.lower, &self.upper)?;
        let [first, last] = self.span.prefixes()?;
        Some([lower.max(first), upper.min(last)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluxmap_index::Span as _;

    fn contains<K: Key>(span: &KeySpan<K>, key: &K) -> bool {
        !span.is_before(key) && !span.is_after(key)
    }

    #[test]
    fn ranges_contain_what_the_standard_library_says() {
        let (a, b, c) = ("a".to_string(), "b".to_string(), "c".to_string());
        let span = KeySpan::<String>::range("a".."c");
        assert!(contains(&span, &a) && contains(&span, &b) && !contains(&span, &c));
        let span = KeySpan::<String>::range((Bound::Excluded("a"), Bound::Included("c")));
        assert!(!contains(&span, &a) && contains(&span, &c));
        let span = KeySpan::<u64>::range(10..=20);
        assert!(contains(&span, &10) && contains(&span, &20) && !contains(&span, &21));
    }

    #[test]
    fn inverted_ranges_are_empty() {
        let count = |span: KeySpan<u64>| (0..30).filter(|key| contains(&span, key)).count();
        let (from, to) = (20, 10);
        assert_eq!(count(KeySpan::range(from..=to)), 0);
        assert_eq!(count(KeySpan::range(5..5)), 0);
        assert_eq!(count(KeySpan::range((Bound::Excluded(5), Bound::Excluded(5)))), 0);
        assert_eq!(count(KeySpan::range(5..=5)), 1);
    }

    #[test]
    fn a_prefix_is_the_keys_that_start_with_it() {
        let keys = ["", "u", "user", "user:", "user:a", "user:\u{10ffff}", "user;", "v"].map(String::from);
        for prefix in ["", "user", "user:", "user:\u{10ffff}", "\u{10ffff}", "x", "\u{d7ff}"] {
            let span = KeySpan::<String>::prefix(prefix);
            for key in &keys {
                assert_eq!(contains(&span, key), key.starts_with(prefix), "{key:?} and {prefix:?}");
            }
            assert!(keys.is_sorted_by_key(|key| !span.is_before(key)));
            assert!(keys.is_sorted_by_key(|key| span.is_after(key)));
        }
    }

    #[test]
    fn a_byte_prefix_of_the_greatest_bytes_has_no_end() {
        let keys = [vec![0xfe], vec![0xff, 1], vec![0xff, 0xff, 7]];
        let count = |span: KeySpan<Vec<u8>>| keys.iter().filter(|key| contains(&span, key)).count();
        assert_eq!(count(KeySpan::prefix(&[0xff_u8])), 2);
        assert_eq!(count(KeySpan::prefix(&[0xff_u8, 0xff])), 1);
        assert_eq!(count(KeySpan::prefix(&[0xfe_u8])), 1);
    }

    /// Checks that the key prefixes of a span agree with the key prefixes of all keys.
    fn agrees<K: Key + std::fmt::Debug>(span: &KeySpan<K>, keys: &[K]) {
        let [first, last] = span.prefixes().expect("keys have leads");
        for key in keys {
            let prefix = prefix_of(key).expect("keys have leads");
            assert!(
                if span.is_before(key) { prefix <= first } else { prefix >= first },
                "{key:?} and its start"
            );
            assert!(if span.is_after(key) { prefix >= last } else { prefix <= last }, "{key:?} and its end");
        }
    }

    /// Checks all spans between these keys, which are in order.
    fn prefix<K: Key + std::fmt::Debug>(keys: &[K]) {
        assert!(keys.is_sorted() && keys.is_sorted_by_key(|key| prefix_of(key).expect("keys have leads")));
        agrees(&KeySpan::range(..), keys);
        for from in keys {
            for to in keys {
                let (from, to) = (from.clone(), to.clone());
                agrees(&KeySpan::range((Bound::Included(from.clone()), Bound::Excluded(to.clone()))), keys);
                agrees(&KeySpan::range((Bound::Excluded(from), Bound::Included(to))), keys);
            }
        }
    }

    #[test]
    fn leads_agree_with_keys_and_spans() {
        let long = "x".repeat(40);
        let texts = ["", "\0", "a", "a\0", "ab", "b", &long[..31], &long[..32], &long[..33], &long, "y"];
        let texts = texts.map(String::from);
        prefix(&texts);
        prefix(&texts.clone().map(String::into_bytes));
        prefix(&texts.clone().map(Arc::<str>::from));
        prefix(&[0_u64, 1, 255, 256, u64::MAX]);
        prefix(&[i64::MIN, -256, -1, 0, 1, i64::MAX]);
        prefix(&[i32::MIN, -1, 0, i32::MAX]);
        for prefix in texts.iter().map(String::as_str) {
            agrees(&KeySpan::prefix(prefix), &texts);
        }
        let part = SpanPart {
            span: Arc::new(KeySpan::prefix("a")),
            lower: Bound::Excluded("a".to_string()),
            upper: Bound::Included("ab".to_string()),
        };
        assert_eq!(part.prefixes(), Some([KeyPrefix::of(b"a"), KeyPrefix::of(b"ab")]));
    }

    #[test]
    fn keys_of_other_types_have_no_leads() {
        assert_eq!(prefix_of(&("tuple", 1)), None);
        assert_eq!(KeySpan::range(("a", 1)..).prefixes(), None);
    }
}

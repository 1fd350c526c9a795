//! How much memory a key or value takes.

use super::UNIT;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::{OsStr, OsString};
use std::marker::PhantomData;
use std::mem::size_of_val;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::{self, Saturating, Wrapping};
use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};
use std::path::{Path, PathBuf};
use std::sync::{Arc, atomic};
use std::time::{Duration, Instant, SystemTime};

/// The number of bytes that a key or value takes, including the memory that it owns on the heap.
///
/// The answer is `size_of::<Self>()` plus everything that would be freed if the value were dropped now.
/// Borrowed memory does not count. Memory shared by several owners, such as those of an [`Arc`], counts
/// in full for each of them: no owner can tell whether another one is left, and a memory limit is better
/// kept too strictly than not at all.
///
/// Types of the standard library count an allocation by what the allocator takes for it (see
/// [`allocated`]), spare capacity included. Collections ask each of their elements, in time proportional
/// to their number; if the elements own nothing, as in a `Vec<u8>`, the compiler removes the loop.
///
/// # For types of your own
///
/// With the feature `derive`, the trait can be derived:
///
#[cfg_attr(feature = "derive", doc = "```")]
#[cfg_attr(not(feature = "derive"), doc = "```ignore")]
/// use fluxmap::mem::MemSize;
///
/// #[derive(MemSize)]
/// struct Player {
///     name: String,
///     score: u64,
/// }
///
/// let player = Player { name: String::with_capacity(100), score: 7 };
/// assert!(player.mem_size() >= size_of::<Player>() + 100);
/// ```
///
/// By hand, a rough answer will do. Remember the value itself, not only what it points to:
///
/// ```
/// use fluxmap::mem::MemSize;
///
/// struct Blob {
///     data: Vec<u8>,
/// }
///
/// impl MemSize for Blob {
///     fn mem_size(&self) -> usize {
///         size_of::<Self>() + self.data.capacity()
///     }
/// }
///
/// let blob = Blob { data: vec![0; 1000] };
/// assert_eq!(blob.mem_size(), 24 + 1000);
/// ```
///
/// An answer that is too small makes for a limit that is kept too late, and one that is
/// too large for a limit that is kept too early. Nothing else depends on it.
#[diagnostic::on_unimplemented(
    message = "a memory limit needs to know what `{Self}` takes: derive `fluxmap::mem::MemSize` with fluxmap's feature `derive`, or implement its one method",
    label = "`MemSize` is not implemented for `{Self}`"
)]
pub trait MemSize {
    /// Returns the number of bytes, including the value itself.
    fn mem_size(&self) -> usize;
}

/// Returns the bytes that a general-purpose allocator takes for an allocation of `bytes` bytes.
///
/// Zero for zero. Otherwise 8 bytes more for a header, rounded up to 16, and at least 32. This is what
/// `malloc` of glibc does, up to allocations so large (128 KiB and more) that they get pages of their
/// own, where the difference is negligible. Other allocators have no headers but coarser steps, and come
/// within some per cent of this for most sizes.
///
/// ```
/// use fluxmap::mem::allocated;
///
/// assert_eq!(allocated(0), 0);
/// assert_eq!(allocated(1), 32);
/// assert_eq!(allocated(24), 32);
/// assert_eq!(allocated(25), 48);
/// assert_eq!(allocated(1000), 1008);
/// ```
pub const fn allocated(bytes: usize) -> usize {
    const HEADER: usize = 8;
    match bytes {
        0 => 0,
        1..=24 => 2 * UNIT,
        _ => match bytes.saturating_add(HEADER).checked_next_multiple_of(UNIT) {
            Some(taken) => taken,
            None => usize::MAX,
        },
    }
}

/// Returns the bytes that a value owns on the heap. A user's implementation may return a wrong size.
fn heap<T: MemSize + ?Sized>(value: &T) -> usize {
    value.mem_size().saturating_sub(size_of_val(value))
}

/// Returns the bytes that these values own on the heap, all together.
fn heap_of_all<'a, T: MemSize + 'a>(values: impl IntoIterator<Item = &'a T>) -> usize {
    values.into_iter().map(heap).fold(0, usize::saturating_add)
}

/// Returns the bytes that the keys and values of a map own on the heap, all together.
fn heap_of_entries<'a, K: MemSize + 'a, V: MemSize + 'a>(
    map: impl IntoIterator<Item = (&'a K, &'a V)>,
) -> usize {
    map.into_iter().fold(0, |total, (key, value)| sum([total, heap(key), heap(value)]))
}

/// Returns the sum, saturating.
fn sum<const N: usize>(parts: [usize; N]) -> usize {
    parts.into_iter().fold(0, usize::saturating_add)
}

/// Returns the memory of one allocation with room for so many values.
fn buffer<T>(capacity: usize) -> usize {
    allocated(capacity.saturating_mul(size_of::<T>()))
}

/// Returns the memory of the table of a hash map with this capacity.
///
/// A table has a power of two of buckets, seven in eight of which may be full, with one control byte for
/// each and for 16 more. Removals can leave traces that lower the capacity that a map reports, so a map
/// that has lost many entries may have a larger table than this.
fn hash_table<Entry>(capacity: usize) -> usize {
    const GROUP: usize = 16;
    if capacity == 0 {
        return 0;
    }
    let buckets = capacity.saturating_mul(8).div_ceil(7).next_power_of_two().max(4);
    let entries = buckets.saturating_mul(size_of::<Entry>());
    allocated(sum([entries.checked_next_multiple_of(GROUP).unwrap_or(usize::MAX), buckets, GROUP]))
}

/// Returns the memory of the nodes of a B-tree with these keys, given in order.
///
/// A tree does not report how many nodes it has, and the number depends on its history: insertions in
/// ascending order leave a leaf for every 7 entries, in random order for every 9, and a tree that was
/// collected all at once has one for every 12. But the keys of a node are adjacent in memory, so their
/// addresses show the nodes. Between one leaf and the next there is a single key of a node above, and
/// these keys form a tree in turn.
fn tree<'a, K: 'a, V>(keys: impl Iterator<Item = &'a K>) -> usize {
    const CAPACITY: usize = 11;
    /// A leaf also has the pointer to its parent, its index there, and its length.
    type Leaf<K, V> = (usize, [K; CAPACITY], [V; CAPACITY], u16, u16);
    /// Enough levels for all of memory, with nodes of 6 children.
    const LEVELS: usize = 25;

    /// The nodes found so far at one distance from the leaves.
    #[derive(Clone, Copy, Default)]
    struct Level {
        nodes: usize,
        /// The address of the next key of the last node, unless that node is complete.
        next: Option<usize>,
    }

    let mut levels = [Level::default(); LEVELS];
    for key in keys {
        let address = std::ptr::from_ref(key).addr();
        for level in &mut levels {
            if level.next.is_none() {
                // The previous node of this level is complete: this key begins another one.
                level.nodes += 1;
            } else if level.next != Some(address) {
                // The key is not adjacent, so the node of this level is complete, and the key belongs to
                // a level above.
                level.next = None;
                continue;
            }
            level.next = Some(address.wrapping_add(size_of::<K>()));
            break;
        }
    }
    let leaf = size_of::<Leaf<K, V>>();
    let children = (CAPACITY + 1) * size_of::<usize>();
    let inner = levels[1..].iter().map(|level| level.nodes).sum::<usize>();
    let leaves = levels[0].nodes.saturating_mul(allocated(leaf));
    leaves.saturating_add(inner.saturating_mul(allocated(leaf.saturating_add(children))))
}

// Types that own nothing on the heap.

macro_rules! flat {
    ($($flat:ty),* $(,)?) => {
        $(impl MemSize for $flat {
            fn mem_size(&self) -> usize {
                size_of::<Self>()
            }
        })*
    };
}

flat!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, bool, char, ());
flat!(num::NonZeroU8, num::NonZeroU16, num::NonZeroU32, num::NonZeroU64, num::NonZeroU128, num::NonZeroUsize);
flat!(num::NonZeroI8, num::NonZeroI16, num::NonZeroI32, num::NonZeroI64, num::NonZeroI128, num::NonZeroIsize);
flat!(atomic::AtomicU8, atomic::AtomicU16, atomic::AtomicU32, atomic::AtomicU64, atomic::AtomicUsize);
flat!(atomic::AtomicI8, atomic::AtomicI16, atomic::AtomicI32, atomic::AtomicI64, atomic::AtomicIsize);
flat!(atomic::AtomicBool, Duration, Instant, SystemTime, RangeFull);
flat!(IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6);

impl<T: ?Sized> MemSize for PhantomData<T> {
    fn mem_size(&self) -> usize {
        0
    }
}

/// Counts the reference alone, because the value behind it is not owned. (`reference.mem_size()`,
/// however, asks the value behind it, as method calls do.)
impl<T: ?Sized> MemSize for &T {
    fn mem_size(&self) -> usize {
        size_of::<Self>()
    }
}

// Types that contain their parts.

macro_rules! tuples {
    ($($first:ident $($rest:ident)*)?) => {
        $(
            impl<$first: MemSize, $($rest: MemSize),*> MemSize for ($first, $($rest,)*) {
                fn mem_size(&self) -> usize {
                    #[expect(non_snake_case, reason = "each part is named as its type")]
                    let ($first, $($rest,)*) = self;
                    sum([size_of::<Self>(), heap($first), $(heap($rest)),*])
                }
            }
            tuples!($($rest)*);
        )?
    };
}

tuples!(A B C D E F G H I J K L);

impl<T: MemSize, const N: usize> MemSize for [T; N] {
    fn mem_size(&self) -> usize {
        self.as_slice().mem_size()
    }
}

impl<T: MemSize> MemSize for [T] {
    fn mem_size(&self) -> usize {
        size_of_val(self).saturating_add(heap_of_all(self))
    }
}

macro_rules! text {
    ($($text:ty),*) => {
        $(impl MemSize for $text {
            fn mem_size(&self) -> usize {
                size_of_val(self)
            }
        })*
    };
}

text!(str, OsStr, Path);

macro_rules! made_of {
    ($($type:ident($value:ident): $($part:expr),+;)*) => {
        $(impl<T: MemSize> MemSize for $type<T> {
            fn mem_size(&self) -> usize {
                let $value = self;
                sum([size_of::<Self>(), $(heap($part)),+])
            }
        })*
    };
}

made_of! {
    Reverse(value): &value.0;
    Saturating(value): &value.0;
    Wrapping(value): &value.0;
    Range(range): &range.start, &range.end;
    RangeFrom(range): &range.start;
    RangeInclusive(range): range.start(), range.end();
    RangeTo(range): &range.end;
    RangeToInclusive(range): &range.end;
}

impl<T: MemSize> MemSize for Bound<T> {
    fn mem_size(&self) -> usize {
        let inner = match self {
            Bound::Included(value) | Bound::Excluded(value) => heap(value),
            Bound::Unbounded => 0,
        };
        size_of::<Self>().saturating_add(inner)
    }
}

impl<T: MemSize> MemSize for Option<T> {
    fn mem_size(&self) -> usize {
        size_of::<Self>().saturating_add(heap_of_all(self))
    }
}

impl<T: MemSize, E: MemSize> MemSize for Result<T, E> {
    fn mem_size(&self) -> usize {
        size_of::<Self>().saturating_add(match self {
            Ok(value) => heap(value),
            Err(error) => heap(error),
        })
    }
}

/// A borrowed value counts as a reference does.
impl<B: ToOwned<Owned: MemSize> + ?Sized> MemSize for Cow<'_, B> {
    fn mem_size(&self) -> usize {
        size_of::<Self>().saturating_add(match self {
            Cow::Borrowed(_) => 0,
            Cow::Owned(owned) => heap(owned),
        })
    }
}

// Types whose parts are on the heap.

impl<T: MemSize + ?Sized> MemSize for Box<T> {
    fn mem_size(&self) -> usize {
        sum([size_of::<Self>(), allocated(size_of_val(&**self)), heap(&**self)])
    }
}

/// Counts in full in each of its owners.
impl<T: MemSize + ?Sized> MemSize for Arc<T> {
    fn mem_size(&self) -> usize {
        // The two reference counts come before the value.
        let block = size_of_val(&**self).saturating_add(2 * size_of::<usize>());
        sum([size_of::<Self>(), allocated(block), heap(&**self)])
    }
}

macro_rules! owned_text {
    ($($text:ty),*) => {
        $(impl MemSize for $text {
            fn mem_size(&self) -> usize {
                size_of::<Self>().saturating_add(allocated(self.capacity()))
            }
        })*
    };
}

owned_text!(String, OsString, PathBuf);

macro_rules! buffers {
    ($($buffer:ident),*) => {
        $(impl<T: MemSize> MemSize for $buffer<T> {
            fn mem_size(&self) -> usize {
                sum([size_of::<Self>(), buffer::<T>(self.capacity()), heap_of_all(self)])
            }
        })*
    };
}

buffers!(Vec, VecDeque, BinaryHeap);

impl<T: MemSize> MemSize for LinkedList<T> {
    fn mem_size(&self) -> usize {
        let nodes = self.len().saturating_mul(allocated(size_of::<(usize, usize, T)>()));
        sum([size_of::<Self>(), nodes, heap_of_all(self)])
    }
}

impl<K: MemSize, V: MemSize, S> MemSize for HashMap<K, V, S> {
    fn mem_size(&self) -> usize {
        sum([size_of::<Self>(), hash_table::<(K, V)>(self.capacity()), heap_of_entries(self)])
    }
}

impl<T: MemSize, S> MemSize for HashSet<T, S> {
    fn mem_size(&self) -> usize {
        sum([size_of::<Self>(), hash_table::<T>(self.capacity()), heap_of_all(self)])
    }
}

impl<K: MemSize, V: MemSize> MemSize for BTreeMap<K, V> {
    fn mem_size(&self) -> usize {
        sum([size_of::<Self>(), tree::<K, V>(self.keys()), heap_of_entries(self)])
    }
}

impl<T: MemSize> MemSize for BTreeSet<T> {
    fn mem_size(&self) -> usize {
        sum([size_of::<Self>(), tree::<T, ()>(self.iter()), heap_of_all(self)])
    }
}

/// Counts the bytes that it shows. It cannot tell whether it shares them, nor how many more it keeps
/// alive: copy a small part of a large buffer before you store it.
#[cfg(feature = "bytes")]
impl MemSize for bytes::Bytes {
    fn mem_size(&self) -> usize {
        size_of::<Self>().saturating_add(allocated(self.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the owned sizes, which are told apart more easily than sums with the inline sizes.
    fn heap_of<T: MemSize>(value: T) -> usize {
        assert!(value.mem_size() >= size_of::<T>(), "{}", std::any::type_name::<T>());
        heap(&value)
    }

    /// Reports a wrong size.
    struct Says(usize);

    impl MemSize for Says {
        fn mem_size(&self) -> usize {
            self.0
        }
    }

    fn text(bytes: usize) -> String {
        "x".repeat(bytes)
    }

    #[test]
    fn allocations_have_a_header_and_are_rounded_up() {
        let expected = [(0, 0), (1, 32), (24, 32), (25, 48), (40, 48), (41, 64), (4096, 4112)];
        for (bytes, taken) in expected {
            assert_eq!(allocated(bytes), taken, "{bytes} bytes");
        }
        for huge in usize::MAX - 40..=usize::MAX {
            assert!(allocated(huge) >= huge);
        }
    }

    #[test]
    fn what_owns_nothing_is_as_large_as_it_is() {
        macro_rules! check {
            ($($value:expr),* $(,)?) => {
                $(assert_eq!(heap_of($value), 0, stringify!($value));)*
            };
        }
        check!(1_u8, 1_u16, 1_u32, 1_u64, 1_u128, 1_usize, 1_i8, 1_i16, 1_i32, 1_i64, 1_i128, 1_isize);
        check!(1_f32, 1_f64, true, 'x', (), PhantomData::<String>, .., Bound::<String>::Unbounded);
        check!(num::NonZeroU8::MIN, num::NonZeroI128::MIN, atomic::AtomicU64::new(1));
        check!(Duration::MAX, Instant::now(), SystemTime::now());
        check!(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, IpAddr::V4(Ipv4Addr::LOCALHOST));
        check!(SocketAddr::from(([0; 16], 1)), SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));
        check!(1..2_u64, 1.., ..2, 1..=2, ..=2, Reverse(1), Wrapping(1), Saturating(1));
        check!((1_u8, 2_u64), (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12_u64), [1_u16; 5], [0_u8; 0]);
        check!(None::<String>, Ok::<u8, String>(1), Cow::Borrowed("some text"), Some(1), "some text");
        check!(&vec![1, 2, 3], Box::new(()), String::new(), Vec::<u64>::new(), VecDeque::<u64>::new());
        check!(BinaryHeap::<u64>::new(), LinkedList::<u64>::new(), PathBuf::new(), OsString::new());
        check!(HashMap::<u64, u64>::new(), HashSet::<u64>::new(), BTreeMap::<u64, u64>::new());
        check!(BTreeSet::<u64>::new(), vec![(); 100], VecDeque::from([(); 100]));
        assert_eq!("abc".mem_size(), 3);
        assert_eq!([1_u32, 2, 3][..].mem_size(), 12);
        assert_eq!(Path::new("abc").mem_size(), 3);
        assert_eq!(OsStr::new("abc").mem_size(), 3);
    }

    #[test]
    fn what_is_owned_on_the_heap_counts() {
        // One text of 100 bytes, in each of its owners.
        let hundred = allocated(100);
        assert_eq!(heap_of(text(100)), hundred);
        assert_eq!(heap_of(OsString::from(text(100))), hundred);
        assert_eq!(heap_of(PathBuf::from(text(100))), hundred);
        assert_eq!(heap_of((1, text(100))), hundred);
        assert_eq!(heap_of((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, text(100))), hundred);
        assert_eq!(heap_of([text(100), text(100)]), 2 * hundred);
        assert_eq!(heap_of(Some(text(100))), hundred);
        assert_eq!(heap_of(Ok::<_, u8>(text(100))), hundred);
        assert_eq!(heap_of(Err::<u8, _>(text(100))), hundred);
        assert_eq!(heap_of(Cow::<str>::Owned(text(100))), hundred);
        assert_eq!(heap_of(Reverse(text(100))), hundred);
        assert_eq!(heap_of(Bound::Excluded(text(100))), hundred);
        assert_eq!(heap_of(text(100)..text(100)), 2 * hundred);
        assert_eq!(heap_of(text(100)..=text(100)), 2 * hundred);
        assert_eq!(heap_of(text(100)..), hundred);
        assert_eq!(heap_of(..text(100)), hundred);
        assert_eq!(heap_of(..=text(100)), hundred);
        assert_eq!([text(100)][..].mem_size(), 24 + hundred);

        assert_eq!(heap_of(Box::new(text(100))), allocated(24) + hundred);
        assert_eq!(heap_of(text(100).into_boxed_str()), hundred);
        assert_eq!(heap_of(vec![text(100)].into_boxed_slice()), allocated(24) + hundred);
        assert_eq!(heap_of(Box::new(text(100)) as Box<dyn MemSize>), allocated(24) + hundred);
        assert_eq!(heap_of(Arc::new(text(100))), allocated(16 + 24) + hundred);
        assert_eq!(heap_of(Arc::<str>::from(text(100))), allocated(16 + 100));
        assert_eq!(heap_of(Arc::<[String]>::from([text(100)])), allocated(16 + 24) + hundred);
        let shared = Arc::new(text(100));
        assert_eq!(heap_of((shared.clone(), shared.clone())), 2 * heap_of(shared));
    }

    #[test]
    fn collections_count_their_room_and_what_is_in_it() {
        let hundred = allocated(100);
        let mut names = Vec::with_capacity(10);
        names.push(text(100));
        assert_eq!(heap_of(names.clone()), allocated(24) + hundred);
        assert_eq!(heap_of(names.clone()), heap_of(VecDeque::from(names.clone())));
        assert_eq!(heap_of(names.clone()), heap_of(BinaryHeap::from(names.clone())));
        assert_eq!(heap_of(names), allocated(240) + hundred);
        assert_eq!(heap_of(LinkedList::from([text(100), text(100)])), 2 * (allocated(40) + hundred));
    }

    #[test]
    fn the_room_of_a_hash_map_follows_from_its_capacity() {
        // The number of buckets that hashbrown takes for so many entries.
        for (entries, buckets) in
            [(1, 4), (3, 4), (4, 8), (7, 8), (8, 16), (14, 16), (15, 32), (28, 32), (29, 64)]
        {
            let map: HashMap<u64, u64> = (0..entries).map(|n| (n, n)).collect();
            assert_eq!(heap_of(map), allocated(buckets * 16 + buckets + 16), "{entries} entries");
        }
        let names = HashMap::from([(text(100), text(200))]);
        assert_eq!(heap_of(names), allocated(4 * 48 + 4 + 16) + allocated(100) + allocated(200));
        let names = HashSet::from([text(100)]);
        assert_eq!(heap_of(names), allocated(4 * 24 + 4 + 16) + allocated(100));
        assert!(hash_table::<[u64; 100]>(usize::MAX) > usize::MAX / 2);
    }

    #[test]
    fn the_nodes_of_a_tree_are_found_by_the_addresses_of_its_keys() {
        let leaf = allocated(11 * 16 + 8 + 2 + 2);
        let inner = allocated(11 * 16 + 16 + 12 * 8);
        let collected = |len: u64| heap_of((0..len).map(|n| (n, n)).collect::<BTreeMap<_, _>>());
        let inserted = |len: u64| {
            let mut tree = BTreeMap::new();
            tree.extend((0..len).map(|n| (n, n)));
            heap_of(tree)
        };
        for len in 1..=11 {
            assert_eq!(collected(len), leaf);
            assert_eq!(inserted(len), leaf);
        }
        // A full leaf splits, and so does a full root above 12 leaves: each split leaves 6 behind.
        assert_eq!(inserted(12), 2 * leaf + inner);
        assert_eq!(inserted(18), 2 * leaf + inner);
        assert_eq!(inserted(19), 3 * leaf + inner);
        assert_eq!(inserted(12 * 7 + 4), 12 * leaf + inner);
        assert_eq!(inserted(12 * 7 + 5), 13 * leaf + 3 * inner);
        // Every node is full.
        assert_eq!(collected(12 * 12 - 1), 12 * leaf + inner);
        assert_eq!(collected(12 * 12 * 12 - 1), 144 * leaf + 13 * inner);
        assert_eq!(collected(12 * 12 * 12 * 12 - 1), 1728 * leaf + (144 + 13) * inner);

        let names = BTreeMap::from([(text(100), text(200))]);
        assert_eq!(heap_of(names), allocated(11 * 48 + 16) + allocated(100) + allocated(200));
        let names = BTreeSet::from([text(100)]);
        assert_eq!(heap_of(names), allocated(11 * 24 + 16) + allocated(100));
        assert_eq!(heap_of(BTreeSet::from([()])), allocated(16));
    }

    #[cfg(feature = "bytes")]
    #[test]
    fn bytes_count_as_what_they_show() {
        let bytes = bytes::Bytes::from(vec![1; 1000]);
        assert_eq!(heap_of(bytes.slice(..100)), allocated(100));
        assert_eq!(heap_of(bytes), allocated(1000));
        assert_eq!(heap_of(bytes::Bytes::new()), 0);
    }

    #[test]
    fn wrong_answers_neither_panic_nor_overflow() {
        for answer in [0, 1, 7, usize::MAX] {
            let says = || Says(answer);
            let at_least = answer.saturating_sub(size_of::<Says>());
            assert!(Some(says()).mem_size() >= at_least);
            assert!(Ok::<_, Says>(says()).mem_size() >= at_least);
            assert!(Bound::Included(says()).mem_size() >= at_least);
            assert!(Reverse(says()).mem_size() >= at_least);
            assert!((says()..says()).mem_size() >= at_least);
            assert!((says(), says(), says()).mem_size() >= at_least);
            assert!([says(), says()].mem_size() >= at_least);
            assert!(Box::new(says()).mem_size() >= at_least);
            assert!(Arc::new(says()).mem_size() >= at_least);
            assert!(Arc::<[Says]>::from([says(), says()]).mem_size() >= at_least);
            assert!(vec![says(), says()].mem_size() >= at_least);
            assert!(VecDeque::from([says(), says()]).mem_size() >= at_least);
            assert!(LinkedList::from([says(), says()]).mem_size() >= at_least);
            assert!(HashMap::from([(1, says()), (2, says())]).mem_size() >= at_least);
            assert!(BTreeMap::from([(1, says()), (2, says())]).mem_size() >= at_least);
        }
    }
}

//! A sorted map for a transaction's writes: mostly a pair or two, now and then a million.
//!
//! Pairs are kept in order in one vector or, if they are too many for one, in several consecutive
//! vectors. User code (`Ord`, destructors) runs before the first change, so it may panic at any call. A
//! search takes any condition that holds for all keys up to some point, so a range or a prefix needs no
//! bounds made for it.

use std::borrow::Borrow;
use std::mem;

/// The initial capacity for pairs.
const FEW: usize = 4;

/// The number of pairs in a full chunk.
const CHUNK: usize = 256;

/// A sorted map.
#[derive(Clone)]
pub(crate) struct Sorted<K, T> {
    /// Empty only if the map is.
    first: Vec<(K, T)>,
    /// The chunks after `first`, none of them empty.
    rest: Vec<Vec<(K, T)>>,
}

/// The index of a chunk, and the index of a pair in it.
type PairIndex = (usize, usize);

impl<K, T> Sorted<K, T> {
    pub(crate) const fn new() -> Self {
        Sorted { first: Vec::new(), rest: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Vec::len).sum::<usize>()
    }

    fn chunk(&self, chunk: usize) -> &Vec<(K, T)> {
        if chunk == 0 { &self.first } else { &self.rest[chunk - 1] }
    }

    fn chunk_mut(&mut self, chunk: usize) -> &mut Vec<(K, T)> {
        if chunk == 0 { &mut self.first } else { &mut self.rest[chunk - 1] }
    }

    /// Returns the last chunk for whose first key `before` holds, or chunk 0.
    fn chunk_where(&self, before: impl Fn(&K) -> bool) -> usize {
        self.rest.partition_point(|chunk| before(&chunk[0].0))
    }

    /// Returns the first pair for whose key `before` does not hold. `before` must hold for all keys up
    /// to some point, and for none after.
    pub(crate) fn first_behind(&self, before: impl Fn(&K) -> bool) -> Option<(&K, &T)> {
        let chunk = self.chunk_where(&before);
        let pairs = self.chunk(chunk);
        let found = pairs.get(pairs.partition_point(|(key, _)| before(key)));
        found.or_else(|| self.rest.get(chunk)?.first()).map(|(key, value)| (key, value))
    }

    /// Returns the last pair for whose key `within` holds. `within` must hold for all keys up to some
    /// point, and for none after.
    pub(crate) fn last_within(&self, within: impl Fn(&K) -> bool) -> Option<(&K, &T)> {
        let pairs = self.chunk(self.chunk_where(&within));
        let index = pairs.partition_point(|(key, _)| within(key)).checked_sub(1)?;
        pairs.get(index).map(|(key, value)| (key, value))
    }

    /// Returns the pairs, in order, by reference.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        self.first.iter().chain(self.rest.iter().flatten()).map(|(key, value)| (key, value))
    }

    /// Returns the pairs, in order.
    pub(crate) fn into_pairs(self) -> impl ExactSizeIterator<Item = (K, T)> {
        let left = self.len();
        IntoPairs { chunk: self.first.into_iter(), rest: self.rest.into_iter(), left }
    }
}

impl<K: Ord, T> Sorted<K, T> {
    /// Returns the place of a key, or the place where it belongs.
    fn find<Q>(&self, key: &Q) -> Result<PairIndex, PairIndex>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let chunk = self.chunk_where(|first| first.borrow() <= key);
        match self.chunk(chunk).binary_search_by(|(other, _)| other.borrow().cmp(key)) {
            Ok(index) => Ok((chunk, index)),
            Err(index) => Err((chunk, index)),
        }
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> Option<(&K, &T)>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let (chunk, index) = self.find(key).ok()?;
        let (key, value) = &self.chunk(chunk)[index];
        Some((key, value))
    }

    /// Puts a value under a key, and returns the old value. If the key is present, the stored key stays.
    pub(crate) fn insert(&mut self, key: K, value: T) -> Option<T> {
        let (chunk, index) = match self.find(&key) {
            Ok((chunk, index)) => {
                // Drop the key before the change, because its destructor may panic.
                drop(key);
                return Some(mem::replace(&mut self.chunk_mut(chunk)[index].1, value));
            }
            Err(place) => place,
        };
        let pairs = self.chunk_mut(chunk);
        if pairs.capacity() == 0 {
            *pairs = Vec::with_capacity(FEW);
        }
        pairs.insert(index, (key, value));
        if pairs.len() > CHUNK {
            // If the new pair comes after the last pair of a full chunk, move only the new pair to a new
            // chunk, so that ascending insertions leave full chunks.
            let behind = pairs.split_off(if index == CHUNK { CHUNK } else { CHUNK / 2 });
            self.rest.insert(chunk, behind);
        }
        None
    }

    pub(crate) fn remove<Q>(&mut self, key: &Q) -> Option<(K, T)>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let (chunk, index) = self.find(key).ok()?;
        let removed = self.chunk_mut(chunk).remove(index);
        if self.chunk(chunk).is_empty() && !self.rest.is_empty() {
            match chunk {
                0 => self.first = self.rest.remove(0),
                _ => drop(self.rest.remove(chunk - 1)),
            }
        }
        Some(removed)
    }
}

/// The iterator of [`Sorted::into_pairs`].
struct IntoPairs<K, T> {
    chunk: std::vec::IntoIter<(K, T)>,
    rest: std::vec::IntoIter<Vec<(K, T)>>,
    left: usize,
}

impl<K, T> Iterator for IntoPairs<K, T> {
    type Item = (K, T);

    fn next(&mut self) -> Option<(K, T)> {
        loop {
            if let Some(pair) = self.chunk.next() {
                self.left -= 1;
                return Some(pair);
            }
            self.chunk = self.rest.next()?.into_iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K, T> ExactSizeIterator for IntoPairs<K, T> {}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_is_a_sorted_map(steps in prop::collection::vec((0..3_u8, 0..2_000_u32), 0..4_000)) {
            let (mut map, mut model) = (Sorted::new(), BTreeMap::new());
            for (number, (what, key)) in steps.into_iter().enumerate() {
                match what {
                    0 => assert_eq!(map.remove(&key), model.remove_entry(&key)),
                    _ => assert_eq!(map.insert(key, number), model.insert(key, number)),
                }
                assert_eq!(map.get(&key), model.get_key_value(&key));
                let (low, high) = (key / 2, key / 2 + 7);
                assert_eq!(map.first_behind(|key| *key < low), model.range(low..).next());
                assert_eq!(map.last_within(|key| *key <= high), model.range(..=high).next_back());
                assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
            }
            assert!(map.iter().eq(&model));
            assert_eq!(map.clone().into_pairs().len(), model.len());
            assert!(map.into_pairs().eq(model));
        }
    }

    #[test]
    fn keys_that_come_in_order_fill_chunks() {
        let mut map = Sorted::new();
        (0..10 * CHUNK).for_each(|key| assert!(map.insert(key, ()).is_none()));
        assert_eq!(map.rest.len(), 9);
    }
}

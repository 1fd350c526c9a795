//! The first bytes of keys, by which most of them are told apart without a look at the keys.
//!
//! A comparison of two keys that lie anywhere in memory costs two cache misses and more: the
//! entry, and what its key owns. So blocks keep the lead of their lower bound beside it, and a
//! run keeps of each of its keys the few bytes in which they differ most: what follows the bytes
//! that all of them share. Graefe and Larson ("B-tree indexes and CPU caches", ICDE 2001) call
//! these poor man's normalized keys.

use std::cmp::Ordering;

/// How many bytes of a key its lead holds.
const LENGTH: usize = 32;

/// The first bytes of a key, filled up with zeros. Agrees with the order of the keys: of two
/// keys, the smaller one has no greater lead.
///
/// Kept as numbers of eight bytes each, the first byte the most significant: they compare as
/// the bytes do, and faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lead([u64; LENGTH / 8]);

impl Lead {
    /// Not greater than any.
    pub const LEAST: Lead = Lead([0; LENGTH / 8]);
    /// Not smaller than any.
    pub const GREATEST: Lead = Lead([u64::MAX; LENGTH / 8]);

    /// The lead of a key that is ordered as these bytes are.
    pub fn of(bytes: &[u8]) -> Self {
        Lead::filled_up(bytes, 0)
    }

    /// The greatest lead among those of all keys that begin with these bytes.
    pub fn last_of(prefix: &[u8]) -> Self {
        Lead::filled_up(prefix, 0xff)
    }

    fn filled_up(bytes: &[u8], with: u8) -> Self {
        let mut lead = [with; LENGTH];
        let length = bytes.len().min(LENGTH);
        lead[..length].copy_from_slice(&bytes[..length]);
        let (words, _) = lead.as_chunks();
        Lead(std::array::from_fn(|index| u64::from_be_bytes(words[index])))
    }

    fn bytes(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        let (words, _) = bytes.as_chunks_mut();
        words.iter_mut().zip(self.0).for_each(|(bytes, word)| *bytes = word.to_be_bytes());
        bytes
    }
}

/// Some bytes out of a lead.
pub(crate) type Head = u32;

/// How many bytes of the heads of a run may be the same in all of them.
const ROUGH: u8 = 1;

/// What the leads of some neighbouring keys have in common, at least.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shared {
    length: u8,
    bytes: [u8; LENGTH - size_of::<Head>()],
}

impl Shared {
    pub(crate) const NOTHING: Shared = Shared { length: 0, bytes: [0; LENGTH - size_of::<Head>()] };

    /// What all leads between these two, in order, begin with.
    pub(crate) fn between(first: &Lead, last: &Lead) -> Self {
        let (first, last) = (first.bytes(), last.bytes());
        let mut bytes = [0; LENGTH - size_of::<Head>()];
        let length = first.iter().zip(&last).take(bytes.len()).take_while(|(a, b)| a == b).count();
        bytes[..length].copy_from_slice(&first[..length]);
        Shared { length: length as u8, bytes }
    }

    /// What is to be shared by leads between these two: this, if they share it, and if it is
    /// enough to tell them apart by what comes behind.
    pub(crate) fn refined(&self, first: &Lead, last: &Lead) -> Self {
        let between = Shared::between(first, last);
        let is_shared = self.place(first).is_eq() && self.length <= between.length;
        if is_shared && between.length <= self.length + ROUGH { *self } else { between }
    }

    /// Where a lead is, seen from those that begin with this: `Equal` if it does, too.
    pub(crate) fn place(&self, lead: &Lead) -> Ordering {
        let length = usize::from(self.length);
        lead.bytes()[..length].cmp(&self.bytes[..length])
    }

    /// The bytes behind those that are shared. In the order of the leads.
    pub(crate) fn head(&self, lead: &Lead) -> Head {
        let bytes = lead.bytes();
        let (_, rest) = bytes.split_at(self.length.into());
        rest.first_chunk().map_or(0, |bytes| Head::from_be_bytes(*bytes))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn leads_agree_with_the_order_of_the_keys() {
        let long = [7; 40];
        let keys: [&[u8]; 9] = [b"", b"\0", b"a", b"a\0", b"a\0b", b"ab", &long[..32], &long, &[0xff; 33]];
        let mut sorted = keys;
        sorted.sort_unstable();
        assert!(sorted.is_sorted_by_key(|key| Lead::of(key)));
        assert!(sorted.iter().all(|key| Lead::LEAST <= Lead::of(key) && Lead::of(key) <= Lead::GREATEST));
        assert!(Lead::of(b"ab\xfe") < Lead::last_of(b"ab") && Lead::last_of(b"ab") < Lead::of(b"ac"));
        assert_eq!(Lead::last_of(&long), Lead::of(&long), "nothing is left to fill up");
    }

    #[test]
    fn heads_agree_with_the_order_of_leads_that_share_a_beginning() {
        let leads =
            ["user0010", "user0011", "user0011x", "user0100", "user1"].map(|key| Lead::of(key.as_bytes()));
        for (from, first) in leads.iter().enumerate() {
            for to in from..leads.len() {
                let shared = Shared::between(first, &leads[to]);
                let between = &leads[from..=to];
                assert!(between.iter().all(|lead| shared.place(lead) == Ordering::Equal));
                assert!(between.is_sorted_by_key(|lead| shared.head(lead)));
            }
        }
        let shared = Shared::between(&leads[0], &leads[2]);
        assert_eq!([3, 4].map(|index| shared.place(&leads[index])), [Ordering::Greater; 2]);
        assert_eq!(shared.place(&Lead::of(b"user0000")), Ordering::Less);
        assert_ne!(shared.head(&leads[0]), shared.head(&leads[1]));
        // Equal to the end of the lead.
        let same = Shared::between(&Lead::GREATEST, &Lead::GREATEST);
        assert_eq!((same.place(&Lead::GREATEST), same.head(&Lead::GREATEST)), (Ordering::Equal, Head::MAX));
    }
}

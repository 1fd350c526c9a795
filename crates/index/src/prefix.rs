//! The first bytes of keys, by which most keys are told apart without reading them.
//!
//! To compare with a key somewhere in memory costs two cache misses or more: one for the entry,
//! and one for the memory that its key owns. So a block keeps the key prefix of its lower bound beside
//! it, and a run keeps a few bytes of each of its keys, those behind the prefix that all of them
//! share. Graefe and Larson ("B-tree indexes and CPU caches", ICDE 2001) call these poor man's
//! normalized keys.

use std::cmp::Ordering;

/// How many bytes of a key its key prefix holds.
const LENGTH: usize = 32;

/// The first bytes of a key, padded with zeros. Key prefixes agree with the order of the keys: of two
/// keys, the smaller one never has the greater key prefix.
///
/// The bytes are kept as numbers of eight bytes each, the first byte the most significant. These
/// compare as the bytes do, but faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPrefix([u64; LENGTH / 8]);

impl KeyPrefix {
    /// The smallest key prefix.
    pub const LEAST: KeyPrefix = KeyPrefix([0; LENGTH / 8]);
    /// The greatest key prefix.
    pub const GREATEST: KeyPrefix = KeyPrefix([u64::MAX; LENGTH / 8]);

    /// The key prefix of a key that is ordered as these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        KeyPrefix::filled_up(bytes, 0)
    }

    /// The greatest key prefix that a key beginning with these bytes can have.
    pub fn last_of(prefix: &[u8]) -> Self {
        KeyPrefix::filled_up(prefix, 0xff)
    }

    fn filled_up(bytes: &[u8], with: u8) -> Self {
        let mut prefix = [with; LENGTH];
        let length = bytes.len().min(LENGTH);
        prefix[..length].copy_from_slice(&bytes[..length]);
        let (words, _) = prefix.as_chunks();
        KeyPrefix(std::array::from_fn(|index| u64::from_be_bytes(words[index])))
    }

    fn bytes(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        let (words, _) = bytes.as_chunks_mut();
        words.iter_mut().zip(self.0).for_each(|(bytes, word)| *bytes = word.to_be_bytes());
        bytes
    }
}

/// The bytes of a key prefix behind the prefix that a run's key prefixes share.
pub(crate) type PrefixSuffix = u32;

/// How many leading bytes of a run's suffixes may be equal in all of them before the run's shared
/// prefix is made longer.
const ROUGH: u8 = 1;

/// A prefix that the key prefixes of some neighbouring keys share; not always the longest one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommonPrefix {
    length: u8,
    bytes: [u8; LENGTH - size_of::<PrefixSuffix>()],
}

impl CommonPrefix {
    pub(crate) const NOTHING: CommonPrefix =
        CommonPrefix { length: 0, bytes: [0; LENGTH - size_of::<PrefixSuffix>()] };

    /// The longest prefix that all key prefixes from `first` to `last` share, as far as it fits.
    pub(crate) fn between(first: &KeyPrefix, last: &KeyPrefix) -> Self {
        let (first, last) = (first.bytes(), last.bytes());
        let mut bytes = [0; LENGTH - size_of::<PrefixSuffix>()];
        let length = first.iter().zip(&last).take(bytes.len()).take_while(|(a, b)| a == b).count();
        bytes[..length].copy_from_slice(&first[..length]);
        CommonPrefix { length: length as u8, bytes }
    }

    /// The prefix to keep for key prefixes from `first` to `last`: `self`, if all of them share it and
    /// at most [`ROUGH`] more bytes; otherwise the longest one.
    pub(crate) fn refined(&self, first: &KeyPrefix, last: &KeyPrefix) -> Self {
        let between = CommonPrefix::between(first, last);
        let is_shared = self.place(first).is_eq() && self.length <= between.length;
        if is_shared && between.length <= self.length + ROUGH { *self } else { between }
    }

    /// Whether a key prefix comes before or after all key prefixes with this prefix; `Equal` if it has the
    /// prefix itself.
    pub(crate) fn place(&self, prefix: &KeyPrefix) -> Ordering {
        let length = usize::from(self.length);
        prefix.bytes()[..length].cmp(&self.bytes[..length])
    }

    /// The bytes of the key prefix behind the common prefix. Suffixes are ordered as their key prefixes.
    pub(crate) fn suffix(&self, prefix: &KeyPrefix) -> PrefixSuffix {
        let bytes = prefix.bytes();
        let (_, rest) = bytes.split_at(self.length.into());
        rest.first_chunk().map_or(0, |bytes| PrefixSuffix::from_be_bytes(*bytes))
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
        assert!(sorted.is_sorted_by_key(|key| KeyPrefix::of(key)));
        assert!(
            sorted.iter().all(
                |key| KeyPrefix::LEAST <= KeyPrefix::of(key) && KeyPrefix::of(key) <= KeyPrefix::GREATEST
            )
        );
        assert!(
            KeyPrefix::of(b"ab\xfe") < KeyPrefix::last_of(b"ab")
                && KeyPrefix::last_of(b"ab") < KeyPrefix::of(b"ac")
        );
        assert_eq!(KeyPrefix::last_of(&long), KeyPrefix::of(&long), "nothing is left to fill up");
    }

    #[test]
    fn heads_agree_with_the_order_of_leads_that_share_a_beginning() {
        let prefixes = ["user0010", "user0011", "user0011x", "user0100", "user1"]
            .map(|key| KeyPrefix::of(key.as_bytes()));
        for (from, first) in prefixes.iter().enumerate() {
            for to in from..prefixes.len() {
                let common = CommonPrefix::between(first, &prefixes[to]);
                let between = &prefixes[from..=to];
                assert!(between.iter().all(|prefix| common.place(prefix) == Ordering::Equal));
                assert!(between.is_sorted_by_key(|prefix| common.suffix(prefix)));
            }
        }
        let common = CommonPrefix::between(&prefixes[0], &prefixes[2]);
        assert_eq!([3, 4].map(|index| common.place(&prefixes[index])), [Ordering::Greater; 2]);
        assert_eq!(common.place(&KeyPrefix::of(b"user0000")), Ordering::Less);
        assert_ne!(common.suffix(&prefixes[0]), common.suffix(&prefixes[1]));
        // Two key prefixes that are equal to the end.
        let same = CommonPrefix::between(&KeyPrefix::GREATEST, &KeyPrefix::GREATEST);
        assert_eq!(
            (same.place(&KeyPrefix::GREATEST), same.suffix(&KeyPrefix::GREATEST)),
            (Ordering::Equal, PrefixSuffix::MAX)
        );
    }
}

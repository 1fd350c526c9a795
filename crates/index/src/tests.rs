//! Checks of the whole structure after many kinds of work: the order and the hash
//! hold the same entries, each where it belongs.

use super::*;
use std::collections::BTreeMap;

/// Asserts everything that must hold between two calls of the writer.
fn check<K: Ord, T>(index: &Index<K, T>) {
    let reader = index.reader();
    let entries = index.list.check(&reader.guard);
    index.table.check(&entries, &reader.guard);
    assert_eq!(index.entries(), entries.len());
    // SAFETY: (I9) linked.
    let chains = entries.iter().map(|entry| unsafe { entry.as_ref() }.chain.len(&reader.guard));
    assert_eq!(index.versions(), chains.sum());
}

fn mixed(key: u32) -> u64 {
    let mixed = (u64::from(key) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 31
}

/// Commits of `size` keys each, with one snapshot that stays at the first timestamp and one that
/// follows the last but one.
fn work(hash: impl Fn(u32) -> u64, keys: impl Iterator<Item = u32>, size: usize) {
    let prefix = |key: &u32| Some(KeyPrefix::of(&key.to_be_bytes()));
    let (index, mut writer) = Index::<u32, u64>::with_prefixes(0.4, prefix);
    let keys: Vec<u32> = keys.collect();
    let mut model = BTreeMap::new();
    let mut timestamp = 0;
    for round in 0..3 {
        for (step, chunk) in keys.chunks(size).enumerate() {
            timestamp += 1;
            let reader = index.reader();
            let mut batch = reader.batch(size);
            for key in chunk {
                let value = (round != 1 && key % 5 > 0).then_some(timestamp);
                batch.push(hash(*key), *key, value);
                model.insert(*key, value);
            }
            writer.stage(&mut batch).publish(timestamp, &mut ());
            drop(batch);
            writer.trim(&Horizon::new(timestamp, vec![1, timestamp - 1]), 2 * size);
            drop(if step % 2 == 0 { writer.collect_all() } else { writer.collect(3) });
            if step % (1 + 400 / size) == 0 {
                check(&index);
            }
        }
        check(&index);
    }
    model.retain(|_, value| value.is_some());
    writer.trim(&Horizon::new(timestamp, Vec::new()), usize::MAX);
    check(&index);
    assert_eq!((index.entries(), index.versions(), writer.backlog()), (model.len(), model.len(), 0));
}

#[test]
fn what_was_made_in_advance_is_taken_only_if_it_still_fits() {
    let prefix = |key: &u32| Some(KeyPrefix::of(&key.to_be_bytes()));
    let (index, mut writer) = Index::<u32, u64>::with_prefixes(0.4, prefix);
    let mut model = BTreeMap::new();
    let (mut timestamp, mut state) = (0, 1);
    let mut random = |below: u32| {
        state = mixed(state as u32);
        (state >> 32) as u32 % below
    };
    let (mut taken, mut left) = (0, 0);
    for round in 0..200 {
        // Prepare all batches before the first is staged: the batches before it insert and remove
        // keys, and so often outdate the split that a batch has made.
        let reader = index.reader();
        let prepare = |_| {
            let (key, is_there) = (random(300 + 40 * round), random(4) > 0);
            let mut batch = reader.batch(1);
            batch.push(mixed(key), key, is_there.then_some(1));
            (batch, key, is_there)
        };
        let mut batches: Vec<_> = (0..200).map(prepare).collect();
        for (batch, key, is_there) in &mut batches {
            timestamp += 1;
            let made = batch.made();
            writer.stage(batch).publish(timestamp, &mut ());
            (taken, left) = (taken + made - batch.made(), left + batch.made());
            model.insert(*key, *is_there);
            writer.trim(&Horizon::new(timestamp, Vec::new()), usize::MAX);
        }
        drop(batches);
        drop(reader);
        drop(writer.collect_all());
        check(&index);
        model.retain(|_, is_there| *is_there);
        assert_eq!(index.entries(), model.len());
    }
    assert!(taken > 20 && left > 20, "{taken} taken, {left} left");
}

/// An index whose hash has one full segment for all hashes that begin with a 1, and several for
/// the others, so that the directory need not grow when the full segment is split.
struct Segments {
    index: Arc<Index<u32, u64>>,
    writer: Writer<u32, u64>,
    timestamp: Timestamp,
}

/// Entries in a full segment.
const FULL: u32 = 392;

impl Segments {
    fn new() -> Self {
        let (index, writer) = Index::new(0.4);
        let mut segments = Segments { index, writer, timestamp: 0 };
        (0..FULL + 1).for_each(|number| segments.commit(Self::key(0b010, number), true));
        (0..FULL).for_each(|number| segments.commit(Self::key(0b100, number), true));
        segments
    }

    /// The key with this number whose hash begins with these three bits.
    fn key(bits: u32, number: u32) -> u32 {
        bits << 29 | number
    }

    fn hash(key: u32) -> u64 {
        u64::from(key >> 29) << 61 | mixed(key) >> 3
    }

    fn commit(&mut self, key: u32, is_there: bool) {
        let index = Arc::clone(&self.index);
        let reader = index.reader();
        let mut batch = reader.batch(1);
        batch.push(Self::hash(key), key, is_there.then_some(1));
        self.stage(&mut batch);
    }

    fn stage(&mut self, batch: &mut Batch<'_, u32, u64>) {
        self.timestamp += 1;
        self.writer.stage(batch).publish(self.timestamp, &mut ());
        self.writer.trim(&Horizon::new(self.timestamp, Vec::new()), usize::MAX);
    }

    /// Prepares a batch with a key that splits the full segment, calls `meanwhile`, and stages the
    /// batch. Returns 1 if the halves that were made in advance were not used, else 0.
    fn split_after(&mut self, meanwhile: impl FnOnce(&mut Self)) -> usize {
        let index = Arc::clone(&self.index);
        let reader = index.reader();
        let mut batch = reader.batch(1);
        let key = Self::key(0b100, FULL);
        batch.push(Self::hash(key), key, Some(1));
        assert!(batch.halves.is_some(), "the segment is full");
        meanwhile(self);
        self.stage(&mut batch);
        check(&index);
        usize::from(batch.halves.is_some())
    }
}

#[test]
fn halves_are_taken_only_of_a_segment_that_has_not_changed() {
    assert_eq!(Segments::new().split_after(|_| {}), 0);
    // One key leaves the segment and another comes, so that it is full again.
    let one_for_another = |segments: &mut Segments| {
        segments.commit(Segments::key(0b100, 0), false);
        segments.commit(Segments::key(0b100, FULL + 1), true);
    };
    assert_eq!(Segments::new().split_after(one_for_another), 1);
    // Another key splits the segment, and one half gets all of its entries, so that it has counted
    // as many changes as the segment before.
    let split = |segments: &mut Segments| {
        segments.commit(Segments::key(0b110, 0), true);
    };
    assert_eq!(Segments::new().split_after(split), 1);
}

/// The numbers below `count`, each once, in no order.
fn scattered(count: u32) -> impl Iterator<Item = u32> {
    // 7919 is prime, and divides no count that is used here.
    (0..count).map(move |index| (u64::from(index) * 7919 % u64::from(count)) as u32)
}

#[test]
fn ascending() {
    work(mixed, 0..1200, 1);
    work(mixed, 0..1200, 50);
}

#[test]
fn descending() {
    work(mixed, (0..1200).rev(), 1);
    work(mixed, (0..1200).rev(), 70);
}

#[test]
fn in_no_order() {
    work(mixed, scattered(1500), 1);
    work(mixed, scattered(1500), 64);
}

#[test]
fn with_one_hash_for_all() {
    work(|_| 7, scattered(1000), 10);
}

#[test]
fn with_hashes_that_share_their_upper_bits() {
    work(|key| mixed(key) >> 24, scattered(1200), 10);
}

#[test]
fn with_hashes_that_differ_in_their_upper_bits_only() {
    work(|key| mixed(key) & !(u64::MAX >> 20), scattered(1200), 10);
}

/// Fills an index and empties it again, three times. In the second round a reader holds a pin while
/// the memory shrinks. Returns the memory of the full index.
fn grow_and_shrink(hash: impl Fn(u32) -> u64, count: u32) -> Structure {
    let (index, mut writer) = Index::<u32, u64>::new(0.4);
    let empty = index.structure();
    let mut most = empty;
    let mut timestamp = 0;
    for round in 0..3 {
        let mut commit = |keys: &[u32], value| {
            timestamp += 1;
            let reader = index.reader();
            let mut batch = reader.batch(keys.len());
            keys.iter().for_each(|key| batch.push(hash(*key), *key, value));
            writer.stage(&mut batch).publish(timestamp, &mut ());
            writer.trim(&Horizon::new(timestamp, Vec::new()), usize::MAX);
        };
        let keys: Vec<u32> = scattered(count).collect();
        keys.chunks(100).for_each(|keys| commit(keys, Some(round)));
        most = index.structure();
        let pin = (round == 1).then(|| index.reader());
        for (step, keys) in keys.chunks(100).enumerate() {
            commit(keys, None);
            if step % 8 == 0 {
                check(&index);
            }
        }
        check(&index);
        assert_eq!((index.entries(), index.structure()), (0, empty));
        drop(pin);
        drop(writer.collect_all());
        assert_eq!(writer.waiting(), Structure::default());
    }
    most
}

#[test]
fn what_keys_took_goes_with_them() {
    let bytes = grow_and_shrink(mixed, 10_000).bytes;
    assert!(bytes > 10_000 * 20, "{bytes}");
}

#[test]
fn what_keys_took_whose_hashes_are_alike_goes_with_them() {
    grow_and_shrink(|_| 7, 1000);
    grow_and_shrink(|key| mixed(key) >> 24, 2000);
    grow_and_shrink(|key| mixed(key) & !(u64::MAX >> 20), 2000);
    // Half of the hashes are alike in all bits by which segments are chosen.
    grow_and_shrink(|key| if key % 2 == 0 { mixed(key) } else { mixed(key) >> 30 }, 5000);
}

#[test]
fn blocks_with_few_entries_are_merged() {
    let prefix = |key: &u32| Some(KeyPrefix::of(&key.to_be_bytes()));
    // The keys are deleted in no order, from the left, and from the right.
    const COUNT: u32 = 9_000;
    let orders: [Vec<u32>; 3] =
        [scattered(COUNT).collect(), (0..COUNT).collect(), (0..COUNT).rev().collect()];
    for order in orders {
        let (index, mut writer) = Index::<u32, u64>::with_prefixes(0.4, prefix);
        let mut timestamp = 0;
        let mut commit = |key: u32, value| {
            timestamp += 1;
            let reader = index.reader();
            let mut batch = reader.batch(1);
            batch.push(mixed(key), key, value);
            writer.stage(&mut batch).publish(timestamp, &mut ());
            writer.trim(&Horizon::new(timestamp, Vec::new()), usize::MAX);
        };
        scattered(COUNT).for_each(|key| commit(key, Some(1)));
        let full = index.list.blocks();
        // One key of a hundred stays: less than one for each block.
        order.iter().filter(|key| **key % 100 > 0).for_each(|key| commit(*key, None));
        check(&index);
        let blocks = index.list.blocks();
        assert!(full > 150 && blocks <= 1 + 90 / 4, "{blocks} blocks of {full} for 90 keys");
        scattered(COUNT).for_each(|key| commit(key, Some(1)));
        check(&index);
        order.iter().for_each(|key| commit(*key, None));
        check(&index);
        assert_eq!(index.list.blocks(), 1);
    }
}

/// A directory that has grown for some keys is as small as before when they are deleted.
#[test]
fn segments_are_merged_where_keys_have_gone_and_nowhere_else() {
    let (index, mut writer) = Index::<u32, u64>::new(0.4);
    let mut commit = |keys: &mut dyn Iterator<Item = u32>, timestamp, value| {
        for key in keys {
            let reader = index.reader();
            let mut batch = reader.batch(1);
            batch.push(Segments::hash(key), key, value);
            writer.stage(&mut batch).publish(timestamp, &mut ());
        }
        writer.trim(&Horizon::new(timestamp, Vec::new()), usize::MAX);
        check(&index);
        index.table.structure()
    };
    let keys = |bits: u32, from: u32| (from..3 * FULL).map(move |number| Segments::key(bits, number));
    let half = commit(&mut keys(0b000, 0), 1, Some(1));
    let full = commit(&mut keys(0b100, 0), 2, Some(1));
    assert!(full.bytes > half.bytes);
    assert_eq!(commit(&mut keys(0b100, 0), 3, None), half);
    let few = FULL / 8;
    commit(&mut keys(0b000, few), 4, None);
    assert_eq!(index.table.structure(), Index::<u32, u64>::new(0.4).0.table.structure());
}

#[test]
fn keys_that_arrive_in_order_fill_their_blocks() {
    let (index, mut writer) = Index::<u32, u32>::new(0.25);
    for key in 0..6300 {
        let reader = index.reader();
        let mut batch = reader.batch(1);
        batch.push(mixed(key), key, Some(key));
        writer.stage(&mut batch).publish(u64::from(key) + 1, &mut ());
    }
    assert_eq!(index.list.blocks(), 6300 / block::RUN_CAPACITY);
    // Every block is unlinked with its last entry.
    for key in 0..6300 {
        let reader = index.reader();
        let mut batch = reader.batch(1);
        batch.push(mixed(key), key, None);
        writer.stage(&mut batch).publish(7000 + u64::from(key), &mut ());
    }
    writer.trim(&Horizon::new(20_000, Vec::new()), usize::MAX);
    assert_eq!(index.list.blocks(), 1);
    check(&index);
}

#[test]
fn a_place_in_a_block_that_goes_is_found_anew() {
    let (index, mut writer) = Index::<usize, ()>::new(0.25);
    let commit = |writer: &mut Writer<usize, ()>, timestamp, key, value| {
        let reader = index.reader();
        let mut batch = reader.batch(1);
        batch.push(key as u64, key, value);
        writer.stage(&mut batch).publish(timestamp, &mut ());
    };
    let last = block::RUN_CAPACITY;
    (0..=last).for_each(|key| commit(&mut writer, 1, key, Some(())));
    assert_eq!(index.list.blocks(), 2);
    commit(&mut writer, 2, last, None);

    let reader = index.reader();
    let mut batch = reader.batch(1);
    batch.push(1000, 1000, Some(()));
    writer.trim(&Horizon::new(2, Vec::new()), usize::MAX);
    assert_eq!(index.list.blocks(), 1);
    writer.stage(&mut batch).publish(3, &mut ());
    check(&index);
}

//! The metadata of versions, such as weights and expiry times, and the deletion of current entries.

use fluxmap_index::{
    Access, AccessTracking, Change, Direction, Horizon, Index, Ledger, ReadPoint, Reader, Span, VersionMeta,
    Writer,
};
use std::ops::ControlFlow;
use std::sync::Arc;

struct All;

impl Span<u32> for All {
    fn is_before(&self, _: &u32) -> bool {
        false
    }

    fn is_after(&self, _: &u32) -> bool {
        false
    }
}

fn hash(key: u32) -> u64 {
    (u64::from(key) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn meta(weight: u32, expires: u64) -> VersionMeta {
    VersionMeta { weight, expires, ..VersionMeta::default() }
}

type Value = Arc<u32>;

/// Records all changes, and numbers the versions.
#[derive(Default)]
struct Told(Vec<Change>);

impl Ledger for Told {
    fn record(&mut self, change: Change, meta: Option<&mut VersionMeta>) {
        self.0.push(change);
        if let Some(meta) = meta {
            meta.node = self.0.len() as u32;
        }
    }
}

struct Store {
    index: Arc<Index<u32, Value>>,
    writer: Writer<u32, Value>,
    told: Told,
    now: u64,
}

impl Store {
    fn new() -> Self {
        let (index, writer) = Index::new(0.25);
        Store { index, writer, told: Told::default(), now: 0 }
    }

    fn write(&mut self, key: u32, value: Option<&Value>, meta: Option<VersionMeta>) {
        self.now += 1;
        let reader = self.index.reader();
        let mut batch = reader.batch(1);
        batch.push_with(hash(key), key, value.cloned(), meta, 100);
        self.writer.stage(&mut batch).publish(self.now, &mut self.told);
    }

    /// Trims and frees everything that can be trimmed and freed.
    fn tidy(&mut self) {
        self.writer.trim(&Horizon::new(self.now, Vec::new()), usize::MAX);
        drop(self.writer.collect_all());
    }

    fn read(&self, key: u32, time: u64) -> Option<u32> {
        let read_point = ReadPoint { timestamp: self.now, time };
        self.index.reader().get_at(hash(key), &key, read_point).map(|value| **value)
    }
}

fn there<'r>(
    reader: &'r Reader<'_, u32, Value>,
    key: u32,
) -> Option<fluxmap_index::CurrentEntry<'r, u32, Value>> {
    reader.resident(hash(key), |resident| *resident.key() == key)
}

#[test]
fn a_value_is_there_until_it_expires_for_whoever_asks_at_that_time() {
    let mut store = Store::new();
    store.write(1, Some(&Arc::new(7)), Some(meta(1, 50)));
    store.write(2, Some(&Arc::new(8)), None);
    assert_eq!((store.read(1, 0), store.read(1, 49), store.read(1, 50)), (Some(7), Some(7), None));
    assert_eq!(store.read(2, u64::MAX), Some(8));
    let seen_at = |time| {
        let mut seen = Vec::new();
        store.index.reader().scan(
            &All,
            Direction::Forward,
            ReadPoint { timestamp: store.now, time },
            |_, _| {},
            |pairs| {
                seen.extend(pairs.iter().map(|(key, _)| **key));
                ControlFlow::Continue(())
            },
        );
        seen
    };
    assert_eq!((seen_at(49), seen_at(50)), (vec![1, 2], vec![2]));
    let reader = store.index.reader();
    let latest = |time| reader.latest(hash(1), &1, || store.now, || time).is_some();
    assert!(latest(49) && !latest(50));
}

#[test]
fn an_expiry_counts_as_a_change_between_two_times() {
    let mut store = Store::new();
    store.write(1, Some(&Arc::new(7)), Some(meta(1, 50)));
    let reader = store.index.reader();
    let since = |time| ReadPoint { timestamp: store.now, time };
    assert!(!reader.changed(hash(1), since(10), 49));
    assert!(reader.changed(hash(1), since(10), 50));
    assert!(!reader.changed(hash(1), since(50), 60), "the value had expired before");
    assert!(reader.changed_within(&All, since(49), 50) && !reader.changed_within(&All, since(49), 49));
}

#[test]
fn versions_with_and_without_metadata_are_freed_once_each() {
    let value = Arc::new(7);
    let mut store = Store::new();
    for round in 0..6 {
        for key in 0..200 {
            let with_meta = ((key + round) % 2 == 0).then(|| meta(3, 0));
            let written = (key + round) % 5 > 0;
            store.write(key, written.then_some(&value), with_meta);
        }
        store.writer.trim(&Horizon::new(store.now, vec![store.now / 2]), 150);
        drop(if round % 2 == 0 { store.writer.collect_all() } else { store.writer.collect(5) });
    }
    store.tidy();
    let left = store.index.versions();
    assert_eq!(Arc::strong_count(&value), left + 1, "one for each value in the index");
    drop(store);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn what_is_superseded_weighs_until_it_is_freed() {
    let value = Arc::new(7);
    let mut store = Store::new();
    store.write(1, Some(&value), Some(meta(10, 0)));
    assert_eq!(store.index.superseded_weight(), 0);
    store.write(1, Some(&value), Some(meta(20, 0)));
    assert_eq!(store.index.superseded_weight(), 10);
    store.write(1, None, Some(meta(2, 0)));
    assert_eq!(store.index.superseded_weight(), 10 + 20 + 2);
    let reader = store.index.reader();
    store.writer.trim(&Horizon::new(store.now, Vec::new()), usize::MAX);
    drop(store.writer.collect_all());
    assert_eq!(store.index.superseded_weight(), 32, "a reader may still be looking at it");
    drop(reader);
    drop(store.writer.collect_all());
    assert_eq!(store.index.superseded_weight(), 0);
}

#[test]
fn the_ledger_is_told_what_each_version_supersedes() {
    let value = Arc::new(7);
    let mut store = Store::new();
    store.write(1, Some(&value), Some(meta(10, 0)));
    store.write(1, Some(&value), Some(meta(20, 0)));
    store.write(1, None, Some(meta(2, 0)));
    store.write(1, None, Some(meta(2, 0)));
    store.write(1, Some(&value), None);
    let told = |change: &Change| {
        let before = change.before.map(|before| before.meta.map(|meta| (meta.weight, meta.node)));
        (change.is_value, before, change.key_weight)
    };
    let expected = [
        (true, None, 100),
        (true, Some(Some((10, 1))), 100),
        (false, Some(Some((20, 2))), 100),
        (false, None, 100),
        (true, None, 100),
    ];
    assert_eq!(store.told.0.iter().map(told).collect::<Vec<_>>(), expected);
}

#[test]
fn a_resident_is_deleted_unless_it_has_changed_since_it_was_looked_up() {
    let mut store = Store::new();
    store.write(1, Some(&Arc::new(7)), None);
    store.write(2, Some(&Arc::new(8)), None);
    let index = Arc::clone(&store.index);
    let reader = index.reader();
    let (one, two) = (there(&reader, 1).expect("written"), there(&reader, 2).expect("written"));
    store.write(2, Some(&Arc::new(9)), None);
    store.now += 1;
    assert!(store.writer.delete(&one, None, store.now, &mut store.told));
    assert!(!store.writer.delete(&two, None, store.now, &mut store.told), "the key has been overwritten");
    assert!(!store.writer.delete(&one, None, store.now, &mut store.told), "the key has been deleted");
    assert_eq!((store.read(1, 0), store.read(2, 0)), (None, Some(9)));
    assert!(there(&reader, 1).is_none());
    store.tidy();
    assert!(!store.writer.delete(&one, None, store.now, &mut store.told), "the entry has been unlinked");
    drop(reader);
    store.tidy();
    assert_eq!((index.entries(), index.versions()), (1, 1));
}

#[test]
#[should_panic(expected = "belongs to the index")]
fn a_resident_of_another_index_is_refused() {
    let (mut store, mut other) = (Store::new(), Store::new());
    store.write(1, Some(&Arc::new(7)), None);
    let index = Arc::clone(&store.index);
    let reader = index.reader();
    let one = there(&reader, 1).expect("written");
    other.writer.delete(&one, None, 1, &mut ());
}

#[test]
fn reads_leave_the_generation_and_a_count_and_scans_do_not() {
    let mut store = Store::new();
    store.writer.note_reads(AccessTracking::UpTo(2));
    store.writer.set_generation(5);
    store.write(1, Some(&Arc::new(7)), None);
    let index = Arc::clone(&store.index);
    let access = || there(&index.reader(), 1).expect("it is there").access();
    assert_eq!(access(), Access::new(5, 0));
    store.writer.set_generation(6);
    index.reader().residents(&All, store.now, |_| ControlFlow::Continue(()));
    assert_eq!(access(), Access::new(5, 0), "nobody has read it");
    for count in [1, 2, 2] {
        assert_eq!(store.read(1, 0), Some(7));
        assert_eq!(access(), Access::new(6, count));
    }
    assert_eq!(store.read(2, 0), None);
    assert_eq!(index.lookups(), (3, 1));
    store.write(1, None, None);
    store.write(1, Some(&Arc::new(7)), None);
    assert_eq!(access(), Access::new(6, 0), "the key was inserted again");
}

#[test]
fn counts_of_magnitude_grow_ever_more_slowly() {
    let mut store = Store::new();
    store.writer.note_reads(AccessTracking::Magnitude);
    store.write(1, Some(&Arc::new(7)), None);
    let count_after = |reads: u32| {
        for _ in 0..reads {
            store.read(1, 0);
        }
        there(&store.index.reader(), 1).expect("it is there").access().count()
    };
    assert_eq!(count_after(1), 1);
    let thousand = count_after(1000);
    assert!((7..=12).contains(&thousand), "{thousand}");
    assert_eq!(count_after(1 << 17), fluxmap_index::MOST_READS);
}

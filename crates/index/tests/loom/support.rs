//! Shared by the models: keys and values that notice when they are read after they
//! are dropped, or at the same time; and a small store.

use fluxmap_index::{Batch, Direction, Horizon, Index, KeyPrefix, Reader, Span, Timestamp, Writer};
use loom::alloc::Track;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, Ordering};
use std::cell::Cell;
use std::cmp;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Runs `model` under all interleavings with up to three preemptions, or as many
/// as `LOOM_MAX_PREEMPTIONS` says.
pub(crate) fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.max_branches = 20_000;
    builder.check(move || {
        model();
        assert!(!DROPPED_TOO_EARLY.take(), "a key or value was dropped before the last read of it ended");
    });
}

thread_local! {
    /// Whether loom has reported a drop that raced with a read. Loom panics within the
    /// destructor, where the index contains panics, so the report is kept here. All
    /// threads of a model run on one thread of the system.
    static DROPPED_TOO_EARLY: Cell<bool> = const { Cell::new(false) };
}

/// Fails the model if a read of it is not ordered before its drop, or if it is
/// never dropped.
struct Canary {
    life: UnsafeCell<()>,
    _leaks: Track<()>,
}

// SAFETY: loom checks every access.
unsafe impl Sync for Canary {}

impl Canary {
    fn new() -> Self {
        Canary { life: UnsafeCell::new(()), _leaks: Track::new(()) }
    }

    fn look(&self) {
        self.life.with(|_| ());
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let end = catch_unwind(AssertUnwindSafe(|| self.life.with_mut(|_| ())));
        DROPPED_TOO_EARLY.set(DROPPED_TOO_EARLY.get() || end.is_err());
    }
}

pub(crate) struct Key {
    number: u8,
    canary: Canary,
}

impl Key {
    pub(crate) fn new(number: u8) -> Self {
        Key { number, canary: Canary::new() }
    }

    pub(crate) fn number(&self) -> u8 {
        self.canary.look();
        self.number
    }
}

impl Clone for Key {
    fn clone(&self) -> Self {
        Key::new(self.number())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.number() == other.number()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.number().cmp(&other.number())
    }
}

pub(crate) struct Value {
    number: u64,
    canary: Canary,
}

impl Value {
    pub(crate) fn number(&self) -> u64 {
        self.canary.look();
        self.number
    }
}

/// Keys have key prefixes where runs are wide.
fn prefix(number: u8) -> Option<KeyPrefix> {
    cfg!(wide).then(|| KeyPrefix::of(&[number]))
}

/// Keys from the first to the second number.
pub(crate) struct Between(pub(crate) u8, pub(crate) u8);

impl Span<Key> for Between {
    fn is_before(&self, key: &Key) -> bool {
        key.number() < self.0
    }

    fn is_after(&self, key: &Key) -> bool {
        key.number() > self.1
    }

    fn prefixes(&self) -> Option<[KeyPrefix; 2]> {
        Some([prefix(self.0)?, prefix(self.1)?])
    }
}

/// Every key.
pub(crate) const ALL: Between = Between(0, u8::MAX);

/// The hash of a key. The upper bits, by which segments are chosen, are the bits of
/// the number in reverse order; the tags of all keys are equal.
pub(crate) fn spread(number: u8) -> u64 {
    u64::from(number.reverse_bits()) << 56
}

/// One hash for all keys.
pub(crate) fn constant(_: u8) -> u64 {
    0
}

/// The side of a store that readers and the writer share: an index and the clock.
pub(crate) struct Store {
    pub(crate) index: Arc<Index<Key, Value>>,
    clock: AtomicU64,
    hash: fn(u8) -> u64,
}

/// One write of a commit.
pub(crate) type Write = (u8, Option<u64>);

impl Store {
    pub(crate) fn with(hash: fn(u8) -> u64, probability: f64) -> (Arc<Self>, Writer<Key, Value>) {
        let (index, writer) = Index::with_prefixes(probability, |key: &Key| prefix(key.number()));
        (Arc::new(Store { index, clock: AtomicU64::new(0), hash }), writer)
    }

    pub(crate) fn new() -> (Arc<Self>, Writer<Key, Value>) {
        Self::with(spread, 0.25)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.load(Ordering::Acquire)
    }

    pub(crate) fn prepare<'r>(
        &self,
        reader: &'r Reader<'r, Key, Value>,
        writes: &[Write],
    ) -> Batch<'r, Key, Value> {
        let mut batch = reader.batch(writes.len());
        for (key, value) in writes {
            let value = value.map(|number| Value { number, canary: Canary::new() });
            batch.push((self.hash)(*key), Key::new(*key), value);
        }
        batch
    }

    /// Stages and publishes a batch, and advances the clock.
    pub(crate) fn publish(&self, writer: &mut Writer<Key, Value>, mut batch: Batch<'_, Key, Value>) {
        let timestamp = self.clock.load(Ordering::Relaxed) + 1;
        writer.stage(&mut batch).publish(timestamp, &mut ());
        self.clock.store(timestamp, Ordering::Release);
    }

    /// One commit from start to end.
    pub(crate) fn commit(&self, writer: &mut Writer<Key, Value>, writes: &[Write]) {
        let reader = self.index.reader();
        self.publish(writer, self.prepare(&reader, writes));
    }

    /// One commit for each key, whose value is its own number.
    pub(crate) fn fill(&self, writer: &mut Writer<Key, Value>, keys: &[u8]) {
        for key in keys {
            self.commit(writer, &[(*key, Some(u64::from(*key)))]);
        }
    }

    /// Trims everything that these live snapshots do not see, and frees what no reader can reach.
    pub(crate) fn vacuum(&self, writer: &mut Writer<Key, Value>, live: &[Timestamp]) {
        self.trim(writer, live);
        drop(writer.collect_all());
    }

    pub(crate) fn trim(&self, writer: &mut Writer<Key, Value>, live: &[Timestamp]) {
        writer.trim(&self.horizon(live), usize::MAX);
    }

    pub(crate) fn horizon(&self, live: &[Timestamp]) -> Horizon {
        Horizon::new(self.now(), live.to_vec())
    }

    pub(crate) fn get_at(&self, key: u8, timestamp: Timestamp) -> Option<u64> {
        let reader = self.index.reader();
        reader.get_at((self.hash)(key), &Key::new(key), timestamp).map(Value::number)
    }

    pub(crate) fn latest(&self, key: u8) -> Option<u64> {
        let reader = self.index.reader();
        reader.latest((self.hash)(key), &Key::new(key), || self.now(), || 0).map(Value::number)
    }

    pub(crate) fn changed(&self, key: u8, timestamp: Timestamp) -> bool {
        self.index.reader().changed((self.hash)(key), timestamp, 0)
    }

    /// The keys of `span`, in the order in which a scan visits them.
    pub(crate) fn scan(&self, span: &Between, direction: Direction, timestamp: Timestamp) -> Vec<u8> {
        let reader = self.index.reader();
        let mut found = Vec::new();
        reader.scan(
            span,
            direction,
            timestamp,
            |_, _| {},
            |pairs| {
                for (key, value) in pairs {
                    value.number();
                    found.push(key.number());
                }
                ControlFlow::Continue(())
            },
        );
        found
    }
}

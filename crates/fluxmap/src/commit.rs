//! THE order of commits.
//!
//! [`Committer::commit`] is the only function that changes what readers see. One
//! at a time, under one lock, a commit is certified, stamped and published;
//! looking up keys, finding places, allocating, and most of the certification
//! happen before the lock is taken, and destructors run after it is released.

use crate::error::FluxError;
use crate::mvcc::active::Active;
use crate::mvcc::certify::Certificate;
use crate::mvcc::clock::Clock;
use crate::mvcc::gc::Collector;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::txn::write_set::Write;
use fluxmap_index::{Batch, Freed, Index, Reader, Timestamp, Trimmed, Writer};
use foldhash::fast::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// How often a large read set is checked outside the lock, each time against
/// what was committed during the check before, until the rest is checked inside.
const CHECKS_OUTSIDE: usize = 3;

/// No timestamp: the clock does not get this far.
const NO_SNAPSHOT: Timestamp = Timestamp::MAX;

/// Everything that commits and reads of one database share.
pub(crate) struct Committer<K, V> {
    pub(crate) index: Arc<Index<K, Arc<V>>>,
    pub(crate) clock: Clock,
    pub(crate) active: Active,
    hasher: RandomState,
    /// The snapshot whose end would let much garbage go, or [`NO_SNAPSHOT`].
    blocker: AtomicU64,
    order: Mutex<Order<K, V>>,
}

/// What only the holder of the commit lock touches.
struct Order<K, V> {
    writer: Writer<K, Arc<V>>,
    collector: Collector,
}

impl<K: Ord + Clone, V> Committer<K, V> {
    pub(crate) fn new(skiplist_p: f64) -> Self {
        let (index, writer) = Index::new(skiplist_p);
        Committer {
            index,
            clock: Clock::default(),
            active: Active::default(),
            hasher: RandomState::default(),
            blocker: AtomicU64::new(NO_SNAPSHOT),
            order: Mutex::new(Order { writer, collector: Collector::default() }),
        }
    }

    pub(crate) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.hasher.hash_one(key)
    }
}

impl<K: Ord + Hash + Clone, V> Committer<K, V> {
    /// Applies the writes as one, if `certificate` holds; a write that rests on
    /// nothing that was read needs none. On an error nothing has happened.
    pub(crate) fn commit(
        &self,
        certificate: Option<&Certificate<'_, K>>,
        writes: impl ExactSizeIterator<Item = (K, Write<V>)>,
    ) -> Result<(), FluxError> {
        let reader = self.reader();
        let mut batch = reader.batch(writes.len());
        for (key, write) in writes {
            batch.push(self.hash(&key), key, write);
        }

        let mut checks = 0;
        let freed = loop {
            let checked_at = self.clock.now();
            if let Some(certificate) = certificate {
                certificate.check(&reader, &batch)?;
            }
            checks += 1;

            let mut order = self.order.lock();
            // Certify. What was committed since the check above is all that can
            // be new; mostly that is nothing.
            if let Some(certificate) = certificate.filter(|_| self.clock.now() != checked_at) {
                if !certificate.reads.is_cheap() && checks < CHECKS_OUTSIDE {
                    continue;
                }
                certificate.check(&reader, &batch)?;
            }
            break order.apply(&mut batch, self);
        };
        // Outside the lock: destructors of keys and values.
        drop(batch);
        drop(reader);
        drop(freed);
        Ok(())
    }

    /// Looks at the live snapshots, so that trimming knows of those that have gone.
    /// Returns how many chains wait to be trimmed.
    pub(crate) fn refresh_horizon(&self) -> usize {
        let mut order = self.order.lock();
        order.collector.refresh(&self.active, &self.clock);
        order.writer.backlog()
    }

    /// Trims up to `budget` chains.
    pub(crate) fn trim(&self, budget: usize) -> Trimmed {
        let mut order = self.order.lock();
        let Order { writer, collector } = &mut *order;
        let trimmed = writer.trim(collector.horizon(), budget);
        let backlog = writer.backlog();
        self.note_blocker(collector, backlog);
        let freed = writer.collect(true);
        drop(order);
        drop(freed);
        trimmed
    }

    /// How many keys wait to be trimmed.
    pub(crate) fn backlog(&self) -> usize {
        self.order.lock().writer.backlog()
    }

    fn note_blocker(&self, collector: &Collector, backlog: usize) {
        // Relaxed: a hint; who misses it leaves the work to later commits.
        self.blocker.store(collector.blocker(backlog).unwrap_or(NO_SNAPSHOT), Ordering::Relaxed);
    }

    /// Whether the end of the snapshot at this timestamp lets much garbage go.
    pub(crate) fn is_blocker(&self, timestamp: Timestamp) -> bool {
        self.blocker.load(Ordering::Relaxed) == timestamp
    }
}

impl<K: Ord + Hash + Clone, V> Order<K, V> {
    /// Stamps and publishes a certified batch.
    fn apply(&mut self, batch: &mut Batch<'_, K, Arc<V>>, shared: &Committer<K, V>) -> Freed<K, Arc<V>> {
        let writes = batch.len();
        // User code (`Eq`, `Ord`, `Clone`) may panic in here; nobody would see
        // a trace of the batch.
        let staged = self.writer.stage(batch);
        // Stamp. From here on nothing can fail.
        let timestamp = shared.clock.now() + 1;
        // Publish: first every version, then the clock that makes them visible.
        staged.publish(timestamp);
        shared.clock.publish(timestamp);

        self.collector.after_commit(&mut self.writer, writes, &shared.active, &shared.clock);
        shared.note_blocker(&self.collector, self.writer.backlog());
        self.writer.collect(false)
    }
}

impl<K: Ord, V> Committer<K, V> {
    /// A short look at the index.
    pub(crate) fn reader(&self) -> Reader<'_, K, Arc<V>> {
        self.index.reader()
    }
}

//! THE order of commits.
//!
//! [`Committer::commit`] is the only function that changes what readers see. One
//! at a time, under one lock, a commit is certified, stamped, queued for the log and
//! published. Looking up keys, finding places, allocating, encoding, and most of the
//! certification happen before the lock is taken; writing and syncing the log, and
//! destructors, after it is released.

use crate::error::{FluxError, PersistenceError};
use crate::mvcc::active::Active;
use crate::mvcc::certify::Certificate;
use crate::mvcc::clock::Clock;
use crate::mvcc::gc::Collector;
use crate::storage::Durable;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::txn::write_set::Write;
use crate::wal::format::push_operation;
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
    pub(crate) clock: Arc<Clock>,
    /// How commits become durable, if they do.
    pub(crate) durable: Option<Durable<K, V>>,
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
            clock: Arc::default(),
            durable: None,
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
    ///
    /// Returns the commit's timestamp. In a durable database, it is to be acknowledged
    /// when the clock's stable hand has reached that, which it will, whether anybody
    /// waits or not.
    pub(crate) fn commit(
        &self,
        certificate: Option<&Certificate<'_, K>>,
        writes: impl ExactSizeIterator<Item = (K, Write<V>)>,
    ) -> Result<Timestamp, FluxError> {
        let reader = self.reader();
        let mut batch = reader.batch(writes.len());
        let mut record = Vec::new();
        for (key, write) in writes {
            if let Some(durable) = &self.durable {
                durable.encode(&key, write.as_deref(), &mut record)?;
            }
            batch.push(self.hash(&key), key, write);
        }

        let mut checks = 0;
        let (timestamp, freed) = loop {
            let checked_at = self.clock.applied();
            if let Some(certificate) = certificate
                && let Err(conflict) = certificate.check(&reader, &batch)
            {
                // It may have met a commit whose versions are there and whose timestamp is
                // not: wait for it, so that whoever runs again does not meet it again.
                drop(self.order.lock());
                return Err(conflict);
            }
            checks += 1;

            let mut order = self.order.lock();
            // Certify. What was committed since the check above is all that can
            // be new; mostly that is nothing.
            if let Some(certificate) = certificate.filter(|_| self.clock.applied() != checked_at) {
                if !certificate.reads.is_cheap() && checks < CHECKS_OUTSIDE {
                    continue;
                }
                certificate.check(&reader, &batch)?;
            }
            break order.apply(&mut batch, self, record)?;
        };
        if let Some(durable) = &self.durable {
            // Before the destructors: they may panic, or wait for commits.
            durable.log.after_commit();
        }
        // Outside the lock: destructors of keys and values.
        drop(batch);
        drop(reader);
        drop(freed);
        Ok(timestamp)
    }

    /// Applies a commit that was read back: as [`commit`](Self::commit), at a timestamp
    /// that is known. Nobody else may be using the database.
    pub(crate) fn restore(&self, timestamp: Timestamp, writes: impl ExactSizeIterator<Item = (K, Write<V>)>) {
        let reader = self.reader();
        let mut batch = reader.batch(writes.len());
        for (key, write) in writes {
            batch.push(self.hash(&key), key, write);
        }
        let mut order = self.order.lock();
        let staged = order.writer.stage(&mut batch);
        staged.publish(timestamp);
        self.settle(timestamp);
        let freed = order.after_publish(batch.len(), self);
        drop(order);
        drop(batch);
        drop(reader);
        drop(freed);
    }

    /// Sets the clock to the last commit that was read back.
    pub(crate) fn settle(&self, timestamp: Timestamp) {
        self.clock.apply(timestamp);
        self.clock.settle_at_once(timestamp);
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
    /// Stamps, logs and publishes a certified batch.
    fn apply(
        &mut self,
        batch: &mut Batch<'_, K, Arc<V>>,
        shared: &Committer<K, V>,
        record: Vec<u8>,
    ) -> Result<(Timestamp, Freed<K, Arc<V>>), FluxError> {
        let writes = batch.len();
        // User code (`Eq`, `Ord`, `Clone`) may panic in here; nobody would see
        // a trace of the batch.
        let staged = self.writer.stage(batch);
        // The log refuses commits after it has failed.
        let slot = shared.durable.as_ref().map(|durable| durable.log.reserve()).transpose()?;
        // Stamp. From here on nothing can fail.
        let timestamp = shared.clock.applied() + 1;
        // Log. It is written later; while the slot is held, it cannot be (W2).
        let slot = slot.map(|slot| slot.push(timestamp, record));
        // Publish: first every version, then the clock that makes them visible.
        staged.publish(timestamp);
        shared.clock.apply(timestamp);
        match slot {
            Some(slot) => drop(slot),
            None => shared.clock.settle_at_once(timestamp),
        }
        Ok((timestamp, self.after_publish(writes, shared)))
    }

    /// A commit's share of tidying up.
    fn after_publish(&mut self, writes: usize, shared: &Committer<K, V>) -> Freed<K, Arc<V>> {
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

impl<K: Ord, V> Durable<K, V> {
    /// Appends a write to a commit's record, and makes sure that it comes back.
    fn encode(&self, key: &K, value: Option<&V>, record: &mut Vec<u8>) -> Result<(), FluxError> {
        let coder = &self.coder;
        let unstorable = PersistenceError::unstorable;
        let put_key = |into: &mut Vec<u8>| {
            let start = into.len();
            coder.encode_key(key, into).map_err(unstorable("key"))?;
            if !self.check {
                return Ok(());
            }
            // Keys can be compared: two that differ must not become one.
            let decoded = coder.decode_key(&into[start..]).map_err(unstorable("key"))?;
            match decoded == *key {
                true => Ok(()),
                false => Err(unstorable("key")(coder.comes_back_different())),
            }
        };
        let put_value = value.map(|value| {
            move |into: &mut Vec<u8>| {
                let start = into.len();
                coder.encode_value(value, into).map_err(unstorable("value"))?;
                if self.check {
                    coder.check_value(&into[start..]).map_err(unstorable("value"))
                } else {
                    Ok(())
                }
            }
        });
        push_operation(record, put_key, put_value)?;
        Ok(self.log.check_size(record.len())?)
    }
}

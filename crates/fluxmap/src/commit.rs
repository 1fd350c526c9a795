//! The write order of commits.
//!
//! [`Committer::commit`] is the only function that changes what readers see, apart from the deletes of
//! `mem/removal.rs`, which take the same steps from the stamp on, and `replay.rs`, which runs before
//! the database is in use. Commits are certified, stamped, queued for the log and published one at a
//! time, under one lock. Hashing, finding places in the index, allocating, encoding, and most of the
//! certification happen before the lock is taken; writing and syncing the log, making room, and
//! destructors, after it is released.
//!
//! User code that runs under the commit lock: `Ord`, `Eq` and `Clone` of keys (staging, trimming) and
//! the time source. Under the log's queue lock, which is taken within the commit lock, no user code runs
//! at all: no `Serialize`, no `Deserialize` and no destructor.

pub(crate) mod drop_deferred;
mod memory_info;
mod read_point;
mod replay;
mod vacuum;

use self::drop_deferred::drop_deferred;
use crate::error::{FluxError, PersistenceError};
use crate::host::Host;
use crate::key::prefix_of;
use crate::mem::evict::{Listener, NotifyOnDrop};
use crate::mem::expiry::ExpiryClock;
use crate::mem::ledger::{MemoryLedger, Room, to_bytes};
use crate::mem::removal::{Need, Removal};
use crate::mem::weigher::{TOMBSTONE, Weigher};
use crate::mem::{EvictionPolicy, TimeSource, UNIT};
use crate::mvcc::active::Active;
use crate::mvcc::certify::Certificate;
use crate::mvcc::clock::Clock;
use crate::mvcc::gc::Collector;
use crate::storage::Durable;
use crate::sync::{AtomicU64, HashState, Mutex, Ordering};
use crate::txn::priority::Priority;
use crate::txn::write_set::{Put, Write};
use crate::wal::format::{MAX_COMMIT, push_operation};
use fluxmap_index::{
    AccessTracking, Batch, Freed, Index, Reader, Time, Timestamp, VersionMeta, Writer, planted,
};
use std::hash::{BuildHasher, Hash};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How often a large read set is checked outside the lock. Each check covers the commits made during the
/// previous one; the remainder is checked under the lock.
const CHECKS_OUTSIDE: usize = 3;

/// Marks the absence of a snapshot: the clock never reaches this timestamp.
const NO_SNAPSHOT: Timestamp = Timestamp::MAX;

/// The state that all commits and reads of one database share.
pub(crate) struct Committer<K, V> {
    pub(crate) index: Arc<Index<K, Arc<V>>>,
    pub(crate) clock: Arc<Clock>,
    /// The log and the encoding, in a durable database.
    pub(crate) durable: Option<Durable<K, V>>,
    pub(crate) active: Active,
    pub(crate) expiry_clock: ExpiryClock,
    /// Called with every evicted key.
    pub(crate) listener: Option<Listener<K, V>>,
    /// The memory limit, in bytes, and how keys and values are weighed against it.
    limit: Option<(u64, Weigher<K, V>)>,
    /// How the index notes reads of keys, for the eviction policy.
    noting: AccessTracking,
    /// The time to live of values that are written without one.
    default_ttl: Option<Duration>,
    /// Whether recovery gave that time to live to values whose files do not have it yet.
    pub(crate) gave_default_ttl: AtomicBool,
    hasher: HashState,
    pub(crate) host: Host,
    /// The snapshot whose end would free much garbage, or [`NO_SNAPSHOT`].
    blocker: AtomicU64,
    /// Whether a key expires before the background thread would wake by itself.
    wakeup_is_due: AtomicBool,
    pub(crate) section: CachePadded<Mutex<CommitSection<K, V>>>,
}

/// A value on cache lines of its own (two, because the adjacent-line prefetcher of x86 pairs them).
/// Every commit writes the [`CommitSection`], and every get reads the fields that would otherwise share its
/// lines.
#[repr(align(128))]
pub(crate) struct CachePadded<T>(T);

impl<T> Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The state that only the holder of the commit lock touches.
pub(crate) struct CommitSection<K, V> {
    pub(crate) writer: Writer<K, Arc<V>>,
    pub(crate) ledger: MemoryLedger,
    collector: Collector,
    /// When the background thread looks for expired keys next, or the end of time.
    pub(crate) next_wakeup: Time,
    /// The weight of superseded versions at which garbage is collected early.
    collect_at: u64,
}

/// The memory settings of a database.
pub(crate) struct MemoryOptions<K, V> {
    /// The memory limit in bytes, and the functions that measure keys and values.
    pub(crate) limit: Option<(u64, Weigher<K, V>)>,
    pub(crate) policy: EvictionPolicy,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) listener: Option<Listener<K, V>>,
    pub(crate) time_source: Option<Arc<dyn TimeSource>>,
    pub(crate) max_snapshot_age: Option<Duration>,
    #[cfg(shuttle)]
    pub(crate) observer: Option<fluxmap_index::Observer<K, Arc<V>>>,
}

impl<K, V> Default for MemoryOptions<K, V> {
    fn default() -> Self {
        MemoryOptions {
            limit: None,
            policy: EvictionPolicy::default(),
            default_ttl: None,
            listener: None,
            time_source: None,
            max_snapshot_age: None,
            #[cfg(shuttle)]
            observer: None,
        }
    }
}

impl<K: Ord + Clone + 'static, V> Committer<K, V> {
    pub(crate) fn new(skiplist_p: f64, memory: MemoryOptions<K, V>, host: Host) -> Self {
        let (index, mut writer) = Index::with_prefixes(skiplist_p, prefix_of);
        let ledger = match memory.limit {
            None => MemoryLedger::unlimited(index.structure()),
            Some((limit, _)) => MemoryLedger::limited(limit, memory.policy, index.structure()),
        };
        let noting =
            ledger.budget.as_ref().map_or(AccessTracking::Nothing, |budget| budget.policy().noting());
        writer.note_reads(noting);
        #[cfg(shuttle)]
        if let Some(observer) = memory.observer {
            writer.observe(observer);
        }
        Committer {
            index,
            clock: Arc::default(),
            durable: None,
            active: Active::new(memory.max_snapshot_age, host.clone()),
            expiry_clock: ExpiryClock::new(memory.time_source, host.clone()),
            listener: memory.listener,
            limit: memory.limit,
            noting,
            default_ttl: memory.default_ttl,
            gave_default_ttl: AtomicBool::new(false),
            hasher: host.hash_state(),
            host,
            blocker: AtomicU64::new(NO_SNAPSHOT),
            wakeup_is_due: AtomicBool::new(false),
            section: CachePadded(Mutex::new(CommitSection {
                writer,
                ledger,
                collector: Collector::default(),
                next_wakeup: Time::MAX,
                collect_at: 0,
            })),
        }
    }
}

impl<K, V> Committer<K, V> {
    /// The memory limit, in bytes.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit.map(|(limit, _)| limit)
    }

    pub(crate) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.hasher.hash_one(key)
    }
}

impl<K: Ord + Hash + Clone + 'static, V: 'static> Committer<K, V> {
    /// Applies the writes as one commit, if `certificate` holds; writes that depend on no read need no
    /// certificate. On an error nothing has happened. Evictions to make room spare the keys that a lease
    /// of `priority` protects.
    ///
    /// Returns the commit's timestamp. In a durable database, the commit may be acknowledged once the
    /// clock's stable timestamp has reached it. It will reach it whether or not a caller waits.
    pub(crate) fn commit(
        &self,
        priority: &Priority,
        certificate: Option<&Certificate<'_, K>>,
        writes: impl ExactSizeIterator<Item = (K, Write<V>)>,
    ) -> Result<Timestamp, FluxError> {
        let reader = self.reader();
        let mut batch = reader.batch(writes.len());
        let mut record = Vec::new();
        let mut weight = 0;
        for (key, mut write) in writes {
            self.give_default_ttl(&mut write);
            if let Some(durable) = &self.durable {
                durable.encode(&key, write.as_ref(), &mut record)?;
            }
            weight += self.prepare(&mut batch, key, write);
        }
        self.check_weight(weight)?;

        let writes = batch.len();
        let mut notify = NotifyOnDrop::new(self.listener.as_ref());
        let mut checks = 0;
        let mut may_remove_expired = true;
        let (timestamp, freed, room) = loop {
            let checked_at = self.clock.applied();
            let checked_until = self.expiry_clock.current();
            if let Some(certificate) = certificate
                && let Err(conflict) = certificate.check(&reader, &batch, checked_until)
            {
                // The check may have met versions of a commit whose timestamp is not published yet. Wait
                // for that commit, or the retry would begin before it and conflict with it again.
                drop(self.section.lock());
                return Err(conflict);
            }
            checks += 1;

            let mut section = self.section.lock();
            // Certify. Only commits and expiries since the check above can be new; mostly there are
            // none.
            let until = self.expiry_clock.advance();
            let is_old = self.clock.applied() != checked_at && !planted("certified-outside-only")
                || section.ledger.has_expired(checked_until, until) && !planted("time-is-looked-at-once");
            if let Some(certificate) = certificate.filter(|_| is_old) {
                if !certificate.reads.is_cheap() && checks < CHECKS_OUTSIDE {
                    continue;
                }
                certificate.check(&reader, &batch, until)?;
            }
            // Check the snapshot's age last: while it was registered, no version that certification must
            // see could be trimmed; if it has been ended since, the checks above prove nothing.
            certificate.map_or(Ok(()), |certificate| self.active.check(certificate.snapshot))?;
            if may_remove_expired && section.ledger.is_taken_by_expired(until) {
                // `Manual` evicts nothing, but expired keys still take memory: remove them before
                // refusing the write. Release the lock first, because removal runs user code of the
                // keys.
                drop(section);
                may_remove_expired = self.remove_expired_into(&mut notify.evicted).is_ok();
                continue;
            }
            let before = self.limit.map(|_| self.index.structure());
            match section.apply(&mut batch, self, record) {
                Ok(timestamp) => {
                    // Evict in a commit after this one, so that this transaction may have read the keys
                    // evicted for it.
                    let need = Need::all(&section, self, Some((timestamp, writes)), Some(priority));
                    let room = need.map(|need| {
                        // Boxed, because moving a `Removal` has a cost and mostly there is none.
                        let mut room = Box::new((Removal::new(self, &reader, &mut notify.evicted), need));
                        let evicted = room.0.make_room(&mut section, &mut room.1);
                        (evicted, room)
                    });
                    let evicted = room.as_ref().map_or(0, |(evicted, _)| *evicted);
                    break (timestamp, section.after_publish(writes + evicted, self), room);
                }
                Err(refused) => {
                    drop((section, batch));
                    // Drop the reader before trimming: its pin keeps trimmed versions from being freed.
                    drop(reader);
                    // Staging has linked entries for new keys, which have no version now: trim them.
                    self.trim(writes);
                    if let Some(before) = before {
                        self.section.lock().ledger.after_refusal(before, self.index.structure());
                    }
                    return Err(refused);
                }
            }
        };
        if let Some(durable) = &self.durable {
            // Wake the log before the destructors run: they may panic, or wait for commits.
            durable.log.after_commit();
        }
        if let Some((_, mut room)) = room {
            let (removal, need) = &mut *room;
            self.go_on_making_room(removal, need);
        }
        // Outside the lock: destructors of keys and values, and then the listener (when `notify` is
        // dropped).
        drop(batch);
        drop(reader);
        drop_deferred(freed);
        Ok(timestamp)
    }

    /// Gives a value without an expiry time the time to live of [`EvictionPolicy::Ttl`], if that is set.
    fn give_default_ttl(&self, write: &mut Write<V>) {
        if let (Some(Put { expires: expires @ 0, .. }), Some(default_ttl)) = (write, self.default_ttl) {
            *expires = self.expiry_clock.after(default_ttl);
        }
    }

    /// Adds a write to a batch, with its hash, expiry time and weight. Returns the weight in units.
    fn prepare(&self, batch: &mut Batch<'_, K, Arc<V>>, key: K, write: Write<V>) -> u64 {
        let hash = self.hash(&key);
        let expires = write.as_ref().map_or(0, |put| put.expires);
        let (meta, key_weight) = match &self.limit {
            Some((_, weigher)) => {
                let weight = write.as_ref().map_or(TOMBSTONE, |put| weigher.value(&put.value));
                (Some(VersionMeta { expires, weight, ..VersionMeta::default() }), weigher.key(&key))
            }
            None => ((expires != 0).then(|| VersionMeta { expires, ..VersionMeta::default() }), 0),
        };
        let is_put = write.is_some();
        batch.push_with(hash, key, write.map(|put| put.value), meta, key_weight);
        meta.filter(|_| is_put).map_or(0, |meta| u64::from(meta.weight))
    }

    /// Refuses a commit that is larger than the limit by itself, before it has left a trace.
    fn check_weight(&self, weight: u64) -> Result<(), FluxError> {
        let bytes = to_bytes(weight);
        match self.limit {
            Some((limit, _)) if bytes > limit => Err(FluxError::ExceedsMemoryLimit { bytes, limit }),
            _ => Ok(()),
        }
    }

    /// Returns, once, whether the background thread must be woken because a key expires before it would
    /// wake by itself.
    pub(crate) fn takes_wakeup(&self) -> bool {
        // Relaxed: the thread looks at the timers under the commit lock.
        self.wakeup_is_due.load(Ordering::Relaxed) && self.wakeup_is_due.swap(false, Ordering::Relaxed)
    }
}

impl<K: Ord + Hash + Clone + 'static, V: 'static> CommitSection<K, V> {
    /// Stamps, logs and publishes a certified batch. The caller holds the commit lock.
    fn apply(
        &mut self,
        batch: &mut Batch<'_, K, Arc<V>>,
        shared: &Committer<K, V>,
        record: Vec<u8>,
    ) -> Result<Timestamp, FluxError> {
        // User code (`Eq`, `Ord`, `Clone`) may panic while staging; readers then see no trace of the
        // batch.
        let staged = self.writer.stage(batch);
        if let Some((limit, _)) = shared.limit {
            match self.ledger.room(staged.changes(), shared.index.structure()) {
                Room::Enough => {}
                Room::Full => {
                    if planted("refused-for-room-is-applied") {
                        let timestamp = shared.clock.applied() + 1;
                        let slot =
                            shared.durable.as_ref().map(|durable| durable.log.reserve()).transpose()?;
                        let slot = slot.map(|slot| slot.push(timestamp, record));
                        staged.publish(timestamp, &mut self.ledger);
                        self.make_visible(timestamp, shared, slot);
                    }
                    return Err(FluxError::MemoryLimitExceeded);
                }
                Room::Never(bytes) => return Err(FluxError::ExceedsMemoryLimit { bytes, limit }),
            }
        }
        // Reserve a slot first: the log refuses commits after it has failed.
        let slot = shared.durable.as_ref().map(|durable| durable.log.reserve()).transpose()?;
        // Stamp. From here on nothing can fail.
        let timestamp = shared.clock.applied() + 1;
        // Log. The record is written later; while the slot is held, it cannot be written (W2).
        let slot = slot.map(|slot| slot.push(timestamp, record));
        // Publish: link every version first, then move the clock that makes them visible.
        if planted("clock-before-versions") {
            shared.clock.apply(timestamp);
        }
        let slot = slot.map(|slot| (!planted("queue-unlocked-early")).then_some(slot));
        staged.publish(timestamp, &mut self.ledger);
        self.make_visible(timestamp, shared, slot);
        Ok(timestamp)
    }

    /// Moves the clock to a published commit. `slot` keeps the log from writing the commit before.
    pub(crate) fn make_visible(
        &mut self,
        timestamp: Timestamp,
        shared: &Committer<K, V>,
        slot: Option<impl Sized>,
    ) {
        if self.ledger.has_expiring && !shared.expiry_clock.is_enabled() {
            shared.expiry_clock.enable();
            // The first expiring key must become visible together with a time to judge it by. Without a
            // time, a transaction could read a key that had expired, write it again with the same expiry
            // time, and not find its own write.
            shared.expiry_clock.advance();
        }
        if slot.is_some() {
            shared.expiry_clock.note_unstable(timestamp, &shared.clock);
        }
        shared.clock.apply(timestamp);
        drop(slot);
        if let Some(next) = self.ledger.timers.next().filter(|next| *next < self.next_wakeup) {
            self.next_wakeup = next;
            shared.wakeup_is_due.store(true, Ordering::Relaxed);
        }
        if let Some(budget) = &self.ledger.budget {
            self.writer.set_generation(budget.policy().generation());
        }
    }

    /// Does a commit's share of trimming, and returns the memory to free outside the lock.
    pub(crate) fn after_publish(&mut self, writes: usize, shared: &Committer<K, V>) -> Freed<K, Arc<V>> {
        self.collector.after_commit(&mut self.writer, writes, &shared.active, &shared.clock);
        let freed = match self.collects_early(shared) {
            true => {
                self.collector.refresh(&self.writer, &shared.active, &shared.clock);
                self.writer.trim(self.collector.horizon(), EARLY_TRIM + 2 * writes);
                let freed = self.writer.collect_all();
                self.collect_at = shared.index.superseded_weight() + self.slack();
                freed
            }
            false => self.writer.collect(2 + 2 * writes),
        };
        shared.note_blocker(&self.collector, self.writer.backlog());
        freed
    }

    /// The weight of superseded versions, in units, above which garbage is collected early: with large
    /// values, a few dozen old versions take too much memory.
    fn slack(&self) -> u64 {
        self.ledger.budget.as_ref().map_or(u64::MAX, |budget| budget.limit() / SLACK_SHARE / UNIT as u64)
    }

    fn collects_early(&mut self, shared: &Committer<K, V>) -> bool {
        let superseded = shared.index.superseded_weight();
        self.collect_at = self.collect_at.min(superseded.saturating_add(self.slack()));
        self.ledger.budget.is_some() && superseded > self.collect_at.max(self.slack())
    }
}

/// The share of the memory limit that garbage may take, in addition to the limit, before it is collected
/// early.
const SLACK_SHARE: u64 = 64;
/// Chains that an early collection trims, in addition to those that the commit has made longer.
const EARLY_TRIM: usize = 64;

impl<K: Ord, V> Committer<K, V> {
    /// Pins the index for a short read.
    pub(crate) fn reader(&self) -> Reader<'_, K, Arc<V>> {
        self.index.reader()
    }
}

impl<K: Ord, V> Durable<K, V> {
    /// Appends a write to a commit's record, and checks that it can be read back.
    pub(crate) fn encode(
        &self,
        key: &K,
        put: Option<&Put<V>>,
        record: &mut Vec<u8>,
    ) -> Result<(), FluxError> {
        let coder = &self.coder;
        let (unstorable, refused) = (PersistenceError::unstorable, PersistenceError::unencodable);
        let put_key = |into: &mut Vec<u8>| {
            let start = into.len();
            coder.encode_key(key, into, MAX_COMMIT).map_err(refused("key"))?;
            if !self.check {
                return Ok(());
            }
            // Keys can be compared: two different keys must not become one when they are read back.
            let decoded = coder.decode_key(&into[start..]).map_err(unstorable("key"))?;
            match decoded == *key {
                true => Ok(()),
                false => Err(unstorable("key")(coder.comes_back_different())),
            }
        };
        let put_value = put.map(|put| {
            move |into: &mut Vec<u8>| {
                let start = into.len();
                coder.encode_value(&put.value, into, MAX_COMMIT).map_err(refused("value"))?;
                if self.check {
                    coder.check_value(&into[start..]).map_err(unstorable("value"))
                } else {
                    Ok(())
                }
            }
        });
        let expires = put.map_or(0, |put| put.expires);
        push_operation(record, expires, put_key, put_value)?;
        // The separators between the parts count, too.
        Ok(self.log.check_size(record.len())?)
    }
}

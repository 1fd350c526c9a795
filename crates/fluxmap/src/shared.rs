//! The parts of a database, shared by all its users.

use crate::checkpointer::Checkpointer;
use crate::commit::{Committer, MemoryOptions};
use crate::error::{FluxError, PersistenceError};
use crate::host::Host;
use crate::info::{IsolationLevel, VacuumOptions, VacuumStats};
use crate::key::{Key, Value};
use crate::mvcc::certify::Certificate;
use crate::persistence::RecoveryInfo;
use crate::storage::{Options, Storage};
use crate::sync::{AtomicU64, Instant, Ordering};
use crate::txn::own::note_commit;
use crate::txn::priority::{HeldBack, Priority, Protects};
use crate::txn::write_set::Write;
use crate::worker::{Schedule, Worker};
use fluxmap_index::{Timestamp, contain, planted};
use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// The state that all clones, handles, transactions and snapshots of a database hold. The background
/// thread does not hold it, so the last holder to go can end and join the thread, and drop the stored
/// data.
///
/// Aligned so that the reference count, which every snapshot and transaction changes, is not on the
/// cache lines that every get reads.
#[repr(align(128))]
pub(crate) struct Open<K: Key, V: Value> {
    core: Arc<Core<K, V>>,
    worker: Worker,
    /// Dropped after the worker has stopped, when nothing commits any more.
    storage: Option<Storage>,
}

/// The part of a database that the background thread holds as well.
pub(crate) struct Core<K: Key, V: Value> {
    pub(crate) level: IsolationLevel,
    pub(crate) committer: Committer<K, V>,
    pub(crate) priority: Priority,
    vacuum: Option<Schedule>,
    /// How often background work has panicked in user code.
    panics: AtomicU64,
}

/// The settings of a database that is to be opened.
pub(crate) struct Setup<K, V> {
    pub(crate) level: IsolationLevel,
    pub(crate) skiplist_p: f64,
    pub(crate) vacuum: Option<VacuumOptions>,
    pub(crate) memory: MemoryOptions<K, V>,
    pub(crate) durability: Option<Options<K, V>>,
    pub(crate) host: Host,
}

/// An opened database, with the keys that are still in its files but had no room in memory: see
/// [`Open::forget`].
pub(crate) struct Opened<K: Key, V: Value> {
    pub(crate) shared: Arc<Open<K, V>>,
    pub(crate) evicted: Vec<K>,
}

/// The number of keys that [`Open::forget`] removes in one commit.
const FORGOTTEN_AT_ONCE: usize = 256;

/// When the background thread tries again to free versions that could not be freed because newer commits
/// were not stable yet.
const UNTIL_STABLE: Duration = Duration::from_millis(100);

/// When background work that has panicked is tried again.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// The number of chains trimmed under one hold of the commit lock, outside commits.
const TRIM_STEP: usize = 256;

impl<K: Key, V: Value> Open<K, V> {
    /// Opens a database. For a durable one this reads its files, and blocks meanwhile.
    pub(crate) fn open(setup: Setup<K, V>) -> Result<Opened<K, V>, FluxError> {
        let is_awake = setup.vacuum.is_some() || setup.memory.max_snapshot_age.is_some();
        let core = Core {
            level: setup.level,
            committer: Committer::new(setup.skiplist_p, setup.memory, setup.host.clone()),
            priority: Priority::new(setup.host.clone()),
            vacuum: setup.vacuum.map(|options| Schedule::every(options.interval, &setup.host)),
            panics: AtomicU64::new(0),
        };
        let (core, storage, evicted) = match setup.durability {
            None => (Arc::new(core), None, Vec::new()),
            Some(options) => {
                let mut evicted = Vec::new();
                let (storage, core) = Storage::open(options, core, &mut evicted)?;
                (core, Some(storage), evicted)
            }
        };
        let shared = Arc::new(Open { core, worker: Worker::default(), storage });
        let weak = Arc::downgrade(&shared);
        // The background thread ends leases that have run out of time.
        shared.priority.set_alarm(Box::new(move || {
            if let Some(shared) = weak.upgrade()
                && let Err(error) = shared.wake_worker()
            {
                tracing::error!(%error, "a priority lease will not end by itself");
            }
        }));
        if is_awake || shared.committer.takes_wakeup() {
            shared.wake_worker()?;
        }
        Ok(Opened { shared, evicted })
    }

    /// Commits: see [`Committer::commit`].
    pub(crate) fn commit(
        &self,
        certificate: Option<&Certificate<'_, K>>,
        writes: impl ExactSizeIterator<Item = (K, Write<V>)>,
    ) -> Result<Timestamp, FluxError> {
        let timestamp = self.committer.commit(&self.priority, certificate, writes)?;
        note_commit(self.address(), timestamp);
        if self.committer.takes_wakeup()
            && let Err(error) = self.wake_worker()
        {
            tracing::warn!(%error, "expired keys wait for a vacuum");
        }
        Ok(timestamp)
    }

    /// A number that identifies this database among all open ones.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.core).addr()
    }

    /// Removes keys from the files that had no room when they were read and have not been written since:
    /// evicted keys stay gone.
    pub(crate) async fn forget(&self, evicted: Vec<K>) -> Result<(), FluxError> {
        if evicted.is_empty() {
            return Ok(());
        }
        let mut evicted = evicted.into_iter();
        tracing::warn!(keys = evicted.len(), "the memory limit has no room for all stored keys; evicting");
        let mut timestamp = 0;
        while evicted.len() > 0 {
            // No other user has the database yet, so no lease exists; this only waits for the log.
            self.may_commit(|_| false).await?;
            let absent = |key: &K| {
                let hash = self.committer.hash(key);
                self.committer.reader().resident(hash, |resident| resident.key() == key).is_none()
            };
            // Sorted, and without duplicates.
            let keys: BTreeSet<K> = evicted.by_ref().take(FORGOTTEN_AT_ONCE).filter(absent).collect();
            if !keys.is_empty() {
                timestamp = self.commit(None, keys.into_iter().map(|key| (key, None)))?;
            }
        }
        self.acknowledged(timestamp).await
    }

    /// Wakes the background thread, which then looks for work.
    pub(crate) fn wake_worker(&self) -> Result<(), FluxError> {
        self.worker.wake(&self.core)
    }

    /// Returns whether [`may_commit`](Self::may_commit) certainly has nothing to wait for. Asking this
    /// first saves commits in memory from creating a future.
    pub(crate) fn may_commit_at_once(&self) -> bool {
        self.is_stable_at_once() && self.priority.is_open()
    }

    /// Returns whether applied commits are stable at once, because the database is in memory.
    pub(crate) fn is_stable_at_once(&self) -> bool {
        self.committer.durable.is_none()
    }

    /// Waits until the log has caught up, and until no lease protects reads that the commit `undoes`.
    /// The caller drops the returned value once the commit has been made.
    ///
    /// Cancel-safe: it only waits.
    pub(crate) async fn may_commit(
        &self,
        undoes: impl Fn(&dyn Protects) -> bool,
    ) -> Result<Option<Box<HeldBack>>, FluxError> {
        if let Some(durable) = &self.committer.durable {
            self.priority.standing_still(durable.log.admit()).await?;
        }
        Ok(self.priority.pass(undoes).await)
    }

    /// Waits until the commit at this timestamp is as durable as the level says.
    ///
    /// Cancel-safe: it only waits.
    pub(crate) async fn acknowledged(&self, timestamp: Timestamp) -> Result<(), FluxError> {
        self.wait_for_log(timestamp).await.map_err(|source| match source {
            // The commit was refused before it was written, so its outcome is known.
            PersistenceError::OtherProcess { .. } => FluxError::FatalPersistenceError { source },
            source => FluxError::OutcomeUnknown { source },
        })
    }

    /// Waits until the data read at this timestamp cannot be undone any more.
    ///
    /// Cancel-safe: it only waits.
    pub(crate) async fn stable_at(&self, timestamp: Timestamp) -> Result<(), FluxError> {
        self.wait_for_log(timestamp).await.map_err(|source| FluxError::FatalPersistenceError { source })
    }

    async fn wait_for_log(&self, timestamp: Timestamp) -> Result<(), PersistenceError> {
        match &self.committer.durable {
            None => Ok(()),
            Some(durable) => self.priority.standing_still(durable.log.acknowledged(timestamp)).await,
        }
    }

    /// Returns the checkpointer, if the database is durable.
    pub(crate) fn checkpointer(&self) -> Option<&Arc<Checkpointer>> {
        self.storage.as_ref().map(|storage| &storage.checkpointer)
    }

    /// Returns whether this thread belongs to the database, so that it must not wait for a thread that
    /// joins it.
    pub(crate) fn is_on_this_thread(&self) -> bool {
        self.worker.is_on_this_thread() || self.storage.as_ref().is_some_and(Storage::is_on_this_thread)
    }

    pub(crate) fn recovery_info(&self) -> Option<&RecoveryInfo> {
        self.storage.as_ref().map(|storage| &storage.info)
    }

    /// Called when a snapshot at this timestamp has ended.
    pub(crate) fn after_release(&self, timestamp: Timestamp) {
        if self.committer.is_blocker(timestamp)
            && let Err(error) = self.wake_worker()
        {
            tracing::warn!(%error, "old versions wait for the next commits");
        }
    }
}

impl<K: Key, V: Value> Core<K, V> {
    pub(crate) fn host(&self) -> &Host {
        &self.committer.host
    }

    /// Does the work of the background thread when it wakes; returns when it should wake next if it is
    /// not woken before.
    pub(crate) fn background_step(&self, now: Instant) -> Option<Instant> {
        // Each piece is contained by itself: a panic in one must not keep the others from running.
        let vacuum = self.vacuum.as_ref().and_then(|schedule| schedule.next_after(now));
        let leases = self.contained(now, "the end of leases", || {
            self.priority.expire(now);
            self.priority.deadline()
        });
        let too_old = self.contained(now, "the end of old snapshots", || self.committer.active.end_old(now));
        let expiry = self.contained(now, "the removal of expired keys", || {
            self.committer.expiry_clock.set_driven();
            self.remove_all_expired()
        });
        let freeing = self.contained(now, "the removal of old versions", || {
            self.trim_everything();
            while self.committer.watch_blocker() {
                self.trim_everything();
            }
            // Versions superseded by recent commits of a durable database can be freed once these
            // commits are stable.
            self.committer.awaits_stability().then(|| now + UNTIL_STABLE)
        });
        [leases, vacuum, too_old, expiry, freeing].into_iter().flatten().min()
    }

    /// Runs a piece of background work, which returns when it should run next. The work runs user code
    /// (wakers, clocks, destructors, `Ord`), which may panic: the work is then tried again soon, and the
    /// thread goes on.
    fn contained(
        &self,
        now: Instant,
        what: &'static str,
        work: impl FnOnce() -> Option<Instant>,
    ) -> Option<Instant> {
        let work = || {
            assert!(!planted("background-work-panics"), "a planted panic");
            work()
        };
        contain(work).unwrap_or_else(|| {
            // Relaxed: it is only a count.
            self.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(what, "background work has panicked; it will be done again");
            Some(now + AFTER_PANIC)
        })
    }

    /// Returns how often user code has panicked on the background thread, plus how often the user's time
    /// source has panicked anywhere.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed).saturating_add(self.committer.expiry_clock.panics())
    }

    /// Removes every expired key, a step at a time, and returns when the next key expires, or when the
    /// machine's clock must be looked at again if that is sooner: a clock set forward makes keys expire
    /// earlier.
    fn remove_all_expired(&self) -> Option<Instant> {
        let expiry_clock = &self.committer.expiry_clock;
        expiry_clock.look();
        loop {
            let next = self.committer.remove_expired()?;
            let now = expiry_clock.now();
            if next > now {
                let left = Duration::from_millis(next - now);
                let wait = expiry_clock.look_every().map_or(left, |look| look.min(left));
                return self.host().now().checked_add(wait);
            }
        }
    }

    /// Removes expired keys and every version that no reader can see.
    pub(crate) fn vacuum(&self) -> VacuumStats {
        self.remove_all_expired();
        self.trim_everything()
    }

    /// Trims every chain that waits now, a step at a time.
    pub(crate) fn trim_everything(&self) -> VacuumStats {
        let mut left = self.committer.refresh_horizon();
        let mut stats = VacuumStats::default();
        // Loop at least once even if no chain waits: memory unlinked by earlier commits waits to be
        // freed.
        loop {
            let trimmed = self.committer.trim(TRIM_STEP.min(left));
            stats.versions_removed += trimmed.versions;
            stats.keys_removed += trimmed.keys;
            left = if trimmed.visited == 0 { 0 } else { left - trimmed.visited.min(left) };
            if left == 0 {
                break;
            }
        }
        while self.committer.forget_gone() {}
        stats
    }
}

impl<K: Key, V: Value> Drop for Open<K, V> {
    fn drop(&mut self) {
        self.worker.stop();
        drop(self.storage.take());
    }
}

impl<K: Key, V: Value> Deref for Open<K, V> {
    type Target = Core<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.core
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn background_work_that_panics_is_counted_and_done_again() -> Result<(), FluxError> {
        let setup = Setup {
            level: IsolationLevel::default(),
            skiplist_p: 0.25,
            vacuum: None,
            memory: MemoryOptions::<u32, u32>::default(),
            durability: None,
            host: Host::default(),
        };
        let shared = Open::open(setup)?.shared;
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        assert_eq!(shared.contained(now, "nothing", || Some(later)), Some(later));
        assert_eq!((shared.contained(now, "nothing", || None), shared.panics()), (None, 0));
        let again = shared.contained(now, "panicking", || panic!("it is to panic"));
        assert_eq!((again, shared.panics()), (Some(now + AFTER_PANIC), 1));
        Ok(())
    }
}

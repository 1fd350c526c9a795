//! The log: group commit and acknowledgement.
//!
//! Under the commit lock, a commit puts its record into a queue ([`Log::reserve`]), so the log has the
//! order of the commits. The holder of the [`LogWriter`] lock takes everything that is queued and writes it
//! as one frame.
//!
//! - `Full`: the log thread writes, syncs, and only then moves the stable timestamp, which wakes all
//!   tasks whose commits were in the frame. While it syncs, the next group gathers.
//! - `Relaxed`: the committing thread writes its commit, with everything that others have queued, and
//!   moves the stable timestamp; the log thread syncs later, by time, number of commits or bytes.
//!
//! Invariants:
//!
//! - **W1.** Records enter the queue, the files and the frames in the order of their LSNs, without gaps:
//!   queueing happens under the commit lock, taking and writing under the writer's.
//! - **W2.** The stable timestamp never passes a commit that is not in the log as the durability level
//!   demands, nor one that is not applied: a record is queued and its commit applied under one hold of
//!   the queue's lock.
//! - **W3.** After the first error of a write or a sync no commit is written, synced or acknowledged any
//!   more. A second sync that succeeds would prove nothing: the kernel marks pages clean when writing
//!   them back fails.
//! - **W4.** A file leaves the list of unsynced files only to be synced, and the files before it were
//!   synced first.
//! - **W5.** After releasing the writer's lock, a thread looks at the queue once more: so a record that
//!   is queued while a thread holds the lock is written by that thread.

pub(crate) mod directory;
pub(crate) mod format;
mod job;
pub(crate) mod limits;
pub(crate) mod pieces;
pub(crate) mod pool;
pub(crate) mod reader;
pub(crate) mod segment;
mod writer;

pub(crate) use job::{LOG, LogJob};
pub(crate) use writer::{CommitRecord, LogWriter};

use crate::error::{FluxError, PersistenceError};
use crate::host::Host;
use crate::mvcc::clock::Clock;
use crate::persistence::FlushLimits;
use crate::process::Process;
use crate::progress::{Progress, Woken};
use crate::sync::{AtomicU64, Instant, Mutex, MutexGuard, Ordering};
use fluxmap_index::planted;
use format::{Lsn, MAX_COMMIT};
use pool::{Next, Pool};
use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// When commits are acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SyncPolicy {
    /// After they have been synced.
    Full,
    /// After they have been written; they are synced within these limits.
    Relaxed(FlushLimits),
}

/// The number of bytes in the queue above which new commits wait.
const QUEUE_LIMIT: u64 = 16 << 20;

/// How many times in a row a committing thread writes for others that commit meanwhile.
const TURNS: usize = 8;

/// How long a committing thread waits for the write of another one before it gives up: some ten times
/// what a write into the page cache takes.
const PATIENCE: Duration = Duration::from_micros(20);

/// The log of an open database.
pub(crate) struct Log {
    policy: SyncPolicy,
    clock: Arc<Clock>,
    pub(crate) pool: Pool,
    queue: Mutex<CommitQueue>,
    /// The host whose clock times flush intervals.
    host: Host,
    writer: Mutex<LogWriter>,
    /// Held while syncing, so that there is one sync at a time (W4).
    syncing: Mutex<()>,
    /// The last commit up to which the log is synced.
    synced: Progress,
    /// The bytes of commits queued, and written, since the database was opened.
    queued_bytes: AtomicU64,
    written_bytes: Progress,
    failed: OnceLock<PersistenceError>,
    /// The process that opened the log.
    process: Process,
}

#[derive(Default)]
struct CommitQueue {
    records: VecDeque<CommitRecord>,
    /// Whether the log's job has found nothing to do, and has to be woken.
    asleep: bool,
    /// At `Relaxed`: since when there have been unsynced commits.
    dirty_since: Option<Instant>,
    /// The log must be synced up to this commit without waiting for the flush limits.
    sync_target: Lsn,
    /// Whether the committing threads cannot write the queue, because there is no room: the log's job
    /// has to.
    stuck: bool,
    closing: bool,
}

/// The right to queue one commit: see [`Log::reserve`].
pub(crate) struct QueueSlot<'l> {
    queue: MutexGuard<'l, CommitQueue>,
    log: &'l Log,
}

impl<'l> QueueSlot<'l> {
    /// Queues the commit. The caller must apply it before dropping the returned guard (W2).
    pub(crate) fn push(mut self, lsn: Lsn, operations: Vec<u8>) -> impl Sized + use<'l> {
        let record = CommitRecord { lsn, operations };
        // Relaxed: only a thread that queues stores here, under the lock; a reader that misses the
        // newest value waits a little more or less.
        let queued = self.log.queued_bytes.load(Ordering::Relaxed) + record.size();
        self.log.queued_bytes.store(queued, Ordering::Relaxed);
        self.queue.records.push_back(record);
        self.queue
    }
}

impl Log {
    pub(crate) fn new(
        policy: SyncPolicy,
        clock: Arc<Clock>,
        pool: Pool,
        writer: LogWriter,
        host: Host,
    ) -> Self {
        let synced = Progress::default();
        synced.advance_unwatched(writer.synced());
        Log {
            policy,
            clock,
            pool,
            queue: Mutex::default(),
            host,
            writer: Mutex::new(writer),
            syncing: Mutex::default(),
            synced,
            queued_bytes: AtomicU64::default(),
            written_bytes: Progress::default(),
            failed: OnceLock::new(),
            process: Process::this(),
        }
    }

    /// Returns an error in a process that did not open the log: a fork has no threads that write and
    /// sync, and waiting for them would never end. Takes a system call.
    pub(crate) fn check_process(&self) -> Result<(), PersistenceError> {
        self.process.check()
    }

    /// Waits while too much is queued, because commits come faster than the disk, or checkpoints, can
    /// follow.
    ///
    /// Cancel-safe: it only waits.
    pub(crate) async fn admit(&self) -> Result<(), FluxError> {
        if let Some(source) = self.failed.get() {
            // Refuse before certifying. A failed log leaves applied commits that will never be stable: a
            // transaction that reads the stable state would conflict with them for ever.
            return Err(FluxError::FatalPersistenceError { source: source.clone() });
        }
        if matches!(self.policy, SyncPolicy::Full) {
            // Beside a sync the system call is negligible. At `Relaxed`, the writer checks it.
            self.check_process().map_err(|source| FluxError::FatalPersistenceError { source })?;
        }
        let queued = self.queued_bytes.load(Ordering::Relaxed);
        let admitted = self.written_bytes.wait_for(queued.saturating_sub(QUEUE_LIMIT)).await;
        admitted.map_err(|source| FluxError::FatalPersistenceError { source })
    }

    /// Returns the bytes of commits that are queued and not written yet.
    pub(crate) fn buffered_bytes(&self) -> u64 {
        self.queued_bytes.load(Ordering::Relaxed).saturating_sub(self.written_bytes.reached())
    }

    /// Returns an error if a commit of this many bytes is too large for the log.
    pub(crate) fn check_size(&self, bytes: usize) -> Result<(), PersistenceError> {
        match bytes > MAX_COMMIT {
            true => Err(PersistenceError::TooLarge { bytes, limit: MAX_COMMIT }),
            false => Ok(()),
        }
    }

    /// Begins to queue a commit; an error after the log has failed. Called under the commit lock. The
    /// slot is held until the commit is applied.
    pub(crate) fn reserve(&self) -> Result<QueueSlot<'_>, FluxError> {
        let queue = self.queue.lock();
        match self.failed.get() {
            Some(error) => Err(FluxError::FatalPersistenceError { source: error.clone() }),
            None => Ok(QueueSlot { queue, log: self }),
        }
    }

    /// Gets a queued commit written. Called after it has been queued, outside the commit lock.
    pub(crate) fn after_commit(&self) {
        match self.policy {
            SyncPolicy::Full => self.wake(|_| {}),
            SyncPolicy::Relaxed(_) => self.write_queued(),
        }
    }

    /// Waits until the commits up to `lsn` are as durable as the level says.
    ///
    /// Cancel-safe: the commits become durable in any case.
    pub(crate) async fn acknowledged(&self, lsn: Lsn) -> Result<(), PersistenceError> {
        self.clock.stability().wait_for(lsn).await
    }

    /// Waits until everything that has been committed is synced, whatever the level.
    ///
    /// Cancel-safe: the sync goes on.
    pub(crate) async fn flush(&self) -> Result<(), PersistenceError> {
        self.check_process()?;
        let all = self.clock.applied();
        if self.synced.reached() < all {
            self.wake(|queue| queue.sync_target = queue.sync_target.max(all));
        }
        self.synced.wait_for(all).await?;
        // Return the error also if something other than this sync has failed.
        self.failed.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Returns the steady time of the log's host.
    pub(crate) fn now(&self) -> Instant {
        self.host.now()
    }

    /// Returns the error that ended the log, if any.
    pub(crate) fn failure(&self) -> Option<&PersistenceError> {
        self.failed.get()
    }

    /// Changes the queue, and wakes the log's job if it sleeps.
    fn wake(&self, change: impl FnOnce(&mut CommitQueue)) {
        let mut queue = self.queue.lock();
        change(&mut queue);
        let asleep = mem::take(&mut queue.asleep);
        drop(queue);
        if asleep {
            self.pool.wake_log();
        }
    }

    /// Prevents all further queueing, writing and syncing (W3), and returns the error. The caller must
    /// still hold the lock under which the error occurred, so that the next holder finds the failure.
    /// [`fail`](Self::fail) must follow, without that lock.
    fn poison(&self, error: PersistenceError) -> PersistenceError {
        // Under the queue's lock, no commit can be queued after the failure.
        let _queue = self.queue.lock();
        self.failed.get_or_init(|| error.clone());
        error
    }

    /// Ends the log (W3). The first error stays.
    pub(crate) fn fail(&self, error: PersistenceError) {
        tracing::error!(%error, "the log has failed; the database takes no more commits");
        let error = self.poison(error);
        let error = self.failed.get().unwrap_or(&error);
        self.pool.fail(error);
        let waiting = [&self.synced, &self.written_bytes, self.clock.stability()];
        let woken = waiting.map(|progress| progress.fail(error));
        self.wake(|_| {});
        drop(woken);
    }

    /// At `Relaxed`: writes the queue, unless another thread does.
    fn write_queued(&self) {
        for _ in 0..TURNS {
            let mut woken = Woken::default();
            let Some(mut writer) = self.writer.try_lock_for(PATIENCE) else {
                // The holder looks at the queue again after releasing the lock (W5).
                return;
            };
            let written = self.write_group(&mut writer, &mut woken);
            drop(writer);
            match written {
                Err(error) => return self.fail(error),
                // The log thread has to make room.
                Ok(false) => return self.wake(|queue| queue.stuck = true),
                Ok(true) => {}
            }
            if self.is_idle() || planted("no-second-look") {
                return;
            }
        }
        // Other threads keep committing; let the log thread write for them.
        self.wake(|queue| queue.stuck = true);
    }

    /// Returns whether the queue is empty.
    fn is_idle(&self) -> bool {
        self.queue.lock().records.is_empty()
    }

    /// Writes the queue, and acknowledges the commits if writing is enough. Returns whether there was
    /// room for all of them; the others stay queued.
    fn write_group(&self, writer: &mut LogWriter, woken: &mut Woken) -> Result<bool, PersistenceError> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone());
        }
        let mut records = mem::take(&mut self.queue.lock().records);
        if records.is_empty() {
            return Ok(true);
        }
        writer.append(&mut records).map_err(|error| self.poison(error))?;
        let has_room = records.is_empty();
        if !has_room {
            // Put the rest back at the front of the queue (W1).
            let mut queue = self.queue.lock();
            records.append(&mut queue.records);
            queue.records = records;
        }
        self.after_write(writer, woken);
        Ok(has_room)
    }

    /// Admits waiting commits. At `Relaxed`, it also acknowledges written commits, as far as the flush
    /// limits allow, and requests a sync.
    fn after_write(&self, writer: &LogWriter, woken: &mut Woken) {
        woken.absorb(self.written_bytes.advance(writer.bytes()));
        let SyncPolicy::Relaxed(limits) = self.policy else {
            if planted("acknowledged-before-the-sync") {
                woken.absorb(self.clock.stability().advance(writer.written()));
            }
            return;
        };
        let unsynced = writer.written() - writer.synced();
        let commits = limits.after_commits.unwrap_or(u64::MAX);
        let bytes = limits.after_bytes.unwrap_or(u64::MAX);
        // Keep the loss of a power failure within the limits: beyond them, commits wait for the sync.
        // The sync begins at half of the limits, so that commits seldom wait.
        let allowed = match writer.unsynced_bytes() <= bytes {
            _ if planted("relaxed-limits-ignored") => u64::MAX,
            true => commits,
            false => 0,
        };
        let acknowledged = writer.written().min(writer.synced().saturating_add(allowed));
        woken.absorb(self.clock.stability().advance(acknowledged));
        let due = unsynced > commits / 2 || writer.unsynced_bytes() > bytes / 2;
        if !writer.is_synced() {
            self.note_unsynced(if due { writer.written() } else { 0 });
        }
    }

    /// Tells the log thread that there are unsynced commits, and that those up to `target` must be
    /// synced at once.
    fn note_unsynced(&self, target: Lsn) {
        let mut queue = self.queue.lock();
        let mut news = target > queue.sync_target && queue.sync_target <= self.synced.reached();
        queue.sync_target = queue.sync_target.max(target);
        if queue.dirty_since.is_none() && self.flush_interval().is_some() {
            queue.dirty_since = Some(self.host.now());
            news = true;
        }
        if news && mem::take(&mut queue.asleep) {
            drop(queue);
            self.pool.wake_log();
        }
    }

    fn flush_interval(&self) -> Option<Duration> {
        match self.policy {
            SyncPolicy::Full => None,
            SyncPolicy::Relaxed(limits) => limits.interval,
        }
    }

    /// Syncs everything that was written, and reports it.
    pub(crate) fn sync(&self) -> Result<(), PersistenceError> {
        let mut woken = Woken::default();
        let result = self.sync_files(&mut woken);
        if let Err(error) = &result {
            self.fail(error.clone());
        }
        drop(woken);
        // W5: this function held the writer's lock for a moment.
        if matches!(self.policy, SyncPolicy::Relaxed(_)) && !self.is_idle() {
            self.write_queued();
        }
        result
    }

    /// Like [`sync`](Self::sync), unless the log is synced up to `lsn` already.
    pub(crate) fn sync_up_to(&self, lsn: Lsn) -> Result<(), PersistenceError> {
        if self.synced.reached() < lsn { self.sync() } else { Ok(()) }
    }

    fn sync_files(&self, woken: &mut Woken) -> Result<(), PersistenceError> {
        let _one_at_a_time = self.syncing.lock();
        if let Some(error) = self.failed.get() {
            return Err(error.clone());
        }
        let unsynced = self.writer.lock().begin_sync();
        for file in &unsynced.files {
            match file.sync() {
                Err(_) if planted("sync-errors-ignored") => {}
                synced => synced.map_err(|error| self.poison(error))?,
            }
        }
        let mut writer = self.writer.lock();
        let before = writer.synced();
        writer.end_sync(&unsynced);
        match self.policy {
            SyncPolicy::Full => woken.absorb(self.clock.stability().advance(unsynced.lsn)),
            SyncPolicy::Relaxed(_) => {
                self.after_write(&writer, woken);
                if unsynced.lsn > before && self.failed.get().is_none() {
                    writer.mark_synced().map_err(|error| self.poison(error))?;
                }
            }
        }
        drop(writer);
        woken.absorb(self.synced.advance(unsynced.lsn));
        Ok(())
    }

    /// Continues in the next segment, if the pool allows it. Only the log thread calls this.
    fn make_room(&self, writer: &mut LogWriter) -> Result<bool, PersistenceError> {
        let needed = self.queue.lock().records.front().map_or(0, CommitRecord::segment_size);
        let next = self.pool.next_segment(writer.active(), needed, || writer.end_segment());
        match next.map_err(|error| self.poison(error))? {
            Next::Segment(segment) => {
                writer.begin_segment(segment);
                Ok(true)
            }
            Next::NotYet => Ok(false),
        }
    }
}

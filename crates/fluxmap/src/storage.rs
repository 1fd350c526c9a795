//! The durable side of an open database: its log, its checkpoints, the jobs that write both, and the
//! lock on its directory.

use crate::backup::write_database;
use crate::checkpoint::{BLOCK_SIZE, MAX_BLOCK, PairSource};
use crate::checkpointer::{CHECKPOINT, CheckpointJob, Checkpointer, StateSource};
use crate::codec::Coder;
use crate::disk::Lock;
use crate::error::PersistenceError;
use crate::host::Host;
use crate::jobs::Running;
use crate::key::{Key, KeySpan, Value};
use crate::mvcc::active::Registration;
use crate::mvcc::clock::Clock;
use crate::persistence::{BackupProgress, RecoveryInfo};
use crate::progress::Progress;
use crate::recovery::{Files, recover};
use crate::shared::Core;
use crate::sync::{Mutex, Ordering};
use crate::txn::scan::{At, MetadataScan};
use crate::wal::format::{Lsn, push_operation};
use crate::wal::{LOG, Log, LogJob, SyncPolicy};
use fluxmap_index::{Time, planted};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::vec;

/// Makes commits durable. It ends with the database.
pub(crate) struct Storage {
    pub(crate) checkpointer: Arc<Checkpointer>,
    pub(crate) info: RecoveryInfo,
    /// The log's job and the checkpointer's.
    jobs: Option<[Running; 2]>,
    /// The jobs hold this lock as well: once all holders have dropped it, another process may open the
    /// directory.
    _lock: Arc<dyn Lock>,
}

/// The part of the storage that the committer needs.
pub(crate) struct Durable<K, V> {
    pub(crate) log: Arc<Log>,
    pub(crate) coder: Coder<K, V>,
    /// Whether every key and value that is written is decoded again as a check.
    pub(crate) check: bool,
}

/// The options for opening a durable database.
pub(crate) struct Options<K, V> {
    pub(crate) files: Files,
    pub(crate) policy: SyncPolicy,
    pub(crate) coder: Coder<K, V>,
    pub(crate) check: bool,
}

impl Storage {
    /// Locks the directory, reads its files into `core`, which must be fresh, and starts the log and the
    /// jobs. Keys that had no room in memory and are still in the files are added to `evicted`.
    pub(crate) fn open<K: Key, V: Value>(
        options: Options<K, V>,
        mut core: Core<K, V>,
        evicted: &mut Vec<K>,
    ) -> Result<(Self, Arc<Core<K, V>>), PersistenceError> {
        let Options { mut files, policy, coder, check } = options;
        files.directory = files.directory.create()?;
        let lock: Arc<dyn Lock> = files.directory.lock()?.into();
        let recovered = recover(&files, &coder, &core.committer, evicted)?;
        // Up to here there was no log, so every commit that was read back is stable.
        let clock = Arc::new(Clock::with_log(core.committer.clock.stable()));
        core.committer.clock = Arc::clone(&clock);
        let log = Arc::new(Log::new(policy, clock, recovered.pool, recovered.writer, core.host().clone()));
        core.committer.durable = Some(Durable { log: Arc::clone(&log), coder: coder.clone(), check });
        let core = Arc::new(core);
        let checkpointer = Arc::new(Checkpointer {
            directory: files.directory,
            identity: recovered.identity,
            log: Arc::clone(&log),
            source: Box::new(LiveSource { core: Arc::downgrade(&core), coder }),
            served: Progress::default(),
            outcome: Mutex::default(),
        });
        let jobs = Some(start_jobs(core.host(), &checkpointer, &lock)?);
        if core.committer.gave_default_ttl.load(Ordering::Relaxed) {
            // Write the times to live into the files soon; otherwise these values would get a new one
            // each time the database is opened.
            log.pool.request_checkpoint();
        }
        Ok((Storage { checkpointer, info: recovered.info, jobs, _lock: lock }, core))
    }

    /// Returns whether this thread belongs to one of the jobs.
    pub(crate) fn is_on_this_thread(&self) -> bool {
        self.jobs.iter().flatten().any(Running::is_on_this_thread)
    }

    /// Writes a copy of the database, as it is now, into a directory of its own.
    pub(crate) fn back_up(
        checkpointer: &Checkpointer,
        path: PathBuf,
        mut progress: impl FnMut(BackupProgress),
        total_pairs: u64,
    ) -> Result<(), PersistenceError> {
        let directory = checkpointer.directory.sibling(path);
        let gone = || PersistenceError::Unavailable("the database is being closed".into());
        let mut pairs = checkpointer.source.pairs().ok_or_else(gone)?;
        write_database(&directory, &checkpointer.identity, &mut *pairs, |written| {
            progress(BackupProgress {
                pairs: written.pairs,
                total_pairs: total_pairs.max(written.pairs),
                bytes: written.bytes,
            });
        })
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let Some(jobs) = self.jobs.take() else { return };
        if jobs.iter().any(Running::is_elsewhere) {
            // A forked process has no copies of the threads, and a lock that they held stays locked:
            // waiting for them would never end.
            std::mem::forget(jobs);
            return;
        }
        self.checkpointer.log.close();
        // End the checkpointer after the log, because the log may need one more segment. A job may
        // itself be the last holder of the database (through a waker that it wakes, or a value that it
        // drops). `finish` then does not join it: it ends by itself and drops the lock.
        Running::finish(jobs);
    }
}

fn start_jobs(
    host: &Host,
    checkpointer: &Arc<Checkpointer>,
    lock: &Arc<dyn Lock>,
) -> Result<[Running; 2], PersistenceError> {
    let failed = |name| {
        move |error| PersistenceError::Unavailable(format!("the thread {name} could not be started: {error}"))
    };
    let log = &checkpointer.log;
    let log_job = LogJob::new(log, Arc::clone(lock));
    let log_job = host.start(LOG, log.pool.log_signal(), log_job).map_err(failed(LOG))?;
    let job = CheckpointJob::new(checkpointer, Arc::clone(lock));
    match host.start(CHECKPOINT, log.pool.checkpointer_signal(), job).map_err(failed(CHECKPOINT)) {
        Ok(checkpoint_job) => Ok([log_job, checkpoint_job]),
        Err(error) => {
            log.close();
            Running::finish([log_job]);
            Err(error)
        }
    }
}

/// A source of the pairs of an open database that does not keep it open.
struct LiveSource<K: Key, V: Value> {
    core: Weak<Core<K, V>>,
    coder: Coder<K, V>,
}

impl<K: Key, V: Value> StateSource for LiveSource<K, V> {
    fn pairs(&self) -> Option<Box<dyn PairSource + Send>> {
        let core = self.core.upgrade()?;
        let registration = core.committer.register_stable(false);
        let (survey, taken) = (MetadataScan::new(KeySpan::range(..)), Vec::new().into_iter());
        Some(Box::new(LivePairs { core, registration, survey, taken, coder: self.coder.clone() }))
    }
}

/// The pairs of one snapshot, encoded one block at a time.
struct LivePairs<K: Key, V: Value> {
    core: Arc<Core<K, V>>,
    registration: Registration,
    survey: MetadataScan<K>,
    /// Pairs that have been read but not encoded yet.
    taken: vec::IntoIter<(K, Arc<V>, Time)>,
    coder: Coder<K, V>,
}

impl<K: Key, V: Value> LivePairs<K, V> {
    fn next(&mut self) -> Option<(K, Arc<V>, Time)> {
        if self.taken.len() == 0 {
            let at = At { committer: &self.core.committer, registration: self.registration };
            let taken = self.survey.next_chunk(at, |pair| {
                let expires = pair.expires();
                (pair.key().clone(), Arc::clone(pair.value()), expires)
            });
            self.taken = taken.into_iter();
        }
        self.taken.next()
    }
}

impl<K: Key, V: Value> PairSource for LivePairs<K, V> {
    fn timestamp(&self) -> Lsn {
        self.registration.read_point.timestamp
    }

    fn time(&self) -> Time {
        self.core.committer.expiry_clock.reached()
    }

    fn fill(&mut self, block: &mut Vec<u8>) -> Result<u32, PersistenceError> {
        let mut count = 0;
        while block.len() < BLOCK_SIZE {
            let Some((key, value, expires)) = self.next() else {
                break;
            };
            let refused = PersistenceError::unencodable;
            let put_key =
                |into: &mut Vec<u8>| self.coder.encode_key(&key, into, MAX_BLOCK).map_err(refused("key"));
            let put_value = |into: &mut Vec<u8>| {
                self.coder.encode_value(&value, into, MAX_BLOCK).map_err(refused("value"))
            };
            push_operation(block, expires, put_key, Some(put_value))?;
            count += 1;
        }
        if block.len() >= BLOCK_SIZE && planted("full-block-loses-a-pair") {
            self.next();
        }
        Ok(count)
    }
}

impl<K: Key, V: Value> Drop for LivePairs<K, V> {
    fn drop(&mut self) {
        self.core.committer.active.release(self.registration);
        // Free the versions that commits kept for this snapshot.
        self.core.trim_everything();
    }
}

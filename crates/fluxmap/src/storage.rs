//! The durable side of an open database: its log, its checkpoints, their threads, and
//! the lock on its directory.

use crate::backup::write_database;
use crate::checkpoint::{BLOCK_SIZE, Pairs};
use crate::checkpointer::{Checkpointer, Source};
use crate::codec::Coder;
use crate::disk::Lock;
use crate::error::{FluxError, PersistenceError};
use crate::key::{Key, Span, Value};
use crate::mvcc::active::Registration;
use crate::persistence::{BackupProgress, RecoveryInfo};
use crate::process::Process;
use crate::progress::Progress;
use crate::recovery::{Files, recover};
use crate::shared::Core;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Mutex, Ordering};
use crate::txn::scan::{At, Survey};
use crate::wal::format::{Lsn, push_operation};
use crate::wal::{Log, LogThread, Policy};
use fluxmap_index::Time;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::vec;

/// Makes commits durable, and ends with the database.
pub(crate) struct Storage {
    pub(crate) checkpointer: Arc<Checkpointer>,
    pub(crate) info: RecoveryInfo,
    threads: Option<(LogThread, JoinHandle<()>)>,
    /// The process that has the threads.
    process: Process,
    /// Held by the threads, too: when all have let go, another may open the directory.
    _lock: Arc<dyn Lock>,
}

/// What the committer needs of it.
pub(crate) struct Durable<K, V> {
    pub(crate) log: Arc<Log>,
    pub(crate) coder: Coder<K, V>,
    /// Whether everything that is written is decoded on the way.
    pub(crate) check: bool,
}

/// How a durable database is opened.
pub(crate) struct Options<K, V> {
    pub(crate) files: Files,
    pub(crate) policy: Policy,
    pub(crate) coder: Coder<K, V>,
    pub(crate) check: bool,
}

impl Storage {
    /// Locks the directory, reads what is there into `core`, which must be fresh, and
    /// starts the log and the threads. Keys that had no room and are still in the files are
    /// added to `gone`.
    pub(crate) fn open<K: Key, V: Value>(
        options: Options<K, V>,
        mut core: Core<K, V>,
        gone: &mut Vec<K>,
    ) -> Result<(Self, Arc<Core<K, V>>), PersistenceError> {
        let Options { mut files, policy, coder, check } = options;
        files.directory = files.directory.create()?;
        let lock: Arc<dyn Lock> = files.directory.lock()?.into();
        let recovered = recover(&files, &coder, &core.committer, gone)?;
        let clock = Arc::clone(&core.committer.clock);
        let log = Arc::new(Log::new(policy, clock, recovered.pool, recovered.writer));
        core.committer.durable = Some(Durable { log: Arc::clone(&log), coder: coder.clone(), check });
        let core = Arc::new(core);
        let checkpointer = Arc::new(Checkpointer {
            directory: files.directory,
            identity: recovered.identity,
            log: Arc::clone(&log),
            source: Box::new(Live { core: Arc::downgrade(&core), coder }),
            segment_size: files.segment_size,
            served: Progress::default(),
            outcome: Mutex::default(),
        });
        let mut storage = Storage {
            checkpointer,
            info: recovered.info,
            threads: None,
            process: Process::this(),
            _lock: Arc::clone(&lock),
        };
        let log_thread = LogThread::start(&log, Arc::clone(&lock))?;
        match storage.checkpointer.start(lock) {
            Ok(checkpoint_thread) => {
                storage.threads = Some((log_thread, checkpoint_thread));
                if core.committer.gave_lives.load(Ordering::Relaxed) {
                    // Else they would get it anew each time that the database is opened.
                    log.pool.request_checkpoint();
                }
            }
            Err(error) => {
                let _ = log_thread.close().join();
                return Err(error);
            }
        }
        Ok((storage, core))
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
        let Some((log_thread, checkpoint_thread)) = self.threads.take() else {
            return;
        };
        if !self.process.is_this() {
            // A fork has not copied the threads: whoever joins them waits for ever.
            std::mem::forget((log_thread, checkpoint_thread));
            return;
        }
        // The log may need one more segment, so the checkpoint thread ends after it.
        let threads = [log_thread.close(), checkpoint_thread];
        // A waker that they wake, or a value that they drop, can be the last to hold the
        // database. They end by themselves then, and with them the lock.
        if threads.iter().any(|running| running.thread().id() == thread::current().id()) {
            return;
        }
        for running in threads {
            if running.join().is_err() {
                tracing::error!("a thread of a durable database had panicked");
            }
        }
    }
}

/// The pairs of an open database, which it does not keep open.
struct Live<K: Key, V: Value> {
    core: Weak<Core<K, V>>,
    coder: Coder<K, V>,
}

impl<K: Key, V: Value> Source for Live<K, V> {
    fn pairs(&self) -> Option<Box<dyn Pairs>> {
        let core = self.core.upgrade()?;
        let registration = core.committer.register_stable(false);
        let (survey, taken) = (Survey::new(Span::range(..)), Vec::new().into_iter());
        Some(Box::new(LivePairs { core, registration, survey, taken, coder: self.coder.clone() }))
    }
}

/// The pairs of one snapshot, encoded as they are asked for.
struct LivePairs<K: Key, V: Value> {
    core: Arc<Core<K, V>>,
    registration: Registration,
    survey: Survey<K>,
    /// Taken out and not encoded yet.
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

impl<K: Key, V: Value> Pairs for LivePairs<K, V> {
    fn timestamp(&self) -> Lsn {
        self.registration.moment.timestamp
    }

    fn time(&self) -> Time {
        self.core.committer.hand.reached()
    }

    fn fill(&mut self, block: &mut Vec<u8>) -> Result<u32, PersistenceError> {
        let mut count = 0;
        while block.len() < BLOCK_SIZE {
            let Some((key, value, expires)) = self.next() else {
                break;
            };
            let unstorable = PersistenceError::unstorable;
            let put_key = |into: &mut Vec<u8>| self.coder.encode_key(&key, into).map_err(unstorable("key"));
            let put_value =
                |into: &mut Vec<u8>| self.coder.encode_value(&value, into).map_err(unstorable("value"));
            push_operation(block, expires, put_key, Some(put_value))?;
            count += 1;
        }
        Ok(count)
    }
}

impl<K: Key, V: Value> Drop for LivePairs<K, V> {
    fn drop(&mut self) {
        self.core.committer.active.release(self.registration);
        // What commits left for its sake.
        self.core.trim_everything();
    }
}

/// Runs `work`, which may block, on a thread of its own.
///
/// Cancel-safe: the work is done in any case.
pub(crate) async fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FluxError> {
    struct Slot<T> {
        done: Progress,
        result: Mutex<Option<T>>,
    }

    /// Whatever happens: somebody waits.
    struct Finish<T>(Arc<Slot<T>>);

    impl<T> Drop for Finish<T> {
        fn drop(&mut self) {
            drop(self.0.done.advance(1));
        }
    }

    let slot = Arc::new(Slot { done: Progress::default(), result: Mutex::new(None) });
    let finish = Finish(Arc::clone(&slot));
    let builder = thread::Builder::new().name(name.to_string());
    let thread = builder
        .spawn(move || {
            let result = work();
            *finish.0.result.lock() = Some(result);
        })
        .map_err(|error| PersistenceError::Unavailable(format!("a thread could not be started: {error}")))?;
    slot.done.wait_for(1).await?;
    let result = slot.result.lock().take();
    match (result, thread.join()) {
        (Some(result), _) => Ok(result),
        // What panicked was the types' own code; it goes on where it was asked for.
        (None, Err(panic)) => std::panic::resume_unwind(panic),
        (None, Ok(())) => Err(PersistenceError::Unavailable("a thread ended early".into()).into()),
    }
}

//! The checkpoint thread: makes segments ahead, writes checkpoints, and gives segments
//! that a checkpoint covers back to the pool.

use crate::checkpoint::{Pairs, publish_draft, write_draft};
use crate::disk::Lock;
use crate::error::PersistenceError;
use crate::persistence::CheckpointInfo;
use crate::progress::Progress;
use crate::sync::thread::JoinHandle;
use crate::sync::{Instant, Mutex};
use crate::wal::directory::{CHECKPOINT_DRAFT, Directory, segment_name};
use crate::wal::format::Identity;
use crate::wal::pool::Task;
use crate::wal::segment;
use crate::wal::{Log, spawn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

type Result<T> = std::result::Result<T, PersistenceError>;

/// Where checkpoints find what is stored.
pub(crate) trait Source: Send + Sync {
    /// All pairs as they are now, and stable; `None` if the database is gone.
    fn pairs(&self) -> Option<Box<dyn Pairs>>;
}

/// What the checkpoint thread works on.
pub(crate) struct Checkpointer {
    pub(crate) directory: Directory,
    pub(crate) identity: Identity,
    pub(crate) log: Arc<Log>,
    pub(crate) source: Box<dyn Source>,
    pub(crate) segment_size: u64,
    /// Requests that have been served.
    pub(crate) served: Progress,
    /// How the last attempt went.
    pub(crate) outcome: Mutex<Option<Result<CheckpointInfo>>>,
}

impl Checkpointer {
    /// The thread keeps `lock` until it ends.
    pub(crate) fn start(self: &Arc<Self>, lock: Arc<dyn Lock>) -> Result<JoinHandle<()>> {
        let runner = Arc::clone(self);
        spawn("fluxmap-checkpoint", &self.log, lock, move || runner.run())
    }

    /// Has a checkpoint written that covers everything that is stable now.
    ///
    /// Cancel-safe: the checkpoint is written in any case.
    pub(crate) async fn checkpoint(&self) -> Result<CheckpointInfo> {
        self.log.check_process()?;
        let request = self.log.pool.request_checkpoint();
        self.served.wait_for(request).await?;
        let closing = || Err(PersistenceError::Unavailable("the database is being closed".into()));
        self.outcome.lock().clone().unwrap_or_else(closing)
    }

    /// Why the last attempt failed, if it did.
    pub(crate) fn last_failure(&self) -> Option<PersistenceError> {
        self.outcome.lock().as_ref().and_then(|outcome| outcome.as_ref().err().cloned())
    }

    fn run(&self) {
        let (mut served, mut failed) = (0, false);
        loop {
            match self.log.pool.next_task(served, failed) {
                Task::Make { number, recycled } => self.make(number, recycled),
                Task::Checkpoint { requests } => {
                    let outcome = self.write_contained();
                    failed = outcome.is_err();
                    if let Err(error) = &outcome {
                        let is_needed = self.log.pool.awaits_checkpoint();
                        self.note_failure(error, is_needed, "a checkpoint could not be written");
                    }
                    *self.outcome.lock() = Some(outcome);
                    served = requests;
                    drop(self.served.advance(served));
                }
                Task::Stop => break,
            }
        }
        let ended = PersistenceError::Unavailable("the database is being closed".into());
        drop(self.served.fail(self.log.failure().unwrap_or(&ended)));
    }

    fn note_failure(&self, error: &PersistenceError, is_needed: bool, what: &'static str) {
        if is_needed {
            // The log cannot go on without: better an error than waiting for ever.
            self.log.fail(error.clone());
        } else if !self.log.pool.is_stopping() {
            tracing::warn!(%error, "{what}; it will be tried again");
        }
    }

    fn make(&self, number: u64, recycled: Option<u64>) {
        let made = segment::make(&self.directory, &self.identity, number, self.segment_size, recycled);
        let (segment, error) = match made {
            Ok(segment) => (Some(segment), None),
            Err(error) => (None, Some(error)),
        };
        self.log.pool.made(segment, recycled);
        if let Some(error) = error {
            let is_needed = self.log.pool.awaits_segment();
            self.note_failure(&error, is_needed, "a segment of the log could not be made");
        }
    }

    /// Writes a checkpoint; a panic of a key's or value's own code is an error.
    fn write_contained(&self) -> Result<CheckpointInfo> {
        catch_unwind(AssertUnwindSafe(|| self.write())).unwrap_or_else(|_| {
            Err(PersistenceError::Unavailable("a key or a value panicked while it was being encoded".into()))
        })
    }

    #[tracing::instrument(name = "checkpoint", skip_all)]
    fn write(&self) -> Result<CheckpointInfo> {
        let started = Instant::now();
        let pool = &self.log.pool;
        let closing = || PersistenceError::Unavailable("the database is being closed".into());
        // So that everything in segments that have ended is stable, and covered.
        self.log.sync()?;
        let mut pairs = self.source.pairs().ok_or_else(closing)?;
        let commit = pairs.timestamp();
        let first = pool.first_after(commit);
        let written = write_draft(&self.directory, &self.identity, &mut *pairs, first, |_| {
            // The log must not wait for a segment until this is done.
            if let Some(Task::Make { number, recycled }) = pool.urgent_task() {
                self.make(number, recycled);
            }
            if pool.is_stopping() { Err(closing()) } else { Ok(()) }
        });
        if written.is_err() {
            // It may be all that a full disk has room for. If it stays, it does no harm.
            let _ = self.directory.remove(CHECKPOINT_DRAFT);
        }
        let written = written?;
        drop(pairs);
        // What a checkpoint covers is durable: else the log could end before it.
        self.log.sync_up_to(commit)?;
        publish_draft(&self.directory)?;
        for number in pool.covered_before(first) {
            // One that stays is ignored, and removed when the database is opened.
            if let Err(error) = self.directory.remove(&segment_name(number)) {
                tracing::warn!(%error, "a segment that is not needed any more stays");
            }
        }
        let info = CheckpointInfo {
            commit,
            pairs: written.pairs,
            bytes: written.bytes,
            duration: started.elapsed(),
        };
        tracing::debug!(?info, "checkpoint written");
        Ok(info)
    }
}

//! The checkpointer makes segments in advance, writes checkpoints, one block in each step, and returns
//! segments that a checkpoint covers to the pool.

use crate::checkpoint::{Draft, PairSource, Written, publish_draft};
use crate::disk::Lock;
use crate::error::PersistenceError;
use crate::jobs::{Done, Job};
use crate::persistence::CheckpointInfo;
use crate::progress::Progress;
use crate::sync::{Instant, Mutex};
use crate::wal::Log;
use crate::wal::directory::{CHECKPOINT_DRAFT, Directory, segment_name};
use crate::wal::format::{FileIdentity, Lsn};
use crate::wal::pool::{Make, Task};
use crate::wal::segment;
use fluxmap_index::planted;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

type Result<T> = std::result::Result<T, PersistenceError>;

/// The source of the stored pairs.
pub(crate) trait StateSource: Send + Sync {
    /// Returns all pairs of the present stable state; `None` if the database is gone.
    fn pairs(&self) -> Option<Box<dyn PairSource + Send>>;
}

/// The parts that checkpoints need.
pub(crate) struct Checkpointer {
    pub(crate) directory: Directory,
    pub(crate) identity: FileIdentity,
    pub(crate) log: Arc<Log>,
    pub(crate) source: Box<dyn StateSource>,
    /// The number of requests that have been served.
    pub(crate) served: Progress,
    /// The result of the last attempt.
    pub(crate) outcome: Mutex<Option<Result<CheckpointInfo>>>,
}

impl Checkpointer {
    /// Requests a checkpoint that covers everything that is stable now, and waits for it.
    ///
    /// Cancel-safe: the checkpoint is written in any case.
    pub(crate) async fn checkpoint(&self) -> Result<CheckpointInfo> {
        self.log.check_process()?;
        let request = self.log.pool.request_checkpoint();
        self.served.wait_for(request).await?;
        self.outcome.lock().clone().unwrap_or_else(|| Err(closing()))
    }

    /// Returns the error of the last attempt, if it failed.
    pub(crate) fn last_failure(&self) -> Option<PersistenceError> {
        self.outcome.lock().as_ref().and_then(|outcome| outcome.as_ref().err().cloned())
    }

    fn note_failure(&self, error: &PersistenceError, is_needed: bool, what: &'static str) {
        if is_needed {
            // The log cannot go on without it: an error is better than waiting for ever.
            self.log.fail(error.clone());
        } else if !self.log.pool.is_stopping() {
            tracing::warn!(%error, "{what}; it will be tried again");
        }
    }

    fn make(&self, Make { number, size, recycled, surplus }: Make) {
        self.remove(surplus);
        let made = segment::make(&self.directory, &self.identity, number, size, recycled);
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

    fn remove(&self, segments: Vec<u64>) {
        for number in segments {
            // A segment that stays does no harm, and is removed when the database is opened next.
            if let Err(error) = self.directory.remove(&segment_name(number)) {
                tracing::warn!(%error, "a segment that is not needed any more could not be removed");
            }
        }
    }

    /// Begins a checkpoint, which will serve the requests up to this number.
    fn begin(&self, requests: u64) -> Result<Underway> {
        let started = self.log.now();
        // Sync first, so that all segments that have ended are stable, and covered by the checkpoint.
        if !planted("checkpoint-ahead-of-the-log") {
            self.log.sync()?;
        }
        let pairs = self.source.pairs().ok_or_else(closing)?;
        let commit = pairs.timestamp();
        let first = self.log.pool.first_after(commit);
        let draft = Draft::create(&self.directory, &self.identity, commit, pairs.time(), first)?;
        Ok(Underway { requests, started, commit, first, draft, pairs: Some(pairs) })
    }

    /// Does the next piece of a checkpoint; returns the result if it was the last.
    fn proceed(&self, underway: &mut Underway) -> Result<Option<CheckpointInfo>> {
        let Some(pairs) = &mut underway.pairs else { return self.publish(underway).map(Some) };
        if self.log.pool.is_stopping() {
            return Err(closing());
        }
        if !underway.draft.write_next(&mut **pairs)? {
            underway.pairs = None;
        }
        Ok(None)
    }

    /// Puts a complete checkpoint in the place of the previous one.
    fn publish(&self, underway: &Underway) -> Result<CheckpointInfo> {
        let Underway { commit, first, .. } = *underway;
        // The covered commits must be durable first: otherwise, after a crash, the log could end before
        // the checkpoint.
        if !planted("checkpoint-ahead-of-the-log") {
            self.log.sync_up_to(commit)?;
        }
        let Written { pairs, bytes } = underway.draft.written();
        if planted("recycled-before-the-checkpoint") {
            self.remove(self.log.pool.covered_before(first, bytes));
        }
        publish_draft(&self.directory)?;
        self.remove(self.log.pool.covered_before(first, bytes));
        let duration = self.log.now().saturating_duration_since(underway.started);
        let info = CheckpointInfo { commit, pairs, bytes, duration };
        tracing::debug!(?info, "checkpoint written");
        Ok(info)
    }
}

fn closing() -> PersistenceError {
    PersistenceError::Unavailable("the database is being closed".into())
}

/// The name of the checkpointer's thread, if it has one.
pub(crate) const CHECKPOINT: &str = "fluxmap-checkpoint";

/// Makes segments and checkpoints until the log has ended.
pub(crate) struct CheckpointJob {
    checkpointer: Arc<Checkpointer>,
    /// The number of requests that have been handled.
    served: u64,
    /// Whether the last checkpoint could not be written.
    failed: bool,
    underway: Option<Underway>,
    /// While the job lives, no other process can open the directory.
    _lock: Arc<dyn Lock>,
}

/// A checkpoint under way.
struct Underway {
    /// The requests that it will have served.
    requests: u64,
    started: Instant,
    /// The last commit that it covers.
    commit: Lsn,
    /// The first segment that is needed after it.
    first: u64,
    draft: Draft,
    /// `None` once all pairs have been written. They hold a snapshot and the database.
    pairs: Option<Box<dyn PairSource + Send>>,
}

impl CheckpointJob {
    pub(crate) fn new(checkpointer: &Arc<Checkpointer>, lock: Arc<dyn Lock>) -> Self {
        let checkpointer = Arc::clone(checkpointer);
        CheckpointJob { checkpointer, served: 0, failed: false, underway: None, _lock: lock }
    }

    /// Does the next piece of the checkpoint under way.
    fn write(&mut self, mut underway: Underway) {
        let requests = underway.requests;
        let checkpointer = &self.checkpointer;
        match contained(|| Ok((checkpointer.proceed(&mut underway)?, underway))) {
            Ok((None, underway)) => self.underway = Some(underway),
            Ok((Some(info), _)) => self.conclude(requests, Ok(info)),
            Err(error) => self.conclude(requests, Err(error)),
        }
    }

    fn conclude(&mut self, requests: u64, outcome: Result<CheckpointInfo>) {
        let checkpointer = &self.checkpointer;
        self.failed = outcome.is_err();
        if let Err(error) = &outcome {
            // The draft may take all the room that a full disk has left. If it cannot be removed, it
            // does no harm.
            let _ = checkpointer.directory.remove(CHECKPOINT_DRAFT);
            let is_needed = checkpointer.log.pool.awaits_checkpoint();
            checkpointer.note_failure(error, is_needed, "a checkpoint could not be written");
        }
        *checkpointer.outcome.lock() = Some(outcome);
        self.served = requests;
        drop(checkpointer.served.advance(requests));
    }

    fn end(&self) -> Done {
        let ended = closing();
        let checkpointer = &self.checkpointer;
        drop(checkpointer.served.fail(checkpointer.log.failure().unwrap_or(&ended)));
        Done::Ended
    }
}

impl Job for CheckpointJob {
    fn step(&mut self) -> Done {
        let pool = &self.checkpointer.log.pool;
        if let Some(underway) = self.underway.take() {
            // Make segments between blocks: the log must not wait for one until the checkpoint is done.
            match pool.urgent_task(underway.draft.written().bytes) {
                Some(make) => {
                    self.checkpointer.make(make);
                    self.underway = Some(underway);
                }
                None => self.write(underway),
            }
            return Done::More;
        }
        match pool.next_task(self.served, self.failed) {
            None => return Done::Idle(None),
            Some(Task::Make(make)) => self.checkpointer.make(make),
            Some(Task::Checkpoint { requests }) => match contained(|| self.checkpointer.begin(requests)) {
                Ok(underway) => self.underway = Some(underway),
                Err(error) => self.conclude(requests, Err(error)),
            },
            Some(Task::Stop) => return self.end(),
        }
        Done::More
    }

    fn panicked(&mut self) {
        self.checkpointer.log.fail_by_panic(CHECKPOINT);
    }
}

/// Turns a panic of user code of keys or values into an error.
fn contained<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(PersistenceError::Unavailable("a key or a value panicked while it was being encoded".into()))
    })
}

//! The log's job: writes and syncs at `Full`, syncs at `Relaxed`, switches segments, and closes the log.

use crate::disk::Lock;
use crate::error::PersistenceError;
use crate::jobs::{Done, Job};
use crate::progress::Woken;
use crate::sync::Instant;
use crate::wal::{Log, SyncPolicy};
use std::mem;
use std::sync::Arc;

/// The name of the log's thread, if it has one.
pub(crate) const LOG: &str = "fluxmap-log";

/// Works on a log until the log is closed or fails.
pub(crate) struct LogJob {
    log: Arc<Log>,
    state: State,
    /// Whether the log is being closed.
    closing: bool,
    /// While the job lives, no other process can open the directory.
    _lock: Arc<dyn Lock>,
}

/// The next thing that the job does.
#[derive(Clone, Copy)]
enum State {
    /// Looking for something to do.
    Looking,
    /// Writing the queue, a group in each step. A sync follows at `Full`, or if `sync` is set.
    Writing {
        sync: bool,
    },
    /// The log has to wait for a checkpoint or a segment. Sync it first, so that the checkpoint can
    /// cover all of it.
    Blocked {
        sync: bool,
    },
    /// Waiting for the pool, before writing goes on.
    Waiting {
        sync: bool,
    },
    Syncing,
    /// Writing the mark that the log was closed.
    Ending,
}

/// The work that the log needs.
enum LogWork {
    /// Write the queue, and sync it at `Full` or if `sync` is set.
    Write { sync: bool },
    /// Write everything and close the log.
    Close,
    /// Nothing, until the job is woken, or until this time.
    None(Option<Instant>),
}

/// The result of writing.
enum Wrote {
    /// The queue is empty.
    All,
    /// There is room, and the queue may not be empty.
    Some,
    /// There is no room in the segment.
    Blocked,
}

impl LogJob {
    pub(crate) fn new(log: &Arc<Log>, lock: Arc<dyn Lock>) -> Self {
        LogJob { log: Arc::clone(log), state: State::Looking, closing: false, _lock: lock }
    }

    fn proceed(&mut self) -> Result<Done, PersistenceError> {
        let log = &self.log;
        self.state = match self.state {
            State::Looking => match log.next_work() {
                LogWork::None(deadline) => return Ok(Done::Idle(deadline)),
                LogWork::Write { sync } => State::Writing { sync },
                LogWork::Close => {
                    self.closing = true;
                    State::Writing { sync: true }
                }
            },
            State::Waiting { .. } if !log.pool.may_go_on() => return Ok(Done::Idle(None)),
            State::Writing { sync } | State::Waiting { sync } => match log.write_some()? {
                Wrote::All if sync || matches!(log.policy, SyncPolicy::Full) => State::Syncing,
                Wrote::All => State::Looking,
                Wrote::Some => State::Writing { sync },
                Wrote::Blocked => State::Blocked { sync },
            },
            State::Blocked { sync } => {
                log.sync()?;
                State::Waiting { sync }
            }
            State::Syncing => {
                log.sync()?;
                if self.closing { State::Ending } else { State::Looking }
            }
            // A destructor has queued a commit in the meantime: write it before the last mark.
            State::Ending if !log.is_idle() => State::Writing { sync: true },
            State::Ending => {
                log.mark_closed()?;
                return Ok(self.end());
            }
        };
        Ok(Done::More)
    }

    fn end(&self) -> Done {
        // The log needs no more segments.
        self.log.pool.finish();
        Done::Ended
    }
}

impl Job for LogJob {
    fn step(&mut self) -> Done {
        if self.log.failed.get().is_some() {
            return self.end();
        }
        self.proceed().unwrap_or_else(|error| {
            self.log.fail(error);
            Done::More
        })
    }

    fn panicked(&mut self) {
        self.log.fail_by_panic(LOG);
    }
}

impl Log {
    /// Ends the log because a job on which it depends has panicked.
    pub(crate) fn fail_by_panic(&self, job: &str) {
        self.fail(PersistenceError::Unavailable(format!("the background work {job} has panicked")));
    }

    /// Makes the job write and sync the queue, whatever the size of the pool, and then end.
    pub(crate) fn close(&self) {
        self.pool.close();
        self.wake(|queue| queue.closing = true);
    }

    fn next_work(&self) -> LogWork {
        let mut queue = self.queue.lock();
        queue.asleep = false;
        if queue.closing {
            return LogWork::Close;
        }
        let deadline = self.deadline(queue.dirty_since);
        let overdue = deadline.is_some_and(|deadline| deadline <= self.host.now());
        let sync = overdue || queue.sync_target > self.synced.reached();
        let write = match self.policy {
            SyncPolicy::Full => !queue.records.is_empty(),
            SyncPolicy::Relaxed(_) => mem::take(&mut queue.stuck),
        };
        if sync {
            // Writes from now on start a new interval.
            queue.dirty_since = None;
        }
        if sync || write {
            return LogWork::Write { sync };
        }
        // Set under the queue's lock: a thread that queues a commit from now on wakes the job.
        queue.asleep = true;
        LogWork::None(deadline)
    }

    /// Returns when commits written at `dirty_since` must be synced.
    fn deadline(&self, dirty_since: Option<Instant>) -> Option<Instant> {
        dirty_since?.checked_add(self.flush_interval()?)
    }

    /// Writes the commits that are queued now.
    fn write_some(&self) -> Result<Wrote, PersistenceError> {
        let mut woken = Woken::default();
        let mut writer = self.writer.lock();
        if self.write_group(&mut writer, &mut woken)? {
            drop(writer);
            // W5. At `Full` only this job writes, and a sync follows.
            let is_all = matches!(self.policy, SyncPolicy::Full) || self.is_idle();
            return Ok(if is_all { Wrote::All } else { Wrote::Some });
        }
        Ok(if self.make_room(&mut writer)? { Wrote::Some } else { Wrote::Blocked })
    }

    fn mark_closed(&self) -> Result<(), PersistenceError> {
        self.writer.lock().mark_closed().map_err(|error| self.poison(error))?;
        self.sync()
    }
}

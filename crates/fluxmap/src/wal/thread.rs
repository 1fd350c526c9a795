//! The log thread: writes and syncs at `Full`, syncs at `Relaxed`, changes segments,
//! and closes the log.

use crate::disk::Lock;
use crate::error::PersistenceError;
use crate::progress::Woken;
use crate::sync::Instant;
use crate::sync::thread::{self, JoinHandle};
use crate::wal::{Log, Policy};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

/// The thread behind a log. Joined when it is [closed](Self::close).
pub(crate) struct LogThread {
    log: Arc<Log>,
    thread: JoinHandle<()>,
}

/// What the log thread has to do.
enum Work {
    /// Write what is queued, and sync it at `Full` or if this says so.
    Write { sync: bool },
    /// The last things.
    Close,
    /// Nothing more: the log has failed.
    Stop,
}

impl LogThread {
    /// The thread keeps `lock` until it ends.
    pub(crate) fn start(log: &Arc<Log>, lock: Arc<dyn Lock>) -> Result<Self, PersistenceError> {
        let runner = Arc::clone(log);
        let body = move || {
            runner.run();
            // It needs no more segments.
            runner.pool.finish();
        };
        let thread = spawn("fluxmap-log", log, lock, body)?;
        Ok(LogThread { log: Arc::clone(log), thread })
    }

    /// Has what is queued written and synced, whatever the pool's size, and the thread
    /// end; it can be joined then.
    pub(crate) fn close(self) -> JoinHandle<()> {
        self.log.pool.close();
        self.log.wake(|queue| queue.closing = true);
        self.thread
    }
}

/// Starts a thread that keeps `lock` until it ends. If it panics, the log fails: nobody is
/// to wait for it for ever.
pub(crate) fn spawn(
    name: &'static str,
    log: &Arc<Log>,
    lock: Arc<dyn Lock>,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, PersistenceError> {
    struct EndsWith(Arc<Log>, &'static str);

    impl Drop for EndsWith {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.fail(PersistenceError::Unavailable(format!("the thread {} has panicked", self.1)));
            }
        }
    }

    let ends_with = EndsWith(Arc::clone(log), name);
    let builder = thread::Builder::new().name(name.to_string());
    let spawned = builder.spawn(move || {
        let _lock = lock;
        let _ends_with = ends_with;
        body();
    });
    spawned.map_err(|error| {
        PersistenceError::Unavailable(format!("the thread {name} could not be started: {error}"))
    })
}

impl Log {
    fn run(&self) {
        loop {
            let (done, result) = match self.next_work() {
                Work::Stop => return,
                Work::Write { sync } => (false, self.write_and_sync(sync)),
                Work::Close => (true, self.write_the_end()),
            };
            if let Err(error) = result {
                self.fail(error);
            }
            if done {
                return;
            }
        }
    }

    /// Waits for something to do.
    fn next_work(&self) -> Work {
        let mut queue = self.queue.lock();
        loop {
            if self.failed.get().is_some() {
                return Work::Stop;
            }
            if queue.closing {
                return Work::Close;
            }
            let deadline = self.deadline(queue.dirty_since);
            let overdue = deadline.is_some_and(|left| left.is_zero());
            let sync = overdue || queue.sync_target > self.synced.reached();
            let write = match self.policy {
                Policy::Full => !queue.records.is_empty(),
                Policy::Relaxed(_) => mem::take(&mut queue.stuck),
            };
            if sync {
                // What is written from now on counts anew.
                queue.dirty_since = None;
            }
            if sync || write {
                return Work::Write { sync };
            }
            queue.asleep = true;
            match deadline {
                None => self.work.wait(&mut queue),
                Some(left) => {
                    self.work.wait_for(&mut queue, left);
                }
            }
            queue.asleep = false;
        }
    }

    /// How long until what was written then must be synced.
    fn deadline(&self, dirty_since: Option<Instant>) -> Option<Duration> {
        let due = dirty_since?.checked_add(self.flush_interval()?)?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn write_and_sync(&self, sync: bool) -> Result<(), PersistenceError> {
        loop {
            let mut woken = Woken::default();
            let mut writer = self.writer.lock();
            if self.write_group(&mut writer, &mut woken)? {
                drop(writer);
                // W5. At `Full` nobody else writes, and a sync follows.
                if matches!(self.policy, Policy::Full) || self.is_idle() {
                    break;
                }
                continue;
            }
            let goes_on = self.make_room(&mut writer)?;
            drop(writer);
            drop(woken);
            if !goes_on {
                // So that the checkpoint that it waits for can cover all of it.
                self.sync()?;
                self.pool.wait_for_next();
            }
        }
        if sync || matches!(self.policy, Policy::Full) {
            self.sync()?;
        }
        Ok(())
    }

    fn write_the_end(&self) -> Result<(), PersistenceError> {
        self.write_and_sync(true)?;
        while !self.is_idle() {
            self.write_and_sync(true)?;
        }
        self.writer.lock().mark_closed().map_err(|error| self.poison(error))?;
        self.sync()
    }
}

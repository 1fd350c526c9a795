//! Which segments there are, and what they wait for.
//!
//! Numbers only grow. Of the segments with commits that no checkpoint covers, there
//! are at most as many as the pool's size; beside them one is kept ready, so that the
//! log can go on without waiting for a file to be made. Segments that a checkpoint
//! covers become the next ready ones.
//!
//! The log ends the active segment only when the next is ready, and begins the next
//! only when the pool's size allows it. In between it waits for a checkpoint: that
//! is the back-pressure on those who write faster than checkpoints are made.

use crate::error::PersistenceError;
use crate::jobs::Signal;
use crate::sync::Mutex;
use crate::wal::format::Lsn;
use crate::wal::segment::Segment;
use std::collections::VecDeque;
use std::sync::Arc;

/// A segment that is full, and whose commits are not all in a checkpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) number: u64,
    /// Its last commit, or the last before it if it has none.
    pub(crate) last: Lsn,
}

#[derive(Debug)]
struct State {
    ended: VecDeque<Ended>,
    /// The active segment, or the one that would be.
    current: u64,
    ready: Option<Segment>,
    /// Covered by a checkpoint, oldest first.
    covered: VecDeque<u64>,
    /// The log waits for a checkpoint.
    blocked: bool,
    /// Explicit requests for a checkpoint so far.
    requested: u64,
    /// The last attempt to make a segment failed; another follows when the log needs it.
    make_failed: bool,
    /// The database is being closed: nothing is to take long any more.
    closing: bool,
    /// The log needs nothing more.
    finished: bool,
    failed: Option<PersistenceError>,
}

/// The segments of an open database.
pub(crate) struct Pool {
    size: usize,
    state: Mutex<State>,
    changed: Changed,
}

/// The two jobs that look at the pool.
#[derive(Default)]
struct Changed {
    log: Arc<Signal>,
    checkpointer: Arc<Signal>,
}

impl Changed {
    fn notify_all(&self) {
        self.log.ring();
        self.checkpointer.ring();
    }
}

/// What the checkpointer is to do next.
#[derive(Debug)]
pub(crate) enum Task {
    /// Make this segment, out of the other if there is one.
    Make { number: u64, recycled: Option<u64> },
    /// Write a checkpoint; these requests will have been served.
    Checkpoint { requests: u64 },
    /// Nothing more: the database is being closed, or its log has failed.
    Stop,
}

/// Whether the log may go on with the next segment.
pub(crate) enum Next {
    Segment(Segment),
    /// Not yet: the log's signal is rung when [`Pool::may_go_on`] may say something else.
    NotYet,
}

impl Pool {
    pub(crate) fn new(size: usize, current: u64, ended: VecDeque<Ended>, ready: Option<Segment>) -> Self {
        let state = State {
            ended,
            current,
            ready,
            covered: VecDeque::new(),
            blocked: false,
            requested: 0,
            make_failed: false,
            closing: false,
            finished: false,
            failed: None,
        };
        Pool { size, state: Mutex::new(state), changed: Changed::default() }
    }

    /// The log has no room left. Once the next segment is ready, `end` ends the active
    /// one, and returns its last commit, and once that is allowed, the next is returned.
    pub(crate) fn next_segment(
        &self,
        active: u64,
        end: impl FnOnce() -> Result<Lsn, PersistenceError>,
    ) -> Result<Next, PersistenceError> {
        let mut state = self.state.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        if state.ready.is_none() {
            state.blocked = true;
            self.changed.notify_all();
            return Ok(Next::NotYet);
        }
        if state.current == active {
            let last = end()?;
            state.ended.push_back(Ended { number: active, last });
            state.current = active + 1;
        }
        if self.has_place(&state) {
            state.blocked = false;
            if let Some(segment) = state.ready.take() {
                // There is a segment to make now, and perhaps a checkpoint.
                self.changed.notify_all();
                return Ok(Next::Segment(segment));
            }
        }
        state.blocked = true;
        self.changed.notify_all();
        Ok(Next::NotYet)
    }

    /// Whether one more segment may hold commits that no checkpoint covers.
    fn has_place(&self, state: &State) -> bool {
        // To close is to be done soon, and needs no more than one.
        state.ended.len() < self.size || state.closing
    }

    /// Whether the log waits for a checkpoint, and not for a segment to be made.
    fn needs_checkpoint(&self, state: &State) -> bool {
        state.blocked && !self.has_place(state)
    }

    /// Whether [`next_segment`](Self::next_segment) may have another answer by now.
    pub(crate) fn may_go_on(&self) -> bool {
        let state = self.state.lock();
        !state.blocked || state.failed.is_some() || (state.ready.is_some() && self.has_place(&state))
    }

    /// What the log's job listens to.
    pub(crate) fn log_signal(&self) -> &Arc<Signal> {
        &self.changed.log
    }

    /// What the checkpointer's job listens to.
    pub(crate) fn checkpointer_signal(&self) -> &Arc<Signal> {
        &self.changed.checkpointer
    }

    /// Has the log's job look for work.
    pub(crate) fn wake_log(&self) {
        self.changed.log.ring();
    }

    /// Asks for a checkpoint; returns the number of requests so far.
    pub(crate) fn request_checkpoint(&self) -> u64 {
        let mut state = self.state.lock();
        state.requested += 1;
        self.changed.notify_all();
        state.requested
    }

    /// Something to do; if there is nothing, the checkpointer's signal is rung when there may
    /// be. `served` requests have been dealt with; after a checkpoint that failed (`failed`),
    /// another is made when it is asked for, or when the log cannot go on without.
    pub(crate) fn next_task(&self, served: u64, failed: bool) -> Option<Task> {
        let state = self.state.lock();
        if state.failed.is_some() {
            return Some(Task::Stop);
        }
        if let Some(task) = state.segment_to_make() {
            return Some(task);
        }
        if state.finished {
            return Some(Task::Stop);
        }
        let full = state.ended.len() >= (self.size / 2).max(1) && !failed;
        let blocked = self.needs_checkpoint(&state);
        let is_due = !state.closing && (full || blocked || state.requested > served);
        is_due.then_some(Task::Checkpoint { requests: state.requested })
    }

    /// A segment that is to be made, between two blocks of a checkpoint.
    pub(crate) fn urgent_task(&self) -> Option<Task> {
        self.state.lock().segment_to_make()
    }

    /// Whether a checkpoint is not worth finishing.
    pub(crate) fn is_stopping(&self) -> bool {
        let state = self.state.lock();
        state.closing || state.failed.is_some()
    }

    /// Whether the log cannot go on without the segment that was to be made.
    pub(crate) fn awaits_segment(&self) -> bool {
        self.state.lock().blocked
    }

    /// Whether the log cannot go on without a checkpoint. It can when the database is being
    /// closed, even if it has not noticed yet.
    pub(crate) fn awaits_checkpoint(&self) -> bool {
        self.needs_checkpoint(&self.state.lock())
    }

    /// How a [`Task::Make`] went.
    pub(crate) fn made(&self, segment: Option<Segment>, recycled: Option<u64>) {
        let mut state = self.state.lock();
        // Whether it went well or not, it is a segment no more.
        state.covered.retain(|number| Some(*number) != recycled);
        state.make_failed = segment.is_none();
        state.ready = segment;
        self.changed.notify_all();
    }

    /// The first segment that holds, or will hold, commits after `covered`; it exists.
    pub(crate) fn first_after(&self, covered: Lsn) -> u64 {
        let state = self.state.lock();
        let first = state.ended.iter().find(|ended| ended.last > covered);
        first.map_or(state.current, |ended| ended.number)
    }

    /// A checkpoint stands: the log is needed from segment `first` on only.
    pub(crate) fn covered_before(&self, first: u64) -> Vec<u64> {
        let mut state = self.state.lock();
        while let Some(ended) = state.ended.pop_front_if(|ended| ended.number < first) {
            state.covered.push_back(ended.number);
        }
        // One to recycle is enough; the files of the others go.
        let kept = state.covered.len().min(1);
        let spare = state.covered.split_off(kept);
        self.changed.notify_all();
        spare.into()
    }

    /// The database is being closed.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_all();
    }

    /// The log has been closed.
    pub(crate) fn finish(&self) {
        self.state.lock().finished = true;
        self.changed.notify_all();
    }

    pub(crate) fn fail(&self, error: &PersistenceError) {
        self.state.lock().failed.get_or_insert_with(|| error.clone());
        self.changed.notify_all();
    }
}

impl State {
    fn segment_to_make(&self) -> Option<Task> {
        // At the end, only what the log waits for.
        let wanted = self.ready.is_none()
            && self.failed.is_none()
            && (self.blocked || !(self.closing || self.make_failed));
        wanted.then(|| Task::Make { number: self.current + 1, recycled: self.covered.front().copied() })
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_to_be_closed_does_not_need_the_checkpoint_that_it_waits_for() {
        let pool = Pool::new(1, 2, [Ended { number: 1, last: 5 }].into(), None);
        let next = pool.next_segment(2, || unreachable!("there is no segment to go on with"));
        assert!(matches!(next, Ok(Next::NotYet)));
        assert!(pool.awaits_segment() && pool.awaits_checkpoint());
        pool.close();
        // It has not been awake since. To give a checkpoint up now must not end it.
        assert!(pool.awaits_segment() && !pool.awaits_checkpoint());
    }
}

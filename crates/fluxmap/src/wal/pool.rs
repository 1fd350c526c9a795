//! The segments of the log, and what they wait for.
//!
//! Numbers only grow. The segments with commits that no checkpoint covers, plus one segment that is kept
//! ready so that the log need not wait for a file to be made, together take no more than
//! [`Bounds::limit`]. Segments that a checkpoint covers are reused as the next ready ones, as many as
//! there is room for.
//!
//! The log ends the active segment only when the next one is ready, and the next one is made, and begun,
//! only when there is room for it. In between the log waits for a checkpoint: this is the back-pressure
//! on commits that come faster than checkpoints are made. A commit that has no room in the largest
//! segment waits until no other segment has to be kept, and then takes the room that it needs.

use crate::error::PersistenceError;
use crate::jobs::Signal;
use crate::sync::Mutex;
use crate::wal::format::Lsn;
use crate::wal::limits::{Bounds, LogSize};
use crate::wal::segment::Segment;
use fluxmap_index::planted;
use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

/// A full segment whose commits are not all in a checkpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FullSegment {
    pub(crate) number: u64,
    /// Its last commit or, if it has none, the last one before it.
    pub(crate) last: Lsn,
    /// The length of its file.
    pub(crate) size: u64,
}

/// A segment that a checkpoint covers, so that its file may be reused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Covered {
    pub(crate) number: u64,
    /// The length of its file.
    pub(crate) size: u64,
}

/// The segments of a log that has been read back.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) ended: VecDeque<FullSegment>,
    /// The number and the length of the segment in which the log continues.
    pub(crate) active: (u64, u64),
    pub(crate) ready: Option<Segment>,
    /// Oldest first.
    pub(crate) covered: Vec<Covered>,
    /// The length of the checkpoint.
    pub(crate) checkpoint: u64,
}

#[derive(Debug)]
struct State {
    bounds: Bounds,
    ended: VecDeque<FullSegment>,
    /// The number of the active segment, or of the next one if none is active.
    current: u64,
    /// The length of the active segment; zero between two segments.
    active_size: u64,
    /// The length of the segment that was begun last.
    last_size: u64,
    ready: Option<Segment>,
    /// The segments that a checkpoint covers, oldest first.
    covered: VecDeque<Covered>,
    /// Segments that are not needed any more and whose files must be removed.
    surplus: Vec<u64>,
    /// The segment size that the waiting commit needs.
    needed: u64,
    /// Whether the log waits for a checkpoint or a segment.
    blocked: bool,
    /// The number of explicit requests for a checkpoint so far.
    requested: u64,
    /// Whether the last attempt to make a segment failed; another one follows when the log needs it.
    make_failed: bool,
    /// Whether the database is being closed: then nothing may take long.
    closing: bool,
    /// Whether the log needs nothing more.
    finished: bool,
    failed: Option<PersistenceError>,
}

/// The segments of an open database.
pub(crate) struct Pool {
    size: LogSize,
    state: Mutex<State>,
    changed: Changed,
}

/// The signals of the two jobs that watch the pool.
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

/// The next task of the checkpointer.
#[derive(Debug)]
pub(crate) enum Task {
    /// Make this segment.
    Make(Make),
    /// Write a checkpoint, which serves the requests up to this number.
    Checkpoint { requests: u64 },
    /// Stop: the database is being closed, or its log has failed.
    Stop,
}

/// A segment to be made.
#[derive(Debug)]
pub(crate) struct Make {
    pub(crate) number: u64,
    pub(crate) size: u64,
    /// The segment whose file is reused, if any.
    pub(crate) recycled: Option<u64>,
    /// Segments whose files must be removed first.
    pub(crate) surplus: Vec<u64>,
}

/// The answer to whether the log may continue in the next segment.
pub(crate) enum Next {
    Segment(Segment),
    /// Not yet: the log's signal is rung when the answer of [`Pool::may_go_on`] may have changed.
    NotYet,
}

impl Pool {
    /// Returns the pool, and the segments that are not needed: the caller removes their files.
    pub(crate) fn new(size: LogSize, found: Found) -> (Self, Vec<u64>) {
        let (current, active_size) = found.active;
        let mut state = State {
            bounds: size.bounds(found.checkpoint),
            ended: found.ended,
            current,
            active_size,
            last_size: active_size,
            ready: found.ready,
            covered: found.covered.into(),
            surplus: Vec::new(),
            needed: 0,
            blocked: false,
            requested: 0,
            make_failed: false,
            closing: false,
            finished: false,
            failed: None,
        };
        let surplus = state.take_surplus();
        (Pool { size, state: Mutex::new(state), changed: Changed::default() }, surplus)
    }

    /// Called when the log has no room left, and needs a segment of at least `needed` bytes. Once the
    /// next segment is ready, `end` ends the active one and returns its last commit. Once the limits
    /// allow it, the next segment is returned.
    pub(crate) fn next_segment(
        &self,
        active: u64,
        needed: u64,
        end: impl FnOnce() -> Result<Lsn, PersistenceError>,
    ) -> Result<Next, PersistenceError> {
        let mut state = self.state.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        state.needed = needed;
        if state.ready.is_some() && state.current == active {
            let last = end()?;
            let size = state.active_size;
            state.ended.push_back(FullSegment { number: active, last, size });
            state.active_size = 0;
            state.current = active + 1;
        }
        if state.has_place()
            && let Some(mut segment) = state.ready.take()
        {
            // A segment that is too small grows as it is written.
            segment.size = segment.size.max(needed);
            state.active_size = segment.size;
            let surplus = state.take_surplus();
            state.surplus.extend(surplus);
            state.last_size = segment.size;
            state.needed = 0;
            state.blocked = false;
            // There is now a segment to make, and perhaps a checkpoint.
            self.changed.notify_all();
            return Ok(Next::Segment(segment));
        }
        state.blocked = true;
        self.changed.notify_all();
        Ok(Next::NotYet)
    }

    /// Returns whether [`next_segment`](Self::next_segment) may have another answer by now.
    pub(crate) fn may_go_on(&self) -> bool {
        let state = self.state.lock();
        !state.blocked || state.failed.is_some() || (state.ready.is_some() && state.has_place())
    }

    /// Returns the signal of the log's job.
    pub(crate) fn log_signal(&self) -> &Arc<Signal> {
        &self.changed.log
    }

    /// Returns the signal of the checkpointer's job.
    pub(crate) fn checkpointer_signal(&self) -> &Arc<Signal> {
        &self.changed.checkpointer
    }

    /// Wakes the log's job.
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

    /// Returns the next task; if there is none, the checkpointer's signal is rung when there may be one.
    /// `served` requests have been handled. After a failed checkpoint (`failed`), another one is made
    /// only when it is requested, or when the log cannot go on without it.
    pub(crate) fn next_task(&self, served: u64, failed: bool) -> Option<Task> {
        let mut state = self.state.lock();
        if state.failed.is_some() {
            return Some(Task::Stop);
        }
        if let Some(make) = state.segment_to_make() {
            return Some(Task::Make(make));
        }
        if state.finished {
            return Some(Task::Stop);
        }
        let full = state.ended_bytes() >= state.bounds.checkpoint_at && !failed;
        let blocked = state.needs_checkpoint();
        let is_due = !state.closing && (full || blocked || state.requested > served);
        is_due.then_some(Task::Checkpoint { requests: state.requested })
    }

    /// Returns a segment to be made between two blocks of a checkpoint, which has this many bytes by
    /// now.
    pub(crate) fn urgent_task(&self, checkpoint: u64) -> Option<Make> {
        let mut state = self.state.lock();
        let bounds = self.size.bounds(checkpoint);
        if bounds.limit > state.bounds.limit {
            // The data has grown since the last checkpoint: let commits go on before this one is
            // complete.
            state.bounds = bounds;
            self.changed.notify_all();
        }
        state.segment_to_make()
    }

    /// Returns whether it is not worth finishing a checkpoint.
    pub(crate) fn is_stopping(&self) -> bool {
        let state = self.state.lock();
        state.closing || state.failed.is_some()
    }

    /// Returns whether the log cannot go on without a new segment.
    pub(crate) fn awaits_segment(&self) -> bool {
        self.state.lock().blocked
    }

    /// Returns whether the log cannot go on without a checkpoint. While the database is being closed it
    /// can, even if it has not noticed yet.
    pub(crate) fn awaits_checkpoint(&self) -> bool {
        self.state.lock().needs_checkpoint()
    }

    /// Reports the result of a [`Task::Make`].
    pub(crate) fn made(&self, segment: Option<Segment>, recycled: Option<u64>) {
        let mut state = self.state.lock();
        // The recycled file is not a segment any more, whether or not making the new one succeeded.
        state.covered.retain(|covered| Some(covered.number) != recycled);
        state.make_failed = segment.is_none();
        state.ready = segment;
        self.changed.notify_all();
    }

    /// Returns the first segment that holds, or will hold, commits after `covered`. The segment exists.
    pub(crate) fn first_after(&self, covered: Lsn) -> u64 {
        let state = self.state.lock();
        let first = state.ended.iter().find(|ended| ended.last > covered);
        first.map_or(state.current, |ended| ended.number)
    }

    /// Called when a checkpoint of this many bytes is in place, so that the log is needed from segment
    /// `first` on only. Returns the segments that are not needed: the caller removes their files.
    pub(crate) fn covered_before(&self, first: u64, checkpoint: u64) -> Vec<u64> {
        let mut state = self.state.lock();
        state.bounds = self.size.bounds(checkpoint);
        while let Some(ended) = state.ended.pop_front_if(|ended| ended.number < first) {
            state.covered.push_back(Covered { number: ended.number, size: ended.size });
        }
        let mut surplus = mem::take(&mut state.surplus);
        surplus.append(&mut state.take_surplus());
        self.changed.notify_all();
        surplus
    }

    /// Called when the database is being closed.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_all();
    }

    /// Called when the log has been closed.
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
    fn ended_bytes(&self) -> u64 {
        self.ended.iter().map(|ended| ended.size).sum()
    }

    /// Returns the size of the next segment if it has to be made.
    fn next_size(&self) -> u64 {
        self.bounds.segment_after(self.last_size)
    }

    /// Returns whether the log may have one more segment.
    fn has_place(&self) -> bool {
        let ready = self.ready.as_ref().map_or_else(|| self.next_size(), |segment| segment.size);
        let kept = self.ended_bytes() + self.active_size;
        // With no ended segment a checkpoint would free none, so waiting would not help. While the
        // database is being closed, the queue is written at once, whatever room it takes.
        self.closing
            || planted("no-back-pressure")
            || self.ended.is_empty()
            || kept.saturating_add(ready.max(self.needed)) <= self.bounds.limit
    }

    /// Returns whether the log waits for a checkpoint, and not for a segment.
    fn needs_checkpoint(&self) -> bool {
        self.blocked && !self.has_place()
    }

    fn segment_to_make(&mut self) -> Option<Make> {
        // While closing, make only a segment for which the log waits.
        let wanted = self.ready.is_none()
            && self.failed.is_none()
            && (self.blocked || !(self.closing || self.make_failed));
        if !(wanted && self.has_place()) {
            return None;
        }
        let recycled = self.covered.front();
        let size = recycled.map_or(0, |covered| covered.size).max(self.next_size());
        let recycled = recycled.map(|covered| covered.number);
        Some(Make { number: self.current + 1, size, recycled, surplus: mem::take(&mut self.surplus) })
    }

    /// Removes from the covered segments those for which there is no room, and those that a large commit
    /// has made longer than the largest segment; returns them.
    fn take_surplus(&mut self) -> Vec<u64> {
        let ready = self.ready.as_ref().map_or(0, |segment| segment.size);
        let mut total = self.ended_bytes() + self.active_size + ready;
        let mut surplus = Vec::new();
        let Bounds { limit, segment: largest, .. } = self.bounds;
        self.covered.retain(|covered| {
            // Count the full length of a segment, which each will have when it is reused.
            let with = total.saturating_add(largest);
            let stays = covered.size <= largest && with <= limit;
            if stays {
                total = with;
            } else {
                surplus.push(covered.number);
            }
            stays
        });
        surplus
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::disk::{OpenMode, OsDisk};
    use crate::wal::directory::{Directory, NamedFile};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    #[test]
    fn a_log_that_is_to_be_closed_does_not_need_the_checkpoint_that_it_waits_for() {
        let found = Found {
            ended: [FullSegment { number: 1, last: 5, size: 4096 }].into(),
            active: (2, 4096),
            ready: None,
            covered: Vec::new(),
            checkpoint: 0,
        };
        let (pool, surplus) = Pool::new(LogSize::new(1, 4096), found);
        assert!(surplus.is_empty());
        let next = pool.next_segment(2, 0, || unreachable!("there is no segment to go on with"));
        assert!(matches!(next, Ok(Next::NotYet)));
        assert!(pool.awaits_segment() && pool.awaits_checkpoint());
        pool.close();
        // The log has not noticed the closing yet. A checkpoint that is given up now must not end it.
        assert!(pool.awaits_segment() && !pool.awaits_checkpoint());
    }

    /// The pool of a new database, with the state to drive it by hand.
    struct Driven {
        pool: Pool,
        active: u64,
        /// The files of the log and their lengths.
        files: BTreeMap<u64, u64>,
        created: u64,
        file: Arc<NamedFile>,
        _dir: tempfile::TempDir,
    }

    impl Driven {
        fn new(size: LogSize) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let directory =
                Directory::new(Arc::new(OsDisk), dir.path().to_owned(), crate::host::Host::default());
            let file = Arc::new(directory.open("any", OpenMode::Create).expect("a file"));
            let first = size.bounds(0).first_segment();
            let (ended, covered) = (VecDeque::new(), Vec::new());
            let found = Found { ended, active: (1, first), ready: None, covered, checkpoint: 0 };
            let (pool, _) = Pool::new(size, found);
            Driven { pool, active: 1, files: [(1, first)].into(), created: 1, file, _dir: dir }
        }

        /// Lets the log go on without a checkpoint for as long as possible; returns how many segments it
        /// began.
        fn fill(&mut self, needed: u64) -> u64 {
            for begun in 0.. {
                if let Some(Make { number, size, recycled, surplus }) = self.pool.urgent_task(0) {
                    self.files.retain(|number, _| !surplus.contains(number));
                    match recycled {
                        Some(old) => assert!(self.files.remove(&old).expect("it is there") <= size),
                        None => self.created += 1,
                    }
                    self.files.insert(number, size);
                    let file = Arc::clone(&self.file);
                    let segment = Segment { number, salt: 0, start: 0, size, file };
                    self.pool.made(Some(segment), recycled);
                }
                match self.pool.next_segment(self.active, needed, || Ok(self.active)) {
                    Ok(Next::Segment(segment)) => {
                        self.active = segment.number;
                        self.files.insert(segment.number, segment.size);
                    }
                    other => {
                        assert!(other.is_ok() && self.pool.awaits_checkpoint(), "it waits for a checkpoint");
                        return begun;
                    }
                }
            }
            unreachable!("it would take for ever")
        }

        /// Makes a checkpoint of everything in segments that have ended.
        fn cover(&mut self, bytes: u64) {
            let first = self.pool.first_after(self.active);
            for number in self.pool.covered_before(first, bytes) {
                self.files.remove(&number);
            }
        }

        fn bytes(&self) -> u64 {
            self.files.values().sum()
        }
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn by_default_the_log_waits_at_twice_the_size_of_the_checkpoint_and_uses_all_segments_again() {
        let mut log = Driven::new(LogSize::new(0, 16 * MIB));
        log.fill(100);
        assert!((6 * MIB..=8 * MIB).contains(&log.bytes()), "{:?}", log.files);
        for checkpoint in [60 * MIB, 60 * MIB] {
            log.cover(checkpoint);
            log.fill(100);
            assert!(log.bytes() <= 2 * checkpoint && log.bytes() >= 3 * checkpoint / 2, "{:?}", log.files);
        }
        // A checkpoint that is being written, and larger already, counts too.
        assert!(log.pool.awaits_checkpoint() && log.pool.urgent_task(50 * MIB).is_none());
        assert!(log.pool.urgent_task(70 * MIB).is_some() && !log.pool.awaits_checkpoint());
        log.cover(60 * MIB);
        log.fill(100);
        let (created, bytes) = (log.created, log.bytes());
        for _ in 0..5 {
            log.cover(60 * MIB);
            assert!(log.fill(100) > 5, "it goes on");
            assert_eq!((log.created, log.bytes()), (created, bytes), "no file is made anew");
        }
        // Most of the data is gone, and so is the room that its log took.
        for _ in 0..3 {
            log.cover(MIB);
            log.fill(100);
        }
        assert!(log.bytes() <= 8 * MIB, "{:?}", log.files);
    }

    #[test]
    fn a_pool_is_kept_to_whatever_the_commits_need() {
        for (pool, segment) in [(1, 4096), (2, 4096), (1, MIB), (3, MIB), (7, 5000)] {
            let mut log = Driven::new(LogSize::new(pool, segment));
            let bound = (segment * pool as u64).max(2 * 4096);
            for (round, needed) in [1, 3000, bound / 2, bound / 2, 1, 1].into_iter().enumerate() {
                assert!(round == 0 || log.fill(needed) > 0, "it goes on");
                log.fill(needed);
                // A commit that is larger than a segment makes one longer, for a while.
                let largest = LogSize::new(pool, segment).bounds(0).segment;
                let bound = if needed > largest { bound + needed } else { bound };
                assert!(log.bytes() <= bound, "{pool} of {segment}, {needed}: {:?}", log.files);
                log.cover(1 << 40);
            }
            // A commit that does not fit waits until its segment is alone, and then takes the room that
            // it needs.
            assert_eq!(log.fill(10 * bound), 0);
            assert!(log.bytes() <= bound, "{:?}", log.files);
            log.cover(0);
            assert_eq!(log.fill(10 * bound), 1);
            assert!(log.bytes() <= 11 * bound, "{:?}", log.files);
            for _ in 0..2 {
                log.cover(0);
                log.fill(1);
            }
            assert!(log.bytes() <= bound, "{:?}", log.files);
        }
    }
}

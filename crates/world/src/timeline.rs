//! The timeline of one database over all its lives: its state after each commit, as far as the
//! published versions tell it, and which part of it must survive.
//!
//! It checks these rules on every publication, read and recovery:
//!
//! - **T1.** Timestamps grow by one, without gaps. Each publication, which is a commit, an eviction
//!   or an expiry, has a timestamp of its own.
//! - **T2.** A read that begins after a commit was acknowledged, or shown by a read of the
//!   stable state, reads at the timestamp of that commit or later.
//! - **T3.** A read at a later timestamp has the same time or a later one.
//! - **T4.** After a crash, the recovered state is one whole state of the database, and no earlier one
//!   than the last that was acknowledged or shown, as far as the durability level promises that.

mod conflicts;
mod reads;
mod recovery;

pub(crate) use conflicts::Until;
pub(crate) use reads::Since;
pub(crate) use recovery::Leeway;

use crate::board::Board;
use crate::disk::Faults;
use fluxmap_shuttle::ReadPoint;
use fluxmap_testkit::op::Scan;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) id: u64,
    /// The expiry time in milliseconds since 1970; 0 means never.
    pub(crate) expires: u64,
}

/// All keys, including expired ones that are not removed yet.
pub(crate) type State = BTreeMap<String, Held>;

/// Returns the pairs of a state that have not expired at a time.
pub(crate) fn visible(state: &State, time: u64) -> BTreeMap<String, u64> {
    let is_there = |held: &Held| held.expires == 0 || held.expires > time;
    state.iter().filter(|(_, held)| is_there(held)).map(|(key, held)| (key.clone(), held.id)).collect()
}

/// Returns `from`, and the times after it, up to `to`, at which a value of the state expires.
pub(crate) fn moments(state: &State, from: u64, to: u64) -> impl Iterator<Item = u64> {
    let expiries = state.values().map(|held| held.expires);
    std::iter::once(from).chain(expiries.filter(move |expires| from < *expires && *expires <= to))
}

/// Returns the number of the task that runs.
fn this_task() -> usize {
    usize::from(shuttle::current::me())
}

/// One publication.
#[derive(Clone, Debug)]
struct Commit {
    /// The task that published the commit.
    task: usize,
    /// The number of the task's operation; numbers are given in the order in which operations begin.
    operation: u64,
    changes: BTreeMap<String, Option<Held>>,
}

struct Inner {
    /// The timestamp of the first state.
    first: u64,
    /// The state after each commit.
    states: Vec<State>,
    /// The commits that led from each state to the next.
    commits: Vec<Commit>,
    /// For each state, the latest time at which a reader has read it.
    times: Vec<u64>,
    /// Whether the database is being opened: recovery publishes commits again, with any timestamps.
    is_opening: bool,
    /// The versions that were published during the opening, by recovery and after it.
    early: Vec<(u64, usize, String, Option<Held>)>,
    /// The earliest timestamp that a read which begins now may have (T2).
    floor: u64,
    /// The latest time of a read of the stable state, or of an acknowledged transaction.
    seen: u64,
    /// The last commit that must survive, as far as the durability level promises that.
    promised: u64,
    /// The last commit that is certainly synced, and so survives at every durability level.
    synced: u64,
    /// Keys that were evicted for lack of room when the first state was read. The files contain them until
    /// commits remove them. Each has the values that it may have in the files.
    hidden: BTreeMap<String, Vec<Held>>,
    /// Whether an opening that failed has removed keys. Such an opening may have recovered any state
    /// from the last promised one on. Its removals, of which only some may have reached the disk, have
    /// the timestamps of commits that were lost before.
    is_vague: bool,
    /// How many of the promised commits may be lost in the crashes since the database was last open.
    slack: u64,
    /// The number of operations and attempts that have begun.
    operations: u64,
    /// The latest operation of each task.
    present: BTreeMap<usize, u64>,
    /// The keys that the operation of each task may remove.
    claims: BTreeMap<usize, Vec<Scan<String>>>,
    /// Whether keys may go at any time: there is a memory limit, or somebody evicts.
    keys_go: bool,
}

/// See the [module](self). Clones share their state.
#[derive(Clone)]
pub(crate) struct Timeline {
    inner: Arc<Mutex<Inner>>,
    board: Board,
    /// Once there was a fault, the log may have failed.
    faults: Faults,
}

impl Timeline {
    /// Makes the timeline of a database that is to be created.
    pub(crate) fn new(board: Board) -> Self {
        let inner = Inner { is_opening: true, ..Inner::beginning(0, State::new()) };
        Timeline { inner: Arc::new(Mutex::new(inner)), board, faults: Faults::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a version that is being published, when the time is `now` at the latest. The engine calls this in
    /// the middle of a commit.
    pub(crate) fn publish(&self, timestamp: u64, key: &str, held: Option<Held>, now: u64) {
        let task = this_task();
        self.board.note("published last", format!("{timestamp}: {key} = {held:?}, by task {task}"));
        let mut inner = self.inner();
        if inner.is_opening {
            inner.early.push((timestamp, task, key.to_owned(), held));
            return;
        }
        if let Err(what) = inner.publish(timestamp, task, key, held, now) {
            drop(inner);
            self.board.anomaly(what);
        }
    }

    /// Returns the same timeline for a life whose disk has these faults.
    pub(crate) fn on_disk(self, faults: Faults) -> Timeline {
        Timeline { faults, ..self }
    }

    /// Records that the calling task begins an operation, an attempt or a commit, and returns the
    /// number of it.
    pub(crate) fn operates(&self) -> u64 {
        let mut inner = self.inner();
        inner.operations += 1;
        let number = inner.operations;
        let task = this_task();
        inner.present.insert(task, number);
        inner.claims.remove(&task);
        number
    }

    /// Records that the operation which the calling task has begun may remove these keys. No other operation may
    /// remove a key that has not expired, unless the life has a memory limit or evictions.
    pub(crate) fn claim(&self, keys: Scan<String>) {
        let task = this_task();
        self.inner().claims.entry(task).or_default().push(keys);
    }

    /// Returns the latest published timestamp.
    pub(crate) fn last(&self) -> u64 {
        self.inner().last()
    }

    /// Returns the earliest timestamp that a read which begins now may have.
    pub(crate) fn floor(&self) -> u64 {
        self.inner().floor
    }

    /// Returns the pairs at a read point, and records and checks the read (T2, T3). `floor` is the floor
    /// from before the caller asked for the read point.
    pub(crate) fn begin(&self, point: ReadPoint, floor: u64, is_stable: bool) -> BTreeMap<String, u64> {
        let ReadPoint { timestamp, time } = point;
        let mut inner = self.inner();
        let last = inner.last();
        if timestamp < floor || timestamp > last {
            let what = format!("a view reads at {timestamp}, but must read from {floor} to {last}");
            drop(inner);
            self.board.anomaly(what);
            return BTreeMap::new();
        }
        let index = (timestamp - inner.first) as usize;
        let may_have_failed = self.faults.have_fired();
        // If the log has failed, a view of an earlier state may have a later time than a transaction that has
        // read a later state. Once the log has failed, the later state never becomes stable, so the
        // transaction is never acknowledged, and the time of the stable state goes on.
        let (earlier, later) = (&inner.times[..index], &inner.times[index + 1..]);
        let earlier = if may_have_failed && !is_stable { &[] } else { earlier };
        let later = if may_have_failed { &[] } else { later };
        let before = earlier.iter().max().copied().unwrap_or(0);
        let after = later.iter().filter(|time| **time != 0).min().copied();
        if time != 0 && (before > time || after.is_some_and(|after| after < time)) {
            self.board.anomaly(format!(
                "a view of {timestamp} has the time {time}; earlier states were read at {before}, later ones at \
                 {after:?}"
            ));
        }
        inner.times[index] = inner.times[index].max(time);
        if is_stable {
            inner.show(timestamp);
            inner.seen = inner.seen.max(time);
        }
        visible(&inner.states[index], time)
    }

    /// Records that a commit, or a read at this timestamp, was acknowledged.
    pub(crate) fn acknowledge(&self, timestamp: u64) {
        let mut inner = self.inner();
        inner.show(timestamp);
    }

    /// Records that a transaction which has read at `point` was acknowledged.
    pub(crate) fn acknowledge_reads(&self, point: ReadPoint, timestamp: u64) {
        let mut inner = self.inner();
        inner.show(timestamp);
        inner.seen = inner.seen.max(point.time);
    }

    /// Records that the database has reported everything up to this timestamp as synced.
    pub(crate) fn synced(&self, timestamp: u64) {
        let mut inner = self.inner();
        inner.show(timestamp);
        inner.synced = inner.synced.max(timestamp);
    }

    /// Returns the timestamp of the first commit after `after` in which the calling task wrote
    /// `written`. Later commits of the task may match as well, because they may remove keys that it has
    /// let expire.
    pub(crate) fn find(&self, after: u64, written: &BTreeMap<String, Option<u64>>) -> Option<u64> {
        self.find_all(after, written).first().copied()
    }

    /// Returns the last such commit. It serves callers whose `after` may precede earlier commits of the
    /// task: one of these may have evicted a key that the task removes now.
    pub(crate) fn find_last(&self, after: u64, written: &BTreeMap<String, Option<u64>>) -> Option<u64> {
        self.find_all(after, written).last().copied()
    }

    fn find_all(&self, after: u64, written: &BTreeMap<String, Option<u64>>) -> Vec<u64> {
        self.commits(after, |_, changes| {
            // A value may have expired before its own writer saw it, so that the writer takes it for
            // absent.
            let expires = |held: &Option<Held>| held.is_some_and(|held| held.expires != 0);
            let is_same = |held: &Option<Held>, id: &Option<u64>| {
                held.map(|held| held.id) == *id || id.is_none() && expires(held)
            };
            let wrote = |(key, id)| changes.get(key).is_some_and(|held| is_same(held, id));
            let is_asked = |(key, held): (&String, &Option<Held>)| {
                written.contains_key(key) || held.is_none() || expires(held)
            };
            written.iter().all(wrote) && changes.iter().all(is_asked)
        })
    }

    /// Returns the timestamps of the commits after `after` by the calling task for which `is_it` holds.
    /// Its arguments are the states from `after` to the one before the commit, and the changes of the
    /// commit.
    pub(crate) fn commits(
        &self,
        after: u64,
        is_it: impl Fn(&[State], &BTreeMap<String, Option<Held>>) -> bool,
    ) -> Vec<u64> {
        let task = this_task();
        let inner = self.inner();
        let from = (after - inner.first) as usize;
        let commits = inner.commits.iter().enumerate().skip(from);
        let found = commits.filter(|(index, commit)| {
            commit.task == task && is_it(&inner.states[from..=*index], &commit.changes)
        });
        found.map(|(index, _)| inner.first + index as u64 + 1).collect()
    }

    /// Returns the first commit after `after` that published a value with one of these numbers, and the number.
    pub(crate) fn trace(&self, after: u64, ids: Range<u64>) -> Option<(u64, u64)> {
        let inner = self.inner();
        let commits = inner.commits.iter().zip(inner.first + 1..).skip((after - inner.first) as usize);
        let published =
            commits.flat_map(|(commit, at)| commit.changes.values().flatten().map(move |held| (at, held.id)));
        published.into_iter().find(|(_, id)| ids.contains(id))
    }

    /// Returns the state after a commit, including expired keys.
    pub(crate) fn state(&self, timestamp: u64) -> Option<State> {
        let inner = self.inner();
        let index = timestamp.checked_sub(inner.first)? as usize;
        inner.states.get(index).cloned()
    }

    /// Returns the value of a key just before a commit.
    pub(crate) fn before(&self, commit: u64, key: &str) -> Option<Held> {
        self.state(commit - 1)?.get(key).copied()
    }
}

impl Inner {
    fn last(&self) -> u64 {
        self.first + self.commits.len() as u64
    }

    /// A timeline that begins with this state.
    fn beginning(first: u64, state: State) -> Inner {
        Inner {
            first,
            states: vec![state],
            commits: Vec::new(),
            times: vec![0],
            is_opening: false,
            early: Vec::new(),
            floor: first,
            seen: 0,
            promised: first,
            synced: first,
            hidden: BTreeMap::new(),
            is_vague: false,
            slack: 0,
            operations: 0,
            present: BTreeMap::new(),
            claims: BTreeMap::new(),
            keys_go: false,
        }
    }

    /// Whether the task has a reason to remove this key, if the time is `now`.
    fn may_remove(&self, task: usize, key: &String, now: u64) -> bool {
        let before = self.states.last().and_then(|state| state.get(key));
        let has_gone = before.is_none_or(|held| held.expires != 0 && held.expires <= now);
        let claims = self.claims.get(&task);
        has_gone || self.keys_go || claims.is_some_and(|claims| claims.iter().any(|keys| keys.contains(key)))
    }

    fn publish(
        &mut self,
        timestamp: u64,
        task: usize,
        key: &str,
        held: Option<Held>,
        now: u64,
    ) -> Result<(), String> {
        if held.is_none() && !self.may_remove(task, &key.to_owned(), now) {
            let before = self.states.last().and_then(|state| state.get(key));
            return Err(format!("commit {timestamp} removes {key} without a reason at {now}: {before:?}"));
        }
        let last = self.last();
        if timestamp == last + 1 {
            let state = self.states[self.states.len() - 1].clone();
            self.states.push(state);
            self.times.push(0);
            let operation = self.present.get(&task).copied().unwrap_or(0);
            self.commits.push(Commit { task, operation, changes: BTreeMap::new() });
        } else if timestamp != last || self.commits.last().is_none_or(|commit| commit.task != task) {
            return Err(format!("commit {timestamp} was published after commit {last}"));
        }
        let (Some(commit), Some(state)) = (self.commits.last_mut(), self.states.last_mut()) else {
            return Err("nothing was published yet".into());
        };
        if commit.changes.insert(key.to_owned(), held).is_some() {
            return Err(format!("commit {timestamp} writes {key} twice"));
        }
        match held {
            Some(held) => state.insert(key.to_owned(), held),
            None => state.remove(key),
        };
        Ok(())
    }

    fn show(&mut self, timestamp: u64) {
        // Do this even after the machine has stopped: an acknowledgement rests on earlier disk calls.
        self.floor = self.floor.max(timestamp);
        self.promised = self.promised.max(timestamp);
    }
}

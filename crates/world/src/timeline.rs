//! The account of one database over all its lives: its state after each commit, as far as it is
//! known by what was published, and what of it must survive.
//!
//! Rules that are checked here, on every publication, read and recovery:
//!
//! - **T1.** Timestamps grow by one, without gaps; whatever is published, a commit, an eviction
//!   or an expiry, has one of its own.
//! - **T2.** Who begins to read after something was acknowledged, or shown by a read of the
//!   stable state, reads at least that.
//! - **T3.** Reads at a later timestamp have a later or the same time.
//! - **T4.** After a crash, the state is one of those there were, whole, and not before the last
//!   that was acknowledged or shown, as far as the durability level promises that.

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

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) id: u64,
    /// In milliseconds since 1970; zero: never.
    pub(crate) expires: u64,
}

/// All keys, those included that have expired and were not removed yet.
pub(crate) type State = BTreeMap<String, Held>;

/// What is there at a time.
pub(crate) fn visible(state: &State, time: u64) -> BTreeMap<String, u64> {
    let is_there = |held: &Held| held.expires == 0 || held.expires > time;
    state.iter().filter(|(_, held)| is_there(held)).map(|(key, held)| (key.clone(), held.id)).collect()
}

/// The times from `from` to `to` at which other values are visible than just before, and the first.
pub(crate) fn moments(state: &State, from: u64, to: u64) -> impl Iterator<Item = u64> {
    let expiries = state.values().map(|held| held.expires);
    std::iter::once(from).chain(expiries.filter(move |expires| from < *expires && *expires <= to))
}

/// One publication.
#[derive(Clone, Debug)]
struct Commit {
    /// The task that published it.
    task: usize,
    /// The number of what the task was doing, in the order in which such things were begun.
    operation: u64,
    changes: BTreeMap<String, Option<Held>>,
}

struct Inner {
    /// The timestamp of the first state.
    first: u64,
    /// The state after each commit.
    states: Vec<State>,
    /// What led from each state to the next.
    commits: Vec<Commit>,
    /// For each state, the latest time at which anybody read it.
    times: Vec<u64>,
    /// Whether the database is being opened: commits are read back, at any timestamp.
    is_opening: bool,
    /// What was published meanwhile, by recovery and behind it.
    early: Vec<(u64, usize, String, Option<Held>)>,
    /// Whatever begins now reads at least this.
    floor: u64,
    /// The latest time of a view of the stable state.
    seen: u64,
    /// What must survive, as the durability level says.
    promised: u64,
    /// What is synced for certain: neither flags nor limits can lose it.
    synced: u64,
    /// Keys that had no room when the first state was read, and are in the files until the commits
    /// that remove them, each with what it may hold there.
    hidden: BTreeMap<String, Vec<Held>>,
    /// Whether an opening that failed has removed keys. It may have recovered any state from the last
    /// promised one on, and its commits, of which only some may have got to the disk, have the numbers
    /// of commits that were lost before.
    is_vague: bool,
    /// How many commits of what was promised the deaths since it was last open may take.
    slack: u64,
    /// How many operations and attempts were begun, and the last one of each task.
    operations: u64,
    present: BTreeMap<usize, u64>,
    /// The keys that the operation of each task may remove.
    claims: BTreeMap<usize, Vec<Scan<String>>>,
    /// Whether keys may go at any time: there is a memory limit, or somebody evicts.
    keys_go: bool,
}

/// See the [module](self). Clones are the same.
#[derive(Clone)]
pub(crate) struct Timeline {
    inner: Arc<Mutex<Inner>>,
    board: Board,
    /// Once there was a fault, the log may have failed.
    faults: Faults,
}

impl Timeline {
    /// Of a database that is to be created.
    pub(crate) fn new(board: Board) -> Self {
        let inner = Inner { is_opening: true, ..Inner::beginning(0, State::new()) };
        Timeline { inner: Arc::new(Mutex::new(inner)), board, faults: Faults::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes notice of a version that is being published when the time is `now` at the latest. Called amid the
    /// engine's code.
    pub(crate) fn publish(&self, timestamp: u64, key: &str, held: Option<Held>, now: u64) {
        let task = usize::from(shuttle::current::me());
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

    /// The same, for a life on a disk with these faults.
    pub(crate) fn on_disk(self, faults: Faults) -> Timeline {
        Timeline { faults, ..self }
    }

    /// Takes notice that the calling task begins an operation, an attempt or a commit, and returns its
    /// number.
    pub(crate) fn operates(&self) -> u64 {
        let mut inner = self.inner();
        inner.operations += 1;
        let number = inner.operations;
        let task = usize::from(shuttle::current::me());
        inner.present.insert(task, number);
        inner.claims.remove(&task);
        number
    }

    /// Takes notice that the operation that the calling task has begun may remove these keys. Nobody else may
    /// remove a key that has not expired, unless keys go for want of room or are evicted.
    pub(crate) fn claim(&self, keys: Scan<String>) {
        let task = usize::from(shuttle::current::me());
        self.inner().claims.entry(task).or_default().push(keys);
    }

    /// The newest timestamp that was published.
    pub(crate) fn last(&self) -> u64 {
        self.inner().last()
    }

    /// What whoever begins now must at least see.
    pub(crate) fn floor(&self) -> u64 {
        self.inner().floor
    }

    /// What is there at a read point; takes notice that somebody reads there, who asked for it
    /// when the floor was `floor` (T2, T3).
    pub(crate) fn begin(&self, point: ReadPoint, floor: u64, is_stable: bool) -> BTreeMap<String, u64> {
        let ReadPoint { timestamp, time } = point;
        let mut inner = self.inner();
        let last = inner.last();
        if timestamp < floor || timestamp > last {
            let what = format!("a view reads at {timestamp}, and must see {floor} and no more than {last}");
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
                "a view of {timestamp} has the time {time}, others of before {before}, of later {after:?}"
            ));
        }
        inner.times[index] = inner.times[index].max(time);
        if is_stable {
            inner.show(timestamp);
            inner.seen = inner.seen.max(time);
        }
        visible(&inner.states[index], time)
    }

    /// Takes notice that a commit, or a read at this timestamp, was acknowledged.
    pub(crate) fn acknowledge(&self, timestamp: u64) {
        let mut inner = self.inner();
        inner.show(timestamp);
    }

    /// The same of a transaction that has read at `point`.
    pub(crate) fn acknowledge_reads(&self, point: ReadPoint, timestamp: u64) {
        let mut inner = self.inner();
        inner.show(timestamp);
        inner.seen = inner.seen.max(point.time);
    }

    /// Takes notice that everything up to this timestamp was said to be synced.
    pub(crate) fn synced(&self, timestamp: u64) {
        let mut inner = self.inner();
        inner.show(timestamp);
        inner.synced = inner.synced.max(timestamp);
    }

    /// The timestamp of the first commit after `after` by the calling task that wrote this: behind
    /// it, the task may have removed what it had let expire.
    pub(crate) fn find(&self, after: u64, written: &BTreeMap<String, Option<u64>>) -> Option<u64> {
        self.find_all(after, written).first().copied()
    }

    /// The last such commit, where `after` may be before earlier commits of the task, in which it
    /// may have evicted a key that it removes now.
    pub(crate) fn find_last(&self, after: u64, written: &BTreeMap<String, Option<u64>>) -> Option<u64> {
        self.find_all(after, written).last().copied()
    }

    fn find_all(&self, after: u64, written: &BTreeMap<String, Option<u64>>) -> Vec<u64> {
        self.commits(after, |_, changes| {
            // A value that expires may have been out of its own writer's sight.
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

    /// The timestamps of the commits after `after` by the calling task for which `is_it` holds, given the
    /// states from `after` to the one before the commit, and what the commit changed.
    pub(crate) fn commits(
        &self,
        after: u64,
        is_it: impl Fn(&[State], &BTreeMap<String, Option<Held>>) -> bool,
    ) -> Vec<u64> {
        let task = usize::from(shuttle::current::me());
        let inner = self.inner();
        let from = (after - inner.first) as usize;
        let commits = inner.commits.iter().enumerate().skip(from);
        let found = commits.filter(|(index, commit)| {
            commit.task == task && is_it(&inner.states[from..=*index], &commit.changes)
        });
        found.map(|(index, _)| inner.first + index as u64 + 1).collect()
    }

    /// The first commit after `after` that published one of these numbers of values, and the number.
    pub(crate) fn trace(&self, after: u64, ids: Range<u64>) -> Option<(u64, u64)> {
        let inner = self.inner();
        let commits = inner.commits.iter().zip(inner.first + 1..).skip((after - inner.first) as usize);
        let published =
            commits.flat_map(|(commit, at)| commit.changes.values().flatten().map(move |held| (at, held.id)));
        published.into_iter().find(|(_, id)| ids.contains(id))
    }

    /// The state after a commit, raw.
    pub(crate) fn state(&self, timestamp: u64) -> Option<State> {
        let inner = self.inner();
        let index = timestamp.checked_sub(inner.first)? as usize;
        inner.states.get(index).cloned()
    }

    /// What a key held just before a commit.
    pub(crate) fn before(&self, commit: u64, key: &str) -> Option<Held> {
        self.state(commit - 1)?.get(key).copied()
    }
}

impl Inner {
    fn last(&self) -> u64 {
        self.first + self.commits.len() as u64
    }

    /// An account that begins with this state.
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
        // Also after the machine has stopped: it rests on calls of the disk that came before.
        self.floor = self.floor.max(timestamp);
        self.promised = self.promised.max(timestamp);
    }
}

//! One-step operations on many keys, changes of expiry times, and reads of ranges outside of
//! transactions.

use crate::client::{Client, Outcome, Stop};
use crate::expiry::Expiry;
use crate::pen::{Pairs, ends, millis, prefix_scan};
use crate::timeline::{Held, Since, State, moments, visible};
use crate::value::Value;
use fluxmap_shuttle::{IsolationLevel, virtual_time};
use fluxmap_testkit::op::{Committed, Op, Scan};
use rand::Rng;
use shuttle::future::block_on;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// The result of a scan: the pairs, or only their number.
#[derive(Debug)]
enum Found {
    Pairs(Pairs),
    Number(usize),
}

impl Found {
    fn is(&self, items: &Pairs) -> bool {
        match self {
            Found::Pairs(pairs) => pairs == items,
            Found::Number(number) => *number == items.len(),
        }
    }

    /// Returns the read of this scan for the history. The history cannot express a number of keys,
    /// unless it is 0.
    fn ops(self, scan: Scan<String>) -> Vec<Op<String, u64>> {
        match self {
            Found::Pairs(items) => vec![Op::Scan { scan, items }],
            Found::Number(0) => vec![Op::Scan { scan, items: Pairs::new() }],
            Found::Number(_) => Vec::new(),
        }
    }
}

/// Returns whether `is_it` holds for the pairs that the scan finds in this state at a time from `from`
/// to `to`.
fn find(state: &State, scan: &Scan<String>, (from, to): (u64, u64), is_it: impl Fn(&Pairs) -> bool) -> bool {
    moments(state, from, to).any(|time| is_it(&scan.over(&visible(state, time))))
}

type Pair = Option<(String, Arc<Value>)>;

fn one(pair: Pair) -> Found {
    Found::Pairs(pair.into_iter().map(|(key, value)| (key, value.id)).collect())
}

impl Client {
    /// Reads a range, or counts its keys.
    pub(crate) fn read_range(&mut self) -> Result<(), Stop> {
        let (begin, since) = (self.scene.stamps.next(), self.scene.timeline.since());
        let scan = self.pen.scan(&mut self.rng);
        let whole = Scan { limit: None, reverse: false, ..scan.clone() };
        let prefix = self.pen.prefix(&mut self.rng);
        let choice = self.rng.random_range(0..7);
        self.scene.board.note(&self.name, format!("reads a range ({choice}): {scan:?}, {prefix}"));
        // A weak handle can be upgraded as long as the database is open.
        let Some(db) = self.db.downgrade().upgrade() else {
            self.scene
                .board
                .anomaly(format!("{}: a weak handle to an open database cannot be upgraded", self.name));
            return Ok(());
        };
        let end = |reverse| Scan { reverse, limit: Some(1), ..Scan::all() };
        let all =
            |range, scan: Scan<String>| self.pairs_of(range, &scan).map(|pairs| (Found::Pairs(pairs), scan));
        let result = match choice {
            0 => all(db.range(ends(&scan)), scan),
            1 => all(db.prefix(prefix), prefix_scan(prefix, scan.reverse, scan.limit)),
            2 => db.first().map(|pair| (one(pair), end(false))),
            3 => db.last().map(|pair| (one(pair), end(true))),
            4 => db.count(ends(&whole)).map(|count| (Found::Number(count), whole)),
            5 => db.len().map(|count| (Found::Number(count), Scan::all())),
            _ => db.is_empty().map(|is_empty| (Found::Number(usize::from(!is_empty)), end(false))),
        };
        drop(db);
        if let Outcome::Done((found, scan)) = self.judge(result)? {
            self.check_range(begin, since, scan, found);
        }
        self.scene.board.raise();
        Ok(())
    }

    /// Checks that one state, at one time, explains the result of a scan outside of transactions.
    fn check_range(&mut self, begin: u64, since: Since, scan: Scan<String>, found: Found) {
        let times = (since.time, self.scene.now());
        self.scene.board.count(|counts| counts.reads += 1);
        let explains = |state: &State| find(state, &scan, times, |items| found.is(items));
        if let Err(states) = self.scene.timeline.check_state(since.floor, explains) {
            let what = format!("{} read {found:?} by {scan:?}, since {since:?}, of {states:?}", self.name);
            return self.scene.board.anomaly(what);
        }
        let end = self.scene.stamps.next();
        self.process.committed.push(Committed { begin, end, ops: found.ops(scan) });
    }

    /// Writes or removes several keys in one step, or changes when a key expires.
    pub(crate) fn write_many(&mut self) -> Result<(), Stop> {
        match self.rng.random_range(0..10) {
            0..3 => self.extend(4),
            3 | 4 if self.pen.expiring => self.change_expiry(),
            5 => self.persist(),
            drawn => self.remove_many(drawn),
        }
    }

    /// Writes at most `most` pairs in one step.
    pub(crate) fn extend(&mut self, most: usize) -> Result<(), Stop> {
        let (begin, since) = (self.scene.stamps.next(), self.scene.timeline.since());
        let (before, first) = (self.scene.earliest(), self.pen.next());
        let pairs = self.pen.pairs(&mut self.rng, most);
        let written: BTreeMap<String, Option<u64>> =
            pairs.iter().map(|(key, value)| (key.clone(), Some(value.id))).collect();
        self.scene.board.note(&self.name, format!("extends by {written:?}"));
        let result = block_on(self.db.extend(pairs));
        let Outcome::Done(()) = self.judge(result)? else {
            self.check_no_trace(since.floor, first);
            return Ok(());
        };
        self.scene.board.count(|counts| counts.transactions += 1);
        if written.is_empty() {
            return Ok(());
        }
        let timeline = &self.scene.timeline;
        let Some(commit) = timeline.find_last(since.floor, &written) else {
            let what = format!("{} wrote {written:?}, which was never published", self.name);
            self.scene.board.anomaly(what);
            return Ok(());
        };
        let expiry = self.scene.expiry_of(Expiry::NEVER, before, self.scene.now());
        let state = timeline.state(commit).unwrap_or_default();
        let wrong =
            written.keys().find(|key| state.get(*key).is_some_and(|held| !expiry.allows(held.expires)));
        if let Some(key) = wrong {
            let what = format!("{} committed {key} in {commit} to expire {expiry:?}", self.name);
            self.scene.board.anomaly(format!("{what}, and it is {:?}", state.get(key)));
        }
        timeline.acknowledge(commit);
        let put = |(key, id): (String, Option<u64>)| id.map(|value| Op::Put { key, value });
        let ops = written.into_iter().filter_map(put).collect();
        let end = self.scene.stamps.next();
        self.process.committed.push(Committed { begin, end, ops });
        self.scene.board.raise();
        Ok(())
    }

    /// Removes a range, everything, or the first or last key.
    fn remove_many(&mut self, drawn: u32) -> Result<(), Stop> {
        let (begin, since) = (self.scene.stamps.next(), self.scene.timeline.since());
        let scan = Scan { limit: None, reverse: false, ..self.pen.scan(&mut self.rng) };
        let one_end = |reverse| Scan { reverse, limit: Some(1), ..Scan::all() };
        let clears = drawn == 9 && self.rng.random_bool(0.3);
        self.scene.board.note(&self.name, format!("removes many ({drawn}, {clears}): {scan:?}"));
        // Either end may be any key.
        let whole = matches!(drawn, 6 | 7) || clears;
        self.scene.timeline.claim(if whole { Scan::all() } else { scan.clone() });
        let db = &self.db;
        let (result, scan) = match drawn {
            6 => (block_on(db.pop_first()).map(one), one_end(false)),
            7 => (block_on(db.pop_last()).map(one), one_end(true)),
            _ if clears => (block_on(db.clear()).map(Found::Number), Scan::all()),
            _ => (block_on(db.remove_range(ends(&scan))).map(Found::Number), scan),
        };
        if let Outcome::Done(found) = self.judge(result)? {
            self.check_removal(begin, since, scan, found);
        }
        self.scene.board.raise();
        Ok(())
    }

    /// Checks that the keys of this scan, which an operation reports as removed, were removed in one
    /// commit.
    fn check_removal(&mut self, begin: u64, since: Since, scan: Scan<String>, found: Found) {
        self.scene.board.count(|counts| counts.transactions += 1);
        if found.is(&Pairs::new()) {
            return self.check_range(begin, since, scan, found);
        }
        let times = (since.time, self.scene.now());
        // At the snapshot level, other tasks may write other keys of the range before the commit.
        let is_exact = self.scene.life.isolation == IsolationLevel::Serializable;
        let is_it = |states: &[State], changes: &BTreeMap<String, Option<Held>>| {
            let Some(before) = states.last() else { return false };
            let removes = |base: &State, items: &Pairs| {
                let is_removed =
                    |key: &String| changes.get(key) == Some(&None) && base.get(key) == before.get(key);
                found.is(items)
                    && items.len() == changes.len()
                    && items.iter().all(|(key, _)| is_removed(key))
            };
            let bases = if is_exact { &states[states.len() - 1..] } else { states };
            bases.iter().any(|base| find(base, &scan, times, |items| removes(base, items)))
        };
        let timeline = &self.scene.timeline;
        let Some(commit) = timeline.commits(since.floor, is_it).last().copied() else {
            let what = format!("{} removed {found:?} by {scan:?}, which was never published", self.name);
            return self.scene.board.anomaly(what);
        };
        timeline.acknowledge(commit);
        let (before, after) = (timeline.state(commit - 1), timeline.state(commit).unwrap_or_default());
        let gone = before.unwrap_or_default().into_iter().filter(|(key, _)| !after.contains_key(key));
        let gone: Vec<(String, Held)> = gone.collect();
        let items: Pairs = gone.iter().map(|(key, held)| (key.clone(), held.id)).collect();
        let mut ops = Vec::from([Op::Scan { scan, items }]);
        ops.extend(gone.into_iter().map(|(key, _)| Op::Delete { key }));
        let end = self.scene.stamps.next();
        self.process.committed.push(Committed { begin, end, ops });
    }

    /// Sets the expiry time of a key.
    fn change_expiry(&mut self) -> Result<(), Stop> {
        let key = self.pen.key(&mut self.rng);
        let at = match self.rng.random_bool(0.2) {
            true => UNIX_EPOCH,
            false => virtual_time::system_time() + self.pen.ttl(&mut self.rng) + Duration::from_millis(5),
        };
        let since = self.scene.timeline.since();
        self.scene.board.note(&self.name, format!("lets {key} expire at {}", millis(at)));
        let result = block_on(self.db.expire_at(key.as_str(), at));
        let Outcome::Done(is_there) = self.judge(result)? else { return Ok(()) };
        self.check_life(&key, since, is_there, Expiry::at(millis(at)), |_| false);
        Ok(())
    }

    /// Removes the expiry time of a key.
    fn persist(&mut self) -> Result<(), Stop> {
        let key = self.pen.key(&mut self.rng);
        let (since, before) = (self.scene.timeline.since(), self.scene.earliest());
        self.scene.board.note(&self.name, format!("lets {key} live for ever"));
        let result = block_on(self.db.persist(key.as_str()));
        let Outcome::Done(has_changed) = self.judge(result)? else { return Ok(()) };
        let expiry = self.scene.expiry_of(Expiry::NEVER, before, self.scene.now());
        self.check_life(&key, since, has_changed, expiry, |held| held.expires == 0);
        Ok(())
    }

    /// Checks the result of a change of an expiry time. If it `has_changed`, one commit has set `expiry`.
    /// Otherwise the key had no value, or one for which `stays` holds.
    fn check_life(
        &mut self,
        key: &str,
        since: Since,
        has_changed: bool,
        expiry: Expiry,
        stays: impl Fn(&Held) -> bool,
    ) {
        let (timeline, board, now) = (&self.scene.timeline, &self.scene.board, self.scene.now());
        board.count(|counts| counts.transactions += 1);
        let is_explained = if has_changed {
            let is_it = |states: &[State], changes: &BTreeMap<String, Option<Held>>| {
                let before = states.last().and_then(|before| before.get(key));
                let new = changes.get(key).copied().flatten().filter(|_| changes.len() == 1);
                new.is_some_and(|new| {
                    expiry.allows(new.expires) && before.is_some_and(|before| before.id == new.id)
                })
            };
            let commit = timeline.commits(since.floor, is_it).last().copied();
            commit.map(|commit| timeline.acknowledge(commit)).is_some()
        } else {
            let explains = |state: &State| {
                let has_gone = |held: &Held| held.expires != 0 && held.expires <= now;
                state.get(key).is_none_or(|held| has_gone(held) || stays(held))
            };
            timeline.check_state(since.floor, explains).is_ok()
        };
        if !is_explained {
            let what = format!("{} let {key} expire {expiry:?}, changed: {has_changed}", self.name);
            board.anomaly(format!("{what}, which nothing explains"));
        }
        board.raise();
    }
}

//! Reads outside of transactions: of single keys, and of snapshots that are held for a long time.

use crate::client::{Client, Outcome, Stop};
use crate::expiry::Expiry;
use crate::pen::{Pairs, ends, prefix_scan, taken};
use crate::timeline::{Since, State};
use crate::value::Value;
use fluxmap_shuttle::{FluxError, Snapshot};
use fluxmap_testkit::op::{Committed, Op, Scan};
use rand::Rng;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// The number of items after which a stream lets other tasks run.
const ITEMS_PER_TURN: usize = 128;

/// A snapshot that a client holds, with the pairs that it must always show.
pub(crate) struct Held {
    view: Snapshot<String, Value>,
    shows: BTreeMap<String, u64>,
    /// The same pairs with their expiry times, and the expired pairs.
    raw: State,
    /// The time at which the snapshot reads.
    time: u64,
    /// The virtual time before it was taken.
    began: Duration,
}

impl Client {
    fn same<T: PartialEq + std::fmt::Debug>(&self, what: &str, real: T, model: T) {
        self.scene.board.count(|counts| counts.reads += 1);
        if real != model {
            self.scene.board.anomaly(format!("{} {what}: was {real:?}, but should be {model:?}", self.name));
        }
        self.scene.board.raise();
    }

    /// Reads a single key.
    pub(crate) fn read(&mut self) -> Result<(), Stop> {
        let choice = self.rng.random_range(0..6);
        if choice >= 4 {
            return self.read_several(choice == 4);
        }
        let key = self.pen.key(&mut self.rng);
        let since = self.scene.timeline.since();
        self.scene.board.note(&self.name, format!("gets {key}"));
        if choice == 3 {
            return self.ask(&key, since);
        }
        let found = match choice {
            0 => self.db.get(key.as_str()).map(|found| found.map(|value| value.id)),
            1 => self.db.get_with(key.as_str(), |value| value.id),
            _ => self.db.get_many([key.as_str()]).map(|[found]| found.map(|value| value.id)),
        };
        if let Outcome::Done(found) = self.judge(found)? {
            self.scene.board.count(|counts| counts.reads += 1);
            if let Err(what) = self.scene.timeline.check_get(&key, found, since, self.scene.now()) {
                self.scene.board.anomaly(format!("{}: {what}", self.name));
            }
        }
        self.scene.board.raise();
        Ok(())
    }

    /// Reads several keys in one call, which must find them in one state.
    fn read_several(&mut self, is_array: bool) -> Result<(), Stop> {
        let (begin, since) = (self.scene.stamps.next(), self.scene.timeline.since());
        let keys: [String; 3] = std::array::from_fn(|_| self.pen.key(&mut self.rng));
        self.scene.board.note(&self.name, format!("gets {keys:?}"));
        let asked = keys.each_ref().map(String::as_str);
        let found = match is_array {
            true => self.db.get_many(asked).map(Vec::from),
            false => self.db.get_each(asked),
        };
        if let Outcome::Done(found) = self.judge(found)? {
            self.scene.board.count(|counts| counts.reads += 1);
            let ids = found.into_iter().map(|value| value.map(|value| value.id));
            let found: Vec<_> = keys.into_iter().zip(ids).collect();
            if let Err(what) = self.scene.timeline.check_many(&found, since, self.scene.now()) {
                self.scene.board.anomaly(format!("{}: {what}", self.name));
            }
            let ops = found.into_iter().map(|(key, found)| Op::Get { key, found }).collect();
            let end = self.scene.stamps.next();
            self.process.committed.push(Committed { begin, end, ops });
        }
        self.scene.board.raise();
        Ok(())
    }

    /// Asks whether a key has a value, or for its time to live.
    fn ask(&mut self, key: &str, since: Since) -> Result<(), Stop> {
        let timeline = &self.scene.timeline;
        let checked = match self.rng.random() {
            true => {
                let has = self.judge(self.db.contains_key(key))?;
                let Outcome::Done(has) = has else { return Ok(()) };
                let now = self.scene.now();
                let explains = |state: &State| match state.get(key) {
                    Some(held) if held.expires == 0 => has,
                    Some(held) if has => held.expires > since.time,
                    Some(held) => held.expires <= now,
                    None => !has,
                };
                timeline.check_state(since.floor, explains).map_err(|states| (format!("{has}"), states))
            }
            false => {
                let left = self.judge(self.db.ttl(key))?;
                let Outcome::Done(left) = left else { return Ok(()) };
                let now = self.scene.now();
                let explains = |state: &State| match state.get(key) {
                    Some(held) if left.is_none() => held.expires <= now,
                    Some(held) => Expiry::at(held.expires).leaves(left, since.time, now),
                    None => left.is_none(),
                };
                timeline.check_state(since.floor, explains).map_err(|states| (format!("{left:?}"), states))
            }
        };
        self.scene.board.count(|counts| counts.reads += 1);
        if let Err((what, states)) = checked {
            let states: Vec<_> = states.iter().map(|state| state.get(key).copied()).collect();
            let what = format!("{} asked for {key}: {what}, since {since:?}, of {states:?}", self.name);
            self.scene.board.anomaly(what);
        }
        self.scene.board.raise();
        Ok(())
    }

    /// Takes a snapshot, reads it, and perhaps keeps it.
    pub(crate) fn snapshot(&mut self) -> Result<(), Stop> {
        let (begin, floor) = (self.scene.stamps.next(), self.scene.timeline.floor());
        let view = self.db.snapshot();
        let point = view.read_point();
        self.scene.board.note(&self.name, format!("has a snapshot of {}", point.timestamp));
        let shows = self.scene.timeline.begin(point, floor, true);
        self.scene.board.raise();
        let raw = self.scene.timeline.state(point.timestamp).unwrap_or_default();
        let held = Held { view, shows, raw, time: point.time, began: self.began };
        if let Outcome::Done(items) = self.look(&held)? {
            let end = self.scene.stamps.next();
            let ops = vec![Op::Scan { scan: Scan::all(), items }];
            self.process.committed.push(Committed { begin, end, ops });
        }
        if self.held.len() < self.scene.life.diet.snapshots && self.rng.random() {
            self.held.push(held);
        }
        Ok(())
    }

    /// Reads a held snapshot again.
    pub(crate) fn reread(&mut self) -> Result<(), Stop> {
        let Some(held) = self.held.pop() else { return Ok(()) };
        self.scene.board.note(&self.name, "looks again at a snapshot");
        let looked = self.look(&held);
        self.held.push(held);
        if self.rng.random_bool(0.3) {
            self.held.pop();
        }
        looked.map(|_| ())
    }

    fn judge_held<T>(&self, held: &Held, result: Result<T, FluxError>) -> Result<Outcome<T>, Stop> {
        self.scene.judge_since(held.began, &self.name, result)
    }

    /// Compares reads of a snapshot with the pairs that it must show. Returns all pairs.
    fn look(&mut self, held: &Held) -> Result<Outcome<Pairs>, Stop> {
        let view = &held.view;
        let key = self.pen.key(&mut self.rng);
        let result = view.get(key.as_str()).map(|found| found.map(|value| value.id));
        let Outcome::Done(found) = self.judge_held(held, result)? else { return Ok(Outcome::Refused) };
        self.same(&format!("snapshot get {key}"), found, held.shows.get(&key).copied());
        if let Outcome::Refused = self.look_closely(held)? {
            return Ok(Outcome::Refused);
        }
        let scan = self.pen.scan(&mut self.rng);
        let part = match self.rng.random_range(0..4) {
            0 => {
                let prefix = self.pen.prefix(&mut self.rng);
                let scan = prefix_scan(prefix, scan.reverse, scan.limit);
                let real = self.pairs_of(view.prefix(prefix), &scan);
                (scan, real)
            }
            1 => {
                let real = self.pairs_of(view.range(ends(&scan)), &scan);
                (scan, real)
            }
            2 => {
                let prefix = self.pen.prefix(&mut self.rng);
                let scan = prefix_scan(prefix, false, scan.limit);
                let real = taken(view.prefix_scan_stream(prefix), scan.limit);
                (scan, real)
            }
            _ => {
                let scan = Scan { reverse: false, ..scan };
                let real = taken(view.range_stream(ends(&scan)), scan.limit);
                (scan, real)
            }
        };
        let (scan, real) = part;
        let Outcome::Done(real) = self.judge_held(held, real)? else { return Ok(Outcome::Refused) };
        if real.len() > ITEMS_PER_TURN {
            self.scene.board.event("long scans");
        }
        self.same(&format!("snapshot scan {scan:?}"), real, scan.over(&held.shows));
        let mut all = Pairs::new();
        let visited = view.range(..).visit(|key, value: &Arc<Value>| {
            all.push((key.clone(), value.id));
            ControlFlow::<()>::Continue(())
        });
        let Outcome::Done(_) = self.judge_held(held, visited)? else { return Ok(Outcome::Refused) };
        self.same("snapshot", all.clone(), Scan::all().over(&held.shows));
        Ok(Outcome::Done(all))
    }

    /// Does one of the less common reads of a snapshot.
    fn look_closely(&mut self, held: &Held) -> Result<Outcome<()>, Stop> {
        let Held { view, shows, raw, time, .. } = held;
        let keys: [String; 3] = std::array::from_fn(|_| self.pen.key(&mut self.rng));
        let pair = |pair: Option<(String, Arc<Value>)>| pair.map(|(key, value)| (key, value.id));
        let choice = self.rng.random_range(0..9);
        let scan = Scan { limit: None, reverse: false, ..self.pen.scan(&mut self.rng) };
        // Each read with its expected result.
        let (real, shown) = match choice {
            0 => {
                let real = view.get_many(keys.each_ref().map(String::as_str));
                let real = real.map(|found| format!("{:?}", found.map(|value| value.map(|value| value.id))));
                (real, format!("{:?}", keys.each_ref().map(|key| shows.get(key).copied())))
            }
            1 => {
                let real = view.first().map(|found| format!("{:?}", pair(found)));
                (real, format!("{:?}", shows.first_key_value().map(|(key, id)| (key.clone(), *id))))
            }
            2 => {
                let real = view.last().map(|found| format!("{:?}", pair(found)));
                (real, format!("{:?}", shows.last_key_value().map(|(key, id)| (key.clone(), *id))))
            }
            3 => {
                let real = view.count(ends(&scan)).map(|count| count.to_string());
                (real, scan.over(shows).len().to_string())
            }
            4 => {
                let real = view.contains_key(keys[0].as_str()).map(|has| has.to_string());
                (real, shows.contains_key(&keys[0]).to_string())
            }
            5 => {
                let real = view.get_each(&keys);
                let real = real.map(|found| found.into_iter().map(|value| value.map(|value| value.id)));
                let shown: Vec<_> = keys.iter().map(|key| shows.get(key).copied()).collect();
                (real.map(|found| format!("{:?}", found.collect::<Vec<_>>())), format!("{shown:?}"))
            }
            6 => (view.len().map(|count| count.to_string()), shows.len().to_string()),
            7 => (view.is_empty().map(|is_empty| is_empty.to_string()), shows.is_empty().to_string()),
            _ => {
                let expires = raw.get(&keys[0]).filter(|held| held.expires > *time).map(|held| held.expires);
                let left = expires.map(|expires| Duration::from_millis(expires - time));
                (view.ttl(keys[0].as_str()).map(|left| format!("{left:?}")), format!("{left:?}"))
            }
        };
        let Outcome::Done(real) = self.judge_held(held, real)? else { return Ok(Outcome::Refused) };
        self.same(&format!("snapshot read ({choice}) of {keys:?}, {scan:?}"), real, shown);
        Ok(Outcome::Done(()))
    }

    /// Returns the pairs of a range in the order of `scan`, up to its limit.
    pub(crate) fn pairs_of(
        &self,
        mut range: fluxmap_shuttle::SnapshotRange<String, Value>,
        scan: &Scan<String>,
    ) -> Result<Pairs, FluxError> {
        let mut pairs = Pairs::new();
        while scan.limit.is_none_or(|limit| pairs.len() < limit) {
            let next = if scan.reverse { range.try_next_back()? } else { range.try_next()? };
            let Some((key, value)) = next else { break };
            pairs.push((key, value.id));
        }
        Ok(pairs)
    }
}

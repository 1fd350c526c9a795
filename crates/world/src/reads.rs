//! Reads outside of transactions: of single keys, and of snapshots, held for long.

use crate::client::{Client, Outcome, Stop};
use crate::script::{Pairs, ends, prefix_scan, taken};
use crate::value::Value;
use fluxmap_shuttle::{FluxError, Snapshot};
use fluxmap_testkit::op::{Committed, Op, Scan};
use rand::Rng;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A snapshot that is held, with what it must show for ever.
pub(crate) struct Held {
    view: Snapshot<String, Value>,
    shows: BTreeMap<String, u64>,
}

impl Client {
    fn same<T: PartialEq + std::fmt::Debug>(&self, what: &str, real: T, model: T) {
        self.scene.board.count(|counts| counts.reads += 1);
        if real != model {
            self.scene.board.anomaly(format!("{} {what}: was {real:?}, and had to be {model:?}", self.name));
        }
        self.scene.board.raise();
    }

    /// Reads a single key.
    pub(crate) fn read(&mut self) -> Result<(), Stop> {
        let key = self.pen.key(&mut self.rng);
        let floor = self.scene.timeline.floor();
        self.scene.board.note(&self.name, format!("gets {key}"));
        let found = match self.rng.random_range(0..3) {
            0 => self.db.get(key.as_str()).map(|found| found.map(|value| value.id)),
            1 => self.db.get_with(key.as_str(), |value| value.id),
            _ => self.db.get_many([key.as_str()]).map(|[found]| found.map(|value| value.id)),
        };
        if let Outcome::Done(found) = self.scene.judge(&self.name, found)? {
            self.scene.board.count(|counts| counts.reads += 1);
            if let Err(what) = self.scene.timeline.check_get(&key, found, floor, self.scene.now()) {
                self.scene.board.anomaly(format!("{}: {what}", self.name));
            }
        }
        self.scene.board.raise();
        Ok(())
    }

    /// Takes a snapshot, looks around in it, and perhaps keeps it.
    pub(crate) fn snapshot(&mut self) -> Result<(), Stop> {
        let (begin, floor) = (self.scene.stamps.next(), self.scene.timeline.floor());
        let view = self.db.snapshot();
        let point = view.read_point();
        self.scene.board.note(&self.name, format!("has a snapshot of {}", point.timestamp));
        let shows = self.scene.timeline.begin(point, floor, true);
        self.scene.board.raise();
        let held = Held { view, shows };
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

    /// Looks again at a snapshot that it holds.
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

    /// Compares a snapshot with what it must show; returns all pairs.
    fn look(&mut self, held: &Held) -> Result<Outcome<Pairs>, Stop> {
        let view = &held.view;
        let key = self.pen.key(&mut self.rng);
        let result = view.get(key.as_str()).map(|found| found.map(|value| value.id));
        let Outcome::Done(found) = self.scene.judge(&self.name, result)? else { return Ok(Outcome::Refused) };
        self.same(&format!("snapshot get {key}"), found, held.shows.get(&key).copied());
        let scan = self.pen.scan(&mut self.rng);
        let part = match self.rng.random_range(0..3) {
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
            _ => {
                let scan = Scan { reverse: false, ..scan };
                let real = taken(view.range_stream(ends(&scan)), scan.limit);
                (scan, real)
            }
        };
        let (scan, real) = part;
        let Outcome::Done(real) = self.scene.judge(&self.name, real)? else { return Ok(Outcome::Refused) };
        self.same(&format!("snapshot scan {scan:?}"), real, scan.over(&held.shows));
        let mut all = Pairs::new();
        let visited = view.range(..).visit(|key, value: &Arc<Value>| {
            all.push((key.clone(), value.id));
            ControlFlow::<()>::Continue(())
        });
        let Outcome::Done(_) = self.scene.judge(&self.name, visited)? else { return Ok(Outcome::Refused) };
        self.same("snapshot", all.clone(), Scan::all().over(&held.shows));
        Ok(Outcome::Done(all))
    }

    fn pairs_of(
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

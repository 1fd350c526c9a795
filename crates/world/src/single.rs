//! Operations of one step, which are transactions of their own.

use crate::client::{Client, Outcome, Stop};
use crate::expiry::Expiry;
use crate::pen::point;
use crate::timeline::{Held, Since};
use crate::value::Value;
use fluxmap_shuttle::FluxError;
use fluxmap_testkit::op::{Committed, Op};
use rand::Rng;
use shuttle::future::block_on;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The effect of an operation of one step.
#[derive(Clone, Copy, Debug)]
struct Effect {
    /// The value that the operation reports to have found, if it reports one.
    saw: Option<Option<u64>>,
    /// The value that the operation wrote (`None` for a removal), if it wrote.
    wrote: Option<Option<u64>>,
    /// The expiry time of the written value; `None` if the value keeps that of the value before it.
    expires: Option<Expiry>,
}

impl Effect {
    fn of(saw: Option<Option<u64>>, wrote: Option<Option<u64>>) -> Effect {
        Effect { saw, wrote, expires: Some(Expiry::NEVER) }
    }
}

impl Client {
    /// Does a random operation of one step.
    pub(crate) fn single(&mut self) -> Result<(), Stop> {
        let choice = self.rng.random_range(0..8);
        self.do_single(choice)
    }

    /// Writes a value blindly.
    pub(crate) fn put(&mut self) -> Result<(), Stop> {
        self.do_single(0)
    }

    fn do_single(&mut self, choice: u32) -> Result<(), Stop> {
        let key = self.pen.key(&mut self.rng);
        let value = self.pen.value(&mut self.rng);
        let new = value.id;
        let (begin, since) = (self.scene.stamps.next(), self.scene.timeline.since());
        let before = self.scene.earliest();
        self.scene.board.note(&self.name, format!("one step ({choice}) on {key}, writing {new}"));
        if choice == 3 || choice == 2 && !self.pen.expiring {
            self.scene.timeline.claim(point(&key));
        }
        let db = &self.db;
        // The value that a swap expected and did not find.
        let differs = Cell::new(None);
        let result = match choice {
            0 | 1 | 7 => {
                let put = match choice {
                    0 => block_on(db.insert(key.clone(), value)),
                    1 => block_on(db.insert_arc(key.clone(), Arc::new(value))),
                    _ => block_on(db.handle().insert(key.clone(), value)),
                };
                put.map(|()| Effect::of(None, Some(Some(new))))
            }
            2 if self.pen.expiring => {
                let ttl = self.pen.ttl(&mut self.rng);
                let inserted = block_on(db.insert_with_ttl(key.clone(), value, ttl));
                let expires = Some(Expiry::after(ttl, before, self.scene.now()));
                inserted.map(|()| Effect { saw: None, wrote: Some(Some(new)), expires })
            }
            2 | 3 => block_on(db.remove(key.as_str())).map(|held| {
                let saw = held.map(|held| held.id);
                Effect::of(Some(saw), saw.map(|_| None))
            }),
            4 => {
                let (saw, value) = (&Cell::new(None), &Cell::new(Some(value)));
                let change = |old: &Value| {
                    saw.set(Some(old.id));
                    // The engine may call this again after a conflict, when `value` is already gone.
                    value.take().unwrap_or_else(|| Value::new(new, 0))
                };
                let updated = block_on(db.update(key.as_str(), change));
                updated.map(|held| match held {
                    Some(_) => Effect { saw: Some(saw.get()), wrote: Some(Some(new)), expires: None },
                    None => Effect::of(Some(None), None),
                })
            }
            5 => self.swap(&key, value, &differs),
            _ => block_on(db.get_or_insert_with(key.clone(), || value)).map(|held| match held.id == new {
                true => Effect::of(Some(None), Some(Some(new))),
                false => Effect::of(Some(Some(held.id)), None),
            }),
        };
        let outcome = self.judge(result)?;
        if !matches!(&outcome, Outcome::Done(Effect { wrote: Some(Some(_)), .. })) {
            self.check_no_trace(since.floor, new);
        }
        if let Outcome::Done(effect) = outcome {
            if let Some(saw) = differs.get() {
                let found = self.scene.timeline.check_differs(&key, saw, since.floor, self.scene.now());
                self.scene.board.count(|counts| counts.reads += 1);
                if let Err(what) = found {
                    self.scene
                        .board
                        .anomaly(format!("{}: a swap was refused without a reason: {what}", self.name));
                }
            }
            self.check_effect((begin, before), since, key, effect);
        }
        self.scene.board.raise();
        Ok(())
    }

    /// Reads a value and swaps it. If the swap finds another value, `differs` gets the value that was
    /// read.
    fn swap(
        &self,
        key: &str,
        value: Value,
        differs: &Cell<Option<Option<u64>>>,
    ) -> Result<Effect, FluxError> {
        let (db, new) = (&self.db, value.id);
        let expected = db.get(key).ok().flatten();
        let saw = expected.as_ref().map(|value| value.id);
        let has_swapped = block_on(db.compare_and_swap(key.to_owned(), expected.as_deref(), Some(value)))?;
        if !has_swapped {
            differs.set(Some(saw));
            return Ok(Effect::of(None, None));
        }
        let expires = saw.is_none().then_some(Expiry::NEVER);
        Ok(Effect { saw: Some(saw), wrote: Some(Some(new)), expires })
    }

    fn check_effect(&mut self, (begin, from): (u64, u64), since: Since, key: String, effect: Effect) {
        let end = self.scene.stamps.next();
        let (timeline, board) = (&self.scene.timeline, &self.scene.board);
        let Effect { saw, wrote, expires } = effect;
        board.count(|counts| counts.transactions += 1);
        let mut ops: Vec<Op<String, u64>> =
            saw.map(|found| Op::Get { key: key.clone(), found }).into_iter().collect();
        match wrote {
            None => {
                let Some(found) = saw else { return };
                if let Err(what) = timeline.check_get(&key, found, since, self.scene.now()) {
                    board.anomaly(format!("{}: {what}", self.name));
                }
            }
            Some(written) => {
                let Some(commit) = timeline.find_last(since.floor, &BTreeMap::from([(key.clone(), written)]))
                else {
                    let what = format!("{} wrote {written:?} to {key}, which was never published", self.name);
                    return board.anomaly(what);
                };
                let before = timeline.before(commit, &key);
                let expired = |held: &Held| held.expires != 0 && held.expires <= self.scene.now();
                let explains = match saw {
                    None => true,
                    Some(None) => before.is_none_or(|held| expired(&held)),
                    Some(Some(saw)) => before.is_some_and(|held| held.id == saw),
                };
                // At the snapshot level the first committer wins, which gives the same guarantee here:
                // the key that was read is the key that is written.
                if !explains {
                    let what = format!(
                        "{} saw {saw:?} under {key}, and committed {commit} over {before:?}",
                        self.name
                    );
                    return board.anomaly(what);
                }
                let now = self.scene.now();
                let kept = || before.map_or(Expiry::NEVER, |held| Expiry::at(held.expires));
                let expiry = self.scene.expiry_of(expires.unwrap_or_else(kept), from, now);
                let held = timeline.state(commit).and_then(|state| state.get(&key).copied());
                if let Some(held) = held.filter(|held| !expiry.allows(held.expires)) {
                    let what = format!("{} committed {key} in {commit} to expire {expiry:?}", self.name);
                    return board.anomaly(format!("{what}, and it is {held:?}"));
                }
                timeline.acknowledge(commit);
                ops.push(match written {
                    Some(value) => Op::Put { key, value },
                    None => Op::Delete { key },
                });
            }
        }
        self.process.committed.push(Committed { begin, end, ops });
    }
}

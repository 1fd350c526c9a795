//! A client: one task that runs transactions, one-step operations and reads until it has done
//! its number of operations or the database has failed.

use crate::board::Board;
use crate::disk::Faults;
use crate::expiry::Expiry;
use crate::pen::{self, Pen};
use crate::plan::{Habit, Life};
use crate::reads::Held;
use crate::script::{Ended, Script, Tx};
use crate::timeline::{Timeline, Until};
use crate::value::Value;
use fluxmap_shuttle::{Database, FluxError, IsolationLevel, PersistenceError, ReadPoint, virtual_time};
use fluxmap_testkit::history::{Process, Stamps};
use fluxmap_testkit::op::Committed;
use rand::Rng;
use rand::rngs::StdRng;
use shuttle::future::block_on;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

pub(crate) type Db = Database<String, Value>;

/// The state that all tasks of one life share.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) life: Arc<Life>,
    pub(crate) timeline: Timeline,
    pub(crate) board: Board,
    pub(crate) stamps: Arc<Stamps>,
    /// The latest time of day in the lives before, and the virtual time at which this life began.
    pub(crate) began: (u64, Duration),
    pub(crate) faults: Faults,
}

/// The reason why a client stops early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The database takes no more commits.
    Failed,
}

/// The outcome of a call that may fail.
pub(crate) enum Outcome<T> {
    Done(T),
    /// The call conflicted with other transactions, and had no effect.
    Conflict,
    /// The call was refused for a reason that the configuration explains, and had no effect.
    Refused,
}

impl Scene {
    /// Returns the latest time that the database may have, in milliseconds since 1970: the machine's
    /// time, or the latest time of the lives before plus the time that has passed since they ended.
    pub(crate) fn now(&self) -> u64 {
        let (latest, elapsed) = self.began;
        self.earliest().max(latest + (virtual_time::elapsed() - elapsed).as_millis() as u64 + 1)
    }

    /// Returns the machine's time. A database call that begins now and reads the machine's clock has at
    /// least this time.
    pub(crate) fn earliest(&self) -> u64 {
        let since = virtual_time::system_time().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }

    /// Returns when a value expires that was committed between `from` and `to`, and for which its writer
    /// asked for `asked`. A policy may give a time to live to a value without one.
    pub(crate) fn expiry_of(&self, asked: Expiry, from: u64, to: u64) -> Expiry {
        match self.life.eviction_ttl {
            Some(life) if asked == Expiry::NEVER => Expiry::after(life, from, to),
            _ => asked,
        }
    }

    /// Decides whether an error is expected or an anomaly.
    pub(crate) fn judge<T>(&self, who: &str, result: Result<T, FluxError>) -> Result<Outcome<T>, Stop> {
        self.judge_since(Duration::ZERO, who, result)
    }

    /// The same of a call that has read from no snapshot which was taken before the virtual time `began`.
    pub(crate) fn judge_since<T>(
        &self,
        began: Duration,
        who: &str,
        result: Result<T, FluxError>,
    ) -> Result<Outcome<T>, Stop> {
        self.board.raise();
        let error = match result {
            Ok(value) => return Ok(Outcome::Done(value)),
            Err(error) => error,
        };
        self.board.note(who, format!("-> {error:?}"));
        let life = &self.life;
        let age = virtual_time::elapsed() - began;
        match error {
            FluxError::SerializationConflict | FluxError::WriteConflict => Ok(Outcome::Conflict),
            FluxError::MemoryLimitExceeded | FluxError::ExceedsMemoryLimit { .. } if life.limit.is_some() => {
                self.board.event("refusals for the limit");
                Ok(Outcome::Refused)
            }
            FluxError::SnapshotTooOld { .. } if life.max_age.is_some_and(|most| age >= most) => {
                self.board.event("snapshots too old");
                Ok(Outcome::Refused)
            }
            FluxError::OutcomeUnknown { .. } | FluxError::FatalPersistenceError { .. }
                if self.faults.have_fired() =>
            {
                Err(Stop::Failed)
            }
            // The log may have failed, or may be closing, although no client was told so before.
            FluxError::Persistence(PersistenceError::Io { .. } | PersistenceError::Unavailable(_))
                if self.faults.have_fired() =>
            {
                Ok(Outcome::Refused)
            }
            error => {
                let what = format!("{who}: an error that nothing explains, since {began:?}: {error:?}");
                self.board.anomaly(what);
                self.board.raise();
                Err(Stop::Failed)
            }
        }
    }
}

/// One client.
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) db: Db,
    pub(crate) scene: Scene,
    pub(crate) rng: StdRng,
    pub(crate) pen: Pen,
    pub(crate) held: Vec<Held>,
    /// The virtual time when its operation began.
    pub(crate) began: Duration,
    pub(crate) process: Process<String, u64>,
}

impl Client {
    pub(crate) fn new(name: String, db: Db, scene: Scene, rng: StdRng, first: u64) -> Self {
        let pen = Pen::new(&scene.life.diet, first);
        let (began, process) = (virtual_time::elapsed(), Process::default());
        Client { name, db, scene, rng, pen, held: Vec::new(), began, process }
    }

    /// Sorts out the error of a call that reads from no snapshot of an earlier operation.
    pub(crate) fn judge<T>(&self, result: Result<T, FluxError>) -> Result<Outcome<T>, Stop> {
        self.scene.judge_since(self.began, &self.name, result)
    }

    /// Runs the client's operations, and returns its committed transactions.
    pub(crate) fn run(mut self) -> Process<String, u64> {
        if let Habit::Large(most) = self.scene.life.diet.habit {
            // If the extension is refused, for example because there is no room, a later one may succeed.
            let _ = self.extend(most);
        }
        for _ in 0..self.scene.life.operations {
            if self.operation().is_err() {
                break;
            }
        }
        let rereads: Result<(), Stop> = (|| {
            while !self.held.is_empty() {
                self.reread()?;
                self.held.pop();
            }
            Ok(())
        })();
        drop(rereads);
        self.scene.board.note(&self.name, "is done");
        self.process
    }

    fn operation(&mut self) -> Result<(), Stop> {
        self.scene.timeline.operates();
        self.began = virtual_time::elapsed();
        let is_contended = self.scene.life.diet.keys <= 4;
        let drawn = match self.scene.life.diet.habit {
            // Leave out `read_range` and `write_many`: these habits do no other writes than their own.
            Habit::Gets | Habit::OneLength(_) => self.rng.random_range(0..20),
            _ => self.rng.random_range(0..23),
        };
        match (self.scene.life.diet.habit, drawn) {
            (Habit::Conflicts, 0..15) => return self.transact(),
            (Habit::Conflicts, 15..20) => return self.single(),
            (Habit::Large(most), 0..3) => return self.extend(most),
            (Habit::Large(_), 3..8) => return self.read_range(),
            (Habit::Gets, 0..11) => return self.read(),
            (Habit::Gets, 11..17) => return self.single(),
            (Habit::OneLength(_), 0..15) => return self.put(),
            _ => {}
        }
        match drawn {
            0..8 => self.transaction(),
            8..11 if is_contended => self.transact(),
            8 => self.transact(),
            9 | 10 => self.transaction(),
            11..14 => self.single(),
            14..16 => self.read(),
            16 | 17 => self.snapshot(),
            18 => self.reread(),
            19 => {
                let by = Duration::from_millis(self.rng.random_range(0..50));
                virtual_time::advance(by);
                Ok(())
            }
            20 => self.read_range(),
            _ => self.write_many(),
        }
    }

    /// Checks that nothing was published of an operation that has not committed. When it began, the timeline's
    /// floor was `floor`, and `first` was the number of the next value.
    pub(crate) fn check_no_trace(&self, floor: u64, first: u64) {
        if let Some((commit, id)) = self.scene.timeline.trace(floor, first..self.pen.next()) {
            let what = format!("{} has not committed, and its value {id} is in commit {commit}", self.name);
            self.scene.board.anomaly(what);
        }
        self.scene.board.raise();
    }

    /// Runs a transaction, and checks that it has left no trace if it has not committed.
    fn transaction(&mut self) -> Result<(), Stop> {
        let (floor, first) = (self.scene.timeline.floor(), self.pen.next());
        if !self.try_transaction(floor)? {
            self.check_no_trace(floor, first);
        }
        Ok(())
    }

    /// Begins a transaction, does some steps, and commits or rolls back, directly or in a session. Returns
    /// whether it has committed.
    fn try_transaction(&mut self, floor: u64) -> Result<bool, Stop> {
        let begin = self.scene.stamps.next();
        let (in_session, rolls_back) = (self.rng.random_bool(0.2), self.rng.random_bool(0.1));
        self.scene.board.note(&self.name, if in_session { "begins in a session" } else { "begins" });
        let db = self.db.clone();
        let mut session = db.handle();
        if in_session {
            let begun = session.begin();
            self.judge(begun)?;
        }
        let own = (!in_session).then(|| db.begin());
        let Some(tx) = own.as_ref().or(session.open_transaction()) else {
            self.scene.board.anomaly(format!("{} has begun no transaction", self.name));
            return Ok(false);
        };
        let point = tx.read_point();
        let Some(ended) = self.script(tx, point, floor)? else { return Ok(false) };
        if rolls_back {
            own.map_or_else(|| drop(session.rollback()), Tx::rollback);
            return Ok(false);
        }
        self.scene.board.note(&self.name, format!("commits, having read at {}", point.timestamp));
        let result = match own {
            Some(tx) => block_on(tx.commit()),
            None => block_on(session.commit()),
        };
        let outcome = self.judge(result)?;
        match &outcome {
            Outcome::Done(()) => self.committed(begin, point, &ended),
            Outcome::Conflict => self.refused(point, &ended.model),
            Outcome::Refused => {}
        }
        self.scene.board.raise();
        Ok(matches!(outcome, Outcome::Done(())))
    }

    /// Does some steps of a transaction. Returns `None` if a step was refused.
    pub(crate) fn script(&mut self, tx: &Tx, point: ReadPoint, floor: u64) -> Result<Option<Ended>, Stop> {
        let base = self.scene.timeline.begin(point, floor, false);
        self.scene.board.raise();
        let scene = self.scene.clone();
        let raw = scene.timeline.state(point.timestamp).unwrap_or_default();
        let mut script = Script::new(tx, base, (raw, point.time), &self.pen, &scene, &self.name);
        for _ in 0..self.rng.random_range(1..=self.scene.life.diet.steps) {
            let done = script.step(&mut self.rng);
            match self.judge(done)? {
                Outcome::Done(()) => {}
                Outcome::Conflict | Outcome::Refused => return Ok(None),
            }
        }
        let ended = script.end();
        self.scene.timeline.operates();
        let removed = ended.model.written().filter(|(_, id)| id.is_none());
        removed.for_each(|(key, _)| self.scene.timeline.claim(pen::point(key)));
        Ok(Some(ended))
    }

    /// Checks that a transaction which has committed was allowed to.
    pub(crate) fn committed(&mut self, begin: u64, point: ReadPoint, ended: &Ended) {
        let model = &ended.model;
        let end = self.scene.stamps.next();
        let Scene { timeline, board, life, .. } = &self.scene;
        let written: BTreeMap<String, Option<u64>> =
            model.written().map(|(key, id)| (key.clone(), id.copied())).collect();
        board.count(|counts| counts.transactions += 1);
        if written.is_empty() {
            // A transaction that has written nothing has no timestamp of its own: it stays at its read
            // point.
            timeline.acknowledge_reads(point, point.timestamp);
        } else {
            let Some(commit) = timeline.find(point.timestamp, &written) else {
                return board
                    .anomaly(format!("{} committed {written:?}, which was never published", self.name));
            };
            let clash = match life.isolation {
                IsolationLevel::Serializable => timeline.clash(point, Until::Commit(commit), model.noted()),
                IsolationLevel::Snapshot => {
                    timeline.overtaken(point, Until::Commit(commit), |key| written.contains_key(key))
                }
            };
            board.note(&self.name, format!("committed {commit}: {written:?}"));
            if let Some(clash) = clash {
                let what = format!(
                    "{} committed {commit}, having read at {point:?}, though {} had changed at {}: {written:?}, {:?}",
                    self.name,
                    clash.key,
                    clash.at,
                    model.ops()
                );
                return board.anomaly(what);
            }
            let state = timeline.state(commit).unwrap_or_default();
            for (key, asked) in &ended.expiries {
                let expiry = self.scene.expiry_of(*asked, ended.time, self.scene.now());
                // The key may be absent, because an expired key may already be removed.
                if let Some(held) = state.get(key).filter(|held| !expiry.allows(held.expires)) {
                    let what = format!("{} committed {key} in {commit} to expire {expiry:?}", self.name);
                    return board.anomaly(format!("{what}, and it is {held:?}"));
                }
            }
            timeline.acknowledge_reads(point, commit);
        }
        self.process.committed.push(Committed { begin, end, ops: model.ops().to_vec() });
    }

    /// Checks that a transaction which was refused had a conflict.
    fn refused(&mut self, point: ReadPoint, model: &Model) {
        self.process.refused += 1;
        let Scene { timeline, board, life, .. } = &self.scene;
        board.count(|counts| counts.refusals += 1);
        let is_explained = match life.isolation {
            IsolationLevel::Serializable => {
                timeline.clash(point, Until::Now, model.noted()).is_some()
                    || timeline.could_expire(point, model.noted())
                    || life.max_age.is_some()
                        && timeline
                            .is_touched(point, |key| model.noted().iter().any(|scan| scan.contains(key)))
            }
            // The engine may or may not count the delete of an absent key as a write.
            IsolationLevel::Snapshot => {
                let writes: Vec<String> = model.ops().iter().filter_map(written_key).collect();
                let is_written = |key: &str| writes.iter().any(|written| written == key);
                timeline.overtaken(point, Until::Now, is_written).is_some()
                    || life.max_age.is_some() && timeline.is_touched(point, |key| is_written(key))
            }
        };
        if !is_explained {
            let what = format!(
                "{} was refused at {point:?}, although nothing had changed: {:?}",
                self.name,
                model.ops()
            );
            board.anomaly(what);
        }
    }
}

/// The model of a transaction.
pub(crate) type Model = fluxmap_testkit::model::ModelTxn<String, u64>;

fn written_key(op: &fluxmap_testkit::op::Op<String, u64>) -> Option<String> {
    use fluxmap_testkit::op::Op;
    match op {
        Op::Put { key, .. } | Op::Delete { key } => Some(key.clone()),
        _ => None,
    }
}

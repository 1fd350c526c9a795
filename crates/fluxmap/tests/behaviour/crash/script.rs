//! Scripts of steps for a database, and their execution.

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{poll_immediate, ready};
use rand::Rng;
use rand::rngs::StdRng;

use fluxmap::FluxError;
use fluxmap_testkit::disk::SimDisk;

use crate::crash::support::{Config, Db, Work, World, Writes, content};

/// A step of a script.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// One transaction; the run waits for it.
    Commit(Writes),
    /// Several transactions, all begun before the run waits for the first.
    Together(Vec<Writes>),
    Checkpoint,
    Flush,
    /// Close the database and open it again.
    Close,
    /// Drop the database without closing it, and open it again.
    Drop,
}

/// There are few keys, so that each is written again and again.
const KEYS: u64 = 12;

/// Draws the writes of transactions. Each value is new: none has been written before.
pub(crate) struct Drawer {
    serial: u64,
    rng: StdRng,
}

impl Drawer {
    pub(crate) fn new(rng: StdRng) -> Self {
        Drawer { serial: rng.clone().random(), rng }
    }

    pub(crate) fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    fn value(&mut self) -> String {
        self.serial = self.serial.wrapping_add(1);
        let length = match self.rng.random_range(0..20) {
            0..8 => 10,
            8..15 => 100,
            15..19 => 700,
            // Larger than a segment.
            _ => 6000,
        };
        format!("{}{}", self.serial, "·".repeat(length / 2))
    }

    /// The writes of one transaction.
    pub(crate) fn writes(&mut self) -> Writes {
        let count = if self.rng.random_ratio(1, 3) { self.rng.random_range(2..5) } else { 1 };
        let mut writes = Writes::new();
        for _ in 0..count {
            let key = self.rng.random_range(0..KEYS);
            let removes = self.rng.random_ratio(1, 4);
            writes.retain(|(other, _)| *other != key);
            let value = if removes { None } else { Some(self.value()) };
            writes.push((key, value));
        }
        writes
    }

    /// A script of `steps` steps.
    pub(crate) fn script(&mut self, steps: usize) -> Vec<Step> {
        let mut step = |_| match self.rng.random_range(0..20) {
            0..11 => Step::Commit(self.writes()),
            11..15 => Step::Together((0..self.rng.random_range(2..6)).map(|_| self.writes()).collect()),
            15..17 => Step::Checkpoint,
            17 => Step::Flush,
            18 => Step::Close,
            _ => Step::Drop,
        };
        (0..steps).map(&mut step).collect()
    }
}

/// A database that plays a script, and the history that it must match.
pub(crate) struct Run {
    pub(crate) config: Config,
    pub(crate) disk: SimDisk,
    pub(crate) world: World,
    pub(crate) db: Option<Db>,
    work: Work,
}

impl Run {
    /// Opens the database, and checks its content.
    pub(crate) fn open(config: Config, disk: SimDisk, world: World) -> Result<Self, Box<(World, FluxError)>> {
        let mut run = Run { config, disk, world, db: None, work: Work::of(config) };
        match run.reopen() {
            Ok(()) => Ok(run),
            Err(error) => Err(Box::new((run.world, error))),
        }
    }

    fn reopen(&mut self) -> Result<(), FluxError> {
        // Block on it without driving background work: building a database needs none.
        let db = block_on(self.config.build_for(&self.work, &self.disk))?;
        self.world.recovered(&db);
        self.db = Some(db);
        Ok(())
    }

    pub(crate) fn db(&self) -> &Db {
        self.db.as_ref().expect("the database is open between the steps")
    }

    /// Plays the steps until one fails. Afterwards reads must see exactly the acknowledged commits.
    pub(crate) fn play(&mut self, steps: &[Step]) -> Result<(), FluxError> {
        let result = steps.iter().try_for_each(|step| self.step(step));
        if let Some(db) = &self.db {
            let World { acked, .. } = self.world;
            assert_eq!(
                content(db),
                *self.world.state(acked),
                "content after commit {acked} was acknowledged"
            );
        }
        result
    }

    pub(crate) fn step(&mut self, step: &Step) -> Result<(), FluxError> {
        match step {
            Step::Commit(writes) => self.commit(std::slice::from_ref(writes)),
            Step::Together(all) => self.commit(all),
            Step::Checkpoint => {
                let db = self.db().clone();
                self.work.wait(db.checkpoint()).map(|_| self.world.synced())
            }
            Step::Flush => {
                let db = self.db().clone();
                self.work.wait(db.flush()).map(|()| self.world.synced())
            }
            Step::Close => {
                block_on(self.db.take().expect("it is open").close())?;
                self.world.synced();
                self.reopen()
            }
            Step::Drop => {
                drop(self.db.take());
                // If the drop could close the log, everything is there. If not, opening fails.
                self.reopen()
            }
        }
    }

    fn commit(&mut self, all: &[Writes]) -> Result<(), FluxError> {
        let db = self.db().clone();
        let mut begun = Vec::new();
        let mut failure = None;
        for writes in all {
            // Removing keys that are absent makes no commit, so the history must not count one.
            let newest = self.world.newest();
            if writes.iter().all(|(key, value)| value.is_none() && !newest.contains_key(key)) {
                continue;
            }
            self.world.begin(writes);
            let mut future = transaction(&db, writes.clone()).boxed();
            match block_on(poll_immediate(&mut future)) {
                Some(Err(error @ FluxError::FatalPersistenceError { .. })) => {
                    self.world.refused();
                    failure = Some(error);
                }
                // After a failure reads see the last stable state, where the key to be removed may
                // be absent.
                Some(Ok(false)) => self.world.refused(),
                Some(result) => begun.push((self.world.last(), ready(result).boxed())),
                None => begun.push((self.world.last(), future)),
            }
        }
        let mut failed = false;
        for (commit, future) in begun {
            match self.work.wait(future) {
                Ok(committed) => {
                    assert!(committed, "commit {commit} found nothing to do");
                    assert!(!failed, "commit {commit} was acknowledged, and one before it was not");
                    self.world.acknowledge(self.config.level, commit);
                }
                Err(error @ FluxError::OutcomeUnknown { .. }) => {
                    failed = true;
                    failure.get_or_insert(error);
                }
                Err(other) => panic!("a commit fails in one of two ways: {other:?}"),
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Commits through the call that fits: insert, remove or a transaction. Returns whether there was
/// anything to write.
async fn transaction(db: &Db, mut writes: Writes) -> Result<bool, FluxError> {
    if let [(key, value)] = &mut writes[..] {
        return match value.take() {
            Some(value) => db.insert(*key, value).await.map(|()| true),
            None => db.remove(key).await.map(|removed| removed.is_some()),
        };
    }
    let tx = db.begin();
    let mut writes_something = false;
    for (key, value) in writes {
        writes_something |= match value {
            Some(value) => tx.insert(key, value).map(|()| true)?,
            None => tx.remove(&key)?.is_some(),
        };
    }
    tx.commit().await.map(|()| writes_something)
}

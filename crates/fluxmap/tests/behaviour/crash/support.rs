//! Helpers that all tests here share: opening databases on simulated disks, the files that a crash
//! may leave, and the state that these must hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use fluxmap::background::Step;
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Background, Database, FluxError};
use fluxmap_testkit::disk::{Loss, SimDisk};
use futures::executor::block_on;
use futures::future::poll_immediate;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(crate) type Db = Database<u64, String>;
pub(crate) type State = BTreeMap<u64, String>;

/// The directory of every database.
pub(crate) const DIR: &str = "db";

/// The durability level, which says what a commit must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Full,
    /// Relaxed, with a sync after this many commits.
    Commits(usize),
    /// Relaxed, with a sync after this many bytes.
    Bytes(u64),
}

/// How a database is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) level: Level,
    pub(crate) pool: usize,
    pub(crate) segment: u64,
    /// Without threads if set: the run does the background work, in an order that follows from this
    /// seed.
    pub(crate) driven: Option<u64>,
}

/// Does the background work of a run if the database has no threads.
pub(crate) struct Work(Option<(Background, StdRng)>);

impl Work {
    /// Leaves the work to threads, or does it in the run if the configuration is driven.
    pub(crate) fn of(config: Config) -> Self {
        Work(config.driven.map(|seed| (Background::new(seed), StdRng::seed_from_u64(seed))))
    }

    /// Waits for `future`, and does background work meanwhile.
    #[track_caller]
    pub(crate) fn wait<F: Future>(&mut self, future: F) -> F::Output {
        let Some((background, choices)) = &mut self.0 else { return block_on(future) };
        let mut future = std::pin::pin!(future);
        loop {
            if let Some(output) = block_on(poll_immediate(&mut future)) {
                return output;
            }
            match background.step_with(choices.random()) {
                Step::Worked => {}
                other => panic!("the future waits, and there is nothing to do: {other:?}"),
            }
        }
    }
}

/// Small, so that segments are ended and recycled often.
pub(crate) const SEGMENT: u64 = 4096;

impl Config {
    pub(crate) const FULL: Config = Config { level: Level::Full, pool: 2, segment: SEGMENT, driven: None };

    pub(crate) fn at(level: Level) -> Self {
        Config { level, ..Self::FULL }
    }

    pub(crate) fn options(&self) -> PersistenceOptions {
        PersistenceOptions {
            wal_pool_size: self.pool,
            wal_segment_size_bytes: self.segment,
            ..PersistenceOptions::new(DIR)
        }
    }

    pub(crate) async fn build(&self, disk: &SimDisk) -> Result<Db, FluxError> {
        self.build_for(&Work(None), disk).await
    }

    /// As [`build`](Self::build), with the background work done by `work`.
    pub(crate) async fn build_for(&self, work: &Work, disk: &SimDisk) -> Result<Db, FluxError> {
        let builder = Db::builder();
        let builder = match &work.0 {
            None => builder,
            Some((background, _)) => builder.background(background),
        };
        let builder = match self.level {
            Level::Full => builder.durability_full(self.options()),
            Level::Commits(commits) => {
                builder.durability_relaxed(self.options()).flush_after_commits(commits)
            }
            Level::Bytes(bytes) => builder.durability_relaxed(self.options()).flush_after_bytes(bytes),
        };
        builder.disk(Arc::new(disk.clone())).build().await
    }

    pub(crate) fn open(&self, disk: &SimDisk) -> Result<Db, FluxError> {
        block_on(self.build(disk))
    }
}

/// All entries that reads outside of transactions see.
pub(crate) fn content(db: &Db) -> State {
    db.snapshot().range(..).map(|(key, value)| (key, value.to_string())).collect()
}

/// The history of a database, and which part of it must survive.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// The state after each commit. The first state is empty.
    states: Vec<Arc<State>>,
    /// A lower bound on the bytes that each commit takes in the log.
    sizes: Vec<u64>,
    /// The last acknowledged commit: this state must survive the death of the process.
    pub(crate) acked: usize,
    /// The last commit that is known to survive a power loss.
    pub(crate) durable: usize,
}

impl Default for World {
    fn default() -> Self {
        World { states: vec![Arc::default()], sizes: vec![0], acked: 0, durable: 0 }
    }
}

/// The writes of a transaction: keys, with a value or a deletion.
pub(crate) type Writes = Vec<(u64, Option<String>)>;

impl World {
    /// The number of the last commit that was begun.
    pub(crate) fn last(&self) -> usize {
        self.states.len() - 1
    }

    pub(crate) fn newest(&self) -> &State {
        &self.states[self.last()]
    }

    pub(crate) fn state(&self, commit: usize) -> &State {
        &self.states[commit]
    }

    /// Notes that a commit has begun; it may be visible from now on.
    pub(crate) fn begin(&mut self, writes: &Writes) {
        let mut state = self.newest().clone();
        let mut size = 0;
        for (key, value) in writes {
            size += 2 + value.as_ref().map_or(0, String::len) as u64;
            match value {
                Some(value) => state.insert(*key, value.clone()),
                None => state.remove(key),
            };
        }
        self.states.push(Arc::new(state));
        self.sizes.push(size);
    }

    /// Notes that the last commit that was begun has been refused.
    pub(crate) fn refused(&mut self) {
        self.states.pop();
        self.sizes.pop();
    }

    /// Notes that every commit up to this one was acknowledged.
    pub(crate) fn acknowledge(&mut self, level: Level, commit: usize) {
        self.acked = self.acked.max(commit);
        if level == Level::Full {
            self.durable = self.durable.max(commit);
        }
    }

    /// Notes that every acknowledged commit was synced.
    pub(crate) fn synced(&mut self) {
        self.durable = self.acked;
    }

    /// Notes a crash. A power loss may take the acknowledged commits that the level does not
    /// protect, and no others.
    pub(crate) fn crash(&mut self, level: Level, lost_power: bool) {
        if !lost_power {
            return;
        }
        let floor = match level {
            Level::Full => self.acked,
            Level::Commits(commits) => self.acked.saturating_sub(commits),
            Level::Bytes(bytes) => {
                let mut lost = 0;
                let mut floor = self.acked;
                while floor > 0 && lost + self.sizes[floor] <= bytes {
                    lost += self.sizes[floor];
                    floor -= 1;
                }
                floor
            }
        };
        self.acked = floor.max(self.durable);
        self.durable = self.acked;
    }

    /// The database was opened: compares its content, and makes it the end of the history.
    #[track_caller]
    pub(crate) fn recovered(&mut self, db: &Db) {
        let info = db.recovery_info().expect("the database is durable");
        let last = usize::try_from(info.last_commit).expect("few commits");
        let (acked, newest) = (self.acked, self.last());
        assert!(
            (acked..=newest).contains(&last),
            "commits up to {last} are there, up to {acked} they must be, and {newest} is the last: {info:?}"
        );
        assert_eq!(content(db), *self.states[last], "after commit {last}: {info:?}");
        self.states.truncate(last + 1);
        self.sizes.truncate(last + 1);
        // Opening syncs everything that it recovers.
        (self.acked, self.durable) = (last, last);
    }
}

/// The disk as a crash may leave it.
pub(crate) struct Left {
    pub(crate) disk: SimDisk,
    pub(crate) lost_power: bool,
    pub(crate) name: String,
}

/// The number of random losses that are tried for each moment.
const STORMS: u64 = 6;

/// The disks that a crash may leave if it happens in the present state of `disk`.
pub(crate) fn left_now(disk: &SimDisk, name: &str, seed: u64) -> Vec<Left> {
    let death =
        Left { disk: disk.process_death(), lost_power: false, name: format!("{name}, process death") };
    let random = (0..STORMS).map(|storm| Loss::Random(seed.wrapping_mul(STORMS).wrapping_add(storm)));
    let losses = [Loss::Everything, Loss::Nothing].into_iter().chain(random);
    let cut = |loss| {
        let name = format!("{name}, power cut with {loss:?}");
        Left { disk: disk.power_cut(loss), lost_power: true, name }
    };
    std::iter::once(death).chain(losses.map(cut)).collect()
}

/// The disks that the planned crash may leave, if its call was reached: just before the call, and
/// in the middle of it.
pub(crate) fn left_by_crash(disk: &SimDisk, seed: u64) -> Vec<Left> {
    let instants = [("before", disk.frozen()), ("amid", disk.frozen_midway())];
    let instants = instants.into_iter().filter_map(|(name, instant)| Some((name, instant?)));
    instants.flat_map(|(name, instant)| left_now(&instant, name, seed)).collect()
}

/// The names of the database's files.
pub(crate) fn names(disk: &SimDisk) -> Vec<String> {
    let files = disk.files().into_keys();
    files.filter_map(|path| Some(path.strip_prefix(Path::new(DIR)).ok()?.display().to_string())).collect()
}

/// The last calls of the disk, for the report of a failure.
pub(crate) fn tail(disk: &SimDisk, calls: usize) -> String {
    let trace = disk.trace();
    trace[trace.len().saturating_sub(calls)..].join("\n    ")
}

/// Calls a function when it is dropped, also when a test fails. Else a test that fails could wait
/// for ever.
pub(crate) struct OnDrop<F: Fn()>(pub(crate) F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

//! Random concurrent histories of 2 to 8 threads (points, ranges, early stops, deletes, blind
//! writes, misses) on fresh databases, each checked for strict serializability with a whole
//! transaction as one operation. Other tests prove that the harness can fail: it catches the write
//! skew of snapshot isolation, a certifier that forgets reads, and one that forgets ranges.
//!
//! `FLUXMAP_SEED` replays the scripts of a run, but not the interleaving, which is the machine's.

#[path = "behaviour/common/mod.rs"]
mod common;

use std::collections::BTreeMap;

use common::{LEVELS, Library, LibrarySession, assert_nothing_pinned, open, open_at, report, take};
use fluxmap::{IsolationLevel, Snapshot};
use fluxmap_testkit::driver::{Session, Store, ends, run};
use fluxmap_testkit::op::Scan;
use fluxmap_testkit::workload::{Plan, Seed, Shape, Step, plan, scaled, skew};

/// Few threads and longer scripts: much real time passes between transactions.
const LONG: Shape =
    Shape { threads: 2..=3, transactions: 6, steps: 1..=5, keys: 3, scans: 30, lockstep: false };
/// Many threads and short scripts: all transactions overlap.
const WIDE: Shape =
    Shape { threads: 4..=8, transactions: 3, steps: 1..=4, keys: 4, scans: 30, lockstep: false };
/// All transactions of a round begin before any of them goes on.
const TIGHT: Shape =
    Shape { threads: 2..=4, transactions: 5, steps: 2..=4, keys: 3, scans: 50, lockstep: true };

/// Checks `runs` histories of `shape` at the serializable level.
fn all_serializable(name: &str, shape: &Shape, runs: u64) {
    let seed = Seed::from_env();
    let (mut committed, mut refused) = (0, 0);
    for number in 0..scaled(runs) {
        let store = Library(open());
        let history = run(&store, &plan(shape, &mut seed.rng(number)));
        assert!(history.is_strictly_serializable(), "{seed}, run {number}: no order explains\n{history}");
        assert_nothing_pinned(&store.0);
        committed += history.committed();
        refused += history.refused();
    }
    report(&format!("histories, {name}: {committed} transactions committed, {refused} refused"));
    // A run without conflicts, or with few commits, would have tested nothing.
    assert!(refused > 0 && committed > refused, "{committed} committed, {refused} refused");
}

#[test]
fn long_histories_are_strictly_serializable() {
    all_serializable("2 to 3 threads", &LONG, 5_000);
}

#[test]
fn wide_histories_are_strictly_serializable() {
    all_serializable("4 to 8 threads", &WIDE, 2_500);
}

#[test]
fn tight_histories_are_strictly_serializable() {
    all_serializable("in step", &TIGHT, 4_000);
}

/// Reads through `Database::snapshot` must fit into the order of the transactions. This includes
/// real time: a snapshot taken after an acknowledgement must show the commit.
#[test]
fn snapshots_fit_into_the_order() {
    let seed = Seed::from_env();
    for number in 0..scaled(2_000) {
        let store = SnapshotReads(Library(open()));
        let history = run(&store, &plan(&LONG, &mut seed.rng(number)));
        assert!(history.is_strictly_serializable(), "{seed}, run {number}\n{history}");
    }
}

/// A history at the Snapshot level in which every transaction reads what it writes has no write
/// skew. First committer wins makes it strictly serializable.
#[test]
fn snapshot_level_is_serializable_where_reads_are_written() {
    for level in LEVELS {
        for _ in 0..60 {
            let history = run(&Library(open_at(level)), &read_and_write_one(3, 6));
            assert!(history.is_strictly_serializable(), "at {level:?}\n{history}");
            assert!(history.committed() > 2);
        }
    }
}

/// A plan in which every transaction reads one key and writes it.
fn read_and_write_one(threads: usize, rounds: usize) -> Plan {
    let mut plan = skew(threads, rounds, false);
    for steps in plan.threads.iter_mut().flatten() {
        let value = steps.iter().find_map(|step| match step {
            Step::Put(_, value) => Some(*value),
            _ => None,
        });
        *steps = vec![Step::Get(0), Step::Yield, Step::Put(0, value.expect("a script of skew writes"))];
    }
    plan
}

/// Runs plans until the checker finds a violation. Panics if it never does.
fn caught<S: Store>(what: &str, open: impl Fn() -> S, plan: impl Fn(u64) -> Plan) {
    const RUNS: u64 = 500;
    for number in 0..RUNS {
        if !run(&open(), &plan(number)).is_strictly_serializable() {
            report(&format!("histories: {what} caught in run {}", number + 1));
            return;
        }
    }
    panic!("{what} was not caught in {RUNS} runs: the harness proves nothing");
}

/// The harness must catch write skew, by points and by ranges, when the database runs at the
/// Snapshot level.
#[test]
fn write_skew_at_the_snapshot_level_is_caught() {
    let snapshot = || Library(open_at(IsolationLevel::Snapshot));
    caught("write skew by points", snapshot, |_| skew(2, 4, false));
    caught("write skew by ranges", snapshot, |_| skew(3, 4, true));
    let seed = Seed::from_env();
    caught("write skew in random scripts", snapshot, |run| plan(&TIGHT, &mut seed.rng(run)));
}

/// The harness must catch a certifier that knows of no reads at all.
#[test]
fn a_certifier_that_forgets_reads_is_caught() {
    let forgetful = || Forgetful { inner: Library(open()), gets: true, ranges: true };
    caught("forgotten reads", forgetful, |_| skew(2, 4, false));
    let seed = Seed::from_env();
    caught("forgotten reads in random scripts", forgetful, |run| plan(&LONG, &mut seed.rng(run)));
    caught("forgotten reads of many", forgetful, |run| plan(&WIDE, &mut seed.rng(run)));
}

/// The harness must catch a certifier that certifies points but no ranges. The same workload by
/// points passes, so it is the ranges that reveal the fault.
#[test]
fn a_certifier_that_forgets_ranges_is_caught() {
    let forgetful = || Forgetful { inner: Library(open()), gets: false, ranges: true };
    caught("forgotten ranges", forgetful, |_| skew(2, 4, true));
    let seed = Seed::from_env();
    caught("forgotten ranges in random scripts", forgetful, |run| plan(&TIGHT, &mut seed.rng(run)));
    for _ in 0..50 {
        assert!(run(&forgetful(), &skew(2, 4, false)).is_strictly_serializable());
    }
}

/// The harness must catch a certifier that knows which keys were found, but not which were missing.
#[test]
fn a_certifier_that_forgets_misses_is_caught() {
    let forgetful = || ForgetsMisses(Library(open()));
    caught("forgotten misses", forgetful, |_| skew(2, 4, false));
}

/// Reads go through a separate snapshot, so the transaction's certifier never hears of them. Own
/// writes are overlaid, so that only certification is broken.
struct Forgetful {
    inner: Library,
    gets: bool,
    ranges: bool,
}

struct ForgetfulSession {
    inner: LibrarySession,
    aside: Snapshot<u64, u64>,
    own: BTreeMap<u64, Option<u64>>,
    gets: bool,
    ranges: bool,
}

impl Store for Forgetful {
    type Session = ForgetfulSession;

    fn begin(&self, only_reads: bool) -> ForgetfulSession {
        ForgetfulSession {
            inner: self.inner.begin(only_reads),
            aside: self.inner.0.snapshot(),
            own: BTreeMap::new(),
            gets: self.gets,
            ranges: self.ranges,
        }
    }
}

impl Session for ForgetfulSession {
    fn get(&mut self, key: u64) -> Option<u64> {
        if !self.gets {
            return self.inner.get(key);
        }
        let aside = || self.aside.get(&key).expect("a read succeeds").map(|value| *value);
        self.own.get(&key).copied().unwrap_or_else(aside)
    }

    fn scan(&mut self, scan: &Scan<u64>) -> Vec<(u64, u64)> {
        if !self.ranges {
            return self.inner.scan(scan);
        }
        let mut state: BTreeMap<u64, u64> =
            self.aside.range(ends(scan)).map(|(key, value)| (key, *value)).collect();
        for (key, write) in &self.own {
            match write {
                Some(value) => state.insert(*key, *value),
                None => state.remove(key),
            };
        }
        take(state.into_iter().filter(|(key, _)| scan.contains(key)), scan)
    }

    fn put(&mut self, key: u64, value: u64) {
        self.inner.put(key, value);
        self.own.insert(key, Some(value));
    }

    fn remove(&mut self, key: u64) -> Option<u64> {
        let found = self.get(key);
        // Write the key first, so that the removal reads only an own write.
        self.inner.put(key, 0);
        self.inner.remove(key);
        self.own.insert(key, None);
        found
    }

    fn commit(self) -> bool {
        self.inner.commit()
    }
}

/// Answers a look-up of a missing key from a separate snapshot, so that it is not certified.
struct ForgetsMisses(Library);

struct ForgetsMissesSession {
    inner: LibrarySession,
    aside: Snapshot<u64, u64>,
    own: Vec<u64>,
}

impl Store for ForgetsMisses {
    type Session = ForgetsMissesSession;

    fn begin(&self, only_reads: bool) -> ForgetsMissesSession {
        ForgetsMissesSession { inner: self.0.begin(only_reads), aside: self.0.0.snapshot(), own: Vec::new() }
    }
}

impl Session for ForgetsMissesSession {
    fn get(&mut self, key: u64) -> Option<u64> {
        let there = self.aside.contains_key(&key).expect("a read succeeds");
        if there || self.own.contains(&key) { self.inner.get(key) } else { None }
    }

    fn scan(&mut self, scan: &Scan<u64>) -> Vec<(u64, u64)> {
        self.inner.scan(scan)
    }

    fn put(&mut self, key: u64, value: u64) {
        self.own.push(key);
        self.inner.put(key, value);
    }

    fn remove(&mut self, key: u64) -> Option<u64> {
        self.own.push(key);
        self.inner.remove(key)
    }

    fn commit(self) -> bool {
        self.inner.commit()
    }
}

/// The real database, except that scripts that only read run on a snapshot instead of in a
/// transaction.
struct SnapshotReads(Library);

enum EitherSession {
    Reads(Snapshot<u64, u64>),
    Writes(Box<LibrarySession>),
}

impl Store for SnapshotReads {
    type Session = EitherSession;

    fn begin(&self, only_reads: bool) -> EitherSession {
        if only_reads {
            EitherSession::Reads(self.0.0.snapshot())
        } else {
            EitherSession::Writes(Box::new(self.0.begin(false)))
        }
    }
}

impl EitherSession {
    fn writing(&mut self) -> &mut LibrarySession {
        match self {
            Self::Writes(session) => session,
            Self::Reads(_) => panic!("a script that only reads writes"),
        }
    }
}

impl Session for EitherSession {
    fn get(&mut self, key: u64) -> Option<u64> {
        match self {
            Self::Reads(view) => view.get(&key).expect("a read succeeds").map(|value| *value),
            Self::Writes(session) => session.get(key),
        }
    }

    fn scan(&mut self, scan: &Scan<u64>) -> Vec<(u64, u64)> {
        match self {
            Self::Reads(view) => take(view.range(ends(scan)).map(|(key, value)| (key, *value)), scan),
            Self::Writes(session) => session.scan(scan),
        }
    }

    fn put(&mut self, key: u64, value: u64) {
        self.writing().put(key, value);
    }

    fn remove(&mut self, key: u64) -> Option<u64> {
        self.writing().remove(key)
    }

    fn commit(self) -> bool {
        match self {
            Self::Reads(_) => true,
            Self::Writes(session) => session.commit(),
        }
    }
}

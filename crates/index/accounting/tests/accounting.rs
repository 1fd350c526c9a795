//! The memory that a database reports must be the memory that the allocator has given out for it.
//!
//! Nothing but the database allocates while the figures are compared. These tests are a package of their
//! own to be built optimized: they compare a hundred thousand times.

use fluxmap::mem::{EvictionPolicy, MemSize, TimeSource, allocated};
use fluxmap::{Database, FluxError, Key, Value};
use fluxmap_accounting::{Counting, given};
use futures::executor::block_on;
use std::hint::black_box;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The greatest relative error of a figure.
const TOLERANCE: f64 = 0.15;

/// The error that is allowed beside that, in bytes: for bags of garbage, queues and thread-local
/// buffers, whose size does not depend on how much is stored.
const SLACK: isize = 32 << 10;

/// How many times the figures are compared in a step.
const CHECKS: u64 = 50;

/// The number of transactions, each of many writes, that write all keys.
const BATCHES: u64 = 10;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Whether the allocator tells how much it gives out, as that of glibc does. It does not under
/// tools that replace it.
fn is_told() -> bool {
    let sizes = [1, 24, 25, 100, 1000];
    let is_known = sizes.iter().all(|size| {
        let before = given();
        let block = black_box(vec![0_u8; *size]);
        let given = given() - before;
        drop(block);
        // The allocator may give a free block that is one unit larger.
        (allocated(*size)..=allocated(*size) + 16).contains(&(given as usize))
    });
    if !is_known {
        report("SKIPPED: this allocator does not tell what it has given out");
    }
    is_known
}

/// Prints a line even where the test harness captures the output of tests.
fn report(line: &str) {
    // Nothing depends on it: a closed stderr is no failure.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A clock, in milliseconds, that the test sets.
#[derive(Default)]
struct Hand(AtomicU64);

impl TimeSource for Hand {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1 + self.0.load(Ordering::SeqCst))
    }
}

/// The keys and values that are stored.
struct Case<K, V> {
    name: &'static str,
    keys: u64,
    key: fn(u64) -> K,
    value: fn(u64) -> V,
    /// Values of other sizes, if the type has any.
    other: fn(u64) -> V,
}

/// How much memory the database may take, and the order in which keys are written.
#[derive(Clone, Copy, Debug)]
struct Setting {
    limit: Option<(u64, EvictionPolicy)>,
    in_order: bool,
}

/// A database under observation.
struct Watched<'c, K: Key, V: Value> {
    case: &'c Case<K, V>,
    setting: Setting,
    db: Database<K, V>,
    time: Arc<Hand>,
    /// The bytes that were allocated when the database was empty.
    empty: isize,
    /// The worst relative error of each step.
    steps: Vec<(&'static str, f64)>,
    /// The most bytes by which the limit was exceeded.
    over: u64,
    /// A description of each step whose error was too large.
    failures: Vec<String>,
}

impl<'c, K: Key + MemSize, V: Value + MemSize> Watched<'c, K, V> {
    fn new(case: &'c Case<K, V>, setting: Setting) -> Self {
        let time = Arc::new(Hand::default());
        let (limit, policy) = setting.limit.unwrap_or((u64::MAX / 2, EvictionPolicy::Lru));
        let mut builder = Database::builder().max_memory(limit).eviction_policy(policy);
        if policy == EvictionPolicy::Ttl {
            // Longer than the test lasts.
            builder = builder.eviction_ttl(Duration::from_secs(1 << 30));
        }
        let source: Arc<Hand> = Arc::clone(&time);
        let db = block_on(builder.time_source(source).build()).expect("an empty database opens");
        let mut watched = Watched {
            case,
            setting,
            db,
            time,
            empty: 0,
            over: 0,
            // With room for everything, so that the vectors do not allocate meanwhile.
            steps: Vec::with_capacity(20),
            failures: Vec::with_capacity(20),
        };
        watched.empty = given();
        watched
    }

    /// Compares the database's figures with the allocator's.
    fn check(&mut self) {
        let look = || {
            let info = self.db.memory_info();
            let given = given() - self.empty;
            let off = info.total_bytes as isize - given;
            let beyond = (off.abs() - SLACK).max(0) * off.signum();
            (beyond as f64 / given.max(1) as f64, given, info)
        };
        let mut seen = look();
        // The background thread may be about to free memory that the database no longer counts. On
        // a busy machine it may not run for a while.
        for _ in 0..2000 {
            if seen.0.abs() <= TOLERANCE {
                break;
            }
            thread::sleep(Duration::from_millis(1));
            seen = look();
        }
        let (wrong, given, info) = seen;
        if let Some((limit, _)) = self.setting.limit {
            self.over = self.over.max((info.live_bytes + info.index_bytes).saturating_sub(limit));
        }
        let Some((step, worst)) = self.steps.last_mut() else { return };
        if wrong.abs() > worst.abs() {
            if wrong.abs() > TOLERANCE && worst.abs() <= TOLERANCE {
                let text = format!(
                    "{}, {} keys, {:?}: {step}: {} counted, {given} given out: {info:?}",
                    self.case.name, self.case.keys, self.setting, info.total_bytes
                );
                // This memory is the test's, not the database's.
                self.empty += allocated(text.capacity()) as isize;
                self.failures.push(text);
            }
            *worst = wrong;
        }
    }

    /// Calls `work` for each key, in ascending order or in none, and compares the figures meanwhile.
    fn step(&mut self, name: &'static str, in_order: bool, mut work: impl FnMut(&Database<K, V>, K, u64)) {
        if self.steps.last().is_none_or(|(last, _)| *last != name) {
            self.steps.push((name, 0.0));
        }
        let keys = self.case.keys;
        for n in 0..keys {
            // 7,919 is prime, and divides no number of keys, so each key has its turn.
            let n = if in_order { n } else { n * 7_919 % keys };
            work(&self.db, (self.case.key)(n), n);
            if n % (keys / CHECKS) == 0 {
                self.check();
            }
        }
        self.check();
    }

    fn vacuum(&mut self) {
        block_on(self.db.vacuum()).expect("vacuum succeeds");
        self.check();
    }

    /// Runs all kinds of work on the database, step by step.
    fn live(&mut self) {
        let Case { keys, key, value, other, .. } = *self.case;
        let in_order = self.setting.in_order;
        self.step("update", false, |db, key, n| put(db, key, value(n + 1)));
        self.step("resize", false, |db, key, n| put(db, key, other(n)));

        let view = self.db.snapshot();
        self.step("held", in_order, |db, key, n| put(db, key, other(n + 1)));
        self.step("held", false, |db, key, n| put(db, key, value(n)));
        drop(view);
        self.vacuum();

        self.step("remove", false, |db, key, n| {
            if n % 3 != 0 {
                block_on(db.remove(&key)).expect("a remove commits");
            }
        });
        self.vacuum();
        self.step("batch", in_order, |db, _, n| {
            let batch = keys / BATCHES;
            if n % batch == 0 {
                let tx = db.begin();
                for n in n..n + batch {
                    tx.insert(key(n), value(n)).expect("a write is buffered");
                }
                accept(db, block_on(tx.commit()));
            }
        });
        self.vacuum();

        let view = self.db.snapshot();
        self.step("again", in_order, |db, key, n| {
            block_on(db.remove(&key)).expect("a remove commits");
            put(db, key, value(n));
        });
        drop(view);
        self.vacuum();

        self.step("evict", false, |db, key, n| {
            if n % 2 == 0 {
                block_on(db.evict(&key)).expect("an eviction commits");
            }
        });
        self.vacuum();

        self.step("expire", in_order, |db, key, n| {
            let life = Duration::from_millis(1 + n);
            accept(db, block_on(db.insert_with_ttl(key, value(n), life)));
        });
        for part in 1..=10 {
            self.time.0.store(keys * part / 10, Ordering::SeqCst);
            self.vacuum();
        }
        self.step("refill", in_order, |db, key, n| put(db, key, value(n)));
        let view = self.db.snapshot();
        self.step("clear", false, |db, key, _| drop(block_on(db.remove(&key)).expect("a remove commits")));
        drop(view);
        self.vacuum();
    }
}

/// Writes a key. The write may be refused for want of memory: if the policy evicts nothing, or if
/// the index and the policy's own data leave too little room.
fn put<K: Key, V: Value>(db: &Database<K, V>, key: K, value: V) {
    accept(db, block_on(db.insert(key, value)));
}

#[track_caller]
fn accept<K: Key, V: Value>(db: &Database<K, V>, written: Result<(), FluxError>) {
    let is_fine = matches!(
        written,
        Ok(()) | Err(FluxError::MemoryLimitExceeded | FluxError::ExceedsMemoryLimit { .. })
    );
    assert!(is_fine, "{written:?}: {:?}", db.memory_info());
}

/// Runs all steps on a database, and returns the bytes that it reported when it was full.
fn watch<K: Key + MemSize, V: Value + MemSize>(
    case: &Case<K, V>,
    setting: Setting,
    failures: &mut Vec<String>,
) -> u64 {
    let mut watched = Watched::new(case, setting);
    watched.step("load", setting.in_order, |db, key, n| put(db, key, (case.value)(n)));
    let full = watched.db.memory_info().total_bytes;
    watched.live();
    let steps: Vec<_> =
        watched.steps.iter().map(|(step, wrong)| format!("{step} {:+.1}", wrong * 100.0)).collect();
    let order = if setting.in_order { "in order" } else { "shuffled" };
    let limit = setting.limit.map_or(String::new(), |(bytes, policy)| format!(", {bytes} bytes, {policy:?}"));
    let over = watched.over;
    // `Manual` evicts nothing, so the index may grow beyond the limit beside the live keys.
    if over > 0 && setting.limit.is_some_and(|(_, policy)| policy != EvictionPolicy::Manual) {
        failures.push(format!("{}, {} keys, {setting:?}: limit exceeded by {over}", case.name, case.keys));
    }
    report(&format!(
        "{}, {} keys {order}{limit}: {}, limit exceeded by {over}",
        case.name,
        case.keys,
        steps.join(", ")
    ));
    failures.append(&mut watched.failures);
    full
}

/// Lets only one test run at a time, since each counts all that the process allocates.
static ALONE: Mutex<()> = Mutex::new(());

/// Checks a case with a limit that is never reached, and with a low limit for each of these
/// policies.
fn check<K: Key + MemSize, V: Value + MemSize>(case: &Case<K, V>, policies: &[EvictionPolicy]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_told() {
        return;
    }
    let mut failures = Vec::new();
    for in_order in [true, false] {
        let full = watch(case, Setting { limit: None, in_order }, &mut failures);
        for policy in policies {
            let limit = Some((full * 2 / 5, *policy));
            watch(case, Setting { limit, in_order }, &mut failures);
        }
    }
    assert!(failures.is_empty(), "more than {TOLERANCE} wrong:\n{}", failures.join("\n"));
}

/// A policy that remembers evicted keys (S3-FIFO), and one that does not.
const SOME: [EvictionPolicy; 2] = [EvictionPolicy::Lru, EvictionPolicy::S3Fifo];

/// A name of 20 bytes; names are in another order than their numbers.
fn name(n: u64) -> String {
    format!("{:020}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A case with values of `SIZE` bytes, and of sizes around it.
fn bytes<const SIZE: usize>(keys: u64) -> Case<String, Vec<u8>> {
    Case {
        name: "String -> Vec<u8>",
        keys,
        key: name,
        value: |_| vec![1; SIZE],
        other: |n| vec![2; SIZE / 2 + n as usize * 37 % SIZE],
    }
}

#[test]
fn numbers() {
    let number = |n: u64| n;
    for keys in [1_000, 10_000, 30_000] {
        let policies = [
            EvictionPolicy::Lru,
            EvictionPolicy::Lfu,
            EvictionPolicy::Random,
            EvictionPolicy::Arc,
            EvictionPolicy::Ttl,
            EvictionPolicy::S3Fifo,
            EvictionPolicy::Manual,
        ];
        let policies = if keys == 10_000 { &policies[..] } else { &policies[..1] };
        check(&Case { name: "u64 -> u64", keys, key: number, value: number, other: number }, policies);
    }
}

#[test]
fn names() {
    for keys in [1_000, 20_000] {
        let other = |n: u64| "x".repeat(n as usize % 60);
        check(&Case { name: "String -> String", keys, key: name, value: name, other }, &SOME);
    }
}

#[test]
fn values_of_100_bytes() {
    check(&bytes::<100>(10_000), &SOME);
}

#[test]
fn values_of_1000_bytes() {
    for keys in [1_000, 10_000] {
        check(&bytes::<1_000>(keys), &SOME);
    }
}

#[test]
fn values_of_100000_bytes() {
    check(&bytes::<100_000>(1_000), &SOME);
}

#[derive(MemSize)]
struct Album {
    tracks: Vec<String>,
}

#[test]
fn structs_with_a_list() {
    for keys in [1_000, 10_000] {
        let value = |n: u64| Album { tracks: (n..n + 5).map(name).collect() };
        let other = |n: u64| Album { tracks: (0..n % 12).map(name).collect() };
        check(&Case { name: "u64 -> Album", keys, key: |n| n, value, other }, &SOME);
    }
}

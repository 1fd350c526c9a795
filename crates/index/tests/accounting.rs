//! What a database says it takes is what the allocator has given out for it.
//!
//! Here and not beside the database, since an allocator is unsafe code, which this crate
//! alone has. Nobody else allocates meanwhile, so all that comes and goes is the database's.

#![cfg(not(loom))]

use fluxmap::mem::{EvictionPolicy, MemSize, TimeSource, allocated};
use fluxmap::{Database, FluxError, Key, Value};
use futures::executor::block_on;
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::io::Write as _;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The greatest share of what is there by which a figure may be wrong.
const TOLERANCE: f64 = 0.15;

/// What may be wrong beside that: bags of garbage, queues, thread-local buffers, whose size
/// does not depend on how much is stored.
const SLACK: isize = 32 << 10;

/// How often the figures are compared in a step.
const CHECKS: u64 = 50;

/// Transactions that write all keys together, where each writes several.
const BATCHES: u64 = 10;

struct Counting;

/// Bytes that the allocator has given out, with the headers that it puts in front of them.
static GIVEN: AtomicIsize = AtomicIsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes that may be used behind this pointer, which are often more than were asked for.
///
/// # Safety
///
/// The allocation is alive.
#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
unsafe fn usable(pointer: *mut u8) -> usize {
    // SAFETY: the caller's promise; `System` takes from `malloc` or its like for alignments.
    unsafe { libc::malloc_usable_size(pointer.cast()) }
}

/// Other allocators do not tell.
#[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
unsafe fn usable(_pointer: *mut u8) -> usize {
    0
}

/// The bytes that an allocation takes.
///
/// # Safety
///
/// It is alive.
unsafe fn taken(pointer: *mut u8) -> isize {
    // SAFETY: the caller's promise.
    unsafe { usable(pointer) as isize + size_of::<usize>() as isize }
}

// SAFETY: all is left to `System`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let pointer = unsafe { System.alloc(layout) };
        if !pointer.is_null() {
            // SAFETY: it was allocated just now.
            GIVEN.fetch_add(unsafe { taken(pointer) }, Ordering::SeqCst);
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise: it is alive until the next statement, which frees it.
        unsafe {
            GIVEN.fetch_sub(taken(pointer), Ordering::SeqCst);
            System.dealloc(pointer, layout);
        }
    }
}

/// Whether the allocator tells what it gives out, as that of glibc does: not under the tools
/// that put another one in its place.
fn is_told() -> bool {
    let sizes = [1, 24, 25, 100, 1000];
    let is_known = sizes.iter().all(|size| {
        let before = GIVEN.load(Ordering::SeqCst);
        let block = black_box(vec![0_u8; *size]);
        let given = GIVEN.load(Ordering::SeqCst) - before;
        drop(block);
        // It may give what it happens to have, which can be one unit more.
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

/// Milliseconds that pass when told to.
#[derive(Default)]
struct Hand(AtomicU64);

impl TimeSource for Hand {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1 + self.0.load(Ordering::SeqCst))
    }
}

/// What is stored.
struct Case<K, V> {
    name: &'static str,
    keys: u64,
    key: fn(u64) -> K,
    value: fn(u64) -> V,
    /// Of other sizes, if there are any.
    other: fn(u64) -> V,
}

/// How much of it at a time, and in what order it comes.
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
    /// What was allocated when the database was empty.
    empty: isize,
    /// Of each step, the worst share by which the figures were wrong.
    steps: Vec<(&'static str, f64)>,
    /// By how much a limit was not kept, at worst.
    over: u64,
    /// What was there when that was too much.
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
            // All that it will hold, so that it does not grow meanwhile.
            steps: Vec::with_capacity(20),
            failures: Vec::with_capacity(20),
        };
        watched.empty = GIVEN.load(Ordering::SeqCst);
        watched
    }

    /// Compares the figures.
    fn check(&mut self) {
        let look = || {
            let info = self.db.memory_info();
            let given = GIVEN.load(Ordering::SeqCst) - self.empty;
            let off = info.total_bytes as isize - given;
            let beyond = (off.abs() - SLACK).max(0) * off.signum();
            (beyond as f64 / given.max(1) as f64, given, info)
        };
        let mut seen = look();
        // On a busy machine it may not run for a while.
        for _ in 0..2000 {
            if seen.0.abs() <= TOLERANCE / 2.0 {
                break;
            }
            // The background thread may have freed what it is about to give back.
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
                // Belongs to the test.
                self.empty += allocated(text.capacity()) as isize;
                self.failures.push(text);
            }
            *worst = wrong;
        }
    }

    /// Does something for each key, in this order or any, and compares all the while.
    fn step(&mut self, name: &'static str, in_order: bool, mut work: impl FnMut(&Database<K, V>, K, u64)) {
        if self.steps.last().is_none_or(|(last, _)| *last != name) {
            self.steps.push((name, 0.0));
        }
        let keys = self.case.keys;
        for n in 0..keys {
            // Prime, and no divisor of the number of keys.
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

    /// All that a database goes through.
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

/// Writes. It may be refused: where nothing is evicted, and where what finding and choosing
/// keys takes leaves too little room.
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

/// Lets a database live, and returns what was counted when all was in it.
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
    // Where nothing goes by itself, the index may grow beside what is there.
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

/// One at a time: they count all that is allocated.
static ALONE: Mutex<()> = Mutex::new(());

/// Checks a case with a limit that is not reached, and with one that is, by these policies.
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

/// The policies that keep something of what has gone, and the one that keeps least.
const SOME: [EvictionPolicy; 2] = [EvictionPolicy::Lru, EvictionPolicy::S3Fifo];

/// 20 bytes, in no order to speak of.
fn name(n: u64) -> String {
    format!("{:020}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Values of one size, and of sizes about it.
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

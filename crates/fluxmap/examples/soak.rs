//! Runs a mixed load at a memory limit for a given time: `soak [SECONDS [POLICY]]`. Audits the values
//! that it reads, watches the resident memory of the process, and fails if either is wrong.
//! `scripts/soak.sh` runs it.

use fluxmap::mem::EvictionPolicy;
use fluxmap::{Database, FluxError, Snapshot};
use futures::executor::block_on;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const LIMIT: u64 = 32 << 20;
const THREADS: u64 = 4;
/// The interval between two looks at the figures, and the number of looks per printed line.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS_PER_LINE: u32 = 10;
/// The largest factor by which the process may have grown.
const GROWTH: f64 = 1.10;

/// The number of keys of each kind: together three times as many as there is room for.
const PLAIN: u64 = 60_000;
const EXPIRING: u64 = 10_000;
const GROUPS: u64 = 5_000;
/// The number of keys in a group, which are always written together.
const GROUP: u64 = 4;
/// By how many milliseconds after its expiry a value may still be seen, if the machine is busy.
const LATE: u64 = 5_000;

type Db = Database<Key, Value>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Plain(u64),
    Expiring(u64),
    /// The present members of a group were written by one transaction. Others may have been evicted.
    Member(u64, u64),
}

impl fluxmap::mem::MemSize for Key {
    fn mem_size(&self) -> usize {
        size_of::<Self>()
    }
}

struct Value {
    /// The key for which it was written.
    key: Key,
    stamp: u64,
    /// When it expires, in milliseconds since 1970, if it does.
    expires: Option<u64>,
    filling: Vec<u8>,
}

impl fluxmap::mem::MemSize for Value {
    fn mem_size(&self) -> usize {
        size_of::<Self>() + fluxmap::mem::allocated(self.filling.capacity())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Returns the resident bytes of the process, or `None` if the system does not report them.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    // With larger pages the figure is too small, but always by the same factor.
    Some(pages * 4096)
}

#[derive(Default)]
struct Counts {
    done: AtomicU64,
    conflicts: AtomicU64,
    refused: AtomicU64,
    audited: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    fn audit(&self, holds: bool, what: impl FnOnce() -> String) {
        self.audited.fetch_add(1, Ordering::Relaxed);
        if !holds {
            self.failed.fetch_add(1, Ordering::Relaxed);
            eprintln!("audit failed: {}", what());
        }
    }
}

/// The state of one thread.
struct Load<'l> {
    db: &'l Db,
    counts: &'l Counts,
    random: SmallRng,
    held: Option<Held>,
}

/// A snapshot that is held for a while.
struct Held {
    view: Snapshot<Key, Value>,
    /// The stamps that the snapshot has shown.
    seen: Vec<(Key, Option<u64>)>,
    until: Instant,
}

impl Load<'_> {
    fn value(&mut self, key: Key, expires: Option<u64>) -> Value {
        // Most values are small, some are large.
        let most = if self.random.random_ratio(1, 50) { 16_384 } else { 1_600 };
        let filling = vec![0xa5; self.random.random_range(0..most)];
        Value { key, stamp: self.random.random(), expires, filling }
    }

    /// Returns a number that is mostly one of a few.
    fn number(&mut self, of: u64) -> u64 {
        let of = if self.random.random_bool(0.7) { of / 8 } else { of };
        self.random.random_range(0..of)
    }

    fn any_key(&mut self) -> Key {
        match self.random.random_range(0..3) {
            0 => Key::Plain(self.number(PLAIN)),
            1 => Key::Expiring(self.number(EXPIRING)),
            _ => Key::Member(self.number(GROUPS), self.random.random_range(0..GROUP)),
        }
    }

    fn check(&self, key: Key, value: &Value) {
        self.counts.audit(value.key == key, || format!("{key:?} has the value of {:?}", value.key));
        let expires = value.expires.unwrap_or(u64::MAX);
        self.counts
            .audit(now() < expires.saturating_add(LATE), || format!("{key:?} was seen after its time"));
    }

    /// Handles the result of a write. If the policy evicts nothing, it makes room.
    fn settle<T>(&mut self, result: Result<T, FluxError>) -> Option<T> {
        match result {
            Ok(done) => return Some(done),
            Err(FluxError::MemoryLimitExceeded) => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                for _ in 0..20 {
                    let key = self.any_key();
                    block_on(self.db.evict(&key)).expect("an eviction commits");
                }
            }
            Err(
                FluxError::SerializationConflict
                | FluxError::WriteConflict
                | FluxError::RetriesExhausted { .. },
            ) => {
                self.counts.conflicts.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("nothing else can go wrong: {error}"),
        }
        None
    }

    /// Writes a group with one stamp, after checking that its present members share one.
    fn write_group(&mut self) {
        let group = self.number(GROUPS);
        let stamp = self.random.random();
        let values: Vec<_> = (0..GROUP).map(|n| self.value(Key::Member(group, n), None)).collect();
        let tx = self.db.begin();
        let seen: Result<Vec<_>, _> = (0..GROUP).map(|n| tx.get(&Key::Member(group, n))).collect();
        let seen: Vec<_> = seen.expect("a read succeeds").into_iter().flatten().collect();
        let is_same = seen.windows(2).all(|two| two[0].stamp == two[1].stamp);
        for value in values {
            tx.insert(value.key, Value { stamp, ..value }).expect("a write is buffered");
        }
        let committed = block_on(tx.commit());
        // The reads of a transaction are one state, even if the transaction cannot commit.
        self.counts.audit(is_same, || format!("group {group} is torn"));
        self.settle(committed);
    }

    /// Reads groups, and the keys between them, in one pass over a snapshot.
    fn scan(&mut self) {
        let start = self.number(GROUPS);
        let view = self.db.snapshot();
        let mut before: Option<(u64, u64)> = None;
        for (key, value) in view.range(Key::Member(start, 0)..).take(200) {
            self.check(key, &value);
            let Key::Member(group, _) = key else { continue };
            let is_same = before.is_none_or(|before| before.0 != group || before.1 == value.stamp);
            self.counts.audit(is_same, || format!("group {group} is torn in a scan"));
            before = Some((group, value.stamp));
        }
    }

    /// Takes a snapshot, or checks that the held one still shows the same.
    fn hold(&mut self) {
        match &self.held {
            None => {
                let view = self.db.snapshot();
                let keys: Vec<_> = (0..50).map(|_| self.any_key()).collect();
                let stamp = |key| view.get(&key).expect("a read succeeds").map(|value| value.stamp);
                let seen = keys.into_iter().map(|key| (key, stamp(key))).collect();
                let until = Instant::now() + Duration::from_millis(self.random.random_range(0..1_000));
                self.held = Some(Held { view, seen, until });
            }
            Some(Held { view, seen, until }) if *until <= Instant::now() => {
                for (key, stamp) in seen {
                    let again = view.get(key).expect("a read succeeds").map(|value| value.stamp);
                    self.counts.audit(again == *stamp, || format!("{key:?} has changed in a snapshot"));
                }
                self.held = None;
            }
            Some(_) => {}
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..1_000) {
            0..450 => {
                let key = self.any_key();
                if let Some(value) = self.db.get(&key).expect("a read succeeds") {
                    self.check(key, &value);
                }
            }
            450..700 => {
                let key = Key::Plain(self.number(PLAIN));
                let value = self.value(key, None);
                let done = block_on(self.db.insert(key, value));
                self.settle(done);
            }
            700..780 => {
                let key = Key::Plain(self.number(PLAIN));
                let value = self.value(key, None);
                let refill = |_: &Value| Value { filling: value.filling.clone(), ..value };
                let done = block_on(self.db.update(&key, refill));
                self.settle(done);
            }
            780..830 => {
                let key = Key::Plain(self.number(PLAIN));
                let done = block_on(self.db.remove(&key));
                self.settle(done);
            }
            830..900 => {
                let key = Key::Expiring(self.number(EXPIRING));
                let life = self.random.random_range(1..10_000);
                let value = self.value(key, Some(now() + life));
                let done = block_on(self.db.insert_with_ttl(key, value, Duration::from_millis(life)));
                self.settle(done);
            }
            900..975 => self.write_group(),
            975..985 => {
                let key = self.any_key();
                let done = block_on(self.db.evict(&key));
                self.settle(done);
            }
            985..995 => self.hold(),
            _ => self.scan(),
        }
        self.counts.done.fetch_add(1, Ordering::Relaxed);
    }
}

fn policy(name: &str) -> Option<EvictionPolicy> {
    use EvictionPolicy::*;
    [Lru, Lfu, Random, Arc, Ttl, S3Fifo, Manual]
        .into_iter()
        .find(|policy| format!("{policy:?}").eq_ignore_ascii_case(name))
}

/// Returns the largest value of the second quarter and of the last.
fn quarters(seen: &[u64]) -> (u64, u64) {
    let quarter = seen.len() / 4;
    let largest = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    (largest(&seen[quarter..2 * quarter]), largest(&seen[seen.len() - quarter..]))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Some(60), |text| text.parse().ok());
    let policy = arguments.next().map_or(Some(EvictionPolicy::Lru), |name| policy(&name));
    let (Some(seconds), Some(policy)) = (seconds, policy) else {
        eprintln!("usage: soak [SECONDS [POLICY]]");
        return ExitCode::from(2);
    };

    let mut builder = Db::builder().max_memory(LIMIT).eviction_policy(policy);
    if policy == EvictionPolicy::Ttl {
        builder = builder.eviction_ttl(Duration::from_secs(20));
    }
    let db = block_on(builder.build()).expect("an empty database opens");
    let (counts, over) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
    let threads: Vec<_> = (0..THREADS)
        .map(|seed| {
            let (db, counts, over) = (db.clone(), Arc::clone(&counts), Arc::clone(&over));
            thread::spawn(move || {
                let random = SmallRng::seed_from_u64(seed);
                let mut load = Load { db: &db, counts: &counts, random, held: None };
                while !over.load(Ordering::Relaxed) {
                    load.step();
                }
            })
        })
        .collect();

    let (begin, mut seen) = (Instant::now(), Vec::new());
    let end = begin + Duration::from_secs(seconds);
    let is_alive = || threads.iter().all(|thread| !thread.is_finished());
    for look in 1_u32.. {
        thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
        let info = db.memory_info();
        seen.extend(resident());
        let is_last = Instant::now() >= end || !is_alive();
        if look % LOOKS_PER_LINE == 0 || is_last {
            println!(
                "{policy:?} {:5.0} s: {:6.1} MiB resident, {:5.1} counted ({:4.1} old), {:10} steps, \
                 {} conflicts, {} refused, {} audits, evicted {} + {} expired + {} explicitly, {} snapshots",
                begin.elapsed().as_secs_f64(),
                mib(seen.last().copied().unwrap_or(0)),
                mib(info.total_bytes),
                mib(info.old_version_bytes),
                counts.done.load(Ordering::Relaxed),
                counts.conflicts.load(Ordering::Relaxed),
                counts.refused.load(Ordering::Relaxed),
                counts.audited.load(Ordering::Relaxed),
                info.evictions.capacity,
                info.evictions.expired,
                info.evictions.explicit,
                info.live_snapshots,
            );
        }
        if is_last {
            break;
        }
    }
    over.store(true, Ordering::Relaxed);
    // Join all threads before the verdict.
    let died = threads.into_iter().map(thread::JoinHandle::join).filter(Result::is_err).count();

    let (early, late) = quarters(&seen);
    if seen.is_empty() {
        println!("SKIPPED: this system does not report the resident memory of a process");
    }
    let is_flat = late as f64 <= early as f64 * GROWTH;
    let failed = counts.failed.load(Ordering::Relaxed);
    println!(
        "{policy:?}: {}: at most {:.1} MiB in the second quarter and {:.1} MiB in the last ({:+.1} %), \
         {failed} audits failed, {died} threads died",
        if is_flat && failed == 0 && died == 0 { "PASSED" } else { "FAILED" },
        mib(early),
        mib(late),
        (late as f64 / early.max(1) as f64 - 1.0) * 100.0,
    );
    ExitCode::from(u8::from(!is_flat || failed != 0 || died != 0))
}

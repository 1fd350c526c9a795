//! Runs a [`Plan`] on OS threads against a [`Store`], and records the results as a [`History`].
//!
//! Invariant: the thread that runs a transaction takes one stamp before the transaction begins and
//! one after its commit has returned. So the recorded interval is never shorter than the real one, and
//! the history never claims a real-time order that did not exist.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::history::{History, Process, Stamps};
use crate::op::{Committed, Op, Scan};
use crate::workload::{Plan, Step};

/// A transactional map under test.
pub trait Store: Sync {
    /// A transaction of the store.
    type Session: Session;

    /// Begins a transaction. `only_reads` means that its script writes nothing.
    fn begin(&self, only_reads: bool) -> Self::Session;
}

/// A transaction of a [`Store`].
pub trait Session {
    /// Looks a key up.
    fn get(&mut self, key: u64) -> Option<u64>;
    /// Scans a range in its direction, stopping after its limit.
    fn scan(&mut self, scan: &Scan<u64>) -> Vec<(u64, u64)>;
    /// Writes without reading.
    fn put(&mut self, key: u64, value: u64);
    /// Deletes a key, and returns its old value.
    fn remove(&mut self, key: u64) -> Option<u64>;
    /// Commits. Returns `false` if the store refused the commit.
    fn commit(self) -> bool;
}

/// Runs `plan`. The history begins with a transaction that writes the preload and ends with one that
/// reads everything, so that the checker notices every lost write.
///
/// # Panics
/// If a transaction panics, or if the store refuses the first or the last transaction.
pub fn run<S: Store>(store: &S, plan: &Plan) -> History<u64, u64> {
    let stamps = Stamps::default();
    let mut processes = Vec::new();
    let preload: Vec<Step> = plan.preload.iter().map(|&(key, value)| Step::Put(key, value)).collect();
    processes.push(alone(store, &stamps, &preload));

    let rendezvous = Rendezvous::new(plan.threads.len());
    let (stamps, rendezvous) = (&stamps, &rendezvous);
    processes.extend(std::thread::scope(|scope| {
        let running: Vec<_> = plan
            .threads
            .iter()
            .map(|scripts| {
                scope.spawn(move || {
                    let _poison = PoisonOnPanic(rendezvous);
                    thread(store, stamps, rendezvous, scripts, plan.lockstep)
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("a thread of the workload panicked"))
            .collect::<Vec<_>>()
    }));

    processes.push(alone(store, stamps, &[Step::Scan(Scan::all())]));
    History { processes }
}

fn alone<S: Store>(store: &S, stamps: &Stamps, steps: &[Step]) -> Process<u64, u64> {
    let mut process = Process::default();
    transaction(store, stamps, steps, &mut process, || {});
    assert_eq!(process.refused, 0, "a transaction that runs alone commits");
    process
}

fn thread<S: Store>(
    store: &S,
    stamps: &Stamps,
    rendezvous: &Rendezvous,
    scripts: &[Vec<Step>],
    lockstep: bool,
) -> Process<u64, u64> {
    let mut process = Process::default();
    let mut round = 0;
    let mut meet = || {
        round += 1;
        rendezvous.wait(round);
    };
    meet();
    for steps in scripts {
        // In lockstep, no thread begins a transaction before all have finished the last round, and
        // none goes on with it before all have begun theirs.
        if lockstep {
            meet();
        }
        transaction(store, stamps, steps, &mut process, || {
            if lockstep {
                meet();
            }
        });
    }
    process
}

fn transaction<S: Store>(
    store: &S,
    stamps: &Stamps,
    steps: &[Step],
    process: &mut Process<u64, u64>,
    begun: impl FnOnce(),
) {
    let only_reads = !steps.iter().any(|step| matches!(step, Step::Put(..) | Step::Remove(_)));
    let begin = stamps.next();
    let mut session = store.begin(only_reads);
    begun();
    let mut ops = Vec::new();
    for step in steps {
        match step {
            Step::Get(key) => ops.push(Op::Get { key: *key, found: session.get(*key) }),
            Step::Scan(scan) => ops.push(Op::Scan { scan: scan.clone(), items: session.scan(scan) }),
            Step::Put(key, value) => {
                session.put(*key, *value);
                ops.push(Op::Put { key: *key, value: *value });
            }
            Step::Remove(key) => {
                let found = session.remove(*key);
                ops.push(Op::Get { key: *key, found });
                ops.push(Op::Delete { key: *key });
            }
            Step::Yield => std::thread::yield_now(),
        }
    }
    if session.commit() {
        let end = stamps.next();
        process.committed.push(Committed { begin, end, ops });
    } else {
        process.refused += 1;
    }
}

/// The bounds of a scan, as a pair for range look-ups.
#[must_use]
pub fn ends(scan: &Scan<u64>) -> (Bound<u64>, Bound<u64>) {
    (scan.lower, scan.upper)
}

/// A barrier for a fixed number of threads. When one thread panics, the others panic, too, instead of
/// waiting for ever.
#[derive(Debug)]
struct Rendezvous {
    threads: usize,
    arrived: AtomicUsize,
    broken: AtomicBool,
}

impl Rendezvous {
    fn new(threads: usize) -> Self {
        Rendezvous { threads, arrived: AtomicUsize::new(0), broken: AtomicBool::new(false) }
    }

    /// Waits until every thread has arrived for the `round`-th time.
    fn wait(&self, round: usize) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        while self.arrived.load(Ordering::SeqCst) < round * self.threads {
            assert!(!self.broken.load(Ordering::SeqCst), "another thread panicked");
            std::thread::yield_now();
        }
    }
}

struct PoisonOnPanic<'r>(&'r Rendezvous);

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Level, Model, ModelTxn, Verdict};
    use crate::workload::{Seed, Shape, plan, skew};
    use std::sync::{Arc, Mutex};

    /// The model as a store. It shows that the driver and the checkers accept a correct store and
    /// reject a store with a weaker isolation level.
    struct ModelStore(Arc<Mutex<Model<u64, u64>>>, Level);
    struct ModelSession(Arc<Mutex<Model<u64, u64>>>, Level, ModelTxn<u64, u64>);

    impl Store for ModelStore {
        type Session = ModelSession;
        fn begin(&self, _only_reads: bool) -> ModelSession {
            let txn = self.0.lock().expect("no panic under the lock").begin();
            ModelSession(self.0.clone(), self.1, txn)
        }
    }

    impl Session for ModelSession {
        fn get(&mut self, key: u64) -> Option<u64> {
            self.2.get(&key)
        }
        fn scan(&mut self, scan: &Scan<u64>) -> Vec<(u64, u64)> {
            self.2.scan(scan)
        }
        fn put(&mut self, key: u64, value: u64) {
            self.2.put(key, value);
        }
        fn remove(&mut self, key: u64) -> Option<u64> {
            self.2.remove(&key)
        }
        fn commit(self) -> bool {
            let mut model = self.0.lock().expect("no panic under the lock");
            let refused = model.verdict(&self.2, self.1) == Verdict::Refuse;
            if !refused {
                model.commit(&self.2);
            }
            !refused
        }
    }

    fn fresh(level: Level) -> ModelStore {
        ModelStore(Arc::default(), level)
    }

    #[test]
    fn a_correct_store_passes() {
        let shape =
            Shape { threads: 2..=5, transactions: 4, steps: 1..=4, keys: 3, scans: 40, lockstep: false };
        let seed = Seed::from_env();
        for run_number in 0..100 {
            let plan = plan(&shape, &mut seed.rng(run_number));
            let history = run(&fresh(Level::Serializable), &plan);
            assert!(history.is_strictly_serializable(), "{seed}\n{history}");
        }
    }

    #[test]
    fn a_weaker_rule_is_caught() {
        for scanning in [false, true] {
            let history = run(&fresh(Level::Snapshot), &skew(2, 3, scanning));
            assert_eq!(history.refused(), 0);
            assert!(!history.is_strictly_serializable(), "\n{history}");
        }
    }
}

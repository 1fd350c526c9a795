//! An eviction listener may use the database that it listens to, and commit.

use fluxmap::mem::{EvictionCause, EvictionPolicy};
use fluxmap::{Database, FluxError};
use futures::FutureExt;
use futures::executor::block_on;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

type Db = Database<u64, Vec<u8>>;

const LIMIT: u64 = 256 << 10;

/// A database in memory, whose listener is given the database.
fn listening(listener: impl Fn(&Db, u64, Arc<Vec<u8>>, EvictionCause) + Send + Sync + 'static) -> Db {
    let slot: Arc<OnceLock<Db>> = Arc::default();
    let own = Arc::clone(&slot);
    let builder = Db::builder()
        .max_memory(LIMIT)
        .eviction_policy(EvictionPolicy::Lru)
        .on_evict(move |key, value, cause| listener(own.get().expect("it is open"), key, value, cause));
    let db = block_on(builder.build()).expect("an empty database opens");
    slot.set(db.clone()).expect("it is set once");
    db
}

/// In memory the future is ready at once.
fn put(db: &Db, key: u64, value: Arc<Vec<u8>>) {
    db.insert_arc(key, value).now_or_never().expect("it is ready").expect("room is made");
}

fn evict(db: &Db, key: u64) -> bool {
    db.evict(&key).now_or_never().expect("it is ready").expect("an eviction commits")
}

/// The listener puts every victim back once. The stack is too small for a hundred calls within each
/// other.
#[test]
fn a_victim_that_is_put_back_needs_no_stack() {
    static DEPTH: AtomicUsize = AtomicUsize::new(0);
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let had_its_chance = Mutex::new(HashSet::new());
    let db = listening(move |db, key, value, cause| {
        assert_eq!(DEPTH.fetch_add(1, Ordering::SeqCst), 0, "a listener runs within itself");
        count.fetch_add(1, Ordering::SeqCst);
        if cause == EvictionCause::Capacity && had_its_chance.lock().expect("no panic").insert(key) {
            put(db, key, value);
        }
        DEPTH.fetch_sub(1, Ordering::SeqCst);
    });
    let filling = db.clone();
    let run = move || (0..10_000).for_each(|key| put(&filling, key, Arc::new(vec![0; 200])));
    let small = thread::Builder::new().stack_size(256 << 10).spawn(run).expect("a thread");
    small.join().expect("no panic");
    assert_eq!(told.load(Ordering::SeqCst) as u64, db.memory_info().evictions.capacity, "each is told once");
    assert!(db.memory_info().evictions.capacity > 15_000);
}

#[test]
fn nested_evictions_are_told_when_the_outer_call_has_returned_and_in_order() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&log);
    let db = listening(move |db, key, _, _| {
        told.lock().expect("no panic").push(format!("begin {key}"));
        if key < 10 {
            for nested in [key * 10, key * 10 + 1] {
                assert!(evict(db, nested));
                assert!(
                    !db.contains_key(&nested).expect("a read succeeds"),
                    "it has been evicted, and the listener is called later"
                );
            }
        }
        told.lock().expect("no panic").push(format!("end {key}"));
        assert!(key != 20, "one that panics keeps no other from being told");
    });
    for key in [1, 2, 10, 11, 20, 21] {
        put(&db, key, Arc::default());
    }
    for key in [1, 2] {
        assert!(evict(&db, key));
    }
    let expected = [1, 10, 11, 2, 20, 21].map(|key| [format!("begin {key}"), format!("end {key}")]);
    assert_eq!(*log.lock().expect("no panic"), expected.concat());
}

/// The listeners of two databases evict from each other's database. Neither call may run on top of
/// the other.
#[test]
fn listeners_of_two_databases_that_evict_from_each_other_need_no_stack() -> Result<(), FluxError> {
    let other: Arc<OnceLock<Db>> = Arc::default();
    let slot = Arc::clone(&other);
    let first = listening(move |_, key, _, _| {
        let _ = evict(slot.get().expect("it is open"), key);
    });
    let back = first.clone();
    let second = listening(move |_, key, _, _| {
        let _ = evict(&back, key + 1);
    });
    other.set(second.clone()).expect("it is set once");
    (0..20_000).for_each(|key| put(&first, key % 500, Arc::default()));
    (0..20_000).for_each(|key| put(&second, key % 500, Arc::default()));
    let run = move || (evict(&first, 0), first.count(..));
    let small = thread::Builder::new().stack_size(256 << 10).spawn(run).expect("a thread");
    let (evicted, left) = small.join().expect("no panic");
    assert!(evicted);
    assert_eq!((left?, second.count(..)?), (0, 0));
    Ok(())
}

/// A panic of the caller that evicts must not be taken for one of the listener's.
#[test]
fn what_waits_is_told_although_the_caller_unwinds() {
    struct EvictsOnDrop<'d>(&'d Db);
    impl Drop for EvictsOnDrop<'_> {
        fn drop(&mut self) {
            assert!(evict(self.0, 1));
        }
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let db = listening(move |db, key, _, _| {
        log.lock().expect("no panic").push(key);
        let _ = evict(db, key + 1);
    });
    (1..4).for_each(|key| put(&db, key, Arc::default()));
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _evicts = EvictsOnDrop(&db);
        panic!("the caller's own");
    }));
    assert!(unwound.is_err());
    assert_eq!(*told.lock().expect("no panic"), [1, 2, 3]);
}

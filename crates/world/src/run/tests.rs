//! The report of a world that fails.

use super::*;
use crate::client::Db;
use crate::disk::WorldDisk;
use crate::files::LogFiles;
use crate::life::DIRECTORY;
use crate::value::Value;
use fluxmap_shuttle::Database;
use fluxmap_shuttle::persistence::PersistenceOptions;
use fluxmap_testkit::disk::SimDisk;
use shuttle::future::block_on;
use shuttle::sync::Mutex;
use shuttle::thread as task;

fn failure(report: Report) -> Failure {
    report.failure.expect("the world fails")
}

#[test]
fn of_a_hang_it_is_told_who_waits_and_what_for() {
    let cross = |board: &Board| {
        let (one, other) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(())));
        let (first, second) = (Arc::clone(&one), Arc::clone(&other));
        let board_of_client = board.clone();
        let _held = one.lock().expect("no panic");
        let client = task::Builder::new().name("client-0".into()).spawn(move || {
            let _second = second.lock().expect("no panic");
            board_of_client.note("client-0", "commits");
            let _first = first.lock().expect("no panic");
        });
        board.note("world", "waits for the clients");
        client.expect("a task can be started").join().expect("no panic");
    };
    let failure = failure(thread::spawn(move || execute(1, 10_000, cross)).join().expect("contained"));
    assert!(failure.what.contains("deadlock"), "{}", failure.what);
    assert!(failure.what.contains("client-0") && failure.what.contains("main-thread"), "{}", failure.what);
    assert_eq!(failure.doing, ["client-0: commits", "world: waits for the clients"]);
    assert_eq!(failure.log.len(), 2);
}

/// Opens a database on this disk, or in memory. A commit that writes the key `closed` waits for the gate.
fn open(disk: Option<&WorldDisk>, gate: &Arc<Mutex<()>>) -> Db {
    let gate = Arc::clone(gate);
    let builder = Database::<String, Value>::builder().observer(move |_, key: &String, _, _| {
        if key == "closed" {
            drop(waits::waiting("the gate", || gate.lock()));
        }
    });
    let Some(disk) = disk else { return block_on(builder.build()).expect("it opens") };
    let options = PersistenceOptions::new(DIRECTORY);
    let builder = builder.disk(Arc::new(disk.clone())).durability_full(options);
    block_on(builder.build()).expect("it opens")
}

fn put(db: &Db, name: &str, key: &'static str) -> task::JoinHandle<()> {
    let db = db.clone();
    let put = move || block_on(db.insert(key.into(), Value::new(1, 0))).expect("it commits");
    task::Builder::new().name(name.into()).spawn(put).expect("a task can be started")
}

/// Returns the line of the report about this task.
fn line<'f>(failure: &'f Failure, name: &str) -> &'f str {
    let line = failure.waiting.iter().find(|line| line.starts_with(&format!("{name} (task ")));
    line.unwrap_or_else(|| panic!("{name} waits for something: {:?}", failure.waiting))
}

fn has_all(line: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(line.contains(part), "{part}: {line}"));
}

#[test]
fn of_a_lock_it_is_told_who_holds_it_and_where_both_took_it() {
    let hang = |_: &Board| {
        let gate = Arc::new(Mutex::new(()));
        let db = open(None, &gate);
        let _closed = gate.lock().expect("no panic");
        let tasks = [put(&db, "client-0", "closed"), put(&db, "client-1", "closed")];
        tasks.into_iter().for_each(|task| waits::waiting("a client", || task.join()).expect("no panic"));
    };
    // Either client may be the first. Try several schedules, so that both orders are likely to be tested.
    for seed in 0..10 {
        let failure = failure(thread::spawn(move || execute(seed, 10_000, hang)).join().expect("contained"));
        assert!(failure.what.contains("deadlock"), "{}", failure.what);
        let [zero, one] = ["client-0", "client-1"].map(|name| line(&failure, name));
        let (first, second, holder) = match zero.contains("the gate") {
            true => (zero, one, "client-0"),
            false => (one, zero, "client-1"),
        };
        has_all(first, &["waits for the gate at crates/world/src/run/tests.rs:"]);
        let waits =
            "waits for the lock of commit::CommitSection<String, Value> at crates/fluxmap/src/commit.rs:";
        has_all(
            second,
            &[waits, &format!(", which {holder} (task "), "took at crates/fluxmap/src/commit.rs:"],
        );
        has_all(line(&failure, "main-thread"), &["waits for a client at crates/world/src/run/tests.rs:"]);
    }
}

#[test]
fn of_a_task_that_awaits_something_it_is_told_what_and_where() {
    let hang = |board: &Board| {
        let world = World::new(1);
        let (sim, life) = (SimDisk::new(1), world.life(world.outline(), 0));
        let disk = WorldDisk::new(sim.clone(), 0, world.rng(1), LogFiles::new(&life, board, &sim));
        let db = open(Some(&disk), &Arc::default());
        put(&db, "client-0", "a").join().expect("no panic");
        disk.get_stuck();
        put(&db, "client-1", "b").join().expect("no panic");
    };
    let failure = failure(thread::spawn(move || execute(1, 100_000, hang)).join().expect("contained"));
    assert!(failure.what.contains("deadlock"), "{}", failure.what);
    has_all(line(&failure, "client-1"), &["waits for progress to 2 at crates/fluxmap/src/wal/mod.rs:"]);
    has_all(line(&failure, "fluxmap-log"), &["waits for a disk that is stuck at crates/world/src/disk.rs:"]);
    has_all(
        line(&failure, "fluxmap-checkpoint"),
        &["waits for a change of jobs::State at crates/fluxmap/src/jobs.rs:"],
    );
}

#[test]
fn a_world_that_goes_on_for_ever_is_ended() {
    let report = run(World { steps: Some(2_000), ..World::new(3) });
    assert!(report.steps <= 2_000, "{}", report.steps);
    let failure = failure(report);
    assert!(failure.what.contains("max_steps"), "{}", failure.what);
    assert!(failure.doing.iter().any(|line| line.starts_with("world: ")), "{:?}", failure.doing);
}

#[test]
fn a_world_that_fails_is_made_as_small_as_it_fails() {
    let needs = |bound: Option<usize>, least| bound.is_none_or(|bound| bound >= least);
    let run = |world: World| {
        let fails = needs(world.lives, 2) && needs(world.clients, 3) && needs(world.operations, 17);
        let failure =
            fails.then(|| Failure { what: "it fails".into(), doing: vec![], waiting: vec![], log: vec![] });
        Report { counts: Counts::default(), steps: 0, failure }
    };
    let mut attempts = 0;
    let (small, report) = shrink_by(World::new(7), run, |_| attempts += 1);
    assert_eq!((small.lives, small.clients, small.operations), (Some(2), Some(3), Some(17)));
    assert!(report.failure.is_some() && attempts == 2 + 3 + 17);
}

#[test]
fn a_world_in_which_a_panic_was_contained_fails() {
    let contains = |_: &Board| {
        let contained = panic::catch_unwind(|| panic!("an assertion of background work"));
        assert!(contained.is_err());
    };
    let run = move || {
        keep_panics();
        execute(1, 10_000, contains)
    };
    let failure = failure(thread::spawn(run).join().expect("contained"));
    assert!(failure.what.contains("an assertion of background work"), "{}", failure.what);
}

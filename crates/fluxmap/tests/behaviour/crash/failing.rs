//! Calls of the disk fail, once or from then on. The commits in progress are in doubt, the later
//! ones are refused, and nothing that was acknowledged is lost.

use std::io::ErrorKind;

use fluxmap::{FluxError, PersistenceError};
use fluxmap_testkit::disk::{Loss, SimDisk};
use fluxmap_testkit::workload::Seed;
use futures::executor::block_on;
use futures::future::poll_immediate;
use rand::Rng;

use crate::crash::script::{Drawer, Run, Step};
use crate::crash::support::{Config, Left, Level, World, content, left_now, tail};
use crate::crash::watch::Watch;

/// Plays a script on a disk on which some call fails. Opening may fail once and is tried again; a
/// checkpoint may fail. Any other error ends the run.
pub(crate) fn play(config: Config, disk: &SimDisk, script: &[Step]) -> World {
    let first = Run::open(config, disk.clone(), World::default());
    let opened = first.or_else(|failed| {
        let (world, error) = *failed;
        assert!(matches!(error, FluxError::Persistence(_)), "{error:?}");
        Run::open(config, disk.clone(), world)
    });
    let mut run = match opened {
        Ok(run) => run,
        Err(failed) => return failed.0,
    };
    for step in script {
        let Err(error) = run.step(step) else { continue };
        match error {
            FluxError::Persistence(_) => assert!(
                matches!(step, Step::Checkpoint | Step::Close | Step::Drop),
                "{step:?} must not fail like that: {error:?}"
            ),
            FluxError::FatalPersistenceError { .. } | FluxError::OutcomeUnknown { .. } => {
                return ended(run);
            }
            other => panic!("{step:?} failed: {other:?}"),
        }
        if run.db.is_none() {
            // The step closed or dropped the database, and opening it again failed.
            match Run::open(config, disk.clone(), run.world) {
                Ok(again) => run = again,
                Err(failed) => return failed.0,
            }
        }
    }
    run.world
}

/// Checks a database whose log has failed: it writes nothing any more, and reads see the
/// acknowledged state.
fn ended(run: Run) -> World {
    let Run { world, db, .. } = run;
    // The failing step was a close, which returned the error and has ended the database.
    let Some(db) = db else { return world };
    let seen = || assert_eq!(content(&db), *world.state(world.acked), "the last stable state");
    seen();
    for _ in 0..2 {
        let refused = block_on(poll_immediate(db.insert(77, "late".into())));
        assert!(matches!(refused, Some(Err(FluxError::FatalPersistenceError { .. }))), "{refused:?}");
    }
    let newest = db.begin();
    let keys: Vec<u64> = newest.range(..).expect("reads go on").map(|(key, _)| key).collect();
    assert!(keys.iter().eq(world.state(world.acked).keys()), "a transaction builds on no lost commit");
    block_on(newest.commit()).expect("it has read only acknowledged commits");
    for key in 0..12 {
        let removed = block_on(poll_immediate(db.remove(&key)));
        let expected = world.state(world.acked).contains_key(&key);
        match removed {
            Some(Err(FluxError::FatalPersistenceError { .. })) => assert!(expected),
            Some(Ok(None)) => assert!(!expected),
            other => panic!("to remove {key} is refused at once, or has no effect: {other:?}"),
        }
    }
    seen();
    let late = block_on(db.checkpoint());
    assert!(late.is_err(), "no checkpoint after the log has failed: {late:?}");
    let closed = block_on(db.close());
    assert!(matches!(closed, Err(FluxError::FatalPersistenceError { .. })), "{closed:?}");
    world
}

/// Opens every set of files that may be left, writes a little, and checks that the commits last.
pub(crate) fn outlives(config: Config, disk: &SimDisk, world: &World, drawer: &mut Drawer, watch: &Watch) {
    let mut ways = left_now(disk, "at the end", drawer.rng().random());
    // Drop the pages that a failed sync left in the page cache, as an operating system may do at
    // any time. This counts as a power loss, because no system promises more after a failed sync.
    let evicted = disk.process_death();
    evicted.drop_caches();
    ways.push(Left { disk: evicted, lost_power: true, name: "caches dropped".into() });
    for left in ways {
        watch.and(|| left.name.clone());
        let mut world = world.clone();
        world.crash(config.level, left.lost_power);
        let mut run = open(config, left.disk, world);
        let more: Vec<_> = (0..2).map(|_| drawer.writes()).collect();
        run.step(&Step::Together(more)).expect("the database goes on");
        let Run { disk, mut world, db, .. } = run;
        // The database is not closed here: the recovered state and the new acknowledged commits are
        // durable all the same.
        let cut = disk.power_cut(Loss::Everything);
        drop(db);
        world.crash(config.level, true);
        open(config, cut, world);
    }
}

fn open(config: Config, disk: SimDisk, world: World) -> Run {
    let shown = disk.clone();
    match Run::open(config, disk, world) {
        Ok(run) => run,
        Err(failed) => panic!("it must open: {:?}\n    {}", failed.1, tail(&shown, 40)),
    }
}

fn fails_at_every_call(test: &str, config: Config, steps: usize, plan: impl Fn(&SimDisk, u64)) {
    let watch = Watch::start(test);
    let seed = Seed::from_env();
    let script = Drawer::new(seed.rng(0)).script(steps);
    for call in 1.. {
        watch.doing(|| format!("{seed}, {config:?}, call {call} fails"));
        let disk = SimDisk::new(call);
        plan(&disk, call);
        let world = play(config, &disk, &script);
        if disk.calls() < call {
            assert!(call > 50, "the script makes enough calls");
            return;
        }
        outlives(config, &disk, &world, &mut Drawer::new(seed.rng(call)), &watch);
    }
}

#[test]
fn a_call_that_fails_once_in_full() {
    fails_at_every_call("once, full", Config::FULL, 16, |disk, call| disk.fail_once(call, ErrorKind::Other));
}

#[test]
fn a_call_that_fails_once_in_relaxed() {
    let config = Config::at(Level::Commits(3));
    fails_at_every_call("once, relaxed", config, 16, |disk, call| disk.fail_once(call, ErrorKind::Other));
}

#[test]
fn calls_that_fail_for_good_in_full() {
    fails_at_every_call("for good, full", Config::FULL, 16, |disk, call| {
        disk.fail_from(call, ErrorKind::StorageFull);
    });
}

#[test]
fn calls_that_fail_for_good_in_relaxed() {
    let config = Config::at(Level::Bytes(1000));
    fails_at_every_call("for good, relaxed", config, 16, |disk, call| {
        disk.fail_from(call, ErrorKind::StorageFull);
    });
}

/// While the log has room, a failed checkpoint affects nothing else.
#[test]
fn a_checkpoint_that_fails_loses_nothing_and_the_database_goes_on() {
    let watch = Watch::start("a checkpoint fails");
    let seed = Seed::from_env();
    let config = Config { pool: 4, segment: 1 << 16, ..Config::FULL };
    let mut failures = 0;
    for call in 1.. {
        watch.doing(|| format!("{seed}, call {call} of a checkpoint fails"));
        let mut drawer = Drawer::new(seed.rng(call));
        let disk = SimDisk::new(call);
        let mut run = open(config, disk.clone(), World::default());
        run.step(&Step::Commit(vec![(1, Some("one".into()))])).expect("sound");
        run.step(&Step::Checkpoint).expect("sound");
        run.step(&Step::Commit(vec![(2, Some("two".into()))])).expect("sound");
        let before = disk.calls();
        disk.fail_once(call, ErrorKind::Other);
        let outcome = run.step(&Step::Checkpoint);
        let reached = disk.calls() - before >= call;
        if !reached {
            outcome.expect("nothing failed");
            assert!(failures >= 6, "a checkpoint is created, written, synced, renamed: {failures}");
            return;
        }
        disk.clear_faults();
        match outcome {
            Ok(()) => {}
            Err(FluxError::Persistence(PersistenceError::Io { path, .. })) => {
                failures += 1;
                assert!(path.starts_with("db"), "it says where: {path:?}");
            }
            Err(other) => panic!("{other:?}"),
        }
        outlives(config, &disk, &run.world, &mut drawer, &watch);
        run.step(&Step::Commit(vec![(1, None), (3, Some("three".into()))])).expect("the database goes on");
        outlives(config, &disk, &run.world, &mut drawer, &watch);
        run.step(&Step::Checkpoint).expect("the next one succeeds");
        run.step(&Step::Close).expect("it closes and opens again");
    }
}

//! A scripted run crashes at each call of the disk. The files that are left are opened, compared
//! with the history, and written to until the next crash.

use rand::Rng;
use rand::rngs::StdRng;

use fluxmap_testkit::disk::SimDisk;
use fluxmap_testkit::workload::{Seed, scaled};

use crate::crash::script::{Drawer, Run, Step};
use crate::crash::support::{Config, Left, Level, World, left_by_crash, left_now, names, tail};
use crate::crash::watch::Watch;

/// How many crashes follow the first one on the same files.
const GENERATIONS: u32 = 3;

/// The calls to crash at: the one in `FLUXMAP_CALL`, or all until a run ends before the crash.
fn calls() -> impl Iterator<Item = u64> {
    let only: Option<u64> =
        std::env::var("FLUXMAP_CALL").ok().map(|call| call.parse().expect("the call is a number"));
    only.map_or(1..=u64::MAX, |call| call..=call)
}

/// Runs a script until it ends or the disk crashes; the disk says which.
fn run(config: Config, disk: &SimDisk, world: World, script: &[Step]) -> World {
    match Run::open(config, disk.clone(), world) {
        Ok(mut run) => {
            let result = run.play(script);
            assert!(
                result.is_ok() || disk.frozen().is_some(),
                "a step failed, and the disk had not: {result:?}\n    {}",
                tail(disk, 30)
            );
            run.world
        }
        Err(failed) => {
            let (world, error) = *failed;
            assert!(
                disk.frozen().is_some(),
                "it must open: {error:?}\n    {}\n    {:?}",
                tail(disk, 30),
                names(disk)
            );
            world
        }
    }
}

/// Opens the files that are left, compares them, and goes on until the next crash, `generations`
/// times.
fn survive(
    config: Config,
    left: Left,
    mut world: World,
    generations: u32,
    drawer: &mut Drawer,
    watch: &Watch,
) {
    watch.and(|| left.name.clone());
    world.crash(config.level, left.lost_power);
    let mut disk = left.disk;
    for generation in 0..generations {
        let call = drawer.rng().random_range(1..50);
        watch.and(|| format!("generation {generation} crashes at call {call}"));
        disk.crash_at(call);
        let script = drawer.script(8);
        world = run(config, &disk, world, &script);
        let seed = drawer.rng().random();
        let mut ways = left_by_crash(&disk, seed);
        if ways.is_empty() {
            disk.clear_faults();
            ways = left_now(&disk, "at the end", seed);
        }
        let way = ways.swap_remove(drawer.rng().random_range(0..ways.len()));
        watch.and(|| way.name.clone());
        world.crash(config.level, way.lost_power);
        disk = way.disk;
    }
    run(config, &disk, world, &[]);
}

fn drawer(seed: Seed, run: u64) -> Drawer {
    Drawer::new(seed.rng(run))
}

fn crashes_at_every_call(test: &str, config: Config, steps: usize) {
    let watch = Watch::start(test);
    let seed = Seed::from_env();
    for repetition in 0..scaled(1) {
        let script = drawer(seed, repetition).script(steps);
        for call in calls() {
            watch.doing(|| format!("{seed}, {config:?}, repetition {repetition}, crash at call {call}"));
            let disk = SimDisk::new(repetition);
            disk.crash_at(call);
            let world = run(config, &disk, World::default(), &script);
            let mut drawer = drawer(seed, (repetition << 32) + (call << 8));
            let left = left_by_crash(&disk, drawer.rng().random());
            if left.is_empty() {
                assert!(call > 10 * steps as u64 / 3, "the script makes enough calls: {call} calls");
                break;
            }
            for left in left {
                watch.doing(|| format!("{seed}, {config:?}, repetition {repetition}, crash at call {call}"));
                // All are opened and compared; a quarter of them run and crash again.
                let generations = if drawer.rng().random_ratio(1, 4) { GENERATIONS } else { 0 };
                survive(config, left, world.clone(), generations, &mut drawer, &watch);
            }
        }
    }
}

#[test]
fn full_loses_nothing_that_was_acknowledged() {
    crashes_at_every_call("full", Config::FULL, 20);
}

#[test]
fn full_with_a_single_segment_loses_nothing() {
    crashes_at_every_call("full, a pool of one", Config { pool: 1, ..Config::FULL }, 20);
}

#[test]
fn relaxed_loses_no_more_commits_than_it_may() {
    crashes_at_every_call("relaxed, by commits", Config::at(Level::Commits(4)), 20);
}

#[test]
fn relaxed_loses_no_more_bytes_than_it_may() {
    crashes_at_every_call("relaxed, by bytes", Config::at(Level::Bytes(1500)), 20);
}

/// Without threads: the test does the background work, in any order.
#[test]
fn full_without_threads_loses_nothing() {
    for seed in 0..scaled(1) {
        let driven = Some(seed);
        crashes_at_every_call("full, driven", Config { driven, ..Config::FULL }, 20);
        crashes_at_every_call("full, driven, a pool of one", Config { driven, pool: 1, ..Config::FULL }, 20);
    }
}

#[test]
fn relaxed_without_threads_loses_no_more_commits_than_it_may() {
    for seed in 0..scaled(1) {
        let config = Config { driven: Some(seed), ..Config::at(Level::Commits(4)) };
        crashes_at_every_call("relaxed, driven", config, 20);
    }
}

/// The limit is never reached, so nothing is synced on its own.
#[test]
fn relaxed_keeps_a_prefix() {
    crashes_at_every_call("relaxed, hardly ever", Config::at(Level::Commits(1_000_000)), 20);
}

/// Opens the files that a crash left, and crashes that opening at every call in turn.
fn recovery_crashes_at_every_call(test: &str, config: Config) {
    let watch = Watch::start(test);
    let seed = Seed::from_env();
    for repetition in 0..scaled(1) {
        let script = drawer(seed, repetition).script(12);
        for first in calls() {
            let disk = SimDisk::new(repetition);
            disk.crash_at(first);
            let world = run(config, &disk, World::default(), &script);
            let mut drawer = drawer(seed, (repetition << 32) + (first << 8));
            let mut left = left_by_crash(&disk, drawer.rng().random());
            if left.is_empty() {
                break;
            }
            let left = left.swap_remove(drawer.rng().random_range(0..left.len()));
            watch.doing(|| format!("{seed}, {config:?}, crash at call {first}: {}", left.name));
            let mut world = world;
            world.crash(config.level, left.lost_power);
            crash_while_opening(config, &left.disk, &world, drawer.rng(), &watch);
        }
    }
}

fn crash_while_opening(config: Config, disk: &SimDisk, world: &World, rng: &mut StdRng, watch: &Watch) {
    for call in 1.. {
        let disk = disk.deep_clone();
        disk.crash_at(call);
        let world = run(config, &disk, world.clone(), &[]);
        let left = left_by_crash(&disk, rng.random());
        if left.is_empty() {
            return;
        }
        let chosen = rng.random_range(0..3);
        for left in left.into_iter().skip(chosen).step_by(3) {
            watch.and(|| format!("opening it crashes at call {call}: {}", left.name));
            let mut world = world.clone();
            world.crash(config.level, left.lost_power);
            run(config, &left.disk, world, &[]);
        }
    }
}

#[test]
fn a_recovery_in_full_can_crash_at_every_call() {
    recovery_crashes_at_every_call("recovery, full", Config::FULL);
}

#[test]
fn a_recovery_in_relaxed_can_crash_at_every_call() {
    recovery_crashes_at_every_call("recovery, relaxed", Config::at(Level::Commits(5)));
}

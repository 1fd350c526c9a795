//! Runs the worlds of seeds that have failed once, and worlds of new seeds.

use clap::ValueEnum;
use fluxmap_world::plan::{Profile, World};
use fluxmap_world::run::{Counts, run, shrink};
use std::time::{Duration, Instant};

/// How long to run worlds of new seeds.
const TIME: Duration = Duration::from_secs(20);

fn check(world: World, counts: &mut Counts) {
    let report = run(world);
    counts.add(&report.counts);
    if report.failure.is_some() {
        let (small, report) = shrink(world, |_| {});
        panic!(
            "{world:?} fails; the smallest world that fails: {small:?}\n{:#?}",
            report.failure.map(|failure| (failure.what, failure.doing, failure.waiting))
        );
    }
}

#[test]
fn worlds_that_have_failed_once_hold() {
    let mut counts = Counts::default();
    for line in include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#')) {
        let named = line.split('#').next().expect("a line begins with a seed");
        let mut words = named.split_whitespace();
        let seed = words.next().expect("a line begins with a seed");
        let seed = seed.parse().expect("a seed is a number");
        let profile =
            words.next().map(|name| Profile::from_str(name, false).expect("a profile has this name"));
        check(World { profile, ..World::new(seed) }, &mut counts);
    }
    assert!(counts.lives > 0);
}

/// Runs for some seconds; `scripts/world.sh` runs longer.
#[test]
fn worlds_of_fresh_seeds_hold() {
    let first: u64 = rand::random();
    println!("seeds from {first}");
    let (begin, mut counts) = (Instant::now(), Counts::default());
    for number in 0_u64.. {
        if begin.elapsed() > TIME {
            break;
        }
        check(World::new(first.wrapping_add(number)), &mut counts);
    }
    println!("{counts:?}");
    assert!(counts.transactions > 0 && counts.checks > 0);
}

/// Without this, a failure could not be replayed from its seed.
#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..20 {
        let (one, other) = (run(World::new(seed)), run(World::new(seed)));
        assert_eq!(one.counts, other.counts, "seed {seed}");
        assert_eq!(one.steps, other.steps, "seed {seed}");
        assert!(one.failure.is_none(), "seed {seed}: {:?}", one.failure);
    }
}

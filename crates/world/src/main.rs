//! `world`: runs whole lives of databases under simulation. See `scripts/world.sh`.

use clap::Parser;
use fluxmap_world::plan::{Profile, World};
use fluxmap_world::run::{Counts, Failure, run, shrink};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Whole lives of FluxMap databases under simulation.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// How long to go on with worlds of ever new seeds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The first seed; drawn anew if it is left out.
    #[arg(long)]
    from: Option<u64>,
    /// Runs the world of this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Instead of the profile that each seed picks.
    #[arg(long)]
    profile: Option<Profile>,
    /// The most clients of a life.
    #[arg(long)]
    clients: Option<usize>,
    /// The most operations of a client in a life.
    #[arg(long)]
    operations: Option<usize>,
    /// The most lives.
    #[arg(long)]
    lives: Option<usize>,
    /// How many worlds run side by side.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Prints what has happened in the world of `--seed`.
    #[arg(long)]
    log: bool,
    /// Leaves a world that fails as it is.
    #[arg(long)]
    no_shrink: bool,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn world(&self, seed: u64) -> World {
        let Arguments { profile, clients, operations, lives, .. } = *self;
        World { profile, clients, operations, lives, ..World::new(seed) }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => one(&arguments, seed),
        None => many(&arguments),
    }
}

fn one(arguments: &Arguments, seed: u64) -> ExitCode {
    let world = arguments.world(seed);
    let report = run(world);
    if arguments.log && report.failure.is_none() {
        println!("{:?} has nothing wrong", world.profile());
    }
    match report.failure {
        None => {
            print_counts(arguments, &report.counts, 1, 0, None);
            ExitCode::SUCCESS
        }
        Some(failure) => {
            if arguments.log {
                failure.log.iter().for_each(|line| println!("{line}"));
            }
            print_failure(&world, &failure);
            ExitCode::FAILURE
        }
    }
}

/// Worlds of ever new seeds, until the time is over or one fails.
fn many(arguments: &Arguments) -> ExitCode {
    let first = arguments.from.unwrap_or_else(rand::random);
    eprintln!("seeds from {first}");
    let begin = Instant::now();
    let (next, stops) = (AtomicU64::new(0), AtomicBool::new(false));
    let (sender, results) = mpsc::channel();
    let (mut counts, mut worlds, mut failed, mut first_failure) = (Counts::default(), 0_u64, None, None);
    thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            let sender = sender.clone();
            let (next, stops) = (&next, &stops);
            scope.spawn(move || {
                while !stops.load(Ordering::Relaxed)
                    && begin.elapsed() < Duration::from_secs(arguments.seconds)
                {
                    let seed = first.wrapping_add(next.fetch_add(1, Ordering::Relaxed));
                    let world = arguments.world(seed);
                    let report = run(world);
                    if report.failure.is_some() {
                        stops.store(true, Ordering::Relaxed);
                    }
                    if sender.send((world, report)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (world, report) in results {
            worlds += 1;
            counts.add(&report.counts);
            if let (Some(failure), None) = (report.failure, &failed) {
                failed = Some(world);
                first_failure = Some(failure);
            }
        }
    });
    let Some(world) = failed else {
        print_counts(arguments, &counts, worlds, 0, None);
        return ExitCode::SUCCESS;
    };
    if arguments.no_shrink {
        let failure = first_failure.map_or(String::new(), |failure| failure.what);
        println!(
            "seed {} fails after {:.1} s and {worlds} worlds, fails: {failure}",
            world.seed,
            begin.elapsed().as_secs_f64()
        );
        return ExitCode::FAILURE;
    }
    eprintln!(
        "seed {} fails after {:.1} s and {worlds} worlds; making it smaller",
        world.seed,
        begin.elapsed().as_secs_f64()
    );
    let (small, report) = shrink(world, |attempt| eprintln!("  trying {attempt:?}"));
    if let Some(failure) = &report.failure {
        print_failure(&small, failure);
    }
    print_counts(arguments, &counts, worlds, 1, Some(world.seed));
    ExitCode::FAILURE
}

fn print_failure(world: &World, failure: &Failure) {
    println!("world {} fails: {}", world.seed, failure.what);
    failure.doing.iter().for_each(|line| println!("  {line}"));
    let bound =
        |name: &str, bound: Option<usize>| bound.map_or(String::new(), |bound| format!(" --{name} {bound}"));
    let profile = world.profile.map_or(String::new(), |profile| format!(" --profile {}", name_of(profile)));
    println!(
        "replay it with: world --log --seed {}{profile}{}{}{}",
        world.seed,
        bound("lives", world.lives),
        bound("clients", world.clients),
        bound("operations", world.operations)
    );
}

fn name_of(profile: Profile) -> String {
    use clap::ValueEnum;
    profile.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}

fn print_counts(arguments: &Arguments, counts: &Counts, worlds: u64, anomalies: u64, seed: Option<u64>) {
    if arguments.json {
        let report = serde_json::json!({
            "worlds": worlds, "counts": counts, "anomalies": anomalies, "seed": seed,
        });
        println!("{report}");
        return;
    }
    let list = |counts: &BTreeMap<&str, u64>| match counts.is_empty() {
        true => "none".into(),
        false => counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", "),
    };
    println!(
        "{worlds} worlds, {} lives, {} transactions, {} refusals, {} crashes; faults: {}; seldom: {}; {} reads and {} states checked; {anomalies} anomalies",
        counts.lives,
        counts.transactions,
        counts.refusals,
        counts.crashes,
        list(&counts.faults),
        list(&counts.events),
        counts.reads,
        counts.checks,
    );
}

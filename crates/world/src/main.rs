//! `world`: simulates databases over their whole lives. See `scripts/world.sh`.

use clap::Parser;
use fluxmap_world::plan::{Profile, World};
use fluxmap_world::run::{Counts, Failure, run, shrink};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Simulates FluxMap databases over their whole lives.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// How many seconds to run worlds, each with a new seed.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The first seed, by default a random one.
    #[arg(long)]
    from: Option<u64>,
    /// Runs only the world of this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Uses this profile instead of the one that each seed picks.
    #[arg(long)]
    profile: Option<Profile>,
    /// The maximum number of clients in a life.
    #[arg(long)]
    clients: Option<usize>,
    /// The maximum number of operations of each client in a life.
    #[arg(long)]
    operations: Option<usize>,
    /// The maximum number of lives.
    #[arg(long)]
    lives: Option<usize>,
    /// The number of schedule steps after which a world counts as hanging.
    #[arg(long)]
    steps: Option<usize>,
    /// The number of worlds that run in parallel.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Prints the log of the world of `--seed`, if the world fails.
    #[arg(long)]
    log: bool,
    /// Does not look for a smaller world that fails.
    #[arg(long)]
    no_shrink: bool,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn world(&self, seed: u64) -> World {
        let Arguments { profile, clients, operations, lives, steps, .. } = *self;
        World { profile, clients, operations, lives, steps, ..World::new(seed) }
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
    if arguments.log && !arguments.json && report.failure.is_none() {
        println!("no errors in {:?}", world.profile());
    }
    match report.failure {
        None => {
            print_counts(arguments, &report.counts, 1);
            ExitCode::SUCCESS
        }
        Some(failure) => {
            if arguments.log && !arguments.json {
                failure.log.iter().for_each(|line| println!("{line}"));
            }
            print_failure(arguments, &world, &failure, (&report.counts, 1));
            ExitCode::FAILURE
        }
    }
}

/// Runs worlds, each with a new seed, until the time is over or one fails.
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
        // While this sender exists, the iteration over `results` does not end.
        drop(sender);
        for (world, report) in results {
            worlds += 1;
            counts.add(&report.counts);
            // Other jobs may also find a failure before they stop; keep only the first.
            if let (Some(failure), None) = (report.failure, &failed) {
                failed = Some(world);
                first_failure = Some(failure);
            }
        }
    });
    let (Some(world), Some(failure)) = (failed, first_failure) else {
        print_counts(arguments, &counts, worlds);
        return ExitCode::SUCCESS;
    };
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("seed {} fails after {seconds:.1} s and {worlds} worlds", world.seed);
    let (small, failure) = match arguments.no_shrink {
        true => (world, failure),
        false => {
            eprintln!("looking for a smaller world that fails");
            let (small, report) = shrink(world, |attempt| eprintln!("  trying {attempt:?}"));
            (small, report.failure.unwrap_or(failure))
        }
    };
    print_failure(arguments, &small, &failure, (&counts, worlds));
    ExitCode::FAILURE
}

/// Prints the failure, and the counts of all worlds that have run so far.
fn print_failure(arguments: &Arguments, world: &World, failure: &Failure, done: (&Counts, u64)) {
    let replay = format!("cargo run --quiet -p fluxmap-world -- {}", replay(world).join(" "));
    let (counts, worlds) = done;
    if arguments.json {
        let report = serde_json::json!({
            "worlds": worlds, "counts": counts, "anomalies": 1, "seed": world.seed,
            "failure": failure.what, "doing": failure.doing, "waiting": failure.waiting, "replay": replay,
        });
        return println!("{report}");
    }
    println!("world {} fails: {}", world.seed, failure.what);
    failure.doing.iter().chain(&failure.waiting).for_each(|line| println!("  {line}"));
    println!("replay it with: {replay}");
    println!("{}", summary(counts, worlds, 1));
}

/// Returns the arguments that run only this world, and print its log.
fn replay(world: &World) -> Vec<String> {
    let World { seed, profile, clients, operations, lives, steps } = *world;
    let bounds =
        [("--lives", lives), ("--clients", clients), ("--operations", operations), ("--steps", steps)];
    let bounds = bounds.into_iter().filter_map(|(name, bound)| Some((name, bound?.to_string())));
    let profile = profile.map(|profile| ("--profile", name_of(profile)));
    let given = [("--seed", seed.to_string())].into_iter().chain(profile).chain(bounds);
    let given = given.flat_map(|(name, value)| [name.to_owned(), value]);
    ["--log".to_owned()].into_iter().chain(given).collect()
}

fn name_of(profile: Profile) -> String {
    use clap::ValueEnum;
    profile.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}

fn print_counts(arguments: &Arguments, counts: &Counts, worlds: u64) {
    if arguments.json {
        let report = serde_json::json!({ "worlds": worlds, "counts": counts, "anomalies": 0, "seed": null });
        return println!("{report}");
    }
    println!("{}", summary(counts, worlds, 0));
}

fn summary(counts: &Counts, worlds: u64, anomalies: u64) -> String {
    let list = |counts: &BTreeMap<&str, u64>| match counts.is_empty() {
        true => "none".into(),
        false => counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", "),
    };
    let Counts { lives, transactions, refusals, reads, checks, .. } = counts;
    format!(
        "{worlds} worlds, {lives} lives, {transactions} transactions, {refusals} refusals, {} crashes ({} power cuts, {} during disk calls); faults: {}; rare events: {}; {reads} reads and {checks} states checked; {anomalies} anomalies",
        counts.crashes,
        counts.power_cuts,
        counts.crashes_amid_calls,
        list(&counts.faults),
        list(&counts.events),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_is_printed_runs_the_same_world() {
        let small = World { clients: Some(2), operations: Some(5), lives: Some(1), ..World::new(17) };
        let other = World { profile: Some(Profile::LongReaders), steps: Some(9), ..World::new(u64::MAX) };
        for world in [World::new(0), small, other] {
            let words = ["world".to_owned()].into_iter().chain(replay(&world));
            let arguments = Arguments::try_parse_from(words).expect("the program accepts the arguments");
            let seed = arguments.seed.expect("the arguments contain the seed");
            assert!(arguments.log);
            assert_eq!(arguments.world(seed), world);
        }
    }
}

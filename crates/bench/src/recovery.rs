//! The speed of recovery, and the memory that writing a checkpoint takes.

use crate::input::positive;
use crate::output::{Record, bar, cpu_time, median, print, resident_bytes, table};
use fluxmap::Database;
use fluxmap::persistence::{PersistenceOptions, RecoveryInfo};
use futures::executor::block_on;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Measure recovery from a checkpoint and from the log.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The directory for the files.
    #[arg(long, default_value = "target/bench-recovery")]
    dir: PathBuf,
    /// The number of keys, of 20 bytes, with values of 100.
    #[arg(long, default_value_t = 1_000_000, value_parser = positive)]
    keys: usize,
    /// How often the database is opened from each; medians are shown.
    #[arg(long, default_value_t = 5, value_parser = positive)]
    rounds: usize,
    /// Only open the database that is there. Print the keys and records recovered per second, and the
    /// microseconds of processor time for each.
    #[arg(long, hide = true)]
    open: bool,
}

/// Opens the database in a separate process, as a restart would. Returns keys and records per second, and
/// microseconds of processor time for each.
fn measure(options: &Options) -> (f64, f64) {
    let program = std::env::current_exe().expect("it runs");
    let mut command = Command::new(program);
    command.args(["recovery", "--open", "--dir"]).arg(&options.dir);
    let output = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut figures = text.split_whitespace().filter_map(|figure| figure.parse().ok());
    (figures.next().unwrap_or(f64::NAN), figures.next().unwrap_or(f64::NAN))
}

fn open_only(options: &Options) {
    let cpu = cpu_time();
    let db = open(&options.dir);
    let info: RecoveryInfo = db.recovery_info().cloned().unwrap_or_default();
    let count = (info.records + info.checkpoint_pairs) as f64;
    let cpu = (cpu_time() - cpu).as_secs_f64() * 1e6;
    print(format_args!("{} {}", count / info.duration.as_secs_f64(), cpu / count));
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options, json: bool) {
    if options.open {
        return open_only(options);
    }
    let bar = bar(3 + 2 * options.rounds);
    let _ = std::fs::remove_dir_all(&options.dir);
    bar.set_message("write the log");
    let db = open(&options.dir);
    let mut order: Vec<usize> = (0..options.keys).collect();
    order.shuffle(&mut StdRng::seed_from_u64(1));
    for key in order {
        block_on(db.insert(format!("user{key:016}"), vec![b'v'; 100])).expect("it commits");
    }
    block_on(db.close()).expect("it closes");
    bar.inc(1);

    let mut log = Vec::new();
    for _ in 0..options.rounds {
        bar.set_message("open from the log");
        log.push(measure(options));
        bar.inc(1);
    }

    bar.set_message("write a checkpoint");
    let db = open(&options.dir);
    let before = resident_bytes();
    let (peak, taken) = peak_while(|| block_on(db.checkpoint()).expect("it is written").duration);
    drop(db);
    bar.inc(1);

    let mut checkpoint = Vec::new();
    for _ in 0..options.rounds {
        bar.set_message("open from the checkpoint");
        checkpoint.push(measure(options));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let _ = std::fs::remove_dir_all(&options.dir);

    let memory = peak as f64 / before as f64;
    if json {
        let results = serde_json::json!({
            "log_records_per_second": log,
            "checkpoint_keys_per_second": checkpoint,
            "checkpoint_seconds": taken.as_secs_f64(),
            "checkpoint_peak_memory": memory,
        });
        return print(Record::new(results).to_json());
    }
    let rows = vec![
        row("from the log, thousand records/s", &log),
        row("from a checkpoint, thousand keys/s", &checkpoint),
        vec!["writing a checkpoint, s".into(), format!("{:.2}", taken.as_secs_f64()), String::new()],
        vec!["peak memory during it, of before".into(), format!("{memory:.3}"), String::new()],
    ];
    print(table(["recovery", "median", "CPU µs each"], rows));
}

fn row(name: &str, rounds: &[(f64, f64)]) -> Vec<String> {
    let (rates, cpu): (Vec<f64>, Vec<f64>) = rounds.iter().copied().unzip();
    vec![name.to_string(), format!("{:.0}", median(&rates) / 1000.0), format!("{:.2}", median(&cpu))]
}

fn open(dir: &Path) -> Database<String, Vec<u8>> {
    // Make the log so large that no checkpoint is written automatically.
    let options = PersistenceOptions { wal_pool_size: 1000, ..PersistenceOptions::new(dir.join("db")) };
    let builder = Database::<String, Vec<u8>>::builder().durability_relaxed(options);
    block_on(builder.flush_interval(Duration::from_secs(1)).build()).expect("it opens")
}

/// Runs `work`. Returns the peak of resident memory meanwhile, and the result.
fn peak_while<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(resident_bytes());
                thread::sleep(Duration::from_millis(1));
            }
            peak
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (watcher.join().unwrap_or(0), result)
    })
}

//! Durable commits, compared with bare loops that write the same bytes and with other stores, in the same
//! directory. Every commit writes one key.

mod bare;
mod engines;
mod latency;

use crate::input::{positive, refuse};
use crate::output::{Record, bar, cpu_time, median, print, table};
use crate::stores::Level;
use engines::Named;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Compare durable commits.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The directory for the files, on the disk to measure.
    #[arg(long, default_value = "target/bench-durable")]
    dir: PathBuf,
    /// How many times each case runs; medians are shown.
    #[arg(long, default_value_t = 5, value_parser = positive)]
    rounds: usize,
    /// How many milliseconds a case runs each time.
    #[arg(long, default_value_t = 1000, value_parser = positive)]
    milliseconds: usize,
    /// The numbers of committers at full durability.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64", value_parser = positive)]
    full: Vec<usize>,
    /// The numbers of committers at relaxed durability.
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = positive)]
    relaxed: Vec<usize>,
    /// Measure only engines whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Also show how checkpoints and changes of segment affect the latency of commits.
    #[arg(long)]
    latency: bool,
}

/// A store or a bare loop that makes commits.
pub(crate) trait Engine: Sync {
    /// Commits the `number`-th key of thread `thread`, and returns when the commit is durable.
    fn commit(&self, thread: usize, number: u64);

    /// Runs the committers, if the engine does this itself: returns the commits and the time then.
    fn drive(&self, _committers: usize, _time: Duration) -> Option<(u64, Duration)> {
        None
    }
}

/// A key of 20 bytes.
pub(crate) fn key(thread: usize, number: u64) -> String {
    format!("user{thread:04}{:012}", number % 100_000)
}

/// The bytes of a commit in FluxMap's log. The bare loops write as many.
pub(crate) const COMMIT_BYTES: usize = 184;

/// Commits per second of one engine, one figure per round.
#[derive(Serialize)]
struct Series {
    engine: String,
    level: Level,
    committers: usize,
    per_second: Vec<f64>,
    /// Microseconds of processor time per commit.
    cpu: Vec<f64>,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options, json: bool) {
    let mut cases = Vec::new();
    for (level, counts) in [(Level::Full, &options.full), (Level::Relaxed, &options.relaxed)] {
        for committers in counts {
            for Named { name, open } in engines::all(level) {
                if name.contains(options.only.as_str()) {
                    let series = Series {
                        engine: name,
                        level,
                        committers: *committers,
                        per_second: Vec::new(),
                        cpu: Vec::new(),
                    };
                    cases.push((series, open));
                }
            }
        }
    }
    if cases.is_empty() {
        refuse(&format!("no engine has {} in its name", options.only));
    }
    let bar = bar(options.rounds * cases.len());
    for _ in 0..options.rounds {
        for (series, open) in &mut cases {
            bar.set_message(format!("{} {:?} {}", series.engine, series.level, series.committers));
            let dir = fresh(&options.dir);
            let engine = open(&dir);
            let cpu = cpu_time();
            let (commits, time) =
                measure(&*engine, series.committers, Duration::from_millis(options.milliseconds as u64));
            let cpu = cpu_time() - cpu;
            series.per_second.push(commits as f64 / time.as_secs_f64());
            series.cpu.push(cpu.as_secs_f64() * 1e6 / commits as f64);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let series: Vec<Series> = cases.into_iter().map(|(series, _)| series).collect();
    match json {
        true => print(Record::new(series).to_json()),
        false => print_tables(&series, options),
    }
    if options.latency {
        latency::run(&fresh(&options.dir), json);
    }
    let _ = std::fs::remove_dir_all(&options.dir);
}

/// Empties or creates a directory.
fn fresh(path: &Path) -> PathBuf {
    let _ = std::fs::remove_dir_all(path);
    std::fs::create_dir_all(path).expect("the directory can be created");
    path.to_owned()
}

/// Lets committers commit for `time`. Returns the number of commits and the time that they took.
fn measure(engine: &dyn Engine, committers: usize, time: Duration) -> (u64, Duration) {
    if let Some(driven) = engine.drive(committers, time) {
        return driven;
    }
    let (stop, start) = (AtomicBool::new(false), Barrier::new(committers + 1));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..committers)
            .map(|thread| {
                let (stop, start) = (&stop, &start);
                scope.spawn(move || {
                    start.wait();
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        engine.commit(thread, number);
                        number += 1;
                    }
                    number
                })
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let commits = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
        (commits, begun.elapsed())
    })
}

fn print_tables(series: &[Series], options: &Options) {
    for (level, counts) in [(Level::Full, &options.full), (Level::Relaxed, &options.relaxed)] {
        let mut names: Vec<&str> = Vec::new();
        for row in series.iter().filter(|row| row.level == level) {
            if !names.contains(&row.engine.as_str()) {
                names.push(&row.engine);
            }
        }
        let heads: Vec<String> = counts.iter().map(|count| format!("{count} committers")).collect();
        let title = format!("{level:?}, thousand commits/s (CPU µs each)");
        let rows = names.iter().map(|name| {
            let cells = counts.iter().map(|count| {
                let found = series
                    .iter()
                    .find(|row| row.engine == *name && row.level == level && row.committers == *count);
                found.map_or_else(String::new, |row| {
                    format!("{:.1} ({:.1})", median(&row.per_second) / 1000.0, median(&row.cpu))
                })
            });
            std::iter::once(name.to_string()).chain(cells).collect()
        });
        let head = std::iter::once(title.as_str()).chain(heads.iter().map(String::as_str));
        print(format_args!("{}\n", table(head, rows.collect())));
    }
}

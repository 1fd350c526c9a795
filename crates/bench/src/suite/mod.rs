//! Measures all stores in all workloads. Each store does each group of workloads in a separate process.
//! Rounds are interleaved, and medians are shown.

mod drive;
mod keys;
#[cfg(feature = "plots")]
mod plot;
mod report;
mod sample;
mod workloads;

use crate::input::{positive, refuse};
use crate::output::{Record, bar, print};
use crate::stores::{self, Kind, Level};
use clap::ValueEnum;
use sample::Sample;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use workloads::{Bench, Group};

/// Compare stores in all workloads in memory.
#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// The numbers of threads, with one run for each.
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = positive)]
    threads: Vec<usize>,
    /// The numbers of keys, with one run for each.
    #[arg(long, value_delimiter = ',', default_value = "200000,1000000", value_parser = positive)]
    keys: Vec<usize>,
    /// How many times each workload runs; medians are shown.
    #[arg(long, default_value_t = 5, value_parser = positive)]
    rounds: usize,
    /// How many milliseconds a workload runs each time.
    #[arg(long, default_value_t = 1000, value_parser = positive)]
    milliseconds: usize,
    /// Run only these groups of workloads.
    #[arg(long, value_delimiter = ',')]
    groups: Vec<Group>,
    /// Measure only these stores. A name selects one store; a part of a name selects all stores whose
    /// names contain it.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Take a quick look of about two minutes: two threads, 20,000 keys, one round of 100 ms. This is
    /// too little for ratios.
    #[arg(long, conflicts_with_all = ["threads", "keys", "rounds", "milliseconds"])]
    quick: bool,
    /// The directory for the stores' files. By default it is on a file system in memory, if there is
    /// one, since this benchmark does not measure disks.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Also write the results into this directory, as JSON and as plots.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Show the results of an earlier run instead of running. Give the directory of its `--out`, or the
    /// JSON file in it.
    #[arg(long, conflicts_with_all = ["threads", "keys", "rounds", "milliseconds", "groups", "only", "quick"])]
    from: Option<PathBuf>,
}

/// The work of one process.
#[derive(clap::Args)]
pub(crate) struct Single {
    store: String,
    group: Group,
    threads: usize,
    keys: usize,
    milliseconds: u64,
    seed: u64,
    dir: PathBuf,
    /// End when standard input ends, so that this process dies with the one that started it.
    #[arg(long)]
    tied: bool,
}

/// A line of the output of a process.
#[derive(serde::Serialize, serde::Deserialize)]
enum Line {
    Sample(Sample),
    /// The store failed its check. The text says how.
    Failure(String),
}

/// The name of the results in the directory of `--out`.
const FILE: &str = "suite.json";

/// A process that prints nothing for longer is stuck. Even a slow store loads a million keys in about a
/// minute.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs the benchmark, or shows the results of an earlier run.
pub(crate) fn run(options: &Options, json: bool) {
    let missing = stores::missing();
    if !missing.is_empty() {
        eprintln!("Built without {}; --features peers adds all stores.", missing.join(", "));
    }
    if options.out.is_some() && cfg!(not(feature = "plots")) {
        eprintln!("Built without plots; --features peers or plots adds them.");
    }
    if let Some(out) = &options.out
        && let Err(error) = std::fs::create_dir_all(out)
    {
        refuse(&format!("cannot write the results to {}: {error}", out.display()));
    }
    let record: Record<Vec<Sample>> = match &options.from {
        Some(path) => {
            match std::fs::read_to_string(if path.is_dir() { path.join(FILE) } else { path.clone() }) {
                Ok(text) => serde_json::from_str(&text).unwrap_or_else(|error| {
                    refuse(&format!("{} is not a file that --out has written: {error}", path.display()))
                }),
                Err(error) => refuse(&format!("{}: {error}", path.display())),
            }
        }
        None => Record::new(run_all(&options.clone().quickened())),
    };
    if let Some(out) = &options.out {
        std::fs::write(out.join(FILE), record.to_json()).expect("the results are written");
        #[cfg(feature = "plots")]
        plot::draw_all(out, &record.results).expect("the plots are written");
    }
    match json {
        true => print(record.to_json()),
        false => report::print(&record),
    }
}

impl Options {
    fn quickened(mut self) -> Self {
        if self.quick {
            (self.threads, self.keys, self.rounds) = (vec![2], vec![20_000], 1);
            self.milliseconds = 100;
        }
        if self.groups.is_empty() {
            self.groups = Group::value_variants().to_vec();
        }
        self
    }

    /// The numbers of threads and of keys to run a group with.
    fn settings(&self, group: Group) -> Vec<(usize, usize)> {
        let threads = &self.threads[..if group.has_own_threads() { 1 } else { self.threads.len() }];
        let keys = &self.keys[..if group.has_own_keys() { 1 } else { self.keys.len() }];
        threads.iter().flat_map(|&threads| keys.iter().map(move |&keys| (threads, keys))).collect()
    }
}

/// The stores that `only` selects: all, if it is empty.
fn chosen(only: &[String]) -> Vec<&'static Kind> {
    let folded = |name: &str| name.to_lowercase();
    // A whole name selects only its store, and no other store with a longer name.
    let is_whole = |part: &str| stores::ALL.iter().any(|kind| folded(kind.name) == folded(part));
    let means = |part: &str, kind: &Kind| match is_whole(part) {
        true => folded(kind.name) == folded(part),
        false => folded(kind.name).contains(&folded(part)),
    };
    if let Some(part) = only.iter().find(|part| !stores::ALL.iter().any(|kind| means(part, kind))) {
        let names: Vec<&str> = stores::ALL.iter().map(|kind| kind.name).collect();
        refuse(&format!("no store is called {part}; there are: {}", names.join(", ")));
    }
    stores::ALL.iter().filter(|kind| only.is_empty() || only.iter().any(|part| means(part, kind))).collect()
}

fn run_all(options: &Options) -> Vec<Sample> {
    let kinds = chosen(&options.only);
    let dir = directory(options.dir.as_deref());
    if !dir.is_dir() {
        refuse(&format!("{} is not a directory", dir.display()));
    }
    let mut runs: Vec<(Group, usize, usize)> = Vec::new();
    for &group in &options.groups {
        runs.extend(options.settings(group).into_iter().map(|(threads, keys)| (group, threads, keys)));
    }
    let bar = bar(options.rounds * runs.len() * kinds.len());
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        for &(group, threads, keys) in &runs {
            // Rotate the order, so that another store is first in each round.
            for place in 0..kinds.len() {
                let kind = kinds[(place + round) % kinds.len()];
                bar.set_message(format!("round {}: {}, {group:?}", round + 1, kind.name));
                let single = Single {
                    store: kind.name.to_string(),
                    group,
                    threads,
                    keys,
                    milliseconds: options.milliseconds as u64,
                    seed: round as u64 + 1,
                    dir: dir.clone(),
                    tied: true,
                };
                samples.extend(in_a_process(&single));
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    samples
}

/// The directory for stores that need files.
fn directory(chosen: Option<&Path>) -> PathBuf {
    let shared_memory = Path::new("/dev/shm");
    match chosen {
        Some(dir) => dir.to_path_buf(),
        None if shared_memory.is_dir() => shared_memory.to_path_buf(),
        None => std::env::temp_dir(),
    }
}

/// Runs a group with a store in a new process, and returns the samples that it printed.
fn in_a_process(single: &Single) -> Vec<Sample> {
    let program = std::env::current_exe().expect("it runs");
    let group = single.group.to_possible_value().expect("none is hidden");
    let mut child = Command::new(program)
        .args(["single", &single.store, group.get_name()])
        .args([single.threads, single.keys].map(|number| number.to_string()))
        .args([single.milliseconds, single.seed].map(|number| number.to_string()))
        .arg(&single.dir)
        .args(single.tied.then_some("--tied"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    let mut samples: Vec<Sample> = Vec::new();
    let mut failure = None;
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => match serde_json::from_str(&line).expect("lines of ours") {
                Line::Sample(sample) => samples.push(sample),
                Line::Failure(what) => failure = Some(what),
            },
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                failure = Some(format!("the process printed nothing more in {} s", PATIENCE.as_secs()));
                let _ = child.kill();
                break;
            }
        }
    }
    let status = child.wait().expect("it ends");
    if !status.success() && failure.is_none() {
        failure = Some(format!("the process ended with {status}"));
    }
    if failure.is_some() && samples.is_empty() {
        // Add an empty sample, so that the report shows that the store failed before its first one.
        let (store, threads, keys) = (single.store.clone(), single.threads, single.keys);
        let nothing = Sample::of_figure(&format!("{}: ended early", group.get_name()), 0.0);
        samples.push(Sample { store, threads, keys, is_speed: true, ..nothing });
    }
    for sample in &mut samples {
        sample.failure.clone_from(&failure);
    }
    if let Some(failure) = failure {
        eprintln!("{}, {:?}: {failure}", single.store, single.group);
    }
    samples
}

/// Runs a group with a store in this process, and prints a [`Line`] for each sample.
pub(crate) fn run_single(single: &Single) {
    let kind = stores::ALL.iter().find(|kind| kind.name == single.store).expect("a store of this program");
    // End the process when a thread panics: the other threads would wait for it for ever.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::exit(101);
    }));
    let dir = tempfile::Builder::new().prefix("fluxmap-bench-").tempdir_in(&single.dir);
    let dir = dir.expect("a directory for the store");
    if single.tied {
        let dir = dir.path().to_path_buf();
        thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = std::fs::remove_dir_all(dir);
            std::process::exit(1);
        });
    }
    let store = (kind.open)(dir.path(), Level::Memory);
    let put = |line: &Line| print(serde_json::to_string(line).expect("lines are plain"));
    let note = |sample| {
        let (store, threads, keys) = (single.store.clone(), single.threads, single.keys);
        put(&Line::Sample(Sample { store, threads, keys, ..sample }));
    };
    let bench = Bench {
        dir: dir.path(),
        note: &note,
        store: &*store,
        threads: single.threads,
        keys: single.keys,
        time: Duration::from_millis(single.milliseconds),
        seed: single.seed,
    };
    if let Err(failure) = single.group.run(&bench) {
        put(&Line::Failure(failure));
    }
}

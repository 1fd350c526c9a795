//! Tables, progress bars, medians, and the description of a measurement.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use cpu_time::{ProcessTime, ThreadTime};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::{Command, exit};
use std::time::Duration;

/// The description of a measurement: its arguments, the program's commit, and the machine.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct About {
    /// The arguments of this program.
    arguments: Vec<String>,
    /// The commit that is checked out, with `-dirty` appended if a file has been changed; empty if git
    /// does not say.
    commit: String,
    /// The name of the processor; empty if the system does not say.
    processor: String,
    /// The number of threads that can run at a time.
    cores: usize,
    system: String,
}

impl About {
    /// The description of a measurement by this process.
    pub(crate) fn this() -> Self {
        let source = ["-C", env!("CARGO_MANIFEST_DIR")];
        let describe = ["describe", "--always", "--dirty", "--exclude=*"];
        let git = Command::new("git").args(source).args(describe).output();
        let commit = git.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
        let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        About {
            arguments: std::env::args().skip(1).collect(),
            commit: commit.unwrap_or_default(),
            processor: model.map_or_else(String::new, |(_, name)| name.to_string()),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

impl Display for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let About { arguments, commit, processor, cores, system } = self;
        write!(f, "`{}`; commit {commit}; {processor}, {cores} cores, {system}", arguments.join(" "))
    }
}

/// Results and their description. All JSON output of this program has this form.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record<R> {
    pub(crate) about: About,
    pub(crate) results: R,
}

impl<R: Serialize> Record<R> {
    /// A record of results that this process has measured.
    pub(crate) fn new(results: R) -> Self {
        Record { about: About::this(), results }
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("results are plain")
    }
}

/// Prints a line. If this fails, ends the program: without a message if the reader has closed its end of
/// the pipe.
pub(crate) fn print(line: impl Display) {
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit(0),
        Err(error) => {
            eprintln!("error: the results cannot be printed: {error}");
            exit(1);
        }
    }
}

/// A progress bar. It is hidden if standard error is not a terminal.
pub(crate) fn bar(steps: usize) -> ProgressBar {
    let bar =
        if std::io::stderr().is_terminal() { ProgressBar::new(steps as u64) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// The median of some numbers. Of an even number, it is the mean of the two in the middle.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
    (middle(sorted.len().saturating_sub(1) / 2) + middle(sorted.len() / 2)) / 2.0
}

/// A Markdown table whose columns, except the first, hold numbers.
pub(crate) fn table<'h>(header: impl IntoIterator<Item = &'h str>, rows: Vec<Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Processor time of all threads of this process so far; zero if the system does not say.
pub(crate) fn cpu_time() -> Duration {
    ProcessTime::try_now().map_or(Duration::ZERO, |time| time.as_duration())
}

/// Processor time of this thread so far; zero if the system does not say.
pub(crate) fn thread_cpu_time() -> Duration {
    ThreadTime::try_now().map_or(Duration::ZERO, |time| time.as_duration())
}

/// Resident memory of this process; zero if the system does not say.
pub(crate) fn resident_bytes() -> u64 {
    status("VmRSS:")
}

/// Resident memory of this process that belongs to no file; zero if the system does not say.
pub(crate) fn anonymous_bytes() -> u64 {
    status("RssAnon:")
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

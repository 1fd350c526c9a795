//! The results as Markdown: a table of all stores for each number of threads and keys, then the details of
//! each workload.

use super::sample::{QUANTILES, Sample};
use crate::output::{self, Record, median, table};

/// The samples of one store in one workload at one setting: one per round.
pub(crate) struct Cell<'s> {
    pub(crate) store: &'s str,
    pub(crate) samples: Vec<&'s Sample>,
}

impl Cell<'_> {
    fn figures(&self) -> impl Iterator<Item = f64> {
        self.samples.iter().map(|sample| sample.figure)
    }

    pub(crate) fn median(&self) -> f64 {
        median(&self.figures().collect::<Vec<_>>())
    }

    pub(crate) fn min(&self) -> f64 {
        self.figures().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.figures().fold(0.0, f64::max)
    }

    /// Whether the store failed its check in any round.
    pub(crate) fn failed(&self) -> bool {
        self.samples.iter().any(|sample| sample.failure.is_some())
    }

    /// The median of the processor time per operation, in microseconds.
    pub(crate) fn cpu(&self) -> Option<f64> {
        self.median_of(|sample| sample.cpu)
    }

    fn median_of(&self, part: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let parts: Vec<f64> = self.samples.iter().filter_map(|sample| part(sample)).collect();
        (!parts.is_empty()).then(|| median(&parts))
    }

    /// The median of a quantile of the latencies, in nanoseconds.
    pub(crate) fn quantile(&self, place: usize) -> Option<f64> {
        self.median_of(|sample| sample.latencies.map(|latencies| latencies[place] as f64))
    }
}

/// A workload at one number of threads and of keys.
pub(crate) struct Row<'s> {
    pub(crate) workload: &'s str,
    pub(crate) threads: usize,
    pub(crate) keys: usize,
    pub(crate) cells: Vec<Cell<'s>>,
}

/// Groups the samples by workload, threads and keys, and then by store, in their order.
pub(crate) fn rows(samples: &[Sample]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for sample in samples {
        let setting = (sample.workload.as_str(), sample.threads, sample.keys);
        let place = rows.iter().position(|row| (row.workload, row.threads, row.keys) == setting);
        let place = place.unwrap_or_else(|| {
            let (workload, threads, keys) = setting;
            rows.push(Row { workload, threads, keys, cells: Vec::new() });
            rows.len() - 1
        });
        let cells = &mut rows[place].cells;
        match cells.iter_mut().find(|cell| cell.store == sample.store) {
            Some(cell) => cell.samples.push(sample),
            None => cells.push(Cell { store: &sample.store, samples: vec![sample] }),
        }
    }
    rows
}

/// A workload at one number of threads and several numbers of keys.
pub(crate) struct Growth<'s, 'r> {
    pub(crate) workload: &'s str,
    pub(crate) threads: usize,
    /// One row for each number of keys, in increasing order.
    pub(crate) rows: Vec<&'r Row<'s>>,
}

/// The least number of different numbers of keys for which the growth of costs is shown.
const SIZES: usize = 3;

/// The workloads that were run with at least [`SIZES`] numbers of keys.
pub(crate) fn growths<'s, 'r>(rows: &'r [Row<'s>]) -> Vec<Growth<'s, 'r>> {
    let mut growths: Vec<Growth<'s, 'r>> = Vec::new();
    for row in rows.iter().filter(|row| row.cells[0].samples[0].is_speed) {
        let setting = (row.workload, row.threads);
        match growths.iter_mut().find(|growth| (growth.workload, growth.threads) == setting) {
            Some(growth) => growth.rows.push(row),
            None => growths.push(Growth { workload: row.workload, threads: row.threads, rows: vec![row] }),
        }
    }
    growths.retain_mut(|growth| {
        growth.rows.sort_by_key(|row| row.keys);
        growth.rows.len() >= SIZES
    });
    growths
}

/// A number with three significant digits.
fn short(number: f64) -> String {
    match number {
        ..10.0 => format!("{number:.2}"),
        ..100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

/// A figure in the unit of the tables: thousands a second, or the unit in the workload's name.
fn figure(sample: &Sample, figure: f64) -> String {
    short(if sample.is_speed { figure / 1000.0 } else { figure })
}

/// The median of a cell as text, in brackets if the store failed its check.
fn shown(cell: &Cell<'_>) -> String {
    let text = figure(cell.samples[0], cell.median());
    if cell.failed() { format!("({text})") } else { text }
}

/// Prints all tables.
pub(crate) fn print(Record { about, results: samples }: &Record<Vec<Sample>>) {
    output::print(about);
    let rows = rows(samples);
    let mut stores: Vec<&str> = Vec::new();
    for kind in crate::stores::ALL {
        if samples.iter().any(|sample| sample.store == kind.name) {
            stores.push(kind.name);
        }
    }
    let mut settings: Vec<(usize, usize)> = Vec::new();
    for row in &rows {
        if !settings.contains(&(row.threads, row.keys)) {
            settings.push((row.threads, row.keys));
        }
    }
    for (threads, keys) in settings {
        output::print(format_args!("\n### {threads} threads, {keys} keys\n"));
        output::print(format_args!(
            "Thousand operations per second, or bytes; medians. In brackets: the store failed its check. \
            Empty: the store cannot do this. Workloads that name a number of accounts have their own keys.\n"
        ));
        let own = rows.iter().filter(|row| (row.threads, row.keys) == (threads, keys));
        let lines = own.map(|row| {
            let cells = stores.iter().map(|store| {
                row.cells.iter().find(|cell| cell.store == *store).map_or_else(String::new, shown)
            });
            std::iter::once(row.workload.to_string()).chain(cells).collect()
        });
        output::print(table(std::iter::once("").chain(stores.iter().copied()), lines.collect()));
    }
    for growth in growths(&rows) {
        output::print(format_args!(
            "\n### {}, {} threads: µs of processor time\n",
            growth.workload, growth.threads
        ));
        let lines = growth.rows.iter().map(|row| {
            let cells = stores.iter().map(|store| {
                let found = row.cells.iter().find(|cell| cell.store == *store).and_then(Cell::cpu);
                found.map_or_else(String::new, short)
            });
            std::iter::once(row.keys.to_string()).chain(cells).collect()
        });
        output::print(table(std::iter::once("keys").chain(stores.iter().copied()), lines.collect()));
    }
    for row in rows.iter().filter(|row| row.cells[0].samples[0].is_speed) {
        output::print(format_args!("\n#### {}, {} threads, {} keys\n", row.workload, row.threads, row.keys));
        let header = ["", "k/s", "min", "max", "CPU µs", "aborts, %", "p50 µs", "p99 µs", "p99.9 µs"];
        output::print(table(header, row.cells.iter().map(details).collect()));
    }
}

fn details(cell: &Cell<'_>) -> Vec<String> {
    let first = cell.samples[0];
    let or_empty = |number: Option<f64>| number.map_or_else(String::new, short);
    let mut columns = vec![cell.store.to_string(), shown(cell)];
    columns.extend([cell.min(), cell.max()].map(|number| figure(first, number)));
    columns.push(or_empty(cell.cpu()));
    columns.push(or_empty(cell.median_of(|sample| sample.aborts)));
    for wanted in [0.5, 0.99, 0.999] {
        let place = QUANTILES.iter().position(|quantile| *quantile == wanted);
        let nanoseconds = place.and_then(|place| cell.quantile(place));
        columns.push(or_empty(nanoseconds.map(|nanoseconds| nanoseconds / 1000.0)));
    }
    columns
}

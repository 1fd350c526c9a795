//! The benchmark program: every store does the same work on the same keys, in
//! interleaved rounds, and the table shows medians.
//!
//! So far single-threaded, and beside the ordered and hashed maps that a Rust
//! program would otherwise use; none of them but FluxMap has transactions.

#![forbid(unsafe_code)]

mod stores;
mod workload;

use clap::Parser;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use stores::Store;
use workload::{Keys, Workload};

/// Compares FluxMap with other in-memory maps, single-threaded.
#[derive(Parser)]
struct Options {
    /// How many keys each store holds.
    #[arg(long, default_value_t = 200_000)]
    keys: usize,
    /// How many times each store does each workload; medians are shown.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Operations per round (a scan of 100 counts as 20).
    #[arg(long, default_value_t = 400_000)]
    operations: usize,
    /// Only stores whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only workloads whose names contain this (and the load, which they need).
    #[arg(long, default_value = "")]
    workload: String,
    /// Prints JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Nanoseconds per operation of one store in one workload: one per round.
#[derive(serde::Serialize)]
struct Series {
    store: &'static str,
    workload: &'static str,
    nanoseconds: Vec<f64>,
}

impl Series {
    fn median(&self) -> f64 {
        let mut sorted = self.nanoseconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

fn main() {
    let options = Options::parse();
    let keys = Keys::new(options.keys);
    let makers: Vec<_> =
        stores::all().into_iter().filter(|(name, _)| name.contains(options.only.as_str())).collect();
    let steps = options.rounds * makers.len();
    let bar =
        if std::io::stderr().is_terminal() { ProgressBar::new(steps as u64) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}") {
        bar.set_style(style);
    }

    let mut series: Vec<Series> = Vec::new();
    for round in 0..options.rounds {
        for (name, make) in &makers {
            bar.set_message(*name);
            let store: Box<dyn Store> = make();
            for workload in Workload::ALL {
                if !workload.name().contains(options.workload.as_str())
                    && !workload.name().starts_with("load")
                {
                    continue;
                }
                let nanoseconds = workload.run(&*store, &keys, options.operations, round as u64);
                let known =
                    series.iter_mut().find(|row| row.store == *name && row.workload == workload.name());
                match known {
                    Some(row) => row.nanoseconds.push(nanoseconds),
                    None => series.push(Series {
                        store: name,
                        workload: workload.name(),
                        nanoseconds: vec![nanoseconds],
                    }),
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    match options.json {
        true => println!("{}", serde_json::to_string(&series).unwrap_or_default()),
        false => print_table(&series, &makers.iter().map(|(name, _)| *name).collect::<Vec<_>>()),
    }
}

fn print_table(series: &[Series], names: &[&'static str]) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(std::iter::once("ns per operation").chain(names.iter().copied()));
    for workload in Workload::ALL {
        let row = names.iter().map(|name| {
            let found = series.iter().find(|row| row.store == *name && row.workload == workload.name());
            found.map_or_else(String::new, |row| format!("{:.0}", row.median()))
        });
        table.add_row(std::iter::once(workload.name().to_string()).chain(row));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

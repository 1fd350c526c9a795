//! Beside other in-memory maps, single-threaded: every store does the same work on the
//! same keys, in interleaved rounds, and the table shows medians. None of the others has
//! transactions.

use crate::output::{bar, median, table};
use crate::stores::{self, Store};
use crate::workload::{Keys, Workload};

/// Compares FluxMap with other in-memory maps, single-threaded.
#[derive(clap::Args)]
pub(crate) struct Options {
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
}

/// Nanoseconds per operation of one store in one workload: one per round.
#[derive(serde::Serialize)]
struct Series {
    store: &'static str,
    workload: &'static str,
    nanoseconds: Vec<f64>,
}

/// Runs it.
pub(crate) fn run(options: &Options, json: bool) {
    let keys = Keys::new(options.keys);
    let makers: Vec<_> =
        stores::all().into_iter().filter(|(name, _)| name.contains(options.only.as_str())).collect();
    let bar = bar(options.rounds * makers.len());
    let mut series: Vec<Series> = Vec::new();
    for round in 0..options.rounds {
        for (name, make) in &makers {
            bar.set_message(name.to_string());
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
    match json {
        true => println!("{}", serde_json::to_string(&series).unwrap_or_default()),
        false => print_table(&series, &makers.iter().map(|(name, _)| *name).collect::<Vec<_>>()),
    }
}

fn print_table(series: &[Series], names: &[&'static str]) {
    let mut rows = Vec::new();
    for workload in Workload::ALL {
        let row = names.iter().map(|name| {
            let found = series.iter().find(|row| row.store == *name && row.workload == workload.name());
            found.map_or_else(String::new, |row| format!("{:.0}", median(&row.nanoseconds)))
        });
        rows.push(std::iter::once(workload.name().to_string()).chain(row).collect());
    }
    println!("{}", table(std::iter::once("ns per operation").chain(names.iter().copied()), rows));
}

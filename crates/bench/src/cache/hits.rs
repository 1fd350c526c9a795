//! Hit ratios: the share of the requests of real traces that find their key.

use super::trace::{SOURCE, Trace};
use super::{is_wanted, plot, stores};
use crate::output::{Record, bar, print, table};
use serde::Serialize;
use std::path::PathBuf;

/// Compare hit ratios on traces, with entries of equal size.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Traces: text compressed with zstd, with a decimal key on each line.
    #[arg(required = true)]
    traces: Vec<PathBuf>,
    /// Measure these policies and caches only.
    #[arg(long, value_delimiter = ',')]
    policies: Vec<String>,
    /// The number of entries that fit, in per cent of the trace's different keys.
    #[arg(long, value_delimiter = ',', default_value = "1,5,10")]
    sizes: Vec<f64>,
    /// Write a plot for each trace into this directory.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// The hit ratio of one store on one trace at one size.
#[derive(Serialize)]
pub(crate) struct Hits {
    pub(crate) trace: String,
    pub(crate) store: &'static str,
    pub(crate) size_percent: f64,
    pub(crate) entries: usize,
    pub(crate) hit_percent: f64,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options, json: bool) {
    let makers: Vec<_> =
        stores::all().into_iter().filter(|(name, _)| is_wanted(&options.policies, name)).collect();
    let bar = bar(options.traces.len() * options.sizes.len() * makers.len());
    let mut hits: Vec<Hits> = Vec::new();
    for path in &options.traces {
        bar.set_message(format!("read {}", path.display()));
        let trace = match Trace::read(path) {
            Ok(trace) => trace,
            Err(error) => {
                eprintln!("{} is not a trace: {error}", path.display());
                std::process::exit(1);
            }
        };
        let first = hits.len();
        for &size in &options.sizes {
            let entries = trace.entries(size);
            for (name, make) in &makers {
                bar.set_message(format!("{} at {size} %, {name}", trace.name));
                let mut store = make(entries);
                let found = trace.keys.iter().filter(|&&key| store.request(key)).count();
                hits.push(Hits {
                    trace: trace.name.clone(),
                    store: name,
                    size_percent: size,
                    entries,
                    hit_percent: 100.0 * found as f64 / trace.keys.len() as f64,
                });
                bar.inc(1);
            }
        }
        if let Some(dir) = &options.plot
            && let Err(error) = plot::draw(dir, &hits[first..])
        {
            eprintln!("the plot cannot be written: {error}");
            std::process::exit(1);
        }
    }
    bar.finish_and_clear();
    match json {
        true => print(Record::new(serde_json::json!({ "source": SOURCE, "hits": hits })).to_json()),
        false => print_table(&hits, &makers.iter().map(|(name, _)| *name).collect::<Vec<_>>()),
    }
}

fn print_table(hits: &[Hits], names: &[&'static str]) {
    // `hits` lists all stores for the first trace and size, then for the next: a chunk is a row.
    let mut rows: Vec<Vec<String>> = hits
        .chunks(names.len())
        .map(|row| {
            let label = format!("{} at {} %: {}", row[0].trace, row[0].size_percent, row[0].entries);
            let figures = row.iter().map(|hits| format!("{:.1}", hits.hit_percent));
            std::iter::once(label).chain(figures).collect()
        })
        .collect();
    let means = (0..names.len()).map(|column| {
        let column = hits.iter().skip(column).step_by(names.len()).map(|hits| hits.hit_percent);
        format!("{:.2}", column.sum::<f64>() / rows.len() as f64)
    });
    rows.push(std::iter::once("mean".to_string()).chain(means).collect());
    print(table(std::iter::once("hits, %, with so many entries").chain(names.iter().copied()), rows));
    print(format_args!("\n{SOURCE}"));
}

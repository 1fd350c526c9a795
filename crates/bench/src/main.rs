//! The benchmark program. It measures FluxMap side by side with other stores, in one run, in interleaved
//! rounds, and shows medians.

#![forbid(unsafe_code)]

#[cfg(feature = "cache")]
mod cache;
mod durable;
mod input;
mod output;
mod recovery;
mod stores;
mod suite;

use clap::{Parser, Subcommand};

/// FluxMap side by side with its peers.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    Suite(suite::Options),
    /// Measure one store in one group of workloads; `suite` starts this.
    #[command(hide = true)]
    Single(suite::Single),
    Durable(durable::Options),
    Recovery(recovery::Options),
    #[cfg(feature = "cache")]
    Hits(cache::hits::Options),
    #[cfg(feature = "cache")]
    Cache(cache::cost::Options),
}

fn main() {
    let options = Options::parse();
    match &options.what {
        What::Suite(suite) => suite::run(suite, options.json),
        What::Single(single) => suite::run_single(single),
        What::Durable(durable) => durable::run(durable, options.json),
        What::Recovery(recovery) => recovery::run(recovery, options.json),
        #[cfg(feature = "cache")]
        What::Hits(hits) => cache::hits::run(hits, options.json),
        #[cfg(feature = "cache")]
        What::Cache(cost) => cache::cost::run(cost, options.json),
    }
}

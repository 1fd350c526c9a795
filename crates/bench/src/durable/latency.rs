//! Latencies of commits while segments are changed and checkpoints are written.

use super::bare::Loop;
use super::{Engine, key};
use crate::output::{Record, print, table};
use crate::stores::{Level, value};
use fluxmap::Database;
use fluxmap::persistence::PersistenceOptions;
use futures::executor::block_on;
use hdrhistogram::Histogram;
use std::path::Path;
use std::time::{Duration, Instant};

const TIME: Duration = Duration::from_secs(10);

/// Prints the latencies of a bare loop and of commits, each with one committer at `Full`. Segments are
/// 1 MiB long, so that the run contains many changes of segment and several checkpoints.
pub(crate) fn run(dir: &Path, json: bool) {
    let bare = Loop::new(dir, Level::Full);
    let bare = sample(|number| bare.commit(0, number));
    let options = PersistenceOptions {
        wal_segment_size_bytes: 1 << 20,
        wal_pool_size: 4,
        ..PersistenceOptions::new(dir.join("latency"))
    };
    let builder = Database::<String, Vec<u8>>::builder().durability_full(options);
    let db = block_on(builder.build()).expect("it opens");
    let commits = sample(|number| {
        block_on(db.insert(key(0, number), value(number as i64))).expect("it commits");
    });
    if json {
        let figures = |histogram: &Histogram<u64>| {
            [0.5, 0.99, 0.999, 1.0].map(|quantile| histogram.value_at_quantile(quantile))
        };
        let latencies = serde_json::json!({ "bare": figures(&bare), "commits": figures(&commits) });
        return print(Record::new(latencies).to_json());
    }
    let row = |name: &str, histogram: &Histogram<u64>| {
        let mut row = vec![name.to_string(), histogram.len().to_string()];
        row.extend([0.5, 0.99, 0.999, 1.0].map(|quantile| histogram.value_at_quantile(quantile).to_string()));
        row
    };
    let rows = vec![row("bare write and sync", &bare), row("commit", &commits)];
    print(table(["latency, µs", "samples", "p50", "p99", "p99.9", "longest"], rows));
}

fn sample(mut commit: impl FnMut(u64)) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("three digits are fine");
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < TIME {
        let before = Instant::now();
        commit(number);
        histogram.saturating_record(before.elapsed().as_micros() as u64);
        number += 1;
    }
    histogram
}

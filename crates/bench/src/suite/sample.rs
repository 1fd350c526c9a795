//! The measurements of one store in one workload by one process.

use super::drive::Outcome;
use serde::{Deserialize, Serialize};

/// The quantiles of a run's latencies that a sample keeps.
pub(crate) const QUANTILES: [f64; 8] = [0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 1.0];

/// The measurements of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) store: String,
    pub(crate) workload: String,
    pub(crate) threads: usize,
    pub(crate) keys: usize,
    /// Operations a second, or a figure in the unit that the workload's name says.
    pub(crate) figure: f64,
    pub(crate) is_speed: bool,
    /// Microseconds of processor time per operation; see [`Outcome::cpu`].
    pub(crate) cpu: Option<f64>,
    /// The share of attempts to commit that lost a conflict, in per cent.
    pub(crate) aborts: Option<f64>,
    /// Latencies in nanoseconds, at [`QUANTILES`].
    pub(crate) latencies: Option<[u64; QUANTILES.len()]>,
    /// Says how the store failed its check, if it did.
    pub(crate) failure: Option<String>,
}

impl Sample {
    /// A sample of another figure than a speed.
    pub(crate) fn of_figure(workload: &str, figure: f64) -> Self {
        Sample {
            store: String::new(),
            workload: workload.to_string(),
            threads: 0,
            keys: 0,
            figure,
            is_speed: false,
            cpu: None,
            aborts: None,
            latencies: None,
            failure: None,
        }
    }

    pub(crate) fn of_outcome(workload: &str, outcome: &Outcome) -> Self {
        let operations = outcome.operations.max(1) as f64;
        let attempts = (outcome.operations + outcome.aborts).max(1) as f64;
        Sample {
            is_speed: true,
            cpu: Some(outcome.cpu.as_secs_f64() * 1e6 / operations),
            aborts: Some(outcome.aborts as f64 * 100.0 / attempts),
            latencies: (!outcome.latencies.is_empty())
                .then(|| QUANTILES.map(|quantile| outcome.latencies.value_at_quantile(quantile))),
            ..Sample::of_figure(workload, outcome.operations as f64 / outcome.time.as_secs_f64())
        }
    }
}

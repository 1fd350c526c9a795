//! The report of a finished demo: a table for people, a JSON object for programs.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use fluxmap::persistence::RecoveryInfo;
use serde_json::{Value, json};

use super::bank::Audit;
use super::durable;
use super::latency::Latencies;
use crate::memory::mebibytes;
use crate::output::thousands;

/// The result of a run, after all its tasks have ended.
pub(super) struct Report {
    /// The isolation level that was asked for.
    pub(super) isolation: &'static str,
    /// The number of tasks that made transfers.
    pub(super) tasks: u32,
    /// The number of tasks that made audits.
    pub(super) auditors: u32,
    /// The seed that was given, or chosen at random.
    pub(super) seed: u64,
    /// How long the tasks ran.
    pub(super) took: Duration,
    /// Transfers that moved money.
    pub(super) transfers: u64,
    /// How often a transfer ran again after a conflict.
    pub(super) retries: u64,
    /// Transfers that moved nothing for lack of funds.
    pub(super) insufficient: u64,
    /// Transfers that the database gave up after too many conflicts.
    pub(super) given_up: u64,
    /// Audits made, the last one included.
    pub(super) audits: u64,
    /// Audits with a wrong result.
    pub(super) failed_audits: u64,
    /// The result that every audit must have.
    pub(super) expected: Audit,
    /// The result of the audit after all tasks had ended.
    pub(super) last: Audit,
    /// The latencies of the transfers that moved money.
    pub(super) latencies: Latencies,
    /// Resident memory before the first transfer, in bytes.
    pub(super) resident_at_start: Option<u64>,
    /// Resident memory after the last audit, in bytes.
    pub(super) resident_at_end: Option<u64>,
    /// The durability level; `None` for a bank in memory.
    pub(super) level: Option<&'static str>,
    /// The recovery when the bank was opened; `None` for a bank in memory.
    pub(super) recovery: Option<RecoveryInfo>,
    /// The result of the audit after the bank was closed and opened again; `None` for a bank in memory.
    pub(super) reopened: Option<Audit>,
}

impl Report {
    /// Whether no money was made or lost.
    pub(super) fn is_good(&self) -> bool {
        let good = |found: Audit| found == self.expected;
        self.failed_audits == 0 && good(self.last) && self.reopened.is_none_or(good)
    }

    fn per_second(&self) -> f64 {
        let seconds = self.took.as_secs_f64();
        if seconds > 0.0 { self.transfers as f64 / seconds } else { 0.0 }
    }

    /// Rows of a name and a value.
    pub(super) fn to_table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        let seconds = format!("{:.1} s", self.took.as_secs_f64());
        let memory = [self.resident_at_start, self.resident_at_end].map(mebibytes).join(" -> ");
        let rows = [
            ("isolation", self.isolation.to_owned()),
            ("accounts", thousands(self.expected.accounts)),
            ("tasks + auditors", format!("{} + {}", self.tasks, self.auditors)),
            ("seed", self.seed.to_string()),
            ("time", seconds),
            ("transfers committed", thousands(self.transfers)),
            ("transfers/s", thousands(self.per_second().round() as u64)),
            ("latency p50", self.latency(0.5)),
            ("latency p99", self.latency(0.99)),
            ("retries", thousands(self.retries)),
            ("insufficient funds", thousands(self.insufficient)),
            ("given up", thousands(self.given_up)),
            ("audits", thousands(self.audits)),
            ("sum in every audit", thousands(self.expected.sum)),
            ("failed audits", thousands(self.failed_audits)),
            ("sum at the end", thousands(self.last.sum)),
            ("memory", memory),
        ];
        let durable = [
            ("sum after it was opened again", self.reopened.map(|found| thousands(found.sum))),
            ("durability", self.level.map(str::to_owned)),
        ];
        let durable = durable.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (name, value) in rows.into_iter().chain(durable) {
            table.add_row(vec![name.to_owned(), value]);
        }
        if let Some(values) = table.column_mut(1) {
            values.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn latency(&self, share: f64) -> String {
        match self.latencies.percentile(share) {
            // Below ten microseconds, the tenths matter.
            Some(latency) if latency < Duration::from_micros(10) => {
                format!("{:.1} µs", microseconds(latency))
            }
            Some(latency) => format!("{} µs", thousands(latency.as_micros() as u64)),
            None => "-".to_owned(),
        }
    }

    /// The report as JSON, with numbers instead of formatted text.
    pub(super) fn to_json(&self) -> Value {
        let percentile = |share| self.latencies.percentile(share).map(microseconds);
        let mut object = json!({
            "isolation": self.isolation,
            "accounts": self.expected.accounts,
            "tasks": self.tasks,
            "auditors": self.auditors,
            "seed": self.seed,
            "seconds": self.took.as_secs_f64(),
            "transfers": self.transfers,
            "transfers_per_second": self.per_second(),
            "latency_p50_us": percentile(0.5),
            "latency_p99_us": percentile(0.99),
            "retries": self.retries,
            "insufficient_funds": self.insufficient,
            "given_up": self.given_up,
            "audits": self.audits,
            "failed_audits": self.failed_audits,
            "expected_sum": self.expected.sum,
            "final_sum": self.last.sum,
            "final_accounts": self.last.accounts,
            "resident_bytes_at_start": self.resident_at_start,
            "resident_bytes_at_end": self.resident_at_end,
        });
        if let (Some(level), Some(recovery), Some(reopened)) = (self.level, &self.recovery, self.reopened) {
            object["durability"] = level.into();
            object["recovery"] = durable::to_json(recovery);
            object["reopened_sum"] = reopened.sum.into();
            object["reopened_accounts"] = reopened.accounts.into();
        }
        object
    }
}

fn microseconds(latency: Duration) -> f64 {
    latency.as_nanos() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let expected = Audit { sum: 2_000, accounts: 2 };
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_micros(10)).unwrap();
        Report {
            isolation: "serializable",
            tasks: 1,
            auditors: 1,
            seed: 9,
            took: Duration::from_secs(2),
            transfers: 3_000,
            retries: 4,
            insufficient: 5,
            given_up: 0,
            audits: 6,
            failed_audits: 0,
            expected,
            last: expected,
            latencies,
            resident_at_start: None,
            resident_at_end: None,
            level: None,
            recovery: None,
            reopened: None,
        }
    }

    #[test]
    fn the_table_and_the_object_agree() {
        let text = report().to_table().to_string();
        assert!(text.contains("3,000") && text.contains("1,500"), "{text}");
        let object = report().to_json();
        assert_eq!((&object["transfers"], &object["transfers_per_second"]), (&json!(3_000), &json!(1_500.0)));
    }

    #[test]
    fn a_wrong_audit_or_a_wrong_end_is_not_good() {
        assert!(report().is_good());
        assert!(!Report { failed_audits: 1, ..report() }.is_good());
        assert!(!Report { last: Audit { sum: 1_999, accounts: 2 }, ..report() }.is_good());
        assert!(!Report { last: Audit { sum: 2_000, accounts: 1 }, ..report() }.is_good());
        let half = Audit { sum: 1_000, accounts: 2 };
        assert!(!Report { reopened: Some(half), ..report() }.is_good());
    }
}

//! `fluxmap demo`: no audit may find that money was made or lost.

mod common;

use common::{object, run};
use serde_json::Value;

fn demo(options: &[&str]) -> Value {
    let mut arguments = vec!["demo", "--json", "--seconds", "1"];
    arguments.extend(options);
    let run = run(&arguments);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.err, "", "no progress is shown without a terminal");
    assert_eq!(run.lines().len(), 1, "{run:?}");
    object(&run.out)
}

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"))
}

fn assert_sound(report: &Value, accounts: u64) {
    assert!(number(report, "transfers") > 0, "{report}");
    assert_eq!(number(report, "failed_audits"), 0, "{report}");
    assert_eq!(number(report, "accounts"), accounts, "{report}");
    assert_eq!(number(report, "final_accounts"), accounts, "{report}");
    assert_eq!(number(report, "expected_sum"), accounts * 1_000, "{report}");
    assert_eq!(number(report, "final_sum"), accounts * 1_000, "{report}");
    let seconds = report["seconds"].as_f64().expect("a number");
    assert!((1.0..30.0).contains(&seconds), "{report}");
    let percentile = |name: &str| report[name].as_f64().unwrap_or_else(|| panic!("{name}"));
    assert!(percentile("latency_p50_us") > 0.0, "{report}");
    assert!(percentile("latency_p99_us") >= percentile("latency_p50_us"), "{report}");
}

#[test]
fn audits_find_the_sum_at_both_isolation_levels() {
    for isolation in ["serializable", "snapshot"] {
        let report = demo(&["--isolation", isolation, "--accounts", "200"]);
        assert_sound(&report, 200);
        // One audit is made after the end. More than two show that the auditors ran as well.
        assert!(number(&report, "audits") > 2, "{report}");
        assert_eq!(report["isolation"], isolation);
    }
}

#[test]
fn transfers_that_meet_are_tried_again_and_lose_nothing() {
    let report = demo(&["--accounts", "2", "--tasks", "16", "--seed", "7"]);
    assert_sound(&report, 2);
    assert!(number(&report, "retries") > 0, "{report}");
    assert!(number(&report, "insufficient_funds") > 0, "{report}");
    assert_eq!(number(&report, "seed"), 7);
}

#[test]
fn a_bank_without_auditors_is_audited_at_the_end() {
    let report = demo(&["--auditors", "0", "--tasks", "1"]);
    assert_sound(&report, 1_000);
    assert_eq!(number(&report, "audits"), 1, "{report}");
    assert_eq!(number(&report, "retries"), 0, "one task alone meets no conflict: {report}");
}

#[test]
fn the_report_is_a_table() {
    let run = run(&["demo", "--seconds", "1", "--tasks", "2", "--auditors", "1"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    for row in ["transfers committed", "retries", "insufficient funds", "failed audits", "1,000,000"] {
        assert!(run.out.contains(row), "{row} in\n{}", run.out);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_report_tells_the_memory() {
    let report = demo(&["--tasks", "1"]);
    assert!(number(&report, "resident_bytes_at_start") > 100_000, "{report}");
    assert!(number(&report, "resident_bytes_at_end") > 100_000, "{report}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for options in [["--accounts", "1"], ["--tasks", "0"], ["--seconds", "0"], ["--isolation", "none"]] {
        let run = run(&["demo", options[0], options[1]]);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{run:?}");
        assert!(run.err.contains(options[0]), "{run:?}");
    }
}

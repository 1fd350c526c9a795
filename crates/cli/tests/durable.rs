//! `fluxmap demo --durable` and `--crash-test`: nothing that was acknowledged is lost.

mod common;

use common::{Files, object, run};
use serde_json::Value;

fn number(object: &Value, name: &str) -> u64 {
    object[name].as_u64().unwrap_or_else(|| panic!("{name} in {object}"))
}

fn demo(dir: &str, options: &[&str]) -> Value {
    let arguments = ["demo", "--json", "--seconds", "1", "--tasks", "4", "--durable", dir];
    let run = run(&[&arguments, options].concat());
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{run:?}");
    object(&run.out)
}

#[test]
fn a_bank_on_disk_goes_on_where_it_was() {
    let files = Files::new();
    let dir = files.path().join("bank").display().to_string();
    let small = ["--segments", "2", "--segment-kib", "16"];
    let runs: [(&[&str], u64); 3] = [
        (&["--full", "--accounts", "50"], 50),
        (&["--relaxed", "--flush-commits", "100", "--accounts", "20"], 50),
        (&["--relaxed", "--flush-interval", "5", "--flush-bytes", "9999", "--accounts", "70"], 70),
    ];
    let mut last = 0;
    for (options, accounts) in runs {
        let report = demo(&dir, &[options, &small].concat());
        assert!(number(&report, "transfers") > 0, "{report}");
        assert_eq!(number(&report, "failed_audits"), 0, "{report}");
        assert_eq!(number(&report, "accounts"), accounts, "{report}");
        assert_eq!(number(&report, "reopened_accounts"), accounts, "{report}");
        assert_eq!(number(&report, "reopened_sum"), accounts * 1_000, "{report}");
        assert_eq!(report["durability"], options[0][2..], "{report}");
        let recovery = &report["recovery"];
        assert_eq!(recovery["created"], last == 0, "{report}");
        assert!(number(recovery, "last_commit") >= last, "{report}");
        last = number(recovery, "last_commit") + number(&report, "transfers");
    }
}

#[test]
fn the_table_tells_of_the_disk() {
    let files = Files::new();
    let dir = files.path().join("bank").display().to_string();
    let run = run(&["demo", "--seconds", "1", "--tasks", "1", "--durable", &dir]);
    assert_eq!((run.code, run.err.as_str()), (0, "a new bank\n"), "{run:?}");
    for row in ["sum after it was opened again", "durability", "full"] {
        assert!(run.out.contains(row), "{row} in\n{}", run.out);
    }
}

#[test]
fn a_database_that_is_no_bank_is_refused() {
    let files = Files::new();
    let dir = files.path().join("db").display().to_string();
    assert_eq!(run(&["shell", &dir, "--create", "set a b"]).code, 0);
    let refused = run(&["demo", "--durable", &dir, "--seconds", "1"]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{refused:?}");
    assert!(refused.err.contains("key type"), "{refused:?}");
}

fn crash_test(options: &[&str]) -> Vec<Value> {
    let arguments = ["demo", "--json", "--crash-test", "5", "--accounts", "100", "--segments", "2"];
    let run = run(&[&arguments, options].concat());
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{run:?}");
    run.objects()
}

#[test]
fn killed_processes_lose_nothing_that_they_had_acknowledged() {
    let files = Files::new();
    let dir = files.path().join("bank").display().to_string();
    let variants: [&[&str]; 3] = [
        &["--full", "--segment-kib", "8"],
        &["--relaxed", "--segment-kib", "8"],
        // This variant runs twice in the same directory.
        &["--relaxed", "--flush-commits", "50", "--durable", &dir],
    ];
    for options in [variants[0], variants[1], variants[2], variants[2]] {
        let objects = crash_test(options);
        let (summary, rounds) = objects.split_last().expect("a summary");
        assert_eq!(rounds.len(), 5, "{objects:?}");
        assert_eq!((number(summary, "lost"), number(summary, "wrong")), (0, 0), "{summary}");
        assert!(number(summary, "acknowledged") > 0, "{summary}");
        for round in rounds {
            assert!(number(round, "recovered") >= number(round, "acknowledged"), "{round}");
            assert_eq!(number(round, "sum"), 100_000, "{round}");
        }
    }
}

#[test]
fn the_rounds_are_a_table() {
    let run = run(&["demo", "--crash-test", "2", "--accounts", "10", "--tasks", "2", "--seed", "1"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{run:?}");
    for text in ["acknowledged", "recovered", "lost", "2 killed (full, seed 1)", "every audit was right"] {
        assert!(run.out.contains(text), "{text} in\n{}", run.out);
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for options in [
        &["--full"][..],
        &["--segments", "2"],
        &["--crash-test", "1", "--full", "--relaxed"],
        &["--crash-test", "1", "--seconds", "2"],
        &["--flush-interval", "5"],
        &["--crash-test", "0"],
        &["--crash-test", "1", "--relaxed", "--flush-commits", "0"],
        &["--crash-test", "1", "--segment-kib", "1"],
    ] {
        let run = run(&[&["demo"], options].concat());
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{run:?}");
    }
}

//! Queries to an imported database: answers, transactions, failures and exit codes.

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use common::{Files, Run, fluxmap, run, run_with};
use serde_json::json;

const FRUIT: &str = "name,price\napple,3\napricot,5\nbanana,2\ncherry,9\nred currant,7\n";

fn fruit(queries: &[&str]) -> Run {
    let files = Files::new();
    let file = files.write("fruit.csv", FRUIT);
    run(&[&["import", &file], queries].concat())
}

fn piped(options: &[&str], input: &[u8]) -> Run {
    let files = Files::new();
    let file = files.write("fruit.csv", FRUIT);
    run_with(&[&["import", &file], options].concat(), input)
}

#[test]
fn queries_are_answered_in_order() {
    let run = fruit(&["get banana", "get 'red currant'", "get \"red currant\"", "first", "last", "count"]);
    let expected = [
        "name=banana price=2",
        "name=\"red currant\" price=7",
        "name=\"red currant\" price=7",
        "apple\tname=apple price=3",
        "red currant\tname=\"red currant\" price=7",
        "5",
    ];
    assert_eq!((run.code, run.lines()), (0, expected.to_vec()), "{run:?}");
}

#[test]
fn prefixes_and_ranges_list_what_they_cover() {
    let keys = |query: &str| -> Vec<String> {
        let run = fruit(&["--json", query]);
        assert_eq!(run.code, 0, "{run:?}");
        let objects = run.objects();
        let (end, entries) = objects[1..].split_last().unwrap();
        assert_eq!(end["records"], entries.len(), "{run:?}");
        assert_eq!(end["more"], query.ends_with(" 1"), "{run:?}");
        entries.iter().map(|entry| entry["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys("prefix ap"), ["apple", "apricot"]);
    assert_eq!(keys("prefix ap 2"), ["apple", "apricot"]);
    assert_eq!(keys("prefix ap 1"), ["apple"]);
    assert_eq!(keys("prefix zzz"), [""; 0]);
    assert_eq!(keys("prefix ''").len(), 5);
    assert_eq!(keys("range apple banana"), ["apple", "apricot", "banana"]);
    assert_eq!(keys("range b cherry"), ["banana", "cherry"]);
    assert_eq!(keys("range apple cherry 1"), ["apple"]);
    assert_eq!(keys("range banana banana"), ["banana"]);
    let counts = fruit(&["count ap", "count zzz", "count ''"]);
    assert_eq!(counts.lines(), ["2", "0", "5"]);
}

#[test]
fn a_missing_key_is_no_error() {
    let text = fruit(&["get durian", "del durian"]);
    assert_eq!((text.code, text.lines()), (0, vec!["(not found)", "(not found)"]), "{text:?}");
    let json = fruit(&["--json", "get durian"]);
    assert_eq!((json.code, &json.objects()[1]), (0, &json!({ "key": "durian", "found": false })));
}

#[test]
fn writes_are_read_back() {
    let run =
        fruit(&["set fig 4", "get fig", "set fig '{\"a\":1}'", "get fig", "del fig", "get fig", "count"]);
    assert_eq!(run.lines(), ["stored", "4", "replaced", "a=1", "removed", "(not found)", "5"], "{run:?}");
}

#[test]
fn what_is_rolled_back_is_gone_and_what_is_committed_stays() {
    let queries =
        ["begin", "set fig 4", "del apple", "get fig", "count", "rollback", "get fig", "count apple"];
    let run = fruit(&queries);
    let expected = ["transaction open", "stored", "removed", "4", "5", "rolled back", "(not found)", "1"];
    assert_eq!((run.code, run.lines()), (0, expected.to_vec()), "{run:?}");

    let run = fruit(&["begin", "set fig 4", "del apple", "commit", "get fig", "count apple"]);
    let expected = ["transaction open", "stored", "removed", "committed", "4", "0"];
    assert_eq!((run.code, run.lines()), (0, expected.to_vec()), "{run:?}");
}

#[test]
fn savepoints_are_returned_to() {
    let run = fruit(&[
        "begin",
        "set fig 1",
        "savepoint one",
        "set fig 2",
        "savepoint two",
        "del fig",
        "rollback to two",
        "get fig",
        "rollback to one",
        "get fig",
        "set fig 3",
        "rollback to one",
        "commit",
        "get fig",
    ]);
    assert_eq!(run.code, 0, "{run:?}");
    let lines = run.lines();
    assert_eq!((lines[7], lines[9], lines[13]), ("2", "1", "1"), "{run:?}");
}

#[test]
fn a_savepoint_ends_when_an_earlier_one_is_returned_to() {
    let run = fruit(&["begin", "savepoint one", "savepoint two", "rollback to one", "rollback to two"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.err.contains("there is no savepoint \"two\""), "{run:?}");
    let run = fruit(&[
        "begin",
        "set a 1",
        "savepoint s",
        "set a 2",
        "savepoint s",
        "set a 3",
        "rollback to s",
        "get a",
    ]);
    assert_eq!(run.lines().last(), Some(&"2"), "the later of two of the same name counts: {run:?}");
}

#[test]
fn an_open_transaction_is_rolled_back_at_the_end_and_that_is_said() {
    let left_open = "the transaction was left open: rolled back";
    let open = fruit(&["begin", "set fig 4"]);
    assert!(open.code == 0 && open.err.contains(left_open), "{open:?}");
    let quit = fruit(&["begin", "quit", "commit"]);
    assert_eq!((quit.code, quit.lines()), (0, vec!["transaction open"]), "{quit:?}");
    assert!(quit.err.contains(left_open), "{quit:?}");
    let closed = fruit(&["begin", "set fig 4", "commit"]);
    assert!(!closed.err.contains(left_open), "{closed:?}");
}

#[test]
fn a_failed_query_ends_the_run_with_1() {
    let cases = [
        ("fetch apple", "unknown command \"fetch\""),
        ("get", "usage: get KEY"),
        ("get \"apple", "unbalanced quote"),
        ("prefix a zero", "LIMIT must be"),
        ("range b a", "the range is empty"),
        ("commit", "no transaction is open"),
        ("rollback", "no transaction is open"),
        ("savepoint here", "no transaction is open"),
        ("rollback to here", "no transaction is open"),
    ];
    for (query, expected) in cases {
        let run = fruit(&["count", query, "first"]);
        assert_eq!((run.code, run.lines()), (1, vec!["5"]), "{query}: {run:?}");
        assert!(run.err.contains(&format!("error: {expected}")), "{query}: {run:?}");
    }
    let twice = fruit(&["begin", "begin"]);
    assert!(twice.code == 1 && twice.err.contains("already open"), "{twice:?}");
    let json = fruit(&["--json", "fetch apple"]);
    let object = &json.objects()[1];
    assert_eq!((json.code, &object["query"]), (1, &json!("fetch apple")), "{json:?}");
    assert!(object["error"].as_str().unwrap().contains("unknown command"), "{json:?}");
}

#[test]
fn commands_can_be_piped() {
    let run = piped(&[], b"# the fruit\n\ncount ap\r\n  get banana\nbegin\nset fig 1\ncommit\nget fig");
    let expected = ["2", "name=banana price=2", "transaction open", "stored", "committed", "1"];
    assert_eq!((run.code, run.lines()), (0, expected.to_vec()), "{run:?}");
    let nothing = piped(&[], b"");
    assert_eq!((nothing.code, nothing.out.as_str()), (0, ""), "{nothing:?}");
}

#[test]
fn a_piped_command_that_fails_is_located() {
    let run = piped(&[], b"count\nfetch\ncount\n");
    assert_eq!((run.code, run.lines()), (1, vec!["5"]), "{run:?}");
    assert!(run.err.contains("unknown command") && run.err.contains("stopped at line 2"), "{run:?}");
    let bytes = piped(&[], b"count\nget \xff\n");
    assert_eq!((bytes.code, bytes.lines()), (1, vec!["5"]), "{bytes:?}");
    assert!(bytes.err.contains("line 2 of the queries is not UTF-8"), "{bytes:?}");
}

#[test]
fn every_answer_is_an_object_with_json() {
    let run = fruit(&[
        "--json",
        "get apple",
        "prefix ap 1",
        "range a b",
        "count",
        "count ap",
        "first",
        "last",
        "set fig 1",
        "begin",
        "savepoint s",
        "rollback to s",
        "rollback",
        "begin",
        "commit",
        "del fig",
        "stats",
        "help",
    ]);
    assert_eq!(run.code, 0, "{run:?}");
    let objects = run.objects();
    assert_eq!(objects[0]["records"], 5);
    let expected = json!({ "key": "apple", "found": true, "value": { "name": "apple", "price": "3" } });
    assert_eq!(objects[1], expected);
    assert!(objects.iter().any(|object| object["records"] == 5 && object["versions"].is_u64()), "{run:?}");
    for expected in [
        json!({ "count": 5 }),
        json!({ "prefix": "ap", "count": 2 }),
        json!({ "set": "fig", "replaced": false }),
        json!({ "del": "fig", "found": true }),
        json!({ "savepoint": "s" }),
        json!({ "rolled_back_to": "s" }),
        json!({ "transaction": "committed" }),
    ] {
        assert!(objects.contains(&expected), "{expected} in {run:?}");
    }
}

#[test]
fn help_and_stats_are_for_people_too() {
    let run = fruit(&["help", "stats"]);
    assert_eq!(run.code, 0, "{run:?}");
    for text in ["range A B [LIMIT]", "both included", "rollback [to NAME]", "records", "resident memory"] {
        assert!(run.out.contains(text), "{text} in\n{}", run.out);
    }
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let files = Files::new();
    let rows: String = (0..20_000).map(|n| format!("key{n},{n}\n")).collect();
    let file = files.write("many.csv", format!("k,v\n{rows}"));
    let mut child = fluxmap(&["import", &file, "prefix ''", "prefix ''"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "key0\tk=key0 v=0\n");
    let output = child.wait_with_output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{notes}");
    assert!(!notes.contains("panicked") && !notes.contains("pipe"), "{notes}");
}

#[test]
fn notes_that_nobody_reads_are_no_error() {
    let files = Files::new();
    let file = files.write("bad.csv", format!("a,b\n{}1,2\n", "bad\n".repeat(30)));
    let mut child = fluxmap(&["import", &file, "count"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"1\n"[..]));
}

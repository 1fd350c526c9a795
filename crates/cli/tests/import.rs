//! `fluxmap import`: the formats that it reads, the errors that it reports, the files that it refuses.

mod common;

use common::{Files, run, run_with};
use serde_json::json;

const CSV: &str = "code,name,capital\nNO,Norway,Oslo\nDK,\"Denmark, Kingdom of\",Copenhagen\n";

#[test]
fn delimiters_are_guessed() {
    let files = Files::new();
    let cases = [
        files.write("a.csv", "code,name\nNO,Norway\n"),
        files.write("a.tsv", "code\tname\nNO\tNorway\n"),
        files.write("a.txt", "code;name\r\nNO;Norway\r\n"),
        files.write("noextension", "code|name\nNO|Norway"),
        files.write("bom.csv", "\u{feff}code,name\nNO,Norway\n"),
    ];
    for file in &cases {
        let run = run(&["import", file, "get NO", "count"]);
        assert_eq!((run.code, run.lines()), (0, vec!["code=NO name=Norway", "1"]), "{file}: {run:?}");
        assert!(run.err.contains("1 record under 1 key"), "{run:?}");
        assert!(run.err.contains("; 0 malformed"), "{run:?}");
    }
}

#[test]
fn delimiters_can_be_given() {
    let files = Files::new();
    let file = files.write("a.csv", "a:b,c\n1:2,3\n");
    let run = run(&["import", &file, "--delimiter", ":", "get 1"]);
    assert_eq!((run.code, run.lines()), (0, vec!["a=1 b,c=2,3"]), "{run:?}");
}

#[test]
fn a_header_names_the_columns_and_the_key() {
    let files = Files::new();
    let file = files.write("a.csv", CSV);
    for key in ["capital", "3"] {
        let run = run(&["import", &file, "--key", key, "get Copenhagen"]);
        let expected = r#"code=DK name="Denmark, Kingdom of" capital=Copenhagen"#;
        assert_eq!((run.code, run.lines()), (0, vec![expected]), "{run:?}");
    }
}

#[test]
fn without_a_header_the_first_line_is_a_record() {
    let files = Files::new();
    let file = files.write("a.csv", CSV);
    let run = run(&["import", &file, "--no-header", "--key", "2", "get name", "count"]);
    assert_eq!((run.code, run.lines()), (0, vec!["code,name,capital", "3"]), "{run:?}");
}

#[test]
fn json_lines_keep_their_fields_and_types() {
    let files = Files::new();
    let content = "{\"name\":\"Oslo\",\"people\":709037,\"tags\":[1,null]}\n\n{\"name\":\"Bergen\"}\n";
    for name in ["a.jsonl", "a.ndjson", "noextension"] {
        let file = files.write(name, content);
        let run = run(&["import", &file, "--json", "get Oslo", "count"]);
        assert_eq!(run.code, 0, "{run:?}");
        let objects = run.objects();
        assert_eq!(objects[0]["records"], 2);
        assert_eq!(objects[1]["value"].to_string(), content.lines().next().unwrap());
        assert_eq!(objects[2], json!({ "count": 2 }));
    }
    let file = files.write("b.jsonl", content);
    let keyed = run(&["import", &file, "--key", "people", "get 709037"]);
    assert_eq!(keyed.lines(), ["name=Oslo people=709037 tags=[1,null]"], "{keyed:?}");
    assert!(keyed.err.contains("line 3: the key field \"people\" is missing"), "{keyed:?}");
}

#[test]
fn malformed_rows_are_reported_by_line_and_the_others_kept() {
    let files = Files::new();
    let content =
        b"code,name\nNO,Norway\nXX\nDK,\"Denmark\nSE,Sweden,3\n\nFI,\xff\n,none\nIS,\"Ice\"land\nDE,Germany\n";
    let file = files.write("a.csv", content);
    let run = run(&["import", &file, "count", "last"]);
    assert_eq!((run.code, run.lines()), (0, vec!["2", "NO\tcode=NO name=Norway"]), "{run:?}");
    let expected = [
        "line 3: 1 field where 2 are expected",
        "line 4: bad quoting",
        "line 5: 3 fields where 2 are expected",
        "line 7: invalid UTF-8 at byte 4",
        "line 8: the key (field 1) is empty",
        "line 9: bad quoting: 'l' after the closing quote of field 2",
    ];
    let reported: Vec<&str> = run.err.lines().filter(|line| line.contains(", line ")).collect();
    assert_eq!(reported.len(), expected.len(), "{run:?}");
    for (line, expected) in reported.iter().zip(expected) {
        assert!(line.contains("a.csv, ") && line.contains(expected), "{expected} in {line}");
    }
    assert!(run.err.contains("2 records under 2 keys") && run.err.contains("6 malformed"), "{run:?}");
}

#[test]
fn malformed_json_is_reported_by_line() {
    let files = Files::new();
    let file = files.write("a.jsonl", "{\"k\":1}\n{\"k\":\n[]\n{\"k\":[]}\n{}\n");
    let run = run(&["import", &file, "--json", "count"]);
    assert_eq!(run.code, 0, "{run:?}");
    let objects = run.objects();
    assert_eq!((&objects[0]["malformed"], &objects[1]["count"]), (&json!(4), &json!(1)));
    let lines: Vec<u64> = objects[0]["malformed_lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|malformed| malformed["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [2, 3, 4, 5]);
}

#[test]
fn only_twenty_malformed_records_are_reported_one_by_one() {
    let files = Files::new();
    let file = files.write("a.csv", format!("a,b\n1,2\n{}", "bad\n".repeat(25)));
    let run = run(&["import", &file, "count"]);
    assert_eq!((run.code, run.lines()), (0, vec!["1"]), "{run:?}");
    assert_eq!(run.err.matches("1 field where 2 are expected").count(), 20, "{run:?}");
    assert!(run.err.contains("... and 5 more"), "{run:?}");
    assert!(run.err.contains("; 25 malformed"), "{run:?}");
}

#[test]
fn strict_refuses_everything_for_one_malformed_record() {
    let files = Files::new();
    let good = "1,2\n".to_owned() + &(2..3_000).map(|n| format!("{n},x\n")).collect::<String>();
    let bad = files.write("bad.csv", format!("a,b\n{good}bad\n"));
    let refused = run(&["import", &bad, "--strict", "count"]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""), "no query is answered: {refused:?}");
    assert!(refused.err.contains("line 3001: 1 field"), "{refused:?}");
    assert!(refused.err.contains("nothing was imported"), "{refused:?}");
    let refused = run(&["import", &bad, "--strict", "--json", "count"]);
    let summary = &refused.objects()[0];
    assert_eq!((refused.code, refused.lines().len()), (1, 1), "{refused:?}");
    assert_eq!((&summary["imported"], &summary["keys"]), (&json!(false), &json!(0)), "{refused:?}");

    let accepted = run(&["import", &files.write("good.csv", format!("a,b\n{good}")), "--strict", "count"]);
    assert_eq!((accepted.code, accepted.lines()), (0, vec!["2999"]), "{accepted:?}");
}

#[test]
fn duplicates_are_counted_and_resolved_as_told() {
    let files = Files::new();
    let file = files.write("a.csv", "k,v\na,1\nb,2\na,3\na,4\n");
    for (choice, kept) in [(None, "k=a v=4"), (Some("keep-last"), "k=a v=4"), (Some("keep-first"), "k=a v=1")]
    {
        let mut arguments = vec!["import", &file, "get a", "count"];
        arguments.extend(choice.into_iter().flat_map(|choice| ["--on-duplicate", choice]));
        let run = run(&arguments);
        assert_eq!((run.code, run.lines()), (0, vec![kept, "2"]), "{run:?}");
        assert!(run.err.contains("4 records under 2 keys"), "{run:?}");
        assert!(run.err.contains("2 duplicates") && run.err.contains("\"a\", line 4"), "{run:?}");
    }
    let refused = run(&["import", &file, "--on-duplicate", "error", "count"]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{refused:?}");
    assert!(refused.err.contains("line 4: the key \"a\""), "{refused:?}");
    assert!(refused.err.contains("line 5: the key \"a\""), "{refused:?}");
}

#[test]
fn duplicates_are_noticed_across_the_transactions_of_an_import() {
    let rows: String = (0..2_500).map(|n| format!("key{n},{n}\n")).collect();
    let files = Files::new();
    let file = files.write("a.csv", format!("k,v\n{rows}key0,again\nkey2499,again\n"));
    let run = run(&["import", &file, "--json", "get key0", "get key2499", "get key1"]);
    let objects = run.objects();
    assert_eq!((&objects[0]["records"], &objects[0]["keys"]), (&json!(2_502), &json!(2_500)));
    assert_eq!(objects[0]["duplicates"], 2);
    let values: Vec<_> = objects[1..].iter().map(|object| object["value"]["v"].clone()).collect();
    assert_eq!(values, ["again", "again", "1"]);
}

#[test]
fn standard_input_can_be_the_file() {
    let answered = run_with(&["import", "-", "get NO", "count"], CSV.as_bytes());
    assert_eq!(answered.lines(), ["code=NO name=Norway capital=Oslo", "2"], "{answered:?}");
    let silent = run_with(&["import", "-"], CSV.as_bytes());
    assert_eq!((silent.code, silent.out.as_str()), (0, ""), "{silent:?}");
    assert!(silent.err.contains("2 records under 2 keys"), "{silent:?}");
    let lines = run_with(&["import", "-", "--json", "get x"], b"{\"k\":\"x\"}\nbad\n");
    assert!(lines.err.contains("standard input, line 2: bad JSON"), "{lines:?}");
    assert_eq!(lines.objects()[1]["found"], true, "{lines:?}");
}

#[test]
fn a_quoted_field_may_span_lines_and_later_lines_keep_their_numbers() {
    let files = Files::new();
    let file = files.write("a.csv", "k,v\na,\"one\ntwo\"\nbad\nb,3\n");
    let run = run(&["import", &file, "get a", "count"]);
    assert_eq!(run.lines(), [r#"k=a v="one\ntwo""#, "2"], "{run:?}");
    assert!(run.err.contains("line 4: 1 field"), "{run:?}");
}

#[test]
fn lines_may_end_with_a_carriage_return_and_keep_their_numbers() {
    let files = Files::new();
    let content = "\u{feff}\"k\",v\r\na,\"one\r\n\r\ntwo\"\r\n\r\nbad\r\nb,\r\n";
    let file = files.write("a.csv", content);
    let run = run(&["import", &file, "get a", "get b", "count"]);
    assert_eq!(run.lines(), [r#"k=a v="one\n\ntwo""#, "k=b v=", "2"], "{run:?}");
    assert!(run.err.contains("a.csv, line 6: 1 field where 2 are expected"), "{run:?}");
}

#[test]
fn a_quote_that_is_never_closed_costs_one_record() {
    let files = Files::new();
    let file = files.write("a.csv", "k,v\na,1\nb,\"2\nc,3\n\nd,\"4\"\n\"e,5\n");
    let run = run(&["import", &file, "count", "get c", "get d"]);
    assert_eq!(run.lines(), ["3", "k=c v=3", "k=d v=4"], "{run:?}");
    let reaches =
        "line 3: bad quoting: a quote opened here reaches line 6: '4' after the closing quote of field 2";
    assert!(run.err.contains(reaches), "{run:?}");
    assert!(run.err.contains("line 7: bad quoting: the quote is never closed"), "{run:?}");
    assert!(run.err.contains("; 2 malformed"), "{run:?}");
}

#[test]
fn without_quotes_a_quote_is_an_ordinary_character() {
    let files = Files::new();
    let file = files.write("a.csv", "k,v\na,\"1\nb,\"2\"3\n");
    let run = run(&["import", &file, "--no-quotes", "--json", "get a", "get b"]);
    let objects = run.objects();
    assert_eq!((&objects[0]["records"], &objects[0]["malformed"]), (&json!(2), &json!(0)), "{run:?}");
    assert_eq!((&objects[1]["value"]["v"], &objects[2]["value"]["v"]), (&json!("\"1"), &json!("\"2\"3")));
}

#[test]
fn without_a_header_the_first_record_sets_the_number_of_fields() {
    let files = Files::new();
    let file = files.write("a.csv", "\"bad\"quote,x\na,1\nb\nc,2,3\nd,4,\ne,\n");
    let run = run(&["import", &file, "--no-header", "count", "get e"]);
    assert_eq!(run.lines(), ["2", "e,"], "{run:?}");
    for expected in [
        "line 1: bad quoting: 'q' after the closing quote of field 1",
        "line 3: 1 field where 2 are expected",
        "line 4: 3 fields where 2 are expected",
        "line 5: 3 fields where 2 are expected",
    ] {
        assert!(run.err.contains(expected), "{expected} in {run:?}");
    }
}

#[test]
fn a_malformed_header_refuses_the_file() {
    let files = Files::new();
    let cases: [(&[u8], &str); 3] = [
        (
            b"k,\"v\"w\na,1\n",
            "a.csv: line 1, the header: bad quoting: 'w' after the closing quote of field 2",
        ),
        (b"\nk,\"v\na,1\n", "a.csv: line 2, the header: bad quoting: the quote is never closed"),
        (b"k,\xff\na,1\n", "a.csv: line 1, the header: invalid UTF-8 at byte 3"),
    ];
    for (content, expected) in cases {
        let run = run(&["import", &files.write("a.csv", content), "count"]);
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{run:?}");
        assert!(run.err.contains(expected), "{expected} in {run:?}");
    }
}

#[test]
fn files_that_cannot_be_used_are_explained() {
    let files = Files::new();
    let csv = files.write("a.csv", CSV);
    let missing = files.path().join("missing.csv").display().to_string();
    let directory = files.path().display().to_string();
    let cases: [(Vec<&str>, &str); 4] = [
        (vec!["import", &missing, "count"], "missing.csv: No such file"),
        (vec!["import", &directory, "count"], "directory"),
        (vec!["import", &csv, "--key", "city", "count"], "the columns are code, name, capital"),
        (vec!["import", &csv, "--no-header", "--key", "9", "count"], "the records have 3 columns"),
    ];
    for (arguments, expected) in cases {
        let run = run(&arguments);
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{run:?}");
        assert!(run.err.contains(expected), "{expected} in {run:?}");
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let files = Files::new();
    let file = files.write("a.csv", CSV);
    let cases: [&[&str]; 3] =
        [&["--delimiter", "::"], &["--header", "--no-header"], &["--on-duplicate", "maybe"]];
    for options in cases {
        let run = run(&[&["import", &file], options].concat());
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{run:?}");
    }
}

#[test]
fn an_empty_file_is_an_empty_database() {
    let files = Files::new();
    let file = files.write("a.csv", "");
    let run = run(&["import", &file, "count", "first", "last", "prefix ''"]);
    assert_eq!(run.lines(), ["0", "(no records)", "(no records)", "(0 records)"], "{run:?}");
    assert_eq!(run.code, 0);
}

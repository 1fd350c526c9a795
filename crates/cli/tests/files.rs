//! `fluxmap stat`, `verify`, `dump`, `salvage` and `backup`, and databases of records on disk.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use common::{Files, fluxmap, run, run_with};
use serde_json::json;

const CSV: &str = "code,name\nNO,Norway\nDK,Denmark\nSE,Sweden\n";

/// Imports three records into a database. Returns the files, and the database's directory.
fn countries() -> (Files, String) {
    let files = Files::new();
    let file = files.write("countries.csv", CSV);
    let dir = directory(&files, "db");
    let imported = run(&["import", &file, "--db", &dir]);
    assert_eq!((imported.code, imported.out.as_str()), (0, ""), "{imported:?}");
    assert!(imported.err.contains("3 records under 3 keys"), "{imported:?}");
    (files, dir)
}

fn directory(files: &Files, name: &str) -> String {
    files.path().join(name).display().to_string()
}

/// The name, content and modification time of each file in `dir`.
fn state(dir: &str) -> Vec<(PathBuf, Vec<u8>, SystemTime)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| {
            let path = entry.expect("a file").path();
            let modified = fs::metadata(&path).and_then(|details| details.modified()).expect("a time");
            (path.clone(), fs::read(path).expect("bytes"), modified)
        })
        .collect();
    files.sort();
    files
}

/// Damages the first frame of the log.
fn damage(dir: &str) {
    let log = Path::new(dir).join("wal.0000000001");
    let mut bytes = fs::read(&log).expect("bytes");
    bytes[150] ^= 1;
    fs::write(log, bytes).expect("damage");
}

#[test]
fn imported_records_stay_and_can_be_changed() {
    let (files, dir) = countries();
    let shell = |queries: &[&str]| run(&[&["shell", dir.as_str()], queries].concat());
    let changed =
        shell(&["get NO", "set FI '{\"name\":\"Finland\"}'", "set note 'by hand'", "del SE", "count"]);
    assert_eq!(changed.code, 0, "{changed:?}");
    assert_eq!(changed.lines(), ["code=NO name=Norway", "stored", "stored", "removed", "4"]);
    let again = run_with(&["shell", &dir, "--json"], b"get FI\nget note\nget SE\nfirst\n");
    let objects = again.objects();
    assert_eq!((again.code, &objects[0]["value"]), (0, &json!({ "name": "Finland" })), "{again:?}");
    assert_eq!((&objects[1]["value"], &objects[2]["found"]), (&json!("by hand"), &json!(false)));
    assert_eq!(objects[3]["value"], json!({ "code": "DK", "name": "Denmark" }));

    let more =
        files.write("more.jsonl", "{\"k\":\"NO\",\"capital\":\"Oslo\"}\n{\"k\":\"IS\",\"n\":[1,null]}\n");
    let imported = run(&["import", &more, "--db", &dir, "--json", "get NO", "count"]);
    let objects = imported.objects();
    assert_eq!((&objects[0]["keys"], &objects[0]["duplicates"]), (&json!(1), &json!(1)), "{imported:?}");
    assert_eq!((&objects[1]["value"]["capital"], &objects[2]["count"]), (&json!("Oslo"), &json!(5)));

    let left_open = shell(&["begin", "del NO"]);
    assert_eq!(left_open.code, 0, "{left_open:?}");
    assert!(left_open.err.contains("rolled back"), "{left_open:?}");
    assert_eq!(shell(&["count"]).lines(), ["5"]);
}

#[test]
fn a_refused_import_leaves_the_database_as_it_was() {
    let (files, dir) = countries();
    let bad = files.write("bad.csv", "code,name\nXX,Nowhere\nbad\n");
    let refused = run(&["import", &bad, "--strict", "--db", &dir]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{refused:?}");
    assert_eq!(run(&["shell", &dir, "count", "get XX"]).lines(), ["3", "(not found)"]);
}

#[test]
fn a_shell_makes_no_database_unasked() {
    let files = Files::new();
    let dir = directory(&files, "new");
    let refused = run(&["shell", &dir, "count"]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{refused:?}");
    assert!(refused.err.contains("--create"), "{refused:?}");
    assert!(!Path::new(&dir).exists());
    let created = run(&["shell", &dir, "--create", "set a 1", "count"]);
    assert_eq!((created.code, created.lines()), (0, vec!["stored", "1"]), "{created:?}");
}

#[test]
fn a_sound_database_is_shown_and_copied() {
    let (files, dir) = countries();
    let before = state(&dir);
    let stat = &run(&["stat", &dir, "--json"]).objects()[0];
    assert_eq!(stat["identity"]["key_type"], "String", "{stat}");
    assert_eq!(stat["identity"]["value_type"], "Value", "{stat}");
    assert_eq!((&stat["closed"], &stat["in_use"]), (&json!(true), &json!(false)), "{stat}");
    let segments = stat["segments"].as_array().expect("a list");
    assert_eq!((&segments[0]["state"], &segments[0]["commits"]), (&json!("active"), &json!(1)), "{stat}");
    let table = run(&["stat", &dir]);
    assert!(table.code == 0 && table.out.contains("String -> Value") && table.out.contains("active"));

    let verified = run(&["verify", &dir]);
    assert_eq!((verified.code, verified.err.as_str()), (0, ""), "{verified:?}");
    assert!(verified.out.starts_with("sound: 0 pairs"), "{verified:?}");
    let object = &run(&["verify", &dir, "--json", "--all"]).objects()[0];
    assert_eq!((&object["sound"], &object["last_commit"]), (&json!(true), &json!(1)), "{object}");

    let dumped = run(&["dump", &dir]);
    assert_eq!(dumped.code, 0, "{dumped:?}");
    let keys: Vec<_> = dumped.objects().iter().map(|pair| pair["key"].clone()).collect();
    assert_eq!(keys, ["DK", "NO", "SE"]);
    assert_eq!(dumped.objects()[1]["value"], json!({ "code": "NO", "name": "Norway" }));
    let headers = run(&["dump", &dir, "--headers"]);
    assert_eq!((headers.code, headers.lines().len()), (0, 4), "{headers:?}");
    assert_eq!(headers.lines()[1], "wal.0000000001\t71\t1\tput\t3\t22");
    let headers = run(&["dump", &dir, "--headers", "--json"]).objects();
    assert_eq!((&headers[0]["kind"], &headers[0]["commit"]), (&json!("put"), &json!(1)));

    for command in ["backup", "salvage"] {
        let out = directory(&files, command);
        let copied = run(&[command, &dir, &out, "--json"]);
        assert_eq!((copied.code, &copied.objects()[0]["pairs"]), (0, &json!(3)), "{copied:?}");
        assert_eq!(run(&["dump", &out]).out, dumped.out);
        assert_eq!(run(&["shell", &out, "set a b", "count"]).lines(), ["stored", "4"]);
        for taken in [&out, &dir] {
            let refused = run(&[command, &dir, taken]);
            assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{refused:?}");
            assert!(refused.err.contains("another directory"), "{refused:?}");
        }
    }
    assert_eq!(state(&dir), before, "nothing was changed by looking");
}

#[test]
fn damage_is_named_listed_and_survived() {
    let (files, dir) = countries();
    assert_eq!(run(&["shell", &dir, "set FI Finland"]).code, 0);
    damage(&dir);
    let before = state(&dir);
    let verified = run(&["verify", &dir]);
    assert_eq!((verified.code, verified.err.as_str()), (1, ""), "{verified:?}");
    assert!(verified.out.contains("wal.0000000001 is damaged at offset 71"), "{verified:?}");
    let object = &run(&["verify", &dir, "--all", "--json"]).objects()[0];
    assert_eq!((&object["sound"], &object["offset"]), (&json!(false), &json!(71)), "{object}");
    assert_eq!(object["damage"][0]["offset"], 71, "{object}");
    assert_eq!(object["missing_commits"], json!([[1, 1]]), "{object}");
    let listed = run(&["verify", &dir, "--all"]);
    assert!(listed.out.contains("commits 1 to 1 are missing"), "{listed:?}");

    for arguments in [vec!["dump", &dir], vec!["dump", &dir, "--headers"], vec!["shell", &dir, "count"]] {
        let refused = run(&arguments);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains("offset 71") && refused.err.contains("salvage"), "{refused:?}");
    }
    let out = directory(&files, "out");
    let refused = run(&["backup", &dir, &out]);
    assert!(refused.code == 1 && !Path::new(&out).exists(), "{refused:?}");
    let salvaged = run(&["salvage", &dir, &out]);
    assert_eq!(salvaged.code, 0, "{salvaged:?}");
    assert!(salvaged.out.contains("at offset 71"), "{salvaged:?}");
    assert_eq!(run(&["dump", &out]).lines(), [r#"{"key":"FI","value":"Finland"}"#]);
    assert_eq!(state(&dir), before, "nothing was changed by looking");
}

#[test]
fn a_database_in_use_is_shown_and_not_copied() {
    let (files, dir) = countries();
    let mut shell = fluxmap(&["shell", &dir])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = shell.stdin.take().expect("a pipe");
    let mut answers = BufReader::new(shell.stdout.take().expect("a pipe")).lines();
    input.write_all(b"count\n").expect("it listens");
    assert_eq!(answers.next().expect("an answer").expect("a line"), "3");

    let out = directory(&files, "out");
    let commands: [&[&str]; 5] =
        [&["verify"], &["dump"], &["dump", "--headers"], &["backup", &out], &["salvage", &out]];
    for command in commands {
        let refused = run(&[&[command[0], &dir], &command[1..]].concat());
        assert_eq!(refused.code, 3, "{command:?}: {refused:?}");
        assert!(refused.err.contains("is in use"), "{refused:?}");
    }
    assert_eq!(run(&["shell", &dir, "count"]).code, 3);
    assert!(!Path::new(&out).exists());
    let stat = run(&["stat", &dir, "--json"]);
    assert_eq!((stat.code, &stat.objects()[0]["in_use"]), (0, &json!(true)), "{stat:?}");
    drop(input);
    assert!(shell.wait().expect("it ends").success());
    assert_eq!(run(&["verify", &dir]).code, 0);
}

#[test]
fn what_is_no_database_is_refused_and_not_made_one() {
    let files = Files::new();
    files.write("other.txt", "text");
    let (empty, out) = (files.path().display().to_string(), directory(&files, "out"));
    let missing = directory(&files, "missing");
    for dir in [&empty, &missing] {
        for command in ["stat", "verify", "dump", "backup", "salvage"] {
            let arguments = [command, dir, &out];
            let count = if matches!(command, "backup" | "salvage") { 3 } else { 2 };
            let refused = run(&arguments[..count]);
            assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{command}: {refused:?}");
            assert!(refused.err.contains("no database"), "{refused:?}");
        }
    }
    assert_eq!(state(&empty).len(), 1);
    let refused = run(&["verify", &missing, "--json"]);
    let error = refused.objects()[0]["error"].as_str().map(str::to_owned).unwrap_or_default();
    assert!(refused.code == 1 && error.contains("no database"), "{refused:?}");
    for arguments in [&["stat"][..], &["verify", "a", "b"], &["backup", "a"]] {
        assert_eq!(run(arguments).code, 2, "{arguments:?}");
    }
}

#[test]
fn other_types_show_as_json_or_as_headers() {
    let files = Files::new();
    let dir = directory(&files, "bank");
    let bank =
        run(&["demo", "--durable", &dir, "--seconds", "1", "--tasks", "1", "--accounts", "12", "--json"]);
    assert_eq!(bank.code, 0, "{bank:?}");
    let dumped = run(&["dump", &dir]);
    let mut keys: Vec<_> =
        dumped.objects().iter().map(|pair| pair["key"].as_u64().expect("a number")).collect();
    // The keys come in the order of their last commits, since no checkpoint contains them yet.
    keys.sort_unstable();
    assert_eq!(keys, (0..12).collect::<Vec<_>>());
    let sum: u64 = dumped.objects().iter().map(|pair| pair["value"].as_u64().expect("a number")).sum();
    assert_eq!(sum, 12_000);
    let refused = run(&["shell", &dir, "count"]);
    assert!(refused.code == 1 && refused.err.contains("key type"), "{refused:?}");
}

#[tokio::test]
async fn postcard_shows_as_json_where_everybody_knows_the_types() {
    use fluxmap::Database;
    use fluxmap::codec::Codec;
    use fluxmap::persistence::PersistenceOptions;

    let files = Files::new();
    let (known, unknown) = (directory(&files, "known"), directory(&files, "unknown"));
    let options = |dir: &str| PersistenceOptions::new(dir);
    let builder = Database::<String, u32>::builder().durability_full(options(&known));
    let db = builder.codec(Codec::Postcard).build().await.expect("it opens");
    db.insert("b".into(), 300).await.expect("a commit");
    db.insert("aa".into(), 1).await.expect("a commit");
    db.remove("aa").await.expect("a commit");
    db.close().await.expect("it closes");
    let dumped = run(&["dump", &known]);
    assert_eq!((dumped.code, dumped.lines()), (0, vec![r#"{"key":"b","value":300}"#]), "{dumped:?}");

    let builder = Database::<u8, (String, bool)>::builder().durability_full(options(&unknown));
    let db = builder.codec(Codec::Postcard).build().await.expect("it opens");
    db.insert(7, ("x".into(), true)).await.expect("a commit");
    db.close().await.expect("it closes");
    let dumped = run(&["dump", &unknown]);
    assert_eq!((dumped.code, dumped.lines().len()), (0, 2), "{dumped:?}");
    assert!(dumped.err.contains("its Rust types") && dumped.lines()[1].ends_with("put\t1\t3"), "{dumped:?}");
}

/// `/dev/full` refuses every write, as a full disk does.
#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_not_blamed_on_the_database() {
    let (files, dir) = countries();
    // The dump of these records is larger than the program's output buffer.
    let many: String = (0..2_000).map(|n| format!("{n},somewhere\n")).collect();
    let file = files.write("many.csv", format!("code,name\n{many}"));
    let large = directory(&files, "large");
    assert_eq!(run(&["import", &file, "--db", &large]).code, 0);
    let out = |name| directory(&files, name);
    let runs: [&[&str]; 9] = [
        &["dump", &dir],
        &["dump", &large],
        &["dump", &large, "--json"],
        &["dump", &large, "--headers"],
        &["stat", &dir],
        &["verify", &dir],
        &["salvage", &dir, &out("salvaged")],
        &["backup", &dir, &out("copied")],
        &["shell", &dir, "count"],
    ];
    for arguments in runs {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("the device is there");
        let ended = fluxmap(arguments).stdin(Stdio::null()).stdout(full).output().expect("it runs");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("fluxmap: cannot write the output: "), "{arguments:?}: {said}");
        assert!(!said.contains("cannot decode the pairs"), "{arguments:?}: {said}");
    }
}

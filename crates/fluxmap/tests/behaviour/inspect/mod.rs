//! Inspection of a database's files without its types: their content, their damage, and what can be
//! saved. No bytes may make it panic, and it changes nothing.

mod salvage;
mod support;

use fluxmap::PersistenceError;
use fluxmap::inspect::{self, Image, Operation, SegmentState};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use support::{State, build, contents, copy, files, open, place, segments, state};

#[tokio::test]
async fn stat_verify_and_records_agree_with_what_was_done() {
    let (_temporary, dir) = place();
    assert!(!inspect::exists(&dir).expect("a look"));
    let pairs = build(&dir).await;
    assert!(inspect::exists(&dir).expect("a look"));

    let stat = inspect::stat(&dir).expect("it is there");
    let identity = stat.identity.as_ref().expect("a header");
    assert_eq!((identity.key_type.as_str(), identity.value_type.as_str()), ("u64", "String"));
    let checkpoint = stat.checkpoint.expect("there is one");
    assert_eq!((checkpoint.commit, checkpoint.pairs), (20, Some(20)));
    let of = |state| stat.segments.iter().filter(move |segment| segment.state == state);
    assert_eq!(of(SegmentState::Active).count(), 1, "{stat:?}");
    // The next segment is made in the background, and not at all if the database closes before.
    assert!(of(SegmentState::Spare).count() <= 1, "{stat:?}");
    assert!(of(SegmentState::Full).count() >= 1, "{stat:?}");
    assert_eq!(of(SegmentState::Active).next().and_then(|segment| segment.last_commit), Some(43));
    assert!(stat.segments.iter().all(|segment| segment.used_bytes <= segment.bytes), "{stat:?}");
    assert!(stat.closed && !stat.in_use && stat.problems.is_empty(), "{stat:?}");
    let sizes: u64 = files(&dir).iter().map(|file| fs::metadata(file).expect("a file").len()).sum();
    assert_eq!(stat.total_bytes, sizes);

    let mut last = (0, 0);
    let summary = inspect::verify(&dir, |done, total| {
        assert!(done >= last.0 && done <= total, "{done} of {total} after {last:?}");
        last = (done, total);
    });
    let summary = summary.expect("it is sound");
    assert!(last.0 == last.1 && last.1 > 0);
    assert_eq!((summary.checkpoint_pairs, summary.log_commits, summary.last_commit), (20, 23, 43));

    let (mut stored, mut puts, mut deletes, mut at) = (0, 0, 0, 0);
    let shown = inspect::records(&dir, |record| {
        match record.operation {
            Operation::Pair { .. } => stored += 1,
            Operation::Put { key, .. } => {
                assert_eq!(fluxmap::codec::Codec::MessagePack.decode::<u64>(key).expect("a key"), 10 + puts);
                puts += 1;
            }
            Operation::Delete { .. } => deletes += 1,
        }
        assert!(record.commit >= at && record.offset > 0 && record.path.exists());
        at = record.commit;
        ControlFlow::Continue(())
    });
    assert_eq!(shown.expect("it is sound"), Some(summary));
    assert_eq!((stored, puts, deletes), (20, 20, 3));
    let mut seen = 0;
    let shown = inspect::records(&dir, |_| {
        seen += 1;
        if seen == 25 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((shown.expect("it is sound"), seen), (None, 25));

    let image = Image::load(&dir, |_, _| {}).expect("it is sound");
    assert_eq!((image.pair_count(), image.last_commit()), (pairs.len() as u64, 43));
    let loaded = State::of(&image);
    assert!(matches!(Image::load(&dir, |_, _| {}), Err(PersistenceError::Locked { .. })));
    drop(image);
    let (salvaged, report) = Image::salvage(&dir, |_, _| {}).expect("it is sound");
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(State::of(&salvaged), loaded);
}

#[tokio::test]
async fn the_segment_kept_ready_is_a_spare_one() {
    let (_temporary, dir) = place();
    let db = open(&dir).await.expect("it is new");
    db.insert(1, "one".into()).await.expect("a commit");
    // The checkpoint waits until a missing segment has been made.
    db.checkpoint().await.expect("a checkpoint");
    db.close().await.expect("it closes");
    let stat = inspect::stat(&dir).expect("it is there");
    let states: Vec<_> = stat.segments.iter().map(|segment| segment.state).collect();
    assert_eq!(states, [SegmentState::Active, SegmentState::Spare], "{stat:?}");
}

#[tokio::test]
async fn copies_open_as_databases_and_replace_nothing() {
    let (temporary, dir) = place();
    let pairs = build(&dir).await;
    let image = Image::load(&dir, |_, _| {}).expect("it is sound");
    let out = temporary.path().join("new").join("copy");
    let mut written = 0;
    image.write_to(&out, |progress| written = progress.pairs).expect("it is written");
    assert_eq!(written, pairs.len() as u64);
    let of = |dir: &Path| inspect::stat(dir).expect("it is there").identity.expect("a header").database;
    assert_ne!(of(&out), of(&dir), "it is a database of its own");

    let copied = open(&out).await.expect("it opens");
    assert_eq!(contents(&copied), pairs);
    copied.insert(99, "new".into()).await.expect("a commit");
    copied.close().await.expect("it closes");
    assert_eq!(contents(&open(&out).await.expect("it opens again")).len(), pairs.len() + 1);

    for taken in [&out, &dir] {
        let before = state(taken);
        let refused = image.write_to(taken, |_| {}).expect_err("there is one");
        assert!(refused.to_string().contains("another directory"), "{refused}");
        assert_eq!(state(taken), before);
    }
}

#[tokio::test]
async fn looking_changes_nothing() {
    let (temporary, dir) = place();
    build(&dir).await;
    let damaged = temporary.path().join("damaged");
    copy(&dir, &damaged);
    let segment = &segments(&damaged)[0];
    let mut bytes = fs::read(segment).expect("bytes");
    bytes[200] ^= 1;
    fs::write(segment, bytes).expect("damage");
    fs::write(damaged.join("snapshot.tmp"), b"draft").expect("a draft");
    for dir in [dir, damaged] {
        let before = state(&dir);
        let _ = inspect::exists(&dir);
        let _ = inspect::stat(&dir);
        let _ = inspect::verify(&dir, |_, _| {});
        let _ = inspect::find_damage(&dir, |_, _| {});
        let _ = inspect::records(&dir, |_| ControlFlow::Continue(()));
        let _ = Image::load(&dir, |_, _| {});
        let _ = Image::salvage(&dir, |_, _| {});
        assert_eq!(state(&dir), before);
    }
}

#[tokio::test]
async fn a_database_in_use_is_only_looked_at() {
    let (_temporary, dir) = place();
    let db = open(&dir).await.expect("it is new");
    db.insert(1, "one".into()).await.expect("a commit");
    let stat = inspect::stat(&dir).expect("it is there");
    assert!(stat.in_use && !stat.closed, "{stat:?}");
    let locked = |error| matches!(error, PersistenceError::Locked { .. });
    assert!(locked(inspect::verify(&dir, |_, _| {}).expect_err("in use")));
    assert!(locked(inspect::find_damage(&dir, |_, _| {}).expect_err("in use")));
    assert!(locked(inspect::records(&dir, |_| ControlFlow::Continue(())).expect_err("in use")));
    assert!(locked(Image::load(&dir, |_, _| {}).expect_err("in use")));
    assert!(locked(Image::salvage(&dir, |_, _| {}).expect_err("in use")));
    db.insert(2, "two".into()).await.expect("a commit");
    db.close().await.expect("it closes");

    let mut refused = None;
    inspect::verify(&dir, |_, _| {
        refused = Some(inspect::verify(&dir, |_, _| {}).map_err(locked));
    })
    .expect("it is sound");
    assert_eq!(refused.expect("it was tried"), Err(true), "an inspection locks others out");
}

#[test]
fn what_is_no_database_is_said_to_be_none() {
    let temporary = tempfile::tempdir().expect("a directory");
    let foreign = temporary.path().join("foreign");
    fs::create_dir(&foreign).expect("a directory");
    fs::write(foreign.join("wal.12"), b"").expect("a file");
    fs::write(foreign.join("lock"), b"").expect("a file");
    for dir in [temporary.path(), &foreign, &temporary.path().join("missing")] {
        let none = |error| matches!(error, PersistenceError::NoDatabase { path } if path == dir);
        assert!(none(inspect::stat(dir).expect_err("none")));
        assert!(none(inspect::verify(dir, |_, _| {}).expect_err("none")));
        assert!(none(Image::load(dir, |_, _| {}).expect_err("none")));
        assert!(none(Image::salvage(dir, |_, _| {}).expect_err("none")));
    }
    assert!(!temporary.path().join("missing").exists());
    let file = foreign.join("wal.12");
    assert!(matches!(inspect::stat(&file), Err(PersistenceError::Io { .. })));
}

#[tokio::test]
async fn a_database_whose_creation_was_interrupted_is_empty() {
    let (temporary, dir) = place();
    open(&dir).await.expect("it is new").close().await.expect("it closes");
    fs::remove_file(dir.join("snapshot.db")).expect("the file is removed");
    for spare in &segments(&dir)[1..] {
        fs::remove_file(spare).expect("the file is removed");
    }
    let summary = inspect::verify(&dir, |_, _| {}).expect("it is sound");
    assert_eq!((summary.last_commit, summary.checkpoint_pairs), (0, 0));
    let out = temporary.path().join("out");
    Image::load(&dir, |_, _| {}).and_then(|image| image.write_to(&out, |_| {})).expect("a copy");
    assert!(contents(&open(&out).await.expect("it opens")).is_empty());
}

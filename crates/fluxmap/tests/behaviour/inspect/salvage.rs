//! Salvage of damaged databases. No bytes may make it panic.

use crate::inspect::support::{State, build, contents, copy, files, open, place, salvaged, segments};
use fluxmap::inspect::{self, Image, Operation, SegmentState};
use fluxmap::{Database, PersistenceError};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

/// Changes a single byte anywhere. The strict and the lenient reader must agree on whether
/// something is wrong, and salvage must never return a value that was not stored.
#[tokio::test]
async fn any_byte_may_be_damaged() {
    let (temporary, dir) = place();
    build(&dir).await;
    let sound = salvaged(&dir);
    let mut history: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    inspect::records(&dir, |record| {
        if let Operation::Pair { key, value, .. } | Operation::Put { key, value, .. } = record.operation {
            history.entry(key.to_vec()).or_default().push(value.to_vec());
        }
        ControlFlow::Continue(())
    })
    .expect("it is sound");
    let damaged = temporary.path().join("damaged");
    copy(&dir, &damaged);
    let (mut torn, mut without_effect, mut detected) = (0, 0, 0);
    for file in files(&damaged) {
        let bytes = fs::read(&file).expect("bytes");
        // Try each of the first 300 bytes of a file, which include its header, and every 53rd byte
        // after them.
        for at in (0..bytes.len()).filter(|at| *at < 300 || at % 53 == 0) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            rewrite(&file, &flipped);
            let strict = Image::load(&damaged, |_, _| {}).map(|image| State::of(&image));
            let (image, report) = Image::salvage(&damaged, |_, _| {}).expect("most of it is sound");
            let image = State::of(&image);
            for (key, (value, _)) in &image.pairs {
                assert!(history[key].iter().any(|known| known == value), "{} {at}", file.display());
            }
            match strict {
                Err(error) => {
                    assert!(!report.is_complete(), "{} {at}: {error}", file.display());
                    detected += 1;
                }
                Ok(image) if image == sound && report.is_complete() => without_effect += 1,
                Ok(image) => {
                    assert!(image.last_commit <= sound.last_commit, "{} {at}", file.display());
                    torn += 1;
                }
            }
            let at_most_one = image.pairs.len() + 20 >= sound.pairs.len();
            assert!(at_most_one, "{} {at}: {report:?}", file.display());
        }
        rewrite(&file, &bytes);
    }
    assert!(detected > 300 && without_effect > 50 && torn < 100, "{detected} {without_effect} {torn}");
}

#[tokio::test]
async fn any_file_may_end_anywhere() {
    let (temporary, dir) = place();
    build(&dir).await;
    let damaged = temporary.path().join("damaged");
    copy(&dir, &damaged);
    for file in files(&damaged) {
        let bytes = fs::read(&file).expect("bytes");
        for length in (0..bytes.len()).filter(|at| *at < 300 || at % 101 == 0) {
            rewrite(&file, &bytes[..length]);
            let strict = Image::load(&damaged, |_, _| {}).map(drop);
            let (_, report) = Image::salvage(&damaged, |_, _| {}).expect("the other files are sound");
            let name = file.display();
            assert!(strict.is_ok() || !report.is_complete(), "{name} {length}: {strict:?}");
            assert!(inspect::stat(&damaged).is_ok(), "{name} {length}");
        }
        rewrite(&file, &bytes);
    }
}

/// As `fs::write`, but without emptying the file first, because some file systems sync a file after
/// that.
fn rewrite(file: &Path, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(file).expect("a file");
    (&file).write_all(bytes).expect("bytes");
    file.set_len(bytes.len() as u64).expect("a length");
}

/// Changes the bytes of a file.
fn damage(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).expect("bytes");
    change(&mut bytes);
    fs::write(file, bytes).expect("damage");
}

#[tokio::test]
async fn a_header_with_one_bad_byte_loses_nothing_and_with_two_not_much() {
    let (temporary, dir) = place();
    build(&dir).await;
    let sound = salvaged(&dir);
    for (number, bad) in [[17, 17], [33, 33], [45, 45], [60, 60], [0, 9], [26, 58]].into_iter().enumerate() {
        let damaged = temporary.path().join(number.to_string());
        copy(&dir, &damaged);
        for file in files(&damaged) {
            damage(&file, |bytes| {
                bytes[bad[0]] ^= 0x55;
                bytes[bad[1]] ^= if bad[0] == bad[1] { 0 } else { 0x55 };
            });
            if bad[0] != bad[1] && file == segments(&damaged)[0] {
                // If all headers are this damaged, nothing tells the types of the database.
                break;
            }
        }
        let (image, report) = Image::salvage(&damaged, |_, _| {}).expect("it can be mended");
        assert_eq!(State::of(&image), sound, "{bad:?}: {report:?}");
        assert!(!report.is_complete() && report.missing.is_empty(), "{report:?}");
    }
}

#[tokio::test]
async fn the_other_blocks_of_a_damaged_checkpoint_are_kept() {
    let (temporary, dir) = place();
    let db = open(&dir).await.expect("it is new");
    db.transact(async |tx| (0..1000).try_for_each(|n| tx.insert(n, format!("{n:01000}"))))
        .await
        .expect("a commit");
    for n in 0..20 {
        // Fill some segments, so that the log continues in later ones.
        db.insert(2000 + n, "x".repeat(300)).await.expect("a commit");
    }
    db.checkpoint().await.expect("a checkpoint");
    db.insert(1000, "in the log".into()).await.expect("a commit");
    db.close().await.expect("it closes");

    // Delete the segments that the checkpoint covers. They could otherwise supply the pairs that
    // the checkpoint loses.
    let stat = inspect::stat(&dir).expect("it is there");
    for segment in stat.segments.iter().filter(|segment| segment.state == SegmentState::NotNeeded) {
        fs::remove_file(dir.join(name_of(segment.number))).expect("the file is removed");
    }
    let checkpoint = dir.join("snapshot.db");
    let mut offsets = Vec::new();
    inspect::records(&dir, |record| {
        if matches!(record.operation, Operation::Pair { .. }) && offsets.last() != Some(&record.offset) {
            offsets.push(record.offset);
        }
        ControlFlow::Continue(())
    })
    .expect("it is sound");
    assert!(offsets.len() >= 3, "{offsets:?}");
    let second = offsets[1] as usize;
    let pristine = fs::read(&checkpoint).expect("bytes");
    // Damage the checksum, the length (made huge), the number, the kind, and the payload in turn.
    for (at, byte) in [(0, 0xff), (7, 0xff), (9, 7), (20, 9), (5000, 0xff)] {
        damage(&checkpoint, |bytes| bytes[second + at] ^= byte);
        let error = inspect::verify(&dir, |_, _| {}).expect_err("it is damaged");
        assert!(matches!(error, PersistenceError::Damaged { offset, .. } if offset == offsets[1]), "{error}");
        let (image, report) = Image::salvage(&dir, |_, _| {}).expect("most is sound");
        assert_eq!(report.damage.len(), 1, "{report:?}");
        let found = &report.damage[0];
        assert_eq!((found.offset, found.length), (offsets[1], Some(offsets[2] - offsets[1])));
        assert!((600..900).contains(&image.pair_count()), "{} at {at}", image.pair_count());
        let out = temporary.path().join(format!("out {at}"));
        image.write_to(&out, |_| {}).expect("a copy");
        let saved = contents(&open(&out).await.expect("it opens"));
        assert!(saved.contains_key(&0) && saved[&1000] == "in the log");
        fs::write(&checkpoint, &pristine).expect("mended");
    }
    damage(&checkpoint, |bytes| {
        bytes.drain(second..offsets[2] as usize);
    });
    let (image, report) = Image::salvage(&dir, |_, _| {}).expect("most is sound");
    assert!(image.pair_count() > 600 && !report.is_complete(), "a block was taken out: {report:?}");
}

#[tokio::test]
async fn segments_that_are_gone_or_mixed_up_cost_no_more_than_what_was_in_them() {
    let (temporary, dir) = place();
    build(&dir).await;
    let sound = salvaged(&dir);
    let copied = |name: &str| {
        let to = temporary.path().join(name);
        copy(&dir, &to);
        to
    };
    let stat = inspect::stat(&dir).expect("it is there");
    let full: Vec<_> =
        stat.segments.iter().filter(|segment| segment.state == SegmentState::Full).copied().collect();

    // A segment is missing: only its commits are lost.
    let gap = copied("gap");
    fs::remove_file(
        segments(&gap).into_iter().find(|file| file.ends_with(name_of(full[0].number))).expect("it"),
    )
    .expect("the file is removed");
    assert!(matches!(inspect::verify(&gap, |_, _| {}), Err(PersistenceError::Missing { .. })));
    let (image, report) = Image::salvage(&gap, |_, _| {}).expect("the rest is sound");
    let (first, last) = (full[0].first_commit.expect("a commit"), full[0].last_commit.expect("a commit"));
    assert_eq!(report.missing, [first.max(21)..=last]);
    assert!(report.damage.iter().any(|damage| damage.why.contains("missing")), "{report:?}");
    assert_eq!(image.last_commit(), sound.last_commit);

    // Two segments have each other's names: nothing is lost.
    let swapped = copied("swapped");
    let [one, two] = [0, 1].map(|place| segments(&swapped)[place].clone());
    let aside = swapped.join("aside");
    for (from, to) in [(&one, &aside), (&two, &one), (&aside, &two)] {
        fs::rename(from, to).expect("a swap");
    }
    assert!(inspect::verify(&swapped, |_, _| {}).is_err());
    let (image, report) = Image::salvage(&swapped, |_, _| {}).expect("all is sound");
    assert_eq!(State::of(&image), sound);
    assert_eq!((report.damage.len(), report.missing.len()), (2, 0), "{report:?}");

    // The checkpoint is missing: the log alone is left, until a whole draft takes its place.
    let headless = copied("headless");
    fs::remove_file(headless.join("snapshot.db")).expect("the file is removed");
    assert!(matches!(inspect::verify(&headless, |_, _| {}), Err(PersistenceError::Missing { .. })));
    let (image, report) = Image::salvage(&headless, |_, _| {}).expect("the log is sound");
    assert!(!report.is_complete());
    assert!(image.pair_count() >= 20, "the commits of the log after the checkpoint: {report:?}");
    drop(image);
    fs::rename(copied("draft").join("snapshot.db"), headless.join("snapshot.tmp")).expect("a draft");
    assert_eq!(salvaged(&headless), sound, "a whole draft");
}

fn name_of(number: u64) -> String {
    format!("wal.{number:010}")
}

#[tokio::test]
async fn files_of_another_database_are_dropped() {
    let (temporary, dir) = place();
    build(&dir).await;
    let sound = salvaged(&dir);
    let other = temporary.path().join("other");
    build(&other).await;
    let last = segments(&dir).last().expect("a segment").clone();
    let mut behind = (1..).map(|number| dir.join(name_of(number))).skip_while(|path| *path <= last);
    let stray = behind.next().expect("there are numbers enough");
    fs::copy(&segments(&other)[0], &stray).expect("a stray");
    assert!(inspect::verify(&dir, |_, _| {}).is_err());
    let (image, report) = Image::salvage(&dir, |_, _| {}).expect("the rest is sound");
    assert_eq!(State::of(&image), sound);
    assert!(report.damage.iter().any(|damage| damage.why.contains("another database")), "{report:?}");
}

#[tokio::test]
async fn salvaged_pairs_can_be_read_with_their_types() {
    let (temporary, dir) = place();
    let pairs = build(&dir).await;
    let last = segments(&dir).into_iter().rev().nth(1).expect("the active one");
    damage(&last, |bytes| bytes[100] ^= 1);
    let out = temporary.path().join("out");
    let (image, report) = Image::salvage(&dir, |_, _| {}).expect("most is sound");
    image.write_to(&out, |_| {}).expect("a copy");
    assert!(!report.is_complete());
    let saved = contents(&open(&out).await.expect("it opens"));
    assert!(saved.len() >= pairs.len() - 1, "{report:?}");
    let wrong = Database::<u64, u64>::builder()
        .durability_full(fluxmap::persistence::PersistenceOptions::new(out))
        .build()
        .await;
    assert!(wrong.is_err(), "the copy keeps the names of the types");
}

#[tokio::test]
async fn hostile_bytes_are_no_more_than_damage() {
    let (temporary, dir) = place();
    build(&dir).await;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let damaged = temporary.path().join("damaged");
    copy(&dir, &damaged);
    let pristine: Vec<_> =
        files(&damaged).into_iter().map(|file| (fs::read(&file).expect("bytes"), file)).collect();
    for round in 0..100 {
        for (bytes, file) in &pristine {
            let mut bytes = bytes.clone();
            match random() % 5 {
                // Garbage of any length, with or without a sound header before it.
                0 => bytes = (0..random() % 500).map(|_| random() as u8).collect(),
                1 => bytes.iter_mut().skip(71).for_each(|byte| *byte = random() as u8),
                // Runs of ones, which make lengths and numbers as large as possible.
                2 => {
                    for _ in 0..20 {
                        let at = (random() as usize) % (bytes.len() - 8);
                        bytes[at..at + 8].fill(0xff);
                    }
                }
                // Marks of frames at places where no frames are.
                3 => {
                    let mark = bytes[32..36].to_vec();
                    for at in (100..bytes.len() - 4).step_by(64) {
                        bytes[at..at + 4].copy_from_slice(&mark);
                    }
                }
                _ => {}
            }
            rewrite(file, &bytes);
        }
        let strict = Image::load(&damaged, |_, _| {}).map(|image| State::of(&image));
        let _ = inspect::stat(&damaged).expect("it is there");
        let _ = inspect::records(&damaged, |_| ControlFlow::Continue(()));
        let salvaged = Image::salvage(&damaged, |_, _| {});
        if let Ok((image, report)) = &salvaged {
            assert_eq!(State::of(image).pairs.len() as u64, report.pairs, "{round}");
        }
        match (strict, salvaged) {
            (Err(error), Ok((_, report))) => assert!(!report.is_complete(), "{round}: {error}"),
            (strict, Err(error)) => {
                assert!(strict.is_err(), "{error}");
                assert!(matches!(error, PersistenceError::Unavailable(_)), "{error}");
            }
            (Ok(_), Ok(_)) => {}
        }
    }
}

//! Damage to whole files: truncated, deleted, emptied, swapped, and replaced by files of another
//! database or of an earlier time.

use crate::common::report;
use crate::damage::layout::{CHECKPOINT, Expected, Frame, Layout, segment_name, segment_number};
use crate::damage::outcome::{Outcome, Tally, assert_outcome, open_damaged};
use crate::damage::scenario::{End, Level, Scenario, content};
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, PersistenceError};
use futures::executor::block_on;
use std::fs::{self, File};
use std::time::{Duration, SystemTime};

const LEVELS: [Level; 2] = [Level::Full, Level::Relaxed];
const ENDS: [End; 2] = [End::Closed, End::Killed];

/// Every scenario, with its layout and a name.
fn scenarios() -> impl Iterator<Item = (Scenario, Layout, String)> {
    let all = LEVELS.into_iter().flat_map(|level| ENDS.map(|end| (level, end)));
    all.map(|(level, end)| {
        let scenario = Scenario::write(level, end, true);
        let layout = Layout::read(&scenario.files);
        (scenario, layout, format!("{level:?}, {end:?}"))
    })
}

/// Truncates each file at each length.
fn truncate_everything(end: End) {
    let scenario = Scenario::write(Level::Full, end, true).with_short_leftovers();
    let layout = Layout::read(&scenario.files);
    let mut tally = Tally::default();
    let mut lengths = 0;
    for (name, bytes) in &scenario.files {
        let mut files = scenario.files.clone();
        for length in (0..bytes.len()).rev() {
            lengths += 1;
            let what = format!("{end:?}: {name} cut off at {length}");
            files.entry(name.clone()).and_modify(|bytes| bytes.truncate(length));
            let outcome = open_damaged(&scenario, &files, &what);
            assert_outcome(&outcome, &layout.on_truncation(name, length), &what);
            tally.add(&outcome);
        }
    }
    assert_eq!(tally.total(), lengths, "nothing else");
    let is_known = layout.made.values().all(|made| *made > 0);
    assert!(!is_known || tally.unnoticed == 0, "the headers say how long the segments are");
    report(&format!("damage: {lengths} lengths, Full, {end:?}: {tally}"));
}

#[test]
fn every_length_closed() {
    truncate_everything(End::Closed);
}

#[test]
fn every_length_killed() {
    truncate_everything(End::Killed);
}

#[test]
fn every_file_deleted_emptied_and_made_longer() {
    let mut tally = Tally::default();
    for (scenario, layout, name_of_it) in scenarios() {
        for name in scenario.files.keys() {
            let mut try_with = |change: &str, expected: Expected, bytes: Option<Vec<u8>>| {
                let what = format!("{name_of_it}: {name} {change}");
                let mut files = scenario.files.clone();
                match bytes {
                    Some(bytes) => files.insert(name.clone(), bytes),
                    None => files.remove(name),
                };
                let outcome = open_damaged(&scenario, &files, &what);
                assert_outcome(&outcome, &expected, &what);
                tally.add(&outcome);
            };
            try_with("deleted", layout.on_deletion(name), None);
            if name != "lock" {
                try_with("emptied", layout.on_truncation(name, 0), Some(Vec::new()));
            }
            let bytes = &scenario.files[name];
            for tail in [vec![0; 700], vec![0xa5; 3]] {
                let longer = match name == CHECKPOINT {
                    true => Expected::Damaged { file: name.clone(), offset: last_block(&layout) },
                    false => Expected::NoEffect,
                };
                try_with("made longer", longer, Some([&bytes[..], &tail].concat()));
            }
        }
    }
    report(&format!("damage: files deleted, emptied, made longer: {tally}"));
}

fn last_block(layout: &Layout) -> u64 {
    layout.blocks.last().copied().unwrap_or_default() as u64
}

#[test]
fn every_two_files_swapped() {
    let mut tally = Tally::default();
    for (scenario, layout, name_of_it) in scenarios() {
        let names: Vec<&String> = scenario.files.keys().collect();
        for (index, first) in names.iter().enumerate() {
            for second in &names[index + 1..] {
                let what = format!("{name_of_it}: {first} and {second} swapped");
                let mut files = scenario.files.clone();
                files.insert(first.to_string(), scenario.files[*second].clone());
                files.insert(second.to_string(), scenario.files[*first].clone());
                let outcome = open_damaged(&scenario, &files, &what);
                match &outcome {
                    Outcome::Detected(PersistenceError::Damaged { path, .. }) => {
                        let hit = [first, second].iter().any(|name| path.ends_with(name));
                        assert!(hit, "{what}: {path:?} is blamed");
                    }
                    outcome => {
                        let matters = layout.matters(first) || layout.matters(second);
                        assert!(matches!(outcome, Outcome::NoEffect) && !matters, "{what}: {outcome:?}");
                    }
                }
                tally.add(&outcome);
            }
        }
    }
    report(&format!("damage: files swapped: {tally}"));
}

#[test]
fn files_of_another_database() {
    let mut tally = Tally::default();
    for (scenario, layout, name_of_it) in scenarios() {
        let other = Scenario::write(Level::Full, End::Closed, true);
        let theirs = Layout::read(&other.files);
        for name in scenario.files.keys().filter(|name| *name != "lock") {
            let what = format!("{name_of_it}: {name} of another database");
            let mut files = scenario.files.clone();
            files.insert(name.clone(), other.files[name].clone());
            let outcome = open_damaged(&scenario, &files, &what);
            // A foreign checkpoint is read first, so the error names the log, which does not match
            // it.
            let stranger = if name == CHECKPOINT { &segment_name(theirs.log_segment) } else { name };
            let expected = match layout.matters(name) {
                true => Expected::Damaged { file: stranger.clone(), offset: 24 },
                false => Expected::NoEffect,
            };
            assert_outcome(&outcome, &expected, &what);
            tally.add(&outcome);
        }
        // Add a foreign segment at the end, as if it had been made ready for the log.
        let end = scenario.files.keys().filter_map(|name| segment_number(name)).max().unwrap_or(0) + 1;
        let mut files = scenario.files.clone();
        let mut stranger = other.files[&segment_name(4)].clone();
        stranger[40..48].copy_from_slice(&end.to_le_bytes());
        let length = crate::damage::layout::number(&stranger, 14, 2) as usize;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&stranger[..8]), &stranger[12..length]);
        stranger[8..12].copy_from_slice(&crc.to_le_bytes());
        files.insert(segment_name(end), stranger);
        let outcome = open_damaged(&scenario, &files, &"a segment of another database at the end");
        assert_outcome(&outcome, &Expected::Damaged { file: segment_name(end), offset: 24 }, &name_of_it);
        tally.add(&outcome);
    }
    report(&format!("damage: files of another database: {tally}"));
}

/// Puts each file back as it was after each earlier commit. This must be detected or have no
/// effect, with one exception: the segment in which the log ends. Its older content is, byte for
/// byte, what a process leaves that is killed at that moment, so nothing can tell the two apart,
/// unless the checkpoint covers later commits.
#[test]
fn files_of_another_time() {
    let mut tally = Tally::default();
    for (mut scenario, layout, name_of_it) in scenarios() {
        let newest = segment_name(layout.newest());
        // The last commit in the segments before the newest one.
        let before = layout.frames.iter().rfind(|frame| frame.at.0 < layout.newest()).expect("one").first - 1;
        for (commit, earlier) in std::mem::take(&mut scenario.earlier).into_iter().enumerate() {
            for (name, bytes) in earlier {
                let what = format!("{name_of_it}: {name} as it was after commit {commit}");
                let mut files = scenario.files.clone();
                files.insert(name.clone(), bytes.clone());
                let outcome = open_damaged(&scenario, &files, &what);
                match outcome {
                    Outcome::Unnoticed { last } if name == newest => {
                        assert_eq!(last, before.max(commit as u64))
                    }
                    Outcome::Detected(_) | Outcome::NoEffect => {}
                    _ => panic!("{what}: {outcome:?}"),
                }
                tally.add(&outcome);
            }
        }
    }
    assert!(tally.detected > 0 && tally.no_effect > 0 && tally.unnoticed > 0);
    report(&format!("damage: files of another time: {tally}"));
}

/// The order of the segments follows from their content, not from the modification times of the
/// files.
#[test]
fn times_of_files_do_not_matter() {
    let dir = tempfile::tempdir().expect("a directory");
    let scenario = Scenario::write(Level::Full, End::Killed, true);
    let names: Vec<&String> = scenario.files.keys().collect();
    let hour = Duration::from_secs(3600);
    let newer = SystemTime::now() + 1000 * hour;
    let orders: [fn(u32, u32) -> u32; 4] = [|n, _| n, |n, all| all - n, |n, _| n * 7 % 5, |_, _| 0];
    for (round, order) in orders.into_iter().enumerate() {
        let path = dir.path().join(round.to_string());
        fs::create_dir(&path).expect("a directory");
        for (index, name) in names.iter().enumerate() {
            fs::write(path.join(name), &scenario.files[*name]).expect("a file");
            let file = File::options().write(true).open(path.join(name)).expect("a file");
            let time = newer - order(index as u32, names.len() as u32) * 400 * hour;
            file.set_modified(time).expect("a time");
        }
        let options = PersistenceOptions { wal_segment_size_bytes: 4096, ..PersistenceOptions::new(path) };
        let db = block_on(Database::builder().durability_full(options).build()).expect("it opens");
        assert_eq!(Some(&content(&db)), scenario.states.last());
    }
}

/// The scenarios must contain every kind of part, or the tests above would prove little.
#[test]
fn the_scenarios_have_all_there_is_to_damage() {
    for (scenario, layout, name_of_it) in scenarios() {
        let kinds = |kind: u8| layout.frames.iter().filter(|frame: &&Frame| frame.kind == kind).count();
        assert!(kinds(1) > 10 && kinds(3) >= 1, "{name_of_it}: commits, ends of segments");
        assert_eq!(kinds(2) > 0, scenario.level == Level::Relaxed, "{name_of_it}: marks of synced positions");
        assert_eq!(kinds(4) > 0, name_of_it.ends_with("Closed"), "{name_of_it}: the mark of a clean close");
        assert!(layout.covered > 0 && layout.blocks.len() >= 3, "{name_of_it}: a checkpoint");
        assert_eq!(layout.last() as usize + 1, scenario.states.len(), "{name_of_it}");
        assert!(scenario.files.contains_key(&segment_name(layout.newest() + 1)), "{name_of_it}: a ready one");
        let ready = &scenario.files[&segment_name(layout.newest() + 1)];
        assert!(ready[300..].iter().any(|byte| *byte != 0), "{name_of_it}: it was used before");
    }
}

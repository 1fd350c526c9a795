//! Damage to the files of small databases: each byte flipped, each file truncated at each length,
//! deleted, emptied, swapped, and replaced by that of another database or of an earlier time. Each
//! damage must have one of three outcomes (see `outcome.rs`): it is detected and named, a torn tail
//! is cut and reported, or it has no effect. The format determines which of the three, as
//! `layout.rs` reads it.

mod files;
mod layout;
mod outcome;
mod scenario;

use crate::common::report;
use layout::{Expected, Layout};
use outcome::{Tally, assert_outcome, open_damaged};
use scenario::{End, Level, Scenario};

/// The bits that are flipped in each byte, one after the other. In a byte whose damage has no
/// effect, both are flipped at once, which saves time.
const MASKS: [u8; 2] = [0x01, 0x80];
const BOTH: [u8; 1] = [0x81];

/// Flips each byte of each file.
fn flip_everything(level: Level, end: End) {
    // Write leftover files at `Full` only, because opening reads them at neither level.
    let scenario = Scenario::write(level, end, level == Level::Full).with_short_leftovers();
    let layout = Layout::read(&scenario.files);
    let mut tally = Tally::default();
    let mut flips = 0;
    let mut files = scenario.files.clone();
    for (name, bytes) in &scenario.files {
        for offset in 0..bytes.len() {
            let expected = layout.on_flip(name, offset);
            let masks: &[u8] = if expected == Expected::NoEffect { &BOTH } else { &MASKS };
            flips += masks.len() as u64;
            for mask in masks.iter().copied() {
                let what = format!("{level:?}, {end:?}: {name}, byte {offset} ^ {mask:#04x}");
                files.entry(name.clone()).and_modify(|bytes| bytes[offset] ^= mask);
                let outcome = open_damaged(&scenario, &files, &what);
                assert_outcome(&outcome, &expected, &what);
                if let (Expected::Cut { last, .. }, End::Closed) = (&expected, end) {
                    assert_eq!(*last, layout.last(), "{what}: after a clean close no flip may lose a commit");
                }
                tally.add(&outcome);
                files.insert(name.clone(), bytes.clone());
            }
        }
    }
    let bytes: usize = scenario.files.values().map(Vec::len).sum();
    assert_eq!(tally.total(), flips, "nothing else");
    assert!(tally.detected > 0 && tally.cut > 0 && tally.no_effect > 0 && tally.unnoticed == 0, "{tally}");
    report(&format!("damage: {bytes} bytes flipped, {level:?}, {end:?}: {tally}"));
}

#[test]
fn every_flipped_byte_full_closed() {
    flip_everything(Level::Full, End::Closed);
}

#[test]
fn every_flipped_byte_full_killed() {
    flip_everything(Level::Full, End::Killed);
}

#[test]
fn every_flipped_byte_relaxed_closed() {
    flip_everything(Level::Relaxed, End::Closed);
}

#[test]
fn every_flipped_byte_relaxed_killed() {
    flip_everything(Level::Relaxed, End::Killed);
}

//! The space that a key takes: memory of the process, and files.

use super::super::keys::{Keys, shuffled};
use super::super::sample::Sample;
use super::Bench;
use crate::output::anonymous_bytes;
use crate::stores::value;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How often every key is updated.
const UPDATES: i64 = 10;

pub(super) fn run(bench: &Bench<'_>) -> Result<(), String> {
    let keys = Keys::new(bench.keys);
    let order = shuffled(bench.keys);
    // Files are on a file system in memory, so count them, too, whether or not the store maps them.
    let taken = || anonymous_bytes() as f64 + file_bytes(bench.dir);
    let before = taken();
    let note = |workload| bench.note(Sample::of_figure(workload, (taken() - before) / bench.keys as f64));
    let put_all = |number| {
        for &key in &order {
            bench.store.put(keys.get(key as usize), value(number));
        }
    };
    put_all(0);
    note("bytes a key, loaded");
    for number in 1..=UPDATES {
        put_all(number);
    }
    note("bytes a key, updated ten times");
    match order.iter().find(|&&key| bench.store.get(keys.get(key as usize)) != Some(UPDATES)) {
        None => Ok(()),
        Some(key) => Err(format!("the last update of {} is lost", keys.get(*key as usize))),
    }
}

/// The bytes that the files in a directory take.
fn file_bytes(dir: &Path) -> f64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => file_bytes(&entry.path()),
        // Count blocks instead of the length, because files may have holes.
        Ok(metadata) => metadata.blocks() as f64 * 512.0,
        // The file was removed meanwhile.
        Err(_) => 0.0,
    });
    bytes.sum()
}

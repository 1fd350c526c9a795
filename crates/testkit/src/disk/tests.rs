//! Tests of the simulated disk itself, one file per topic.

mod contract;
mod crash;
mod damage;
mod faults;
mod power;

use std::path::Path;

use fluxmap::disk::{Disk, DiskFile, OpenMode};

use super::SimDisk;

/// A disk with the durable directory `d`, which holds the files of the tests.
fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir(Path::new("d")).unwrap();
    disk
}

fn create(disk: &SimDisk, path: &str) -> Box<dyn DiskFile> {
    disk.open(Path::new(path), OpenMode::Create).unwrap()
}

/// A file whose name and content are durable.
fn durable(disk: &SimDisk, path: &str, bytes: &[u8]) -> Box<dyn DiskFile> {
    let file = create(disk, path);
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("d")).unwrap();
    file
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.files().into_keys().map(|path| path.display().to_string()).collect()
}

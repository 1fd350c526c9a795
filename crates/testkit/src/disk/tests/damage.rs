//! Damage that a test does directly to files.

use std::path::{Path, PathBuf};

use fluxmap::disk::{Disk, OpenMode};

use super::super::{Loss, SimDisk};
use super::{create, disk, durable};

/// The content of a file as reads see it, and as a power loss leaves it.
fn both(disk: &SimDisk, path: &str) -> (Vec<u8>, Vec<u8>) {
    (disk.read(path), disk.power_cut(Loss::Everything).read(path))
}

#[test]
fn a_byte_is_flipped_for_good() {
    let disk = disk(1);
    let file = durable(&disk, "d/a", b"aaaa");
    file.write_at(b"bb", 1).unwrap();
    disk.flip("d/a", 2, 1);
    assert_eq!(both(&disk, "d/a"), (b"abca".to_vec(), b"aa`a".to_vec()));
    file.sync().unwrap();
    assert_eq!(both(&disk, "d/a"), (b"abca".to_vec(), b"abca".to_vec()));
    disk.flip("d/a", 2, 1);
    assert_eq!(both(&disk, "d/a"), (b"abba".to_vec(), b"abba".to_vec()));
}

#[test]
fn files_are_written_cut_swapped_and_removed_for_good() {
    let disk = disk(1);
    disk.write("new/deep/a", *b"content");
    disk.write("d/b", *b"other");
    assert_eq!(disk.power_cut(Loss::Everything).files(), disk.files());
    disk.truncate("new/deep/a", 3);
    assert_eq!(both(&disk, "new/deep/a"), (b"con".to_vec(), b"con".to_vec()));
    disk.truncate("new/deep/a", 4);
    assert_eq!(disk.read("new/deep/a"), b"con\0");
    disk.swap("new/deep/a", "d/b");
    assert_eq!(both(&disk, "new/deep/a"), (b"other".to_vec(), b"other".to_vec()));
    assert_eq!(both(&disk, "d/b"), (b"con\0".to_vec(), b"con\0".to_vec()));
    disk.remove_file("d/b");
    let left = disk.power_cut(Loss::Everything).files();
    assert_eq!(left.into_iter().collect::<Vec<_>>(), [(PathBuf::from("new/deep/a"), 5)]);
    assert_eq!(disk.calls(), 1, "none of it counts but the directory that the test made");
}

#[test]
fn damage_is_seen_by_handles_and_overrides_what_is_not_synced() {
    let disk = disk(1);
    let file = create(&disk, "d/a");
    file.write_at(b"not synced", 0).unwrap();
    disk.write("d/a", *b"damaged");
    assert_eq!(file.len().unwrap(), 7);
    assert_eq!(both(&disk, "d/a"), (b"damaged".to_vec(), b"damaged".to_vec()));
    disk.open(Path::new("d/a"), OpenMode::Read).unwrap();
}

#[test]
#[should_panic(expected = "there is no file d/none on the simulated disk")]
fn there_must_be_something_to_damage() {
    disk(1).flip("d/none", 0, 1);
}

//! The contract that both the simulated disk and the real one keep.

use std::io::ErrorKind;
use std::path::Path;

use fluxmap::disk::{Disk, DiskFile, OpenMode, OsDisk};

use super::super::SimDisk;

type Check = fn(&dyn Disk, &Path);

#[test]
fn both_disks_keep_the_same_contract() {
    let checks: [(&str, Check); 9] = [
        ("modes", modes),
        ("positions", positions),
        ("emptied", emptied),
        ("missing", missing),
        ("listed", listed),
        ("renamed", renamed),
        ("removed", removed),
        ("locked", locked),
        ("in the way", in_the_way),
    ];
    for (name, check) in checks {
        println!("{name}, simulated");
        let root = Path::new("/root/db");
        let disk = SimDisk::new(3);
        disk.create_dir(root).unwrap();
        check(&disk, root);
        println!("{name}, real");
        let root = tempfile::tempdir().unwrap();
        check(&OsDisk, root.path());
    }
}

#[test]
fn what_the_simulated_disk_does_not_do_it_refuses() {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("d")).unwrap();
    let file = put(&disk, Path::new("a"), b"a");
    assert_eq!(kind(disk.rename(Path::new("a"), Path::new("d/a"))), ErrorKind::Unsupported);
    assert_eq!(kind(file.write_at(b"far", 1 << 40)), ErrorKind::FileTooLarge);
    assert_eq!(kind(file.write_at(b"far", u64::MAX)), ErrorKind::FileTooLarge);
    assert_eq!(kind(disk.create_dir(Path::new("a/b"))), ErrorKind::NotADirectory);
    assert_eq!(file.len().unwrap(), 1);
}

fn all(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    let mut done = 0;
    while done < bytes.len() {
        let read = file.read_at(&mut bytes[done..], done as u64).unwrap();
        assert!(read > 0, "nothing was read before the end");
        done += read;
    }
    assert_eq!(file.read_at(&mut [0; 8], done as u64).unwrap(), 0, "a read at the end returns nothing");
    assert_eq!(
        file.read_at(&mut [0; 8], done as u64 + 9).unwrap(),
        0,
        "a read beyond the end returns nothing"
    );
    bytes
}

fn holds(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    all(&*disk.open(path, OpenMode::Read).unwrap())
}

fn put(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Box<dyn DiskFile> {
    let file = disk.open(path, OpenMode::Create).unwrap();
    file.write_at(bytes, 0).unwrap();
    file
}

fn kind<T>(outcome: std::io::Result<T>) -> ErrorKind {
    outcome.map(drop).expect_err("this must fail").kind()
}

fn modes(disk: &dyn Disk, root: &Path) {
    let path = &root.join("a");
    let made = put(disk, path, b"one");
    assert_eq!(all(&*made), b"one", "a created file can be read");
    let written = disk.open(path, OpenMode::Write).unwrap();
    assert_eq!(all(&*written), b"one", "opening for writing does not empty the file");
    written.write_at(b"two", 0).unwrap();
    let read = disk.open(path, OpenMode::Read).unwrap();
    assert_eq!(all(&*read), b"two");
    assert!(read.write_at(b"x", 0).is_err(), "a file opened for reading is not written");
    made.write_at(b"six", 0).unwrap();
    assert_eq!(all(&*read), b"six", "all handles see one file");
    read.sync().unwrap();
    made.sync().unwrap();
}

fn positions(disk: &dyn Disk, root: &Path) {
    let path = &root.join("a");
    let file = put(disk, path, b"abc");
    file.write_at(b"xyz", 600).unwrap();
    file.write_at(b"", 9000).unwrap();
    assert_eq!(file.len().unwrap(), 603, "writing nothing makes nothing longer");
    file.write_at(b"BCD", 1).unwrap();
    let mut expected = vec![0; 603];
    expected[..4].copy_from_slice(b"aBCD");
    expected[600..].copy_from_slice(b"xyz");
    assert_eq!(all(&*file), expected);
    let mut buffer = [9; 2];
    let read = file.read_at(&mut buffer, 601).unwrap();
    assert_eq!(buffer[..read], b"yz"[..read]);
    assert_eq!(file.read_at(&mut [], 0).unwrap(), 0);
}

fn emptied(disk: &dyn Disk, root: &Path) {
    let path = &root.join("a");
    let old = put(disk, path, b"old content");
    assert!(!old.is_empty().unwrap());
    let new = disk.open(path, OpenMode::Create).unwrap();
    assert!(new.is_empty().unwrap() && old.is_empty().unwrap(), "both handles are of the same file");
}

fn missing(disk: &dyn Disk, root: &Path) {
    let path = &root.join("none");
    assert_eq!(kind(disk.open(path, OpenMode::Read)), ErrorKind::NotFound);
    assert_eq!(kind(disk.open(path, OpenMode::Write)), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename(path, &root.join("b"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove(path)), ErrorKind::NotFound);
    assert_eq!(kind(disk.list(path)), ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_dir(path)), ErrorKind::NotFound);
    assert_eq!(kind(disk.open(&path.join("a"), OpenMode::Create)), ErrorKind::NotFound);
    assert_eq!(kind(disk.lock(&path.join("a"))), ErrorKind::NotFound);
}

fn listed(disk: &dyn Disk, root: &Path) {
    let deep = &root.join("x/y");
    disk.create_dir(deep).unwrap();
    disk.create_dir(deep).unwrap();
    for name in ["c", "a", "b"] {
        put(disk, &deep.join(name), b"");
    }
    let mut names = disk.list(deep).unwrap();
    names.sort();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(
        disk.list(&root.join("x")).unwrap(),
        ["y"],
        "a listing has the entries of this directory only, directories included"
    );
    disk.sync_dir(deep).unwrap();
}

fn renamed(disk: &dyn Disk, root: &Path) {
    let (from, to) = (&root.join("a"), &root.join("b"));
    let moved = put(disk, from, b"new");
    let replaced = put(disk, to, b"replaced");
    disk.rename(from, to).unwrap();
    assert_eq!(disk.list(root).unwrap(), ["b"]);
    assert_eq!(holds(disk, to), b"new");
    moved.write_at(b"N", 0).unwrap();
    replaced.write_at(b"R", 0).unwrap();
    assert_eq!(holds(disk, to), b"New", "handles follow the file, not the name");
    assert_eq!(all(&*replaced), b"Replaced", "a file without a name lives while it is open");
    disk.rename(to, to).unwrap();
    assert_eq!(holds(disk, to), b"New");
}

fn removed(disk: &dyn Disk, root: &Path) {
    let path = &root.join("a");
    let open = put(disk, path, b"open");
    disk.remove(path).unwrap();
    disk.sync_dir(root).unwrap();
    assert!(disk.list(root).unwrap().is_empty());
    assert_eq!(all(&*open), b"open");
    put(disk, path, b"another");
    assert_eq!((all(&*open), holds(disk, path)), (b"open".to_vec(), b"another".to_vec()));
}

fn locked(disk: &dyn Disk, root: &Path) {
    let path = &root.join("lock");
    let other = disk.lock(&root.join("other")).unwrap();
    let lock = disk.lock(path).unwrap();
    assert_eq!(kind(disk.lock(path)), ErrorKind::WouldBlock);
    assert_eq!(kind(disk.lock(path)), ErrorKind::WouldBlock, "asking does not free it");
    drop(other);
    assert_eq!(kind(disk.lock(path)), ErrorKind::WouldBlock);
    drop(lock);
    put(disk, path, b"kept");
    let _lock = disk.lock(path).unwrap();
    assert_eq!(holds(disk, path), b"kept", "a lock leaves the file as it is");
}

fn in_the_way(disk: &dyn Disk, root: &Path) {
    let (file, directory) = (&root.join("file"), &root.join("directory"));
    put(disk, file, b"");
    disk.create_dir(directory).unwrap();
    assert_eq!(kind(disk.create_dir(file)), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.open(directory, OpenMode::Create)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.rename(file, directory)), ErrorKind::IsADirectory);
}

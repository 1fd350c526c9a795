//! The changes that a power loss may undo, and those that must survive it.

use std::collections::BTreeSet;
use std::path::Path;

use fluxmap::disk::{Disk, OpenMode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::{Loss, SimDisk};
use super::{create, disk, durable, names};

/// The set of outcomes of power losses with many seeds.
fn outcomes<T: Ord>(disk: &SimDisk, look: impl Fn(SimDisk) -> T) -> BTreeSet<T> {
    (0..2000).map(|seed| look(disk.power_cut(Loss::Random(seed)))).collect()
}

#[test]
fn what_is_synced_survives_and_the_rest_need_not() {
    let disk = disk(1);
    let file = durable(&disk, "d/a", b"old");
    file.write_at(b"NEW!", 0).unwrap();
    assert_eq!(disk.read("d/a"), b"NEW!");
    assert_eq!(disk.power_cut(Loss::Everything).read("d/a"), b"old");
    assert_eq!(disk.power_cut(Loss::Nothing).read("d/a"), b"NEW!");
    let seen = outcomes(&disk, |disk| disk.read("d/a"));
    // A sector survives whole or not at all, but the length may stay the old one.
    let expected = [&b"old"[..], b"old\0", b"NEW", b"NEW!"];
    assert_eq!(seen, expected.iter().map(|bytes| bytes.to_vec()).collect());
    file.sync().unwrap();
    assert_eq!(outcomes(&disk, |disk| disk.read("d/a")).len(), 1);
    assert_eq!(disk.power_cut(Loss::Everything).read("d/a"), b"NEW!");
}

#[test]
fn a_synced_file_without_a_synced_name_may_vanish() {
    let disk = disk(1);
    let file = create(&disk, "d/a");
    file.write_at(b"content", 0).unwrap();
    file.sync().unwrap();
    assert!(names(&disk.power_cut(Loss::Everything)).is_empty());
    let seen = outcomes(&disk, |disk| disk.files().into_values().next());
    assert_eq!(seen, BTreeSet::from([None, Some(7)]), "wholly gone, or wholly there");
    disk.sync_dir(Path::new("d")).unwrap();
    assert_eq!(disk.power_cut(Loss::Everything).read("d/a"), b"content");
}

#[test]
fn a_synced_name_does_not_make_the_content_durable() {
    let disk = disk(1);
    create(&disk, "d/a").write_at(b"content", 0).unwrap();
    disk.sync_dir(Path::new("d")).unwrap();
    assert_eq!(disk.power_cut(Loss::Everything).read("d/a"), b"");
}

#[test]
fn only_the_directory_that_was_synced_is_durable() {
    let disk = disk(1);
    disk.create_dir(Path::new("e")).unwrap();
    create(&disk, "d/a");
    create(&disk, "e/b");
    disk.sync_dir(Path::new("e")).unwrap();
    assert_eq!(names(&disk.power_cut(Loss::Everything)), ["e/b"]);
    assert!(disk.power_cut(Loss::Everything).list(Path::new("d")).unwrap().is_empty());
}

#[test]
fn a_torn_write_leaves_any_of_its_sectors() {
    let disk = disk(1);
    let file = durable(&disk, "d/a", &[0; 2000]);
    // The write covers parts of sectors 0 and 3, and all of sectors 1 and 2.
    file.write_at(&[1; 1500], 100).unwrap();
    let seen = outcomes(&disk, |disk| {
        let bytes = disk.read("d/a");
        assert!(bytes[..100].iter().chain(&bytes[1600..]).all(|byte| *byte == 0));
        let sectors = [100..512, 512..1024, 1024..1536, 1536..1600];
        sectors.map(|sector| {
            let first = bytes[sector.start];
            assert!(bytes[sector.clone()].iter().all(|byte| *byte == first), "{sector:?} is torn itself");
            first
        })
    });
    assert_eq!(seen.len(), 16, "every subset occurs");
}

#[test]
fn writes_survive_in_any_subset() {
    let disk = disk(1);
    let file = durable(&disk, "d/a", b"....");
    for n in 0..4 {
        file.write_at(b"x", n).unwrap();
    }
    assert_eq!(outcomes(&disk, |disk| disk.read("d/a")).len(), 16);
}

#[test]
fn the_earliest_of_many_may_be_lost_alone() {
    let disk = disk(1);
    let file = durable(&disk, "d/a", &[b'.'; 64]);
    for n in 0..64 {
        file.write_at(b"x", n).unwrap();
    }
    let seen = outcomes(&disk, |disk| disk.read("d/a"));
    let kept = |from: usize, to: usize| {
        (0..64).map(|n| if (from..to).contains(&n) { b'x' } else { b'.' }).collect::<Vec<u8>>()
    };
    assert!(seen.contains(&kept(1, 64)), "all but the first");
    assert!(seen.contains(&kept(60, 64)), "the last few only");
    assert!(seen.contains(&kept(0, 60)), "all but the last few");
    assert!(seen.contains(&kept(0, 0)) && seen.contains(&kept(0, 64)));
}

#[test]
fn the_last_of_many_that_survive_may_be_torn() {
    let disk = disk(1);
    let file = durable(&disk, "d/a", &[0; 32 * 1024]);
    for n in 0..32 {
        file.write_at(&[1; 1024], n * 1024).unwrap();
    }
    let torn = |disk: SimDisk| {
        let bytes = disk.read("d/a");
        let kept = bytes.iter().take_while(|byte| **byte == 1).count();
        kept > 10 * 1024 && kept % 1024 == 512 && bytes[kept..].iter().all(|byte| *byte == 0)
    };
    assert!(outcomes(&disk, torn).contains(&true));
}

#[test]
fn the_length_may_survive_without_the_data_and_the_data_without_the_length() {
    let disk = disk(1);
    let file = durable(&disk, "d/a", &[7; 512]);
    file.write_at(&[8; 1024], 0).unwrap();
    let seen = outcomes(&disk, |disk| {
        let bytes = disk.read("d/a");
        (bytes.len(), bytes[0], bytes.get(600).copied())
    });
    assert!(seen.contains(&(1024, 7, Some(0))), "zeros at the new length");
    assert!(seen.contains(&(512, 8, None)), "the old length with new data");
    assert!(seen.contains(&(512, 7, None)) && seen.contains(&(1024, 8, Some(8))));
    assert!(seen.contains(&(1024, 7, Some(8))), "the later sector alone");
}

#[test]
fn emptying_a_file_may_be_lost() {
    let disk = disk(1);
    durable(&disk, "d/a", b"old");
    create(&disk, "d/a").write_at(b"N", 0).unwrap();
    assert_eq!(disk.power_cut(Loss::Everything).read("d/a"), b"old");
    let seen = outcomes(&disk, |disk| disk.read("d/a"));
    for bytes in [&b"old"[..], b"Nld", b"N", b""] {
        assert!(seen.contains(bytes), "{bytes:?} is not in {seen:?}");
    }
}

#[test]
fn a_rename_is_never_half_done() {
    let disk = disk(1);
    durable(&disk, "d/current", b"old");
    durable(&disk, "d/new", b"new");
    disk.rename(Path::new("d/new"), Path::new("d/current")).unwrap();
    assert_eq!(disk.power_cut(Loss::Everything).read("d/current"), b"old");
    let seen = outcomes(&disk, |disk| (names(&disk), disk.read("d/current")));
    let before = (vec!["d/current".to_owned(), "d/new".to_owned()], b"old".to_vec());
    let after = (vec!["d/current".to_owned()], b"new".to_vec());
    assert_eq!(seen, BTreeSet::from([before, after.clone()]));
    disk.sync_dir(Path::new("d")).unwrap();
    assert_eq!(outcomes(&disk, |disk| (names(&disk), disk.read("d/current"))), BTreeSet::from([after]));
}

#[test]
fn names_survive_in_any_consistent_subset() {
    let disk = disk(1);
    durable(&disk, "d/old", b"old");
    durable(&disk, "d/gone", b"gone");
    durable(&disk, "d/tmp", b"one");
    disk.rename(Path::new("d/tmp"), Path::new("d/old")).unwrap();
    disk.remove(Path::new("d/gone")).unwrap();
    let made = create(&disk, "d/tmp");
    made.write_at(b"two", 0).unwrap();
    made.sync().unwrap();
    disk.rename(Path::new("d/tmp"), Path::new("d/made")).unwrap();
    let contents = |disk: SimDisk| {
        let bytes = |path: String| String::from_utf8(disk.read(&path)).unwrap();
        names(&disk).into_iter().map(|path| format!("{path}={}", bytes(path.clone()))).collect::<Vec<_>>()
    };
    let seen = outcomes(&disk, contents);
    // `gone` has two outcomes: it is there or not. The renames have four: the first one was lost,
    // which leaves no place for the new `tmp`; or it survived, and the new file does not exist, is
    // still `tmp`, or is renamed.
    assert_eq!(seen.len(), 8, "{seen:#?}");
    for names in &seen {
        let all = names.join(" ");
        assert!(all.contains("d/old=old") != all.contains("d/old=one"), "{all}");
        assert!(all.matches("two").count() <= 1 && all.matches("=one").count() == 1, "{all}");
    }
    let lost: Vec<_> = ["d/gone=gone", "d/old=old", "d/tmp=one"].map(str::to_owned).into();
    assert!(seen.contains(&lost));
    assert!(seen.contains(&["d/made=two", "d/old=one"].map(str::to_owned)[..]));
}

#[test]
fn an_unsynced_removal_may_be_undone_with_the_content() {
    let disk = disk(1);
    drop(durable(&disk, "d/a", b"content"));
    disk.remove(Path::new("d/a")).unwrap();
    assert_eq!(disk.power_cut(Loss::Everything).read("d/a"), b"content");
    disk.sync_dir(Path::new("d")).unwrap();
    assert!(names(&disk.power_cut(Loss::Everything)).is_empty());
}

#[test]
fn what_a_lost_removal_brings_back_is_whole_though_another_directory_was_synced() {
    let disk = disk(1);
    disk.create_dir(Path::new("e")).unwrap();
    let file = create(&disk, "d/a");
    file.write_at(b"content", 0).unwrap();
    file.sync().unwrap();
    drop(file);
    disk.remove(Path::new("d/a")).unwrap();
    disk.sync_dir(Path::new("e")).unwrap();
    let seen = outcomes(&disk, |disk| disk.files().into_values().next());
    assert_eq!(seen, BTreeSet::from([None, Some(7)]));
}

#[test]
fn the_same_seed_takes_the_same() {
    let build = || {
        let disk = disk(9);
        for name in ["d/a", "d/b", "d/c"] {
            let file = create(&disk, name);
            for n in 0..5 {
                file.write_at(&[7; 900], n * 700).unwrap();
            }
        }
        disk
    };
    let look = |disk: SimDisk| names(&disk).into_iter().map(|name| disk.read(name)).collect::<Vec<_>>();
    let (first, second) = (build(), build());
    for seed in 0..100 {
        let loss = Loss::Random(seed);
        assert_eq!(look(first.power_cut(loss)), look(second.power_cut(loss)));
    }
    assert!(outcomes(&first, look).len() > 500);
    let mut buffer = [0; 600];
    let file = |disk: &SimDisk| disk.open(Path::new("d/a"), OpenMode::Read).unwrap();
    let (one, two) = (file(&first), file(&second));
    let reads: Vec<_> = (0..50).map(|_| one.read_at(&mut buffer, 0).unwrap()).collect();
    assert!(reads.iter().all(|read| *read == two.read_at(&mut buffer, 0).unwrap()));
    let dir = Path::new("d");
    let lists: BTreeSet<_> = (0..50).map(|_| first.list(dir).unwrap()).collect();
    assert_eq!(lists, (0..50).map(|_| second.list(dir).unwrap()).collect());
    assert_eq!(lists.len(), 6, "names come in any order");
    assert!(reads.contains(&600) && reads.iter().any(|read| *read < 600), "some reads are short");
}

#[test]
fn the_death_of_the_process_undoes_nothing_and_syncs_nothing() {
    let disk = disk(1);
    let lock = disk.lock(Path::new("d/lock")).unwrap();
    create(&disk, "d/a").write_at(b"written", 0).unwrap();
    disk.set_read_only(true);
    let dead = disk.process_death();
    assert_eq!(dead.read("d/a"), b"written");
    assert!(names(&dead.power_cut(Loss::Everything)).is_empty(), "it is not durable by that");
    let after = dead.lock(Path::new("d/lock")).unwrap();
    drop(lock);
    assert!(dead.lock(Path::new("d/lock")).is_err(), "its locks are its own");
    drop(after);
    dead.write("d/a", *b"other");
    assert_eq!(disk.read("d/a"), b"written", "it is another disk");
}

#[test]
fn a_power_cut_leaves_another_disk_on_which_all_is_durable() {
    let disk = disk(1);
    let _lock = disk.lock(Path::new("d/lock")).unwrap();
    let file = durable(&disk, "d/a", b"old");
    file.write_at(b"NEW", 0).unwrap();
    let cut = disk.power_cut(Loss::Nothing);
    assert_eq!(cut.power_cut(Loss::Everything).read("d/a"), b"NEW");
    assert_eq!(disk.power_cut(Loss::Everything).read("d/a"), b"old");
    drop(cut.lock(Path::new("d/lock")).unwrap());
    create(&cut, "d/b");
    create(&cut, "d/c");
    assert_eq!((cut.read("d/c"), cut.read("d/a")), (vec![], b"NEW".to_vec()), "ids are not given twice");
}

/// C1 and M1: reads see the durable state with the unsynced changes applied to it.
#[test]
fn whatever_was_done_nothing_lost_is_what_was_seen_and_so_is_all_synced() {
    let mut rng = StdRng::seed_from_u64(5);
    for seed in 0..200 {
        let disk = disk(seed);
        let mut open = Vec::new();
        for _ in 0..60 {
            let path = |rng: &mut StdRng| format!("d/{}", rng.random_range(0..4));
            let (one, other) = (path(&mut rng), path(&mut rng));
            // Some of these calls refer to files that do not exist, and have no effect.
            match rng.random_range(0..8) {
                0 => open.push(create(&disk, &one)),
                1 => drop(disk.rename(Path::new(&one), Path::new(&other))),
                2 => drop(disk.remove(Path::new(&one))),
                3 => disk.sync_dir(Path::new("d")).unwrap(),
                4 => drop(disk.open(Path::new(&one), OpenMode::Write).map(|file| open.push(file))),
                _ if open.is_empty() => {}
                5 => open[rng.random_range(0..open.len())].sync().unwrap(),
                _ => {
                    let bytes = vec![rng.random(); rng.random_range(0..1500)];
                    open[rng.random_range(0..open.len())]
                        .write_at(&bytes, rng.random_range(0..3000))
                        .unwrap();
                }
            }
        }
        let all = |disk: &SimDisk| names(disk).into_iter().map(|name| disk.read(name)).collect::<Vec<_>>();
        let same = |left: &SimDisk| assert_eq!((left.files(), all(left)), (disk.files(), all(&disk)));
        same(&disk.power_cut(Loss::Nothing));
        let left = disk.power_cut(Loss::Random(seed));
        assert_eq!(all(&left), all(&left.power_cut(Loss::Everything)));
        for name in names(&disk) {
            disk.open(Path::new(&name), OpenMode::Read).unwrap().sync().unwrap();
        }
        disk.sync_dir(Path::new("d")).unwrap();
        same(&disk.power_cut(Loss::Everything));
        same(&disk.power_cut(Loss::Random(seed)));
    }
}

//! Bare loops: the least work that a durable commit needs.

use super::{COMMIT_BYTES, Engine, Level};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

const FILE_SIZE: u64 = 64 << 20;

/// A file full of zeros.
fn zero_filled(dir: &Path) -> File {
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(dir.join("bare"))
        .expect("a file");
    for _ in 0..FILE_SIZE >> 20 {
        file.write_all(&[0; 1 << 20]).expect("room");
    }
    file.sync_all().expect("a sync");
    file
}

/// A loop in which every commit writes, and syncs at [`Level::Full`].
pub(crate) struct Loop {
    file: File,
    at: AtomicU64,
    level: Level,
}

impl Loop {
    pub(crate) fn new(dir: &Path, level: Level) -> Self {
        Loop { file: zero_filled(dir), at: AtomicU64::new(0), level }
    }
}

impl Engine for Loop {
    fn commit(&self, _thread: usize, _number: u64) {
        let at = self.at.fetch_add(COMMIT_BYTES as u64, Ordering::Relaxed);
        let at = at % (FILE_SIZE - COMMIT_BYTES as u64);
        self.file.write_all_at(&[1; COMMIT_BYTES], at).expect("a write");
        if self.level == Level::Full {
            self.file.sync_data().expect("a sync");
        }
    }
}

/// A log with group commit. The first waiting committer becomes the leader, and writes and syncs for all
/// that have queued.
pub(crate) struct LeaderFollower {
    file: File,
    state: Mutex<State>,
    synced: Condvar,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    spare: Vec<u8>,
    at: u64,
    /// The number of commits that have been queued.
    come: u64,
    /// The number of commits that are synced.
    done: u64,
    /// Whether a leader is writing now.
    led: bool,
}

impl LeaderFollower {
    pub(crate) fn new(dir: &Path) -> Self {
        LeaderFollower { file: zero_filled(dir), state: Mutex::default(), synced: Condvar::new() }
    }
}

impl Engine for LeaderFollower {
    fn commit(&self, _thread: usize, _number: u64) {
        let mut state = self.state.lock().expect("no panic");
        state.buffer.extend([1; COMMIT_BYTES]);
        state.come += 1;
        let mine = state.come;
        while state.done < mine {
            if state.led {
                state = self.synced.wait(state).expect("no panic");
                continue;
            }
            state.led = true;
            let spare = std::mem::take(&mut state.spare);
            let mut group = std::mem::replace(&mut state.buffer, spare);
            let (at, come) = (state.at % (FILE_SIZE - (1 << 20)), state.come);
            state.at += group.len() as u64;
            drop(state);
            self.file.write_all_at(&group, at).expect("a write");
            self.file.sync_data().expect("a sync");
            group.clear();
            state = self.state.lock().expect("no panic");
            state.spare = group;
            state.done = come;
            state.led = false;
            self.synced.notify_all();
        }
    }
}

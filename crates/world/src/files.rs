//! The bound that the pool sets for the size of the log files, and the events of these files.
//!
//! **F1.** At any time, the segments together take at most the configured size, or the size of two of
//! the smallest segments if that is more. A segment that one large commit has made longer counts with
//! its intended size. The rule does not cover segments of an earlier life while they exist, the end of
//! a life, when all queued records are written, and a life in which a file could not be renamed or
//! removed.

use crate::board::Board;
use crate::life::DIRECTORY;
use crate::plan::Life;
use fluxmap_testkit::disk::SimDisk;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The smallest size of a segment.
const SMALLEST: u64 = 4096;

/// The check of the bound; see the [module](self). Clones share their state.
#[derive(Clone)]
pub(crate) struct LogFiles {
    pub(crate) board: Board,
    segment: u64,
    limit: u64,
    /// The bound on the size of the segments; `None` once the rule does not apply any more.
    allowed: Arc<Mutex<Option<u64>>>,
}

impl LogFiles {
    /// Makes the check for a database that is to be opened on this disk.
    pub(crate) fn new(life: &Life, board: &Board, sim: &SimDisk) -> Self {
        let bound = life.segment.saturating_mul(life.pool as u64);
        let segment = (bound / 4).clamp(SMALLEST, life.segment.max(SMALLEST));
        let limit = bound.max(2 * segment);
        let log = LogFiles { board: board.clone(), segment, limit, allowed: Arc::default() };
        let left = log.taken(sim);
        log.set_allowed(Some(limit.max(left)));
        log
    }

    fn set_allowed(&self, allowed: Option<u64>) {
        *self.allowed.lock().unwrap_or_else(PoisonError::into_inner) = allowed;
    }

    /// Returns the size of all segments together.
    fn taken(&self, sim: &SimDisk) -> u64 {
        let files = sim.files();
        let segments = files.iter().filter(|(path, _)| is_segment(path));
        segments.map(|(_, length)| (*length).min(self.segment)).sum()
    }

    /// Checks the bound after a file was renamed or removed.
    pub(crate) fn renamed(&self, sim: &SimDisk, from: &Path, to: Option<&Path>, went_well: bool) {
        if to == Some(&Path::new(DIRECTORY).join("snapshot.db")) && went_well {
            self.board.event("checkpoints");
        }
        let is_about_it = |path: &Path| is_segment(path) || path.ends_with("wal.next");
        if !is_about_it(from) || !from.starts_with(DIRECTORY) {
            return;
        }
        if !went_well {
            return self.set_allowed(None);
        }
        if is_segment(from) && to.is_some() {
            self.board.event("segments recycled");
        }
        let allowed = *self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(allowed) = allowed else { return };
        let taken = self.taken(sim);
        if taken > allowed {
            self.board.anomaly(format!(
                "the segments of the log take {taken} bytes, but only {allowed} are allowed: {:?}",
                sim.files()
            ));
        }
        // An earlier life may have left more than the limit. As its segments go, the bound comes down to
        // the limit, and it never rises again.
        self.set_allowed(Some(self.limit.max(allowed.min(taken))));
    }

    /// Ends the check before the database is closed or dropped.
    pub(crate) fn end(&self) {
        self.set_allowed(None);
    }
}

/// Returns whether the path is that of a segment, and not of the draft of one.
fn is_segment(path: &Path) -> bool {
    let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("wal."));
    path.parent() == Some(Path::new(DIRECTORY))
        && number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

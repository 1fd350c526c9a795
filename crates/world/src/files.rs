//! The bound that a pool is on the files of the log, and what becomes of them.
//!
//! **F1.** However commits and checkpoints go, the segments together take no more than was
//! configured, and at least two of the smallest. A segment that a commit of its own size made longer
//! counts as one of the size that it was to have. Left out are what an earlier life has left, as long
//! as it is there; the end of a life, at which whatever is queued is written; and a life in which a
//! file could not be renamed or removed.

use crate::board::Board;
use crate::life::DIRECTORY;
use crate::plan::Life;
use fluxmap_testkit::disk::SimDisk;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The smallest segment that there is.
const SMALLEST: u64 = 4096;

/// See the [module](self). Clones are the same.
#[derive(Clone)]
pub(crate) struct LogFiles {
    pub(crate) board: Board,
    segment: u64,
    limit: u64,
    /// The bound on the size of the files; `None` once nothing is promised any more.
    allowed: Arc<Mutex<Option<u64>>>,
}

impl LogFiles {
    /// Of a database that is going to be opened with what is on the disk.
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

    /// The size of the segments.
    fn taken(&self, sim: &SimDisk) -> u64 {
        let files = sim.files();
        let segments = files.iter().filter(|(path, _)| is_segment(path));
        segments.map(|(_, length)| (*length).min(self.segment)).sum()
    }

    /// A file has been renamed, or removed.
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
                "the segments of the log take {taken} bytes, and {allowed} are the most: {:?}",
                sim.files()
            ));
        }
        self.set_allowed(Some(self.limit.max(allowed.min(taken))));
    }

    /// The database is going to be closed or dropped.
    pub(crate) fn end(&self) {
        self.set_allowed(None);
    }
}

/// Whether that is a segment of the log, and no draft of one.
fn is_segment(path: &Path) -> bool {
    let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("wal."));
    path.parent() == Some(Path::new(DIRECTORY))
        && number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

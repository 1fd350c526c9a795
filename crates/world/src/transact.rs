//! Checks of `transact`, and of the promise of a lease.
//!
//! **The promise.** While an attempt runs under a lease, no other task commits a change of a key that the
//! previous attempt has read (at the snapshot level: written), unless the commit began before the attempt.
//! A commit that began before may have passed the check of leases before the lease existed. Expiries, and
//! evictions to make room, do not count as changes here: neither waits for leases.
//!
//! So a transaction whose reads stay the same loses at most to commits that began before its lease.

use crate::client::{Client, Db, Model, Outcome, Scene, Stop};
use crate::pen::point;
use crate::script::Ended;
use fluxmap_shuttle::{FluxError, IsolationLevel, ReadPoint, TransactOptions};
use fluxmap_testkit::op::Scan;
use rand::Rng;
use shuttle::future::block_on;
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// The progress of one call of `transact`.
#[derive(Default)]
struct Course {
    /// The last attempt that has done all its steps.
    last: Option<(ReadPoint, Ended)>,
    has_stopped: bool,
    was_refused: bool,
}

/// The state of an attempt when its body begins.
struct Attempt {
    /// The number of the attempt, in the order in which operations begin.
    number: u64,
    has_lease: bool,
}

impl Attempt {
    fn begin(db: &Db, scene: &Scene) -> Attempt {
        let number = scene.timeline.operates();
        Attempt { number, has_lease: db.holds_lease() }
    }

    /// Checks the promise of the lease when the body is about to end. `before` is the previous attempt.
    fn end(self, db: &Db, scene: &Scene, who: &str, before: Option<&(ReadPoint, Ended)>) {
        // An attempt has at most one lease, and a lease that has ended does not begin again. So if the
        // attempt has a lease now, it has had it since `begin`.
        let Some((_, before)) = before.filter(|_| self.has_lease && db.holds_lease()) else { return };
        scene.board.event("attempts under a lease");
        let protected = protected(scene, &before.model);
        let evicts = scene.life.limit.is_some();
        let is_protected = |key: &String| protected.iter().any(|scan| scan.contains(key));
        if let Some(clash) = scene.timeline.changed_by_others(self.number, evicts, is_protected) {
            let what = format!("{who} has a lease, and commit {} has changed {}", clash.at, clash.key);
            scene
                .board
                .anomaly(format!("{what}, which the previous attempt has read: {:?}", before.model.ops()));
        }
    }
}

/// Returns the keys that a lease protects after this attempt.
fn protected(scene: &Scene, model: &Model) -> Vec<Scan<String>> {
    match scene.life.isolation {
        IsolationLevel::Serializable => model.noted().to_vec(),
        IsolationLevel::Snapshot => model.written().map(|(key, _)| point(key)).collect(),
    }
}

impl Client {
    /// Draws the options of a call. Most calls have no limit, and retry until they have committed.
    fn options(&mut self) -> Option<TransactOptions> {
        let options = TransactOptions::default();
        match self.rng.random_range(0..10) {
            0 => Some(options.max_attempts(self.rng.random_range(1..4))),
            1 => Some(options.deadline(Duration::from_millis(self.rng.random_range(0..200)))),
            _ => None,
        }
    }

    /// Calls `transact`, which runs the steps again after each conflict.
    pub(crate) fn transact(&mut self) -> Result<(), Stop> {
        let (begin, floor) = (self.scene.stamps.next(), self.scene.timeline.floor());
        self.scene.board.note(&self.name, "transacts");
        // Use one seed for all attempts: they draw the same steps, as the body of a real program repeats
        // its own.
        let seed: u64 = self.rng.random();
        let (db, options) = (self.db.clone(), self.options());
        let (is_bounded, first) = (options.is_some(), self.pen.next());
        let course = Cell::new(Course::default());
        let this = RefCell::new(&mut *self);
        let result = block_on(db.transact_with(options.unwrap_or_default(), async |tx| {
            let (mut client, mut so_far) = (this.borrow_mut(), course.take());
            // The attempts before were lost.
            client.check_no_trace(floor, first);
            client.rng = rand::SeedableRng::seed_from_u64(seed);
            let attempt = Attempt::begin(&db, &client.scene);
            let point = tx.read_point();
            let done = client.script(tx, point, floor);
            let result = match done {
                Ok(Some(ended)) => {
                    attempt.end(&db, &client.scene, &client.name, so_far.last.as_ref());
                    so_far.last = Some((point, ended));
                    Ok(())
                }
                Ok(None) => {
                    so_far.was_refused = true;
                    Err(FluxError::NoActiveTransaction)
                }
                Err(Stop::Failed) => {
                    so_far.has_stopped = true;
                    Err(FluxError::NoActiveTransaction)
                }
            };
            course.set(so_far);
            result
        }));
        let Course { last, has_stopped, was_refused } = course.into_inner();
        let may_be_published = matches!(
            result,
            Ok(()) | Err(FluxError::OutcomeUnknown { .. } | FluxError::FatalPersistenceError { .. })
        );
        if !may_be_published {
            self.check_no_trace(floor, first);
        }
        if has_stopped {
            return Err(Stop::Failed);
        }
        match (result, last) {
            (Ok(()), Some((point, ended))) => self.committed(begin, point, &ended),
            (Err(FluxError::NoActiveTransaction), _) if was_refused => {}
            (Err(FluxError::RetriesExhausted { .. } | FluxError::DeadlineExceeded { .. }), _)
                if is_bounded =>
            {
                self.scene.board.event("transactions given up");
            }
            (result, _) => {
                if let Outcome::Conflict = self.judge(result)? {
                    self.scene.board.anomaly(format!("{}: transact returned a conflict", self.name));
                }
            }
        }
        self.scene.board.raise();
        Ok(())
    }
}

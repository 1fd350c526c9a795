//! Running a transaction until it commits.

use crate::error::FluxError;
use crate::host::Host;
use crate::key::{Key, Value};
use crate::shared::Open;
use crate::sync::Instant;
use crate::txn::footprint::Footprint;
use crate::txn::own::{self, OwnCommits, PriorityId};
use crate::txn::priority::{Claim, Extension, Priority, PriorityLease, Protects};
use crate::txn::transaction::Transaction;
use crate::txn::watch::Watch;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Limits for [`transact_with`](crate::Database::transact_with). Without limits, it retries until the
/// transaction has committed, which it will, because after a few losses the transaction is given
/// priority.
///
/// ```
/// use fluxmap::TransactOptions;
/// use std::time::Duration;
///
/// let options = TransactOptions::default().max_attempts(10).deadline(Duration::from_secs(2));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TransactOptions {
    max_attempts: Option<u32>,
    deadline: Option<Duration>,
}

impl TransactOptions {
    /// Gives up after this many attempts (at least one is made), with
    /// [`FluxError::RetriesExhausted`].
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Starts no further attempt when this much time has passed since the first, and fails with
    /// [`FluxError::DeadlineExceeded`]. A running attempt is not interrupted.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

/// The number of losses after which a transaction claims a lease.
const PATIENCE: u32 = 4;
/// The number of losses that count as one if a lease had held the commit back. Such a loss was to be
/// expected: the holder wrote what this transaction had read. If it counted fully, each lease under
/// contention would make more transactions claim one, and all of them would wait for each other's.
const HELD_BACK_LOSSES: u32 = 4;
/// The number of losses after which a transaction records its footprint, so that the lease can protect
/// the reads of the last two attempts.
const FORESIGHT: u32 = PATIENCE - 1;
/// The shortest and longest lease.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// The number of losses within valid leases after which leases are exclusive. The first such loss may be
/// to a commit that had passed before the lease began.
const MOST_MOVES: u32 = 2;
/// The number of losses in a row to the body's own commits that proves a conflict with itself.
const MOST_OWN: u32 = 2;
/// The number of losses in a row, within exclusive leases, that proves the same of a body that makes
/// commits. Only its own commits pass such a lease, so they undo it, although the index does not show it:
/// the version that it wrote has expired, say. The first such loss may be to a commit that had passed
/// before the lease began, and the second to an expiry.
const MOST_UNEXPLAINED: u32 = 3;
/// The length of a lease, in eighths of the normal length, after so many leases in a row have run out
/// while the body seems to have waited for a commit that they held back. The lengths differ, so that a
/// body that happens to take as long as one of them does not look as if it waited. If the last one runs
/// out as well, this is proof.
const EIGHTHS: [u32; 3] = [8, 6, 5];

/// The state of a transaction that has lost.
struct Loser<K> {
    /// The host whose clock measures the attempts.
    host: Host,
    attempts: u32,
    /// The number of losses, where one that was held back counts as one and others as
    /// [`HELD_BACK_LOSSES`].
    impatience: u32,
    /// When the present attempt began.
    since: Instant,
    longest: Duration,
    /// The number of losses in a row to its own commits.
    own: u32,
    /// The number of losses within valid leases.
    moves: u32,
    /// The number of losses in a row within valid exclusive leases, in attempts that made commits
    /// themselves.
    unexplained: u32,
    /// The number of leases in a row that ran out while the body waited for a commit that they held
    /// back.
    strikes: usize,
    watch: Arc<Watch>,
    footprint: Option<Arc<Footprint<K>>>,
}

impl<K: Key> Loser<K> {
    fn new(host: &Host) -> Box<Self> {
        Box::new(Loser {
            host: host.clone(),
            attempts: 0,
            impatience: 0,
            since: host.now(),
            longest: Duration::ZERO,
            own: 0,
            moves: 0,
            unexplained: 0,
            strikes: 0,
            watch: Arc::new(Watch::new(host.clone())),
            footprint: None,
        })
    }

    /// Counts a loss: whether it `is_to_own` commits, as far as the index still shows, whether the attempt
    /// made any (`has_own`), whether a lease had held the commit back, and the right to go first that it
    /// had.
    fn lose(
        &mut self,
        is_to_own: bool,
        has_own: bool,
        was_held_back: bool,
        right: Option<&Right<'_>>,
    ) -> Result<(), FluxError> {
        // The first attempt is not timed, so that transactions that win at once need not read the clock.
        if self.attempts > 0 {
            self.longest = self.longest.max(self.host.now().saturating_duration_since(self.since));
        }
        self.attempts = self.attempts.saturating_add(1);
        self.impatience = self.impatience.saturating_add(if was_held_back { 1 } else { HELD_BACK_LOSSES });
        self.own = if is_to_own { self.own + 1 } else { 0 };
        let had_lease = right.map(Right::is_valid);
        let is_unexplained = has_own && had_lease == Some(true) && right.is_some_and(Right::is_exclusive);
        self.unexplained = if is_unexplained { self.unexplained + 1 } else { 0 };
        match had_lease {
            Some(true) => (self.moves, self.strikes) = (self.moves.saturating_add(u32::from(!is_to_own)), 0),
            Some(false) if self.watch.has_waited_in_vain() => self.strikes += 1,
            Some(false) | None => self.strikes = 0,
        }
        let is_itself = self.own >= MOST_OWN || self.unexplained >= MOST_UNEXPLAINED;
        match is_itself || self.strikes >= EIGHTHS.len() {
            true => Err(FluxError::ConflictsWithItself),
            false => Ok(()),
        }
    }

    /// Prepares for the next attempt.
    fn begin(&mut self) {
        if self.attempts >= FORESIGHT {
            let watch = &self.watch;
            let footprint = self.footprint.get_or_insert_with(|| Arc::new(Footprint::new(Arc::clone(watch))));
            footprint.begin_attempt();
        }
        self.watch.begin(self.strikes > 0);
        self.since = self.host.now();
    }

    /// Returns whether the transaction has lost often enough to claim a lease.
    fn is_impatient(&self) -> bool {
        self.impatience >= PATIENCE * HELD_BACK_LOSSES
    }

    /// Returns whether the reads differ between attempts, so that protecting them is not enough.
    fn reads_move(&self) -> bool {
        self.moves >= MOST_MOVES
    }

    fn claim(&self, footprint: &Arc<Footprint<K>>) -> Claim {
        let length = self.longest.saturating_mul(2).clamp(SHORTEST, LONGEST);
        let eighths = EIGHTHS.get(self.strikes).copied().unwrap_or(8);
        Claim {
            length: (length * eighths / 8).max(SHORTEST),
            is_exclusive: self.reads_move(),
            protects: Arc::clone(footprint) as Arc<dyn Protects>,
            watch: Arc::clone(&self.watch),
        }
    }
}

/// An attempt's permission to go first.
enum Right<'p> {
    /// A lease of its own, and whether it is exclusive.
    Lease(PriorityLease<'p>, bool),
    /// A share in the lease of the outer transaction, or of one that takes much longer, which now protects
    /// this transaction's reads, too.
    Extended(Extension<'p>),
}

impl Right<'_> {
    fn id(&self) -> PriorityId {
        match self {
            Right::Lease(lease, _) => lease.id(),
            // Polls within the outer body act on behalf of its lease anyway.
            Right::Extended(extension) => extension.shared().unwrap_or_default(),
        }
    }

    fn is_valid(&self) -> bool {
        match self {
            Right::Lease(lease, _) => lease.left().is_some(),
            Right::Extended(extension) => extension.is_valid(),
        }
    }

    /// Returns whether all commits of others wait.
    fn is_exclusive(&self) -> bool {
        matches!(self, Right::Lease(_, true))
    }

    /// Returns whether this right is strong enough for the transaction and will probably last for
    /// another attempt.
    fn will_do<K: Key>(&self, loser: &Loser<K>) -> bool {
        match self {
            Right::Lease(lease, is_exclusive) => {
                *is_exclusive >= loser.reads_move() && lease.left().is_some_and(|left| left > loser.longest)
            }
            Right::Extended(extension) => {
                let is_enough = extension.shared().is_none() || !loser.reads_move();
                is_enough && extension.is_valid()
            }
        }
    }
}

/// Gives a transaction that has lost the right to go first. Within the body of a transaction that has a
/// lease, it gets a share in that lease, so that neither waits for the other.
async fn go_first<'p, K: Key>(priority: &'p Priority, loser: &Loser<K>) -> Option<Right<'p>> {
    let footprint = loser.footprint.as_ref()?;
    let outer = own::current();
    if outer.is_everybody() {
        // The thread that ends leases would wait for one that only it can end. It passes all leases
        // anyway.
        return None;
    }
    if !outer.is_nobody()
        && let Some(extension) = priority.extend(outer, Arc::clone(footprint) as Arc<dyn Protects>)
    {
        return Some(Right::Extended(extension));
    }
    let claim = loser.claim(footprint);
    if !claim.is_exclusive
        && let Some(extension) = priority.share(claim.length, &claim.protects)
    {
        return Some(Right::Extended(extension));
    }
    let is_exclusive = claim.is_exclusive;
    Some(Right::Lease(priority.claim(claim).await, is_exclusive))
}

/// Runs `body` in a transaction, again after every conflict.
pub(crate) async fn transact<K, V, T, E, F>(
    shared: &Arc<Open<K, V>>,
    options: TransactOptions,
    body: F,
) -> Result<T, E>
where
    K: Key,
    V: Value,
    F: AsyncFnOnce(&mut Transaction<K, V>) -> Result<T, E> + Clone,
    E: From<FluxError>,
{
    // Called only after a loss, so that a transaction that wins at once does not read the clock for it.
    let host = shared.host();
    let deadline = options.deadline.and_then(|limit| host.now().checked_add(limit));
    let has_passed = || deadline.is_some_and(|deadline| host.now() >= deadline);
    // `None` until the transaction has lost.
    let mut loser: Option<Box<Loser<K>>> = None;
    let mut right: Option<Right<'_>> = None;
    loop {
        let id = right.as_ref().map_or(PriorityId::default(), Right::id);
        let footprint = loser.as_ref().and_then(|loser| loser.footprint.clone());
        let watch = right.as_ref().and(loser.as_ref()).map(|loser| &loser.watch);
        let mut transaction = Transaction::noting(shared, footprint);
        let mut own = OwnCommits::default();
        let ended = {
            let mut running = pin!(body.clone()(&mut transaction));
            let database = shared.address();
            poll_fn(|context| own::poll_body(id, database, &mut own, watch, running.as_mut(), context)).await
        };
        let value = match ended {
            Ok(value) => value,
            Err(error) => {
                // The error may depend on the data that was read: return it only when that data is
                // durable. If the log has failed, return the body's error all the same.
                let seen = transaction.view().timestamp();
                drop(transaction);
                drop(right);
                let _ = shared.stable_at(seen).await;
                return Err(error);
            }
        };
        let is_to_own = !own.is_empty() && transaction.is_undone_by(&own);
        let applied = {
            let database = shared.address();
            // Not in the first attempt, so that a transaction that wins at once does not pay for it.
            let is_noted = loser.is_some();
            let mut applying = pin!(transaction.apply());
            poll_fn(|context| {
                let own = is_noted.then_some((database, &mut own));
                own::poll_for(id, own, applying.as_mut(), context)
            })
            .await
        };
        let was_held_back = transaction.was_held_back();
        drop(transaction);
        let lost = match applied {
            Ok(applied) => {
                // End the lease first: other commits need not wait for the disk.
                drop(right);
                if !shared.is_stable_at_once() {
                    applied.acknowledged(shared).await?;
                }
                return Ok(value);
            }
            Err(error) if error.is_conflict() => Box::new(error),
            Err(error) => return Err(error.into()),
        };
        let loser = loser.get_or_insert_with(|| Loser::new(host));
        loser.lose(is_to_own, !own.is_empty(), was_held_back, right.as_ref())?;
        let attempts = loser.attempts;
        if options.max_attempts.is_some_and(|limit| attempts >= limit) {
            return Err(FluxError::RetriesExhausted { attempts, source: lost }.into());
        }
        if has_passed() {
            return Err(FluxError::DeadlineExceeded { attempts, source: lost }.into());
        }
        // Yield in any case: a body that conflicts with commits of other tasks on this thread, and waits
        // for them, would otherwise never let them run.
        yield_now().await;
        if loser.is_impatient() && !right.as_ref().is_some_and(|right| right.will_do(loser)) {
            // Give up the old lease before claiming another, because there is one at a time.
            drop(right.take());
            right = go_first(&shared.priority, loser).await;
            if has_passed() {
                return Err(FluxError::DeadlineExceeded { attempts, source: lost }.into());
            }
        }
        loser.begin();
    }
}

/// Lets the executor run other tasks first, such as the transaction that won.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

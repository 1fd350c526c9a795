//! Priority leases: how a transaction that keeps losing commits in the end.
//!
//! Certification lets the first committer win, so a long transaction can lose to short ones for ever.
//! After a few losses it claims a *lease*. While the lease is valid, another transaction's commit that
//! would change a key that the holder has read waits here, asynchronously, until the lease ends; all
//! other commits go on. A holder that lost although its reads were protected, because they differ from
//! attempt to attempt, gets an *exclusive* lease, for which every other commit waits.
//!
//! - **L1, one holder.** There is one lease at a time; claims are granted in the order in which
//!   they were made.
//!   A claim that finds a lease of at least twice its length does not wait for it, but *shares* it: the
//!   lease protects its reads, too, until it has committed or lost. So a holder that waits for another
//!   transaction that it runs as a task does not keep that from what it needs.
//! - **L2, leases end.** A lease ends when its holder has committed, gives up or is dropped, or when its
//!   time has run out. The time stands still while the holder waits for the log.
//! - **L3, no commit waits twice.** A commit that was held back by one lease passes when that lease
//!   ends, even if the next lease protects the same keys.
//! - **L4, no holder waits for itself.** Commits that a holder makes itself, or that its body makes
//!   while it is polled (a nested transaction, say), pass. If the body waits for a commit of another
//!   task, that commit is held back until the lease has run out (L2); the [watch](Watch) detects this.
//! - **L5, no lost wake-up.** A commit that is held back registers its waker under the lock, and only if
//!   the lease that it was checked against is still the present one. Ending a lease takes all wakers
//!   under the same lock.
//!
//! Without a lease, passing costs one load of a word that rarely changes. Under a lease, a commit that
//! has passed the check but is not published yet can still overtake the holder, once.

use crate::host::Host;
use crate::sync::{AtomicU64, Instant, Mutex, MutexGuard, Ordering, Pending};
use crate::txn::own::{EVERYBODY, NOBODY, PriorityId, current};
use crate::txn::watch::Watch;
use fluxmap_index::contain;
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicU64 as Counter;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The reads that a lease protects.
pub(crate) trait Protects: Send + Sync {
    /// Returns whether a write to this key, which has this hash, would change a key that the holder has
    /// read. Runs the key's `Ord`; called where no lock is held.
    fn covers(&self, hash: u64, key: &dyn Any) -> bool;

    /// Returns these reads for evictions, which ask about keys under the commit lock.
    fn guard(self: Arc<Self>) -> Box<dyn Guarded>;
}

/// Reads that a lease protects from evictions. Drop it where no lock is held, because it may hold the
/// last reference to keys, whose destructors may use the database.
pub(crate) trait Guarded {
    /// Returns whether deleting this key, which has this hash, would change what the holder has read.
    /// Runs the key's `Ord`; called under the commit lock, so it drops no key.
    fn covers(&self, hash: u64, key: &dyn Any) -> bool;

    /// Returns with how many ranges `covers` compares a key.
    fn ranges(&self) -> usize;
}

/// A transaction's request for a lease.
#[derive(Clone)]
pub(crate) struct Claim {
    /// How long the lease lasts.
    pub(crate) length: Duration,
    /// Whether every commit of others has to wait.
    pub(crate) is_exclusive: bool,
    /// The reads to protect.
    pub(crate) protects: Arc<dyn Protects>,
    /// Detects whether the holder's body waits for a commit that the lease holds back.
    pub(crate) watch: Arc<Watch>,
}

/// Figures about leases: returned by [`Database::priority_info`](crate::Database::priority_info).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PriorityInfo {
    /// Leases that were granted to transactions that kept losing.
    pub leases: u64,
    /// Leases that held back every commit of others.
    pub exclusive_leases: u64,
    /// Commits that were held back by a lease.
    pub held_back: u64,
    /// How long these commits have waited, all together.
    pub waited: Duration,
}

#[derive(Default)]
struct Figures {
    leases: Counter,
    exclusive: Counter,
    held_back: Counter,
    waited_nanos: Counter,
}

/// The leases of one database.
#[derive(Default)]
pub(crate) struct Priority {
    /// The host whose clock ends leases.
    host: Host,
    /// A copy of the holder's id, which commits read without the lock.
    holder: AtomicU64,
    queue: Mutex<LeaseQueue>,
    figures: Figures,
    /// Called when a lease ends at another time than the background thread knows.
    alarm: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct LeaseQueue {
    lease: Option<Lease>,
    claims: VecDeque<Claimant>,
    /// Commits that wait for the present lease to end.
    held_back: BTreeMap<u64, Waiter>,
    last_id: u64,
}

/// Reads that a lease protects, and on whose behalf: the lease's own id, or one of a transaction that
/// shares it.
#[derive(Clone)]
struct Member {
    id: PriorityId,
    protects: Arc<dyn Protects>,
}

/// A commit that is held back.
struct Waiter {
    /// The member of the lease that holds it back.
    by: PriorityId,
    since: Instant,
    waker: Waker,
}

/// The present lease.
struct Lease {
    id: PriorityId,
    is_exclusive: bool,
    /// The reads of the holder, then those of the transactions nested in it or sharing it.
    protects: Vec<Member>,
    /// For how long it was granted.
    length: Duration,
    watch: Arc<Watch>,
    since: Instant,
    /// When the lease runs out; `None` while its time stands still.
    deadline: Option<Instant>,
    /// The time that was left when it began to stand still.
    left: Duration,
    /// The number of the holder's waits for the log during which the time stands still.
    pauses: u32,
    /// How many commits it has held back.
    held_back: u64,
    /// The total wait of the held-back commits that no longer wait.
    waited: Duration,
}

/// A transaction that has claimed a lease and waits for it.
struct Claimant {
    id: PriorityId,
    claim: Claim,
    waker: Option<Waker>,
}

/// A lease that held commits back for at least this long in total is logged as a warning. Under
/// contention there are thousands of leases each second that hold back no commit, or hardly.
const WORTH_A_WARNING: Duration = Duration::from_millis(1);

/// A lease that has ended, to be reported where no lock is held.
struct EndedLease {
    lasted: Duration,
    is_exclusive: bool,
    held_back: u64,
    /// How long the held-back commits have waited, all together.
    waited: Duration,
    has_run_out: bool,
    /// Whether another lease follows at once.
    is_followed: bool,
    wakers: Vec<Waker>,
}

impl Priority {
    pub(crate) fn new(host: Host) -> Self {
        Priority { host, ..Priority::default() }
    }

    /// Sets `alarm`, which is called whenever a lease begins, or will end at another time than before.
    pub(crate) fn set_alarm(&self, alarm: Box<dyn Fn() + Send + Sync>) {
        // Only opening a database sets the alarm, so it is never set twice.
        let _ = self.alarm.set(alarm);
    }

    fn ring(&self) {
        if let Some(alarm) = self.alarm.get() {
            alarm();
        }
    }

    pub(crate) fn info(&self) -> PriorityInfo {
        // Relaxed: these are figures on which no decision depends.
        let load = |counter: &Counter| counter.load(std::sync::atomic::Ordering::Relaxed);
        PriorityInfo {
            leases: load(&self.figures.leases),
            exclusive_leases: load(&self.figures.exclusive),
            held_back: load(&self.figures.held_back),
            waited: Duration::from_nanos(load(&self.figures.waited_nanos)),
        }
    }

    /// Returns whether there is no lease, or this thread commits on the lease's behalf.
    pub(crate) fn is_open(&self) -> bool {
        // Acquire: a thread that sees that a lease has ended sees the commits made under it.
        let holder = self.holder.load(Ordering::Acquire);
        holder == NOBODY || [holder, EVERYBODY].contains(&current().0)
    }

    /// Returns whose lease it is, if there is one. One load.
    pub(crate) fn holder(&self) -> Option<PriorityId> {
        // Acquire: as in `is_open`.
        let holder = self.holder.load(Ordering::Acquire);
        (holder != NOBODY).then_some(PriorityId(holder))
    }

    /// Returns the present lease and its reads, for evictions.
    pub(crate) fn guarded(&self) -> Option<(PriorityId, Vec<Box<dyn Guarded>>)> {
        let (id, protects) = {
            let queue = self.queue.lock();
            let lease = queue.lease.as_ref()?;
            (lease.id, lease.protects.clone())
        };
        Some((id, protects.into_iter().map(|member| member.protects.guard()).collect()))
    }

    /// Waits while there is a lease of another transaction that is exclusive or protects reads that the
    /// commit `undoes`. If it has waited, the caller drops the returned value once the commit has been
    /// made.
    ///
    /// Cancel-safe: it only waits.
    #[cfg_attr(shuttle, track_caller)]
    pub(crate) fn pass<F: Fn(&dyn Protects) -> bool>(&self, undoes: F) -> Pass<'_, F> {
        Pass { priority: self, undoes, waiting: None, pending: Pending::here() }
    }

    /// Waits for a lease.
    ///
    /// Cancel-safe: a claim that is dropped is withdrawn, and a lease that it was granted ends.
    #[cfg_attr(shuttle, track_caller)]
    pub(crate) fn claim(&self, claim: Claim) -> Claiming<'_> {
        Claiming { priority: self, claim, id: None, pending: Pending::here() }
    }

    /// Returns how much time a lease has left; `None` if it has ended.
    pub(crate) fn left(&self, id: PriorityId) -> Option<Duration> {
        let queue = self.queue.lock();
        let lease = queue.lease.as_ref().filter(|lease| lease.id == id)?;
        Some(
            lease.deadline.map_or(lease.left, |deadline| deadline.saturating_duration_since(self.host.now())),
        )
    }

    /// Makes the lease protect further reads until the returned value is dropped; `None` if the lease
    /// has ended.
    pub(crate) fn extend(&self, id: PriorityId, protects: Arc<dyn Protects>) -> Option<Extension<'_>> {
        let mut queue = self.queue.lock();
        let lease = queue.lease.as_mut().filter(|lease| lease.id == id)?;
        lease.protects.push(Member { id, protects: Arc::clone(&protects) });
        Some(Extension { priority: self, lease: id, member: id, protects })
    }

    /// Makes the present lease, whose ever it is, protect further reads until the returned value is
    /// dropped; `None` if there is none that is much longer than a lease of this `length`, or if it is
    /// exclusive.
    pub(crate) fn share(&self, length: Duration, protects: &Arc<dyn Protects>) -> Option<Extension<'_>> {
        let mut queue = self.queue.lock();
        let lease = queue.lease.as_mut()?;
        if lease.is_exclusive || lease.length < length.saturating_mul(2) {
            return None;
        }
        let (member, protects) = (PriorityId::unique(), Arc::clone(protects));
        lease.protects.push(Member { id: member, protects: Arc::clone(&protects) });
        Some(Extension { priority: self, lease: lease.id, member, protects })
    }

    /// Awaits `waiting`, a wait for the log. If the running body has a lease, the lease's time stands
    /// still meanwhile.
    pub(crate) async fn standing_still<T>(&self, waiting: impl Future<Output = T>) -> T {
        let mut waiting = pin!(waiting);
        let mut pause = None;
        poll_fn(|context| {
            let polled = waiting.as_mut().poll(context);
            if polled.is_pending() && pause.is_none() {
                pause = self.pause(current());
            }
            polled
        })
        .await
    }

    fn pause(&self, id: PriorityId) -> Option<Pause<'_>> {
        if id.0 == NOBODY || self.holder.load(Ordering::Relaxed) != id.0 {
            return None;
        }
        let mut queue = self.queue.lock();
        let lease = queue.lease.as_mut().filter(|lease| lease.id == id)?;
        lease.pauses += 1;
        if let Some(deadline) = lease.deadline.take() {
            lease.left = deadline.saturating_duration_since(self.host.now());
        }
        Some(Pause { priority: self, id })
    }

    fn resume(&self, id: PriorityId) {
        let mut queue = self.queue.lock();
        let Some(lease) = queue.lease.as_mut().filter(|lease| lease.id == id) else { return };
        lease.pauses -= 1;
        if lease.pauses == 0 {
            lease.deadline = self.host.now().checked_add(lease.left);
            drop(queue);
            self.ring();
        }
    }

    /// Returns when the present lease ends by itself.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.queue.lock().lease.as_ref()?.deadline
    }

    /// Ends the present lease if its time has run out. The caller then asks for the
    /// [`deadline`](Self::deadline) of the next lease, so no alarm is needed.
    pub(crate) fn expire(&self, now: Instant) {
        let queue = self.queue.lock();
        let has_run_out = |lease: &Lease| lease.deadline.is_some_and(|deadline| deadline <= now);
        if queue.lease.as_ref().is_some_and(has_run_out) {
            let _ = self.advance(queue, true);
        }
    }

    /// Ends a lease, or withdraws a claim. Does nothing if the lease has ended.
    pub(crate) fn give_back(&self, id: PriorityId) {
        let mut queue = self.queue.lock();
        if queue.lease.as_ref().is_some_and(|lease| lease.id == id) {
            if self.advance(queue, false) {
                self.ring();
            }
            return;
        }
        let claims = queue.claims.iter().position(|claimant| claimant.id == id);
        let withdrawn = claims.and_then(|at| queue.claims.remove(at));
        drop(queue);
        // Drop outside the lock: dropping keys and wakers runs other code.
        drop(withdrawn);
    }

    /// Grants the lease to a claimant.
    fn grant(&self, queue: &mut LeaseQueue, id: PriorityId, claim: Claim, since: Instant) {
        let Claim { length, is_exclusive, protects, watch } = claim;
        queue.lease = Some(Lease {
            id,
            is_exclusive,
            protects: vec![Member { id, protects }],
            length,
            watch,
            since,
            deadline: since.checked_add(length),
            left: length,
            pauses: 0,
            held_back: 0,
            waited: Duration::ZERO,
        });
        self.holder.store(id.0, Ordering::Release);
        count(&self.figures.leases, 1);
        count(&self.figures.exclusive, u64::from(is_exclusive));
    }

    /// Ends the present lease and grants the next one (L1). Returns whether there is a next one.
    fn advance(&self, mut queue: MutexGuard<'_, LeaseQueue>, has_run_out: bool) -> bool {
        let now = self.host.now();
        let old = queue.lease.take();
        let next = queue.claims.pop_front();
        let waiters = mem::take(&mut queue.held_back);
        // L3, L5: wake all held-back commits, and before the next holder, so that they come first.
        let mut wakers = Vec::with_capacity(waiters.len() + 1);
        let mut waited = Duration::ZERO;
        for Waiter { since, waker, .. } in waiters.into_values() {
            waited = waited.saturating_add(now.saturating_duration_since(since));
            wakers.push(waker);
        }
        let is_followed = next.is_some();
        match next {
            Some(Claimant { id, claim, waker }) => {
                self.grant(&mut queue, id, claim, now);
                wakers.extend(waker);
            }
            None => self.holder.store(NOBODY, Ordering::Release),
        }
        // If another lease follows, the body may have waited for the transaction that gets it (one that it
        // runs in another task), and not for a commit.
        if let (true, false, Some(old)) = (has_run_out, is_followed, &old) {
            old.watch.runs_out();
        }
        drop(queue);
        if let Some(old) = old {
            let Lease { is_exclusive, held_back, since, .. } = old;
            let lasted = now.saturating_duration_since(since);
            let waited = waited.saturating_add(old.waited);
            EndedLease { lasted, is_exclusive, held_back, waited, has_run_out, is_followed, wakers }.tell();
        }
        is_followed
    }
}

fn count(counter: &Counter, more: u64) {
    // Relaxed: it is only a figure.
    counter.fetch_add(more, std::sync::atomic::Ordering::Relaxed);
}

impl EndedLease {
    /// Wakes the waiting tasks, and logs the lease. Call it without any lock held, because both run
    /// other code. A waker that panics must not keep the others from being woken.
    fn tell(self) {
        let EndedLease { lasted, is_exclusive, held_back, waited, has_run_out, is_followed, wakers } = self;
        for waker in wakers {
            let _ = contain(|| waker.wake());
        }
        // The level of a `tracing` event must be a constant.
        macro_rules! tell {
            ($level:ident) => {
                tracing::$level!(
                    milliseconds = milliseconds(lasted),
                    is_exclusive,
                    held_back,
                    waited_milliseconds = milliseconds(waited),
                    has_run_out,
                    is_followed,
                    "a transaction that kept losing had priority; commits that would have changed its reads waited"
                )
            };
        }
        match waited >= WORTH_A_WARNING {
            true => tell!(warn),
            false => tell!(debug),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// While this guard lives, a lease's time stands still.
struct Pause<'p> {
    priority: &'p Priority,
    id: PriorityId,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.priority.resume(self.id);
    }
}

/// While this guard lives, a lease protects further reads: returned by [`Priority::extend`].
pub(crate) struct Extension<'p> {
    priority: &'p Priority,
    lease: PriorityId,
    /// The lease's own id for a nested transaction, another one if the lease is shared.
    member: PriorityId,
    protects: Arc<dyn Protects>,
}

impl Extension<'_> {
    /// Returns whether the lease is still valid.
    pub(crate) fn is_valid(&self) -> bool {
        self.priority.holder.load(Ordering::Relaxed) == self.lease.0
    }

    /// The id on whose behalf the transaction commits, if it shares the lease of another one.
    pub(crate) fn shared(&self) -> Option<PriorityId> {
        (self.member != self.lease).then_some(self.member)
    }
}

impl Drop for Extension<'_> {
    fn drop(&mut self) {
        let mut queue = self.priority.queue.lock();
        let LeaseQueue { lease, held_back, .. } = &mut *queue;
        let Some(lease) = lease.as_mut().filter(|lease| lease.id == self.lease) else { return };
        let is_this =
            |member: &Member| member.id == self.member && Arc::ptr_eq(&member.protects, &self.protects);
        let at = lease.protects.iter().position(is_this);
        let removed = at.map(|at| lease.protects.swap_remove(at));
        // Commits that only this member held back go on now, not when the lease ends (L3).
        let mut freed = Vec::new();
        if self.shared().is_some() {
            let now = self.priority.host.now();
            for (_, waiter) in held_back.extract_if(.., |_, waiter| waiter.by == self.member) {
                let waited = now.saturating_duration_since(waiter.since);
                lease.waited = lease.waited.saturating_add(waited);
                freed.push(waiter.waker);
            }
        }
        drop(queue);
        // Outside the lock: both run other code.
        drop(removed);
        for waker in freed {
            let _ = contain(|| waker.wake());
        }
    }
}

/// The future of [`Priority::pass`].
pub(crate) struct Pass<'p, F> {
    priority: &'p Priority,
    undoes: F,
    /// Present from when the commit was held back.
    waiting: Option<WaitingPass>,
    pending: Pending,
}

// No field is pinned structurally.
impl<F> Unpin for Pass<'_, F> {}

struct WaitingPass {
    id: u64,
    since: Instant,
    watch: Arc<Watch>,
}

impl<F: Fn(&dyn Protects) -> bool> Pass<'_, F> {
    /// Returns the member for which the lease, as it was observed, holds the commit back.
    fn held_back_by(&self, lease: &Observed) -> Option<PriorityId> {
        if lease.is_exclusive {
            return Some(lease.id);
        }
        let own = current();
        // A member waits for those that came before it only, so that two do not wait for each other.
        let is_member = lease.protects.iter().any(|member| member.id == own);
        let mut others = lease.protects.iter().filter(|member| !is_member || member.id.0 < own.0);
        others.find(|member| (self.undoes)(&*member.protects)).map(|member| member.id)
    }
}

/// A copy of a lease, made by a commit that wants to pass.
struct Observed {
    id: PriorityId,
    is_exclusive: bool,
    protects: Vec<Member>,
}

impl<F: Fn(&dyn Protects) -> bool> Future for Pass<'_, F> {
    /// `None` if the commit did not have to wait.
    type Output = Option<Box<HeldBack>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let priority = self.priority;
        if let Some(waiting) = &self.waiting {
            // Clone the waker before taking the lock: cloning runs other code.
            let waker = context.waker().clone();
            let mut queue = priority.queue.lock();
            if let Some(registered) = queue.held_back.get_mut(&waiting.id) {
                let old = mem::replace(&mut registered.waker, waker);
                drop(queue);
                drop(old);
                self.pending.note(|| "the end of a lease".into());
                return Poll::Pending;
            }
            // L3: the lease has ended.
            drop(queue);
            return Poll::Ready(self.end_waiting());
        }
        loop {
            if priority.is_open() {
                return Poll::Ready(None);
            }
            let observed = {
                let queue = priority.queue.lock();
                queue.lease.as_ref().map(|lease| Observed {
                    id: lease.id,
                    is_exclusive: lease.is_exclusive,
                    protects: lease.protects.clone(),
                })
            };
            // Check without the lock, because this runs user code of the keys.
            let held_back = observed.and_then(|lease| Some((lease.id, self.held_back_by(&lease)?)));
            let Some((observed, by)) = held_back else { return Poll::Ready(None) };
            let (waker, since) = (context.waker().clone(), priority.host.now());
            let mut queue = priority.queue.lock();
            // L5: register only if it is still the same lease, with the same member.
            let is_same =
                |lease: &Lease| lease.id == observed && lease.protects.iter().any(|member| member.id == by);
            if !queue.lease.as_ref().is_some_and(is_same) {
                continue;
            }
            queue.last_id += 1;
            let id = queue.last_id;
            queue.held_back.insert(id, Waiter { by, since, waker });
            let Some(lease) = &mut queue.lease else { continue };
            lease.held_back += 1;
            let watch = Arc::clone(&lease.watch);
            drop(queue);
            count(&priority.figures.held_back, 1);
            if let Some(waker) = watch.probe() {
                // One that panics must not keep this commit from waiting.
                let _ = contain(|| waker.wake());
            }
            self.waiting = Some(WaitingPass { id, since, watch });
            self.pending.note(|| "the end of a lease".into());
            return Poll::Pending;
        }
    }
}

impl<F> Pass<'_, F> {
    fn end_waiting(&mut self) -> Option<Box<HeldBack>> {
        let WaitingPass { since, watch, .. } = self.waiting.take()?;
        let waited = self.priority.host.now().saturating_duration_since(since);
        count(&self.priority.figures.waited_nanos, u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX));
        // Boxed to keep the result small, because most commits do not wait and return `None`.
        Some(Box::new(HeldBack { watch, waited }))
    }
}

impl<F> Drop for Pass<'_, F> {
    fn drop(&mut self) {
        if let Some(waiting) = &self.waiting {
            let mut queue = self.priority.queue.lock();
            let waiter = queue.held_back.remove(&waiting.id);
            if let (Some(_), Some(lease)) = (&waiter, &mut queue.lease) {
                // Count the wait for this lease only if the commit still waited for it: commits that
                // waited for an earlier lease are not in `held_back`.
                let waited = self.priority.host.now().saturating_duration_since(waiting.since);
                lease.waited = lease.waited.saturating_add(waited);
            }
            drop(queue);
            drop(waiter);
            drop(self.end_waiting());
        }
    }
}

/// Reports, when it is dropped, that a commit which a lease had held back has been made.
pub(crate) struct HeldBack {
    watch: Arc<Watch>,
    waited: Duration,
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        self.watch.commit_was_made(self.waited);
    }
}

/// The future of [`Priority::claim`].
pub(crate) struct Claiming<'p> {
    priority: &'p Priority,
    claim: Claim,
    /// Present from the first poll until the future is ready.
    id: Option<PriorityId>,
    pending: Pending,
}

impl<'p> Future for Claiming<'p> {
    type Output = PriorityLease<'p>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<PriorityLease<'p>> {
        let priority = self.priority;
        // Clone the waker before taking the lock: cloning runs other code.
        let waker = context.waker().clone();
        let mut queue = priority.queue.lock();
        let mut begins = false;
        let id = match self.id {
            Some(id) => id,
            None => {
                let id = PriorityId::unique();
                let claim = self.claim.clone();
                begins = queue.lease.is_none();
                match begins {
                    true => priority.grant(&mut queue, id, claim, priority.host.now()),
                    false => queue.claims.push_back(Claimant { id, claim, waker: None }),
                }
                self.id = Some(id);
                id
            }
        };
        if let Some(claimant) = queue.claims.iter_mut().find(|claimant| claimant.id == id) {
            let old = claimant.waker.replace(waker);
            drop(queue);
            drop(old);
            self.pending.note(|| "a lease of its own".into());
            return Poll::Pending;
        }
        // The claim has been granted; the lease may even have ended since, if this task was polled late.
        drop(queue);
        self.id = None;
        if begins {
            priority.ring();
        }
        Poll::Ready(PriorityLease { priority, id })
    }
}

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.priority.give_back(id);
        }
    }
}

/// A lease, which ends at the latest when this value is dropped.
pub(crate) struct PriorityLease<'p> {
    priority: &'p Priority,
    id: PriorityId,
}

impl PriorityLease<'_> {
    pub(crate) fn id(&self) -> PriorityId {
        self.id
    }

    /// Returns how much time the lease has left; `None` if it has ended.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.priority.left(self.id)
    }
}

impl Drop for PriorityLease<'_> {
    fn drop(&mut self) {
        self.priority.give_back(self.id);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::background::Background;
    use crate::txn::own::poll_for;
    use futures::FutureExt;
    use futures::future::poll_immediate;
    use std::sync::atomic::AtomicUsize;

    const LONG: Duration = Duration::from_secs(3600);

    fn ready<F: Future>(future: F) -> Option<F::Output> {
        poll_immediate(future).now_or_never().flatten()
    }

    /// Polls a future on behalf of a lease.
    fn act_for<'f, T>(id: PriorityId, future: impl Future<Output = T> + 'f) -> impl Future<Output = T> + 'f {
        let mut future = Box::pin(future);
        poll_fn(move |context| poll_for(id, None, future.as_mut(), context))
    }

    /// Protects one hash.
    struct Only(u64);

    impl Protects for Only {
        fn covers(&self, hash: u64, _key: &dyn Any) -> bool {
            hash == self.0
        }

        fn guard(self: Arc<Self>) -> Box<dyn Guarded> {
            Box::new(Only(self.0))
        }
    }

    impl Guarded for Only {
        fn covers(&self, hash: u64, _key: &dyn Any) -> bool {
            hash == self.0
        }

        fn ranges(&self) -> usize {
            0
        }
    }

    fn claim(hash: u64) -> Claim {
        Claim { length: LONG, is_exclusive: false, protects: Arc::new(Only(hash)), watch: Arc::default() }
    }

    /// Returns a check for a commit that writes the key with this hash.
    fn write(hash: u64) -> impl Fn(&dyn Protects) -> bool {
        move |protects| protects.covers(hash, &())
    }

    fn passes(priority: &Priority, hash: u64) -> bool {
        ready(priority.pass(write(hash))).is_some()
    }

    #[test]
    fn those_wait_who_would_undo_something_until_the_lease_ends() {
        let priority = Priority::default();
        assert!(passes(&priority, 1));
        let lease = ready(priority.claim(claim(1))).expect("nobody has one");
        let mut waiting = pin!(priority.pass(write(1)));
        assert!(ready(waiting.as_mut()).is_none());
        assert!(passes(&priority, 2), "it undoes nothing");
        assert!(ready(act_for(lease.id(), priority.pass(write(1)))).is_some(), "the holder's own");
        drop(lease);
        assert!(ready(waiting.as_mut()).is_some_and(|waited| waited.is_some()));
        assert!(passes(&priority, 1));
        let info = priority.info();
        assert_eq!((info.leases, info.exclusive_leases, info.held_back), (1, 0, 1));
        assert!(info.waited > Duration::ZERO);
    }

    #[test]
    fn everybody_waits_for_an_exclusive_lease() {
        let priority = Priority::default();
        let lease = ready(priority.claim(Claim { is_exclusive: true, ..claim(1) })).expect("nobody has one");
        assert!(!passes(&priority, 2));
        assert!(ready(act_for(lease.id(), priority.pass(write(2)))).is_some());
        drop(lease);
        assert!(passes(&priority, 2));
        assert_eq!(priority.info().exclusive_leases, 1);
    }

    #[test]
    fn who_has_waited_for_one_lease_passes_the_next() {
        let priority = Priority::default();
        let first = ready(priority.claim(claim(1))).expect("nobody has one");
        let mut waiting = pin!(priority.pass(write(1)));
        assert!(ready(waiting.as_mut()).is_none());
        let mut second = pin!(priority.claim(claim(1)));
        assert!(ready(second.as_mut()).is_none());
        drop(first);
        let second = ready(second.as_mut()).expect("it is next");
        assert!(!passes(&priority, 1), "another one waits for it");
        assert!(ready(waiting.as_mut()).is_some(), "this one has waited");
        drop(second);
    }

    #[test]
    fn a_long_lease_is_shared_and_commits_wait_for_the_member_that_they_undo() {
        let priority = Priority::default();
        let lease = ready(priority.claim(claim(1))).expect("nobody has one");
        let other: Arc<dyn Protects> = Arc::new(Only(2));
        assert!(priority.share(LONG, &other).is_none(), "the other would take as long");
        let share = priority.share(LONG / 2, &other).expect("the other takes half as long");
        let member = share.shared().expect("it is no nested transaction");
        assert!(ready(act_for(member, priority.pass(write(2)))).is_some(), "its own reads");
        let mut waits_for_holder = pin!(act_for(member, priority.pass(write(1))));
        assert!(ready(waits_for_holder.as_mut()).is_none(), "the holder's reads");
        let younger = priority.share(LONG / 2, &other).expect("there may be several");
        let young = younger.shared().expect("it is no nested transaction");
        assert!(
            ready(act_for(member, priority.pass(write(2)))).is_some(),
            "it does not wait for the younger"
        );
        let mut waits_for_older = pin!(act_for(young, priority.pass(write(2))));
        assert!(ready(waits_for_older.as_mut()).is_none());
        drop(younger);
        let mut waits_for_member = pin!(priority.pass(write(2)));
        assert!(ready(waits_for_member.as_mut()).is_none());
        drop(share);
        assert!(ready(waits_for_member).is_some(), "it does not wait for the holder");
        assert!(ready(waits_for_older).is_some());
        assert!(passes(&priority, 2));
        assert!(ready(waits_for_holder.as_mut()).is_none());
        drop(lease);
        assert!(ready(waits_for_holder).is_some());
        let lease = ready(priority.claim(Claim { is_exclusive: true, ..claim(1) })).expect("nobody has one");
        assert!(priority.share(LONG / 2, &other).is_none(), "it would be held back");
        drop(lease);
    }

    #[test]
    fn claims_are_granted_in_order_and_an_abandoned_one_is_skipped() {
        let priority = Priority::default();
        let first = ready(priority.claim(claim(1))).expect("nobody has one");
        let mut second = Box::pin(priority.claim(claim(2)));
        let mut third = Box::pin(priority.claim(claim(3)));
        assert!(ready(second.as_mut()).is_none() && ready(third.as_mut()).is_none());
        drop(second);
        drop(first);
        assert!(passes(&priority, 1) && passes(&priority, 2) && !passes(&priority, 3));
        let third = ready(third.as_mut()).expect("the second has gone");
        assert!(third.left().is_some());
        drop(third);
        assert!(passes(&priority, 3));
        assert!(priority.deadline().is_none());
    }

    #[test]
    fn a_lease_that_is_not_used_runs_out() {
        let priority = Priority::default();
        let lease = ready(priority.claim(claim(1))).expect("nobody has one");
        let deadline = priority.deadline().expect("it ends");
        priority.expire(deadline - Duration::from_secs(1));
        assert!(lease.left().is_some());
        priority.expire(deadline);
        assert!(lease.left().is_none());
        assert!(passes(&priority, 1));
        let next = ready(priority.claim(claim(1))).expect("nobody has one");
        drop(lease);
        assert!(next.left().is_some(), "an old lease that is dropped does not end the new one");
    }

    #[test]
    fn a_lease_granted_to_a_claim_that_is_dropped_goes_on_to_the_next() {
        let priority = Priority::default();
        let first = ready(priority.claim(claim(1))).expect("nobody has one");
        let mut second = Box::pin(priority.claim(claim(1)));
        assert!(ready(second.as_mut()).is_none());
        drop(first);
        drop(second);
        assert!(passes(&priority, 1));
    }

    #[test]
    fn its_time_stands_still_while_the_holder_waits_for_the_log() {
        let priority = Priority::default();
        let lease = ready(priority.claim(claim(1))).expect("nobody has one");
        let pending = || std::future::pending::<()>();
        let mut one = Box::pin(act_for(lease.id(), priority.standing_still(pending())));
        let mut other = Box::pin(act_for(lease.id(), priority.standing_still(pending())));
        let mut of_others = Box::pin(priority.standing_still(pending()));
        assert!(ready(of_others.as_mut()).is_none());
        assert!(priority.deadline().is_some(), "others may wait as long as they like");
        assert!(ready(one.as_mut()).is_none() && ready(other.as_mut()).is_none());
        assert!(priority.deadline().is_none());
        drop(one);
        assert!(priority.deadline().is_none(), "it waits for something else");
        drop(other);
        let left = lease.left().expect("it has not ended");
        assert!(left <= LONG && priority.deadline().is_some());
    }

    #[test]
    fn what_a_lease_is_extended_by_is_protected_until_that_ends() {
        let priority = Priority::default();
        let lease = ready(priority.claim(claim(1))).expect("nobody has one");
        let extension = priority.extend(lease.id(), Arc::new(Only(2))).expect("it has not ended");
        assert!(!passes(&priority, 2) && extension.is_valid());
        drop(extension);
        assert!(passes(&priority, 2) && !passes(&priority, 1));
        let id = lease.id();
        drop(lease);
        assert!(priority.extend(id, Arc::new(Only(2))).is_none());
    }

    #[test]
    fn whoever_ends_leases_is_told_of_every_new_deadline() {
        let priority = Priority::default();
        let rung = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&rung);
        priority.set_alarm(Box::new(move || {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }));
        let times = || rung.load(std::sync::atomic::Ordering::SeqCst);
        let first = ready(priority.claim(claim(1))).expect("nobody has one");
        assert_eq!(times(), 1);
        // The lease is granted to a claim that is never polled again.
        let mut second = Box::pin(priority.claim(claim(1)));
        assert!(ready(second.as_mut()).is_none());
        drop(first);
        assert_eq!(times(), 2);
        let second = ready(second.as_mut()).expect("it is next");
        let log = priority.standing_still(std::future::pending::<()>());
        let mut waiting = Box::pin(act_for(second.id(), log));
        assert!(ready(waiting.as_mut()).is_none());
        drop(waiting);
        assert_eq!(times(), 3);
    }

    #[test]
    fn a_waker_that_panics_keeps_nobody_from_passing() {
        struct Fragile;
        impl std::task::Wake for Fragile {
            fn wake(self: Arc<Self>) {
                panic!("it is to panic");
            }
        }
        let priority = Priority::default();
        let lease = ready(priority.claim(claim(1))).expect("nobody has one");
        let waker = Waker::from(Arc::new(Fragile));
        let (mut first, mut second) = (pin!(priority.pass(write(1))), pin!(priority.pass(write(1))));
        assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(lease);
        assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst));
        assert!(ready(first.as_mut()).is_some());
    }

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    /// Records the levels of the events of this thread.
    #[derive(Clone, Default)]
    struct Levels(Arc<std::sync::Mutex<Vec<tracing::Level>>>);

    impl tracing::Subscriber for Levels {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            self.0.lock().expect("no panic").push(*event.metadata().level());
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn a_lease_that_cost_others_next_to_nothing_is_no_warning() {
        let background = Background::new(1);
        let priority = Priority::new(Host::new(Some(background.clone())));
        let levels = Levels::default();
        // Two commits are held back, each for half as long; one of them gives up.
        let half = WORTH_A_WARNING / 2;
        tracing::subscriber::with_default(levels.clone(), || {
            for waits in [Duration::ZERO, half - Duration::from_nanos(1), half] {
                let lease = ready(priority.claim(claim(1))).expect("nobody has one");
                background.advance(10 * WORTH_A_WARNING);
                let (mut one, mut other) =
                    (Box::pin(priority.pass(write(1))), Box::pin(priority.pass(write(1))));
                assert!(ready(one.as_mut()).is_none() && ready(other.as_mut()).is_none());
                background.advance(waits);
                drop(one);
                drop(lease);
            }
        });
        use tracing::Level;
        assert_eq!(*levels.0.lock().expect("no panic"), [Level::DEBUG, Level::DEBUG, Level::WARN]);
    }
}

//! The gate in front of commits: how a transaction that keeps losing wins.
//!
//! Certification lets the first committer win, so a long transaction can lose to
//! short ones for ever. After a few losses it *takes the turn*: until it has
//! committed, others wait here before they commit, and nobody can overtake it any
//! more, save the few that had passed the gate already. Turns are granted in the
//! order in which they were asked for.
//!
//! Whoever holds the turn runs user code, which may wait for anything, even for
//! other commits. Those that it makes itself pass the gate with it: while its body
//! is polled, the thread knows whose turn it is. Those of other tasks it may wait
//! for wait here in turn, so a turn is a lease: it ends by itself when it is not
//! used in time, and the next one may be longer.
//!
//! While nobody holds the turn, passing is one load of a word that rarely changes.

use crate::host::Host;
use crate::sync::{AtomicU64, Instant, Mutex, MutexGuard, Ordering, thread_local};
use fluxmap_index::contain;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicU64 as Counter;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Says on whose behalf a transaction commits: a turn, or nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

const NOBODY: u64 = 0;
const EVERYBODY: u64 = u64::MAX;

/// Unique in the process, so that a ticket for one gate does not open another.
fn next_id() -> u64 {
    static LAST: Counter = Counter::new(NOBODY);
    // Relaxed: only uniqueness is needed.
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

thread_local! {
    /// On whose behalf the thread runs a transaction's body just now.
    // The model checker's macro knows no `const`.
    #[allow(clippy::missing_const_for_thread_local)]
    static CURRENT: Cell<u64> = Cell::new(NOBODY);
}

/// Puts the old one back, even if what is run panics.
struct Restore(u64);

impl Restore {
    fn after(current: u64) -> Self {
        Restore(CURRENT.with(|cell| cell.replace(current)))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.with(|current| current.set(self.0));
    }
}

/// Lets the calling thread pass every gate while it does `work`.
pub(crate) fn pass_always<T>(work: impl FnOnce() -> T) -> T {
    let _restore = Restore::after(EVERYBODY);
    work()
}

/// Polls `body` on behalf of whoever holds `ticket`.
pub(crate) async fn on_behalf_of<T>(ticket: Ticket, body: impl Future<Output = T>) -> T {
    let mut body = pin!(body);
    poll_fn(|context| {
        // Within the body of a transaction that has the turn, one without it
        // runs on the same behalf.
        if ticket.0 == NOBODY {
            return body.as_mut().poll(context);
        }
        let _restore = Restore::after(ticket.0);
        body.as_mut().poll(context)
    })
    .await
}

#[derive(Default)]
pub(crate) struct Gate {
    /// Whose time leases end by.
    host: Host,
    /// Copy of `Queue::holder`, for those who only want to pass.
    holder: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    holder: u64,
    expires: Option<Instant>,
    turns: VecDeque<Waiting>,
    /// Who waits to pass.
    passing: BTreeMap<u64, Waker>,
}

/// Someone who has asked for the turn.
struct Waiting {
    id: u64,
    lease: Duration,
    waker: Option<Waker>,
}

impl Gate {
    pub(crate) fn new(host: Host) -> Self {
        Gate { host, ..Gate::default() }
    }

    /// Waits until nobody else has the turn.
    pub(crate) fn pass(&self, ticket: Ticket) -> Pass<'_> {
        Pass { gate: self, ticket, id: None }
    }

    /// Waits for the turn, for at most `lease` once it comes.
    pub(crate) fn take_turn(&self, lease: Duration) -> TakeTurn<'_> {
        TakeTurn { gate: self, lease, id: None }
    }

    /// Whether nobody else has the turn.
    pub(crate) fn is_open_for(&self, ticket: Ticket) -> bool {
        // Acquire: whoever sees the turn given back sees what was committed in it.
        let holder = self.holder.load(Ordering::Acquire);
        holder == NOBODY || holder == ticket.0 || [holder, EVERYBODY].contains(&CURRENT.with(Cell::get))
    }

    /// When the present turn ends by itself.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.queue.lock().expires
    }

    /// Ends the present turn if its time is up.
    pub(crate) fn expire(&self, now: Instant) {
        let queue = self.queue.lock();
        if queue.expires.is_some_and(|expires| expires <= now) {
            self.advance(queue);
        }
    }

    /// Gives the turn back, unless it has ended already.
    fn give_back(&self, id: u64) {
        let mut queue = self.queue.lock();
        if queue.holder == id {
            self.advance(queue);
        } else {
            queue.turns.retain(|waiting| waiting.id != id);
        }
    }

    /// Gives the turn to the next who asked for it, or opens the gate.
    fn advance(&self, mut queue: MutexGuard<'_, Queue>) {
        let next = queue.turns.pop_front();
        queue.holder = next.as_ref().map_or(NOBODY, |waiting| waiting.id);
        queue.expires = next.as_ref().map(|waiting| self.host.now() + waiting.lease);
        self.holder.store(queue.holder, Ordering::Release);
        let passing = match queue.holder {
            NOBODY => std::mem::take(&mut queue.passing),
            _ => BTreeMap::new(),
        };
        drop(queue);
        // Outside the lock: a waker is somebody else's code. One that panics must not keep the
        // others from going on.
        let woken = passing.into_values().chain(next.and_then(|waiting| waiting.waker));
        for waker in woken {
            let _ = contain(|| waker.wake());
        }
    }
}

/// The future of [`Gate::pass`].
pub(crate) struct Pass<'g> {
    gate: &'g Gate,
    ticket: Ticket,
    /// Under which it waits.
    id: Option<u64>,
}

impl Future for Pass<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let gate = self.gate;
        if gate.is_open_for(self.ticket) {
            return Poll::Ready(());
        }
        let mut queue = gate.queue.lock();
        // Again, now that nobody can change it.
        if gate.is_open_for(self.ticket) {
            return Poll::Ready(());
        }
        let id = *self.id.get_or_insert_with(next_id);
        queue.passing.insert(id, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.gate.queue.lock().passing.remove(&id);
            drop(waker);
        }
    }
}

/// The future of [`Gate::take_turn`].
pub(crate) struct TakeTurn<'g> {
    gate: &'g Gate,
    lease: Duration,
    /// Since it was first polled, until it is ready.
    id: Option<u64>,
}

impl<'g> Future for TakeTurn<'g> {
    type Output = Turn<'g>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn<'g>> {
        let gate = self.gate;
        let lease = self.lease;
        let mut queue = gate.queue.lock();
        let id = match self.id {
            Some(id) => id,
            None => {
                let id = next_id();
                if queue.holder == NOBODY {
                    queue.holder = id;
                    queue.expires = Some(gate.host.now() + lease);
                    gate.holder.store(id, Ordering::Release);
                } else {
                    queue.turns.push_back(Waiting { id, lease, waker: None });
                }
                self.id = Some(id);
                id
            }
        };
        match queue.turns.iter_mut().find(|waiting| waiting.id == id) {
            Some(waiting) => {
                waiting.waker = Some(context.waker().clone());
                Poll::Pending
            }
            // It holds the turn, or held it and was too slow to notice.
            None => {
                self.id = None;
                Poll::Ready(Turn { gate, id })
            }
        }
    }
}

impl Drop for TakeTurn<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.gate.give_back(id);
        }
    }
}

/// The right to commit before everybody else, while it lasts.
pub(crate) struct Turn<'g> {
    gate: &'g Gate,
    id: u64,
}

impl Turn<'_> {
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.id)
    }

    /// Whether the lease has not run out yet.
    pub(crate) fn is_held(&self) -> bool {
        self.gate.queue.lock().holder == self.id
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.gate.give_back(self.id);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::poll_immediate;
    use std::pin::pin;

    const LEASE: Duration = Duration::from_secs(3600);

    fn ready<F: Future>(future: F) -> Option<F::Output> {
        poll_immediate(future).now_or_never().flatten()
    }

    #[test]
    fn others_wait_while_somebody_has_the_turn_and_pass_afterwards() {
        let gate = Gate::default();
        assert!(ready(gate.pass(Ticket::default())).is_some());
        let turn = ready(gate.take_turn(LEASE)).expect("nobody had it");
        let mut waiting = pin!(gate.pass(Ticket::default()));
        assert!(ready(waiting.as_mut()).is_none());
        assert!(ready(gate.pass(turn.ticket())).is_some());
        drop(turn);
        assert!(ready(waiting.as_mut()).is_some());
    }

    #[test]
    fn turns_come_in_order_and_an_abandoned_wait_is_skipped() {
        let gate = Gate::default();
        let first = ready(gate.take_turn(LEASE)).expect("nobody had it");
        let mut second = Box::pin(gate.take_turn(LEASE));
        let mut third = Box::pin(gate.take_turn(LEASE));
        assert!(ready(second.as_mut()).is_none() && ready(third.as_mut()).is_none());
        drop(second);
        drop(first);
        let third = ready(third.as_mut()).expect("the second has gone");
        assert!(third.is_held());
        assert!(ready(gate.pass(Ticket::default())).is_none());
        drop(third);
        assert!(ready(gate.pass(Ticket::default())).is_some());
        assert!(gate.deadline().is_none());
    }

    #[test]
    fn an_unused_turn_runs_out() {
        let gate = Gate::default();
        let turn = ready(gate.take_turn(LEASE)).expect("nobody had it");
        let deadline = gate.deadline().expect("a lease");
        gate.expire(deadline - Duration::from_secs(1));
        assert!(turn.is_held());
        gate.expire(deadline);
        assert!(!turn.is_held());
        assert!(ready(gate.pass(Ticket::default())).is_some());
        let next = ready(gate.take_turn(LEASE)).expect("it is free");
        drop(turn);
        assert!(next.is_held(), "giving back an old turn does not end the new one");
    }

    #[test]
    fn a_turn_granted_to_a_future_that_is_dropped_goes_on_to_the_next() {
        let gate = Gate::default();
        let first = ready(gate.take_turn(LEASE)).expect("nobody had it");
        let mut second = Box::pin(gate.take_turn(LEASE));
        assert!(ready(second.as_mut()).is_none());
        drop(first);
        drop(second);
        assert!(ready(gate.pass(Ticket::default())).is_some());
    }

    #[test]
    fn a_waker_that_panics_keeps_nobody_from_passing() {
        struct Fragile;
        impl std::task::Wake for Fragile {
            fn wake(self: std::sync::Arc<Self>) {
                panic!("it is to panic");
            }
        }
        let gate = Gate::default();
        let turn = ready(gate.take_turn(LEASE)).expect("nobody had it");
        let waker = Waker::from(std::sync::Arc::new(Fragile));
        let (mut first, mut second) =
            (pin!(gate.pass(Ticket::default())), pin!(gate.pass(Ticket::default())));
        assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let woken = std::sync::Arc::new(Woken::default());
        let waker = Waker::from(std::sync::Arc::clone(&woken));
        assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(turn);
        assert!(woken.0.load(Ordering::SeqCst));
        assert!(ready(first.as_mut()).is_some());
    }

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

//! Detects a body that waits for a commit that its own lease holds back.
//!
//! Such a body waits in vain: the commit waits for the lease, and the lease for the body, until the
//! lease has run out. Then the commit changes a key that the body has read, and all of it happens again.
//! Commits that the body makes itself pass (L4 of `priority.rs`), but those of a task that it has
//! spawned, say, do not.
//!
//! Such a body is recognized by its signs of life: it shows none while the commit is held back, and
//! shows one as soon as the commit has been made. (Signs of life are: it is polled, a poll ends, it is
//! woken, it reads.) A body that is merely slow shows signs at other times, and a body that its executor
//! neglects has been woken before. Three times in a row, under leases of different lengths, is no
//! accident.
//!
//! An executor whose only thread is blocked by the held-back commit (somebody calls `block_on` in async
//! code) looks the same: no timer fires before the commit has been made, and then one wakes the body. So
//! after the first time, each commit that is held back *probes* the body: it wakes the body's task, as
//! an executor may at any time. A body that waits in vain is polled and still waits; a body whose
//! executor is blocked is not polled before the commit has been made, which proves nothing against it.
//!
//! A body that does something else while it waits (a heartbeat in a `select!`, say) is never without a
//! sign of life. It is recognized by its end, if that follows as promptly.

use crate::host::Host;
use crate::sync::{Instant, Mutex};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// A sign of life counts as prompted by a commit if it follows the commit within this fraction of the
/// time for which the commit was held back.
const PROMPT: u32 = 32;
/// It counts only if there was no sign in this fraction of that time before. (The body may have been
/// polled for some time after the commit began to wait: a body may spawn the commit and then begin to
/// wait for it.)
const SILENCE: u32 = 2;

/// Watches one body, from attempt to attempt.
#[derive(Default)]
pub(crate) struct Watch {
    /// Whether a commit has ever been held back. Before, no read is worth a look at the clock.
    has_held_back: AtomicBool,
    /// The host whose clock times the signs.
    host: Host,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_sign: Option<Instant>,
    /// Whether the body was woken and has not been polled since.
    is_awake: bool,
    /// Whether it was woken by a probe, and by nothing else, since it was polled last.
    is_probed: bool,
    /// Whether it is being polled.
    is_polled: bool,
    /// Whether commits that are held back probe it.
    is_suspected: bool,
    /// The waker of its task, while it is suspected.
    waker: Option<Waker>,
    /// The last held-back commit that was made.
    made: Option<Made>,
    /// Whether a sign of life came promptly after a commit during which there was none, or the end of
    /// the body after any.
    is_prompted: bool,
    /// Whether the lease has run out.
    has_run_out: bool,
}

/// A commit that was held back, and has been made.
struct Made {
    at: Instant,
    held: Duration,
    /// Whether the body showed no sign of life before, and the next one is the first since.
    awaits_sign: bool,
    /// Whether the body was woken since.
    is_woken: bool,
}

impl Made {
    fn prompts(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) <= self.held / PROMPT
    }
}

impl State {
    fn sign(&mut self, now: Instant) {
        self.last_sign = Some(now);
        if let Some(made) = &mut self.made
            && mem::take(&mut made.awaits_sign)
        {
            self.is_prompted |= made.prompts(now);
        }
    }

    /// Records that the body has ended. It may have been polled for no reason, so this counts only if it
    /// was woken before.
    fn end(&mut self, now: Instant) {
        self.is_prompted |= self.made.as_ref().is_some_and(|made| made.is_woken && made.prompts(now));
    }
}

impl Watch {
    pub(crate) fn new(host: Host) -> Self {
        Watch { host, ..Watch::default() }
    }

    /// Records a sign of life.
    pub(crate) fn sign(&self) {
        // Relaxed: a sign that comes at the same time as the commit does not matter.
        if self.has_held_back.load(Ordering::Relaxed) {
            self.state.lock().sign(self.host.now());
        }
    }

    /// Records that the lease has run out, and that no other follows.
    pub(super) fn runs_out(&self) {
        self.state.lock().has_run_out = true;
    }

    /// Records that a commit has been made that was held back for `held`.
    pub(super) fn commit_was_made(&self, held: Duration) {
        let now = self.host.now();
        let mut state = self.state.lock();
        let is_silent =
            state.last_sign.is_none_or(|sign| now.saturating_duration_since(sign) >= held / SILENCE);
        if state.has_run_out && !state.is_awake {
            state.made = Some(Made { at: now, held, awaits_sign: is_silent, is_woken: false });
        }
    }

    /// Starts another attempt. If the body `is_suspected` of waiting in vain, commits that are held back
    /// probe it.
    pub(crate) fn begin(&self, is_suspected: bool) {
        let state = State { last_sign: Some(self.host.now()), is_suspected, ..State::default() };
        let old = mem::replace(&mut *self.state.lock(), state);
        // Outside the lock: the waker in it is somebody else's code.
        drop(old);
    }

    /// Called when the lease holds a commit back. Returns a waker to be woken, outside of locks, if it is
    /// to be seen whether the body's executor polls it.
    pub(super) fn probe(&self) -> Option<Waker> {
        self.has_held_back.store(true, Ordering::Relaxed);
        let mut state = self.state.lock();
        if state.is_polled || state.is_awake {
            return None;
        }
        let waker = state.waker.take()?;
        (state.is_awake, state.is_probed) = (true, true);
        Some(waker)
    }

    /// Returns whether, in this attempt, the lease ran out and the body seems to have waited for a
    /// commit that the lease held back.
    pub(crate) fn has_waited_in_vain(&self) -> bool {
        let state = self.state.lock();
        state.has_run_out && state.is_prompted
    }

    /// Polls the body, and takes its wake-ups and polls as signs of life.
    pub(crate) fn poll<T>(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // Cloned outside the lock, and so is the old one dropped: wakers are somebody else's code.
        let mut waker = Some(context.waker().clone());
        let is_probe = {
            let mut state = self.state.lock();
            // Either the wake-up was the sign of life, or the executor polls without a reason: this poll
            // says nothing about a commit that was made before.
            if let Some(made) = &mut state.made {
                made.awaits_sign = false;
            }
            let is_probe = mem::take(&mut state.is_probed);
            if !is_probe {
                state.sign(self.host.now());
            }
            (state.is_awake, state.is_polled) = (false, true);
            if state.is_suspected {
                mem::swap(&mut state.waker, &mut waker);
            }
            is_probe
        };
        drop(waker);
        let waker = Waker::from(Arc::new(Alarm { watch: Arc::clone(self), waker: context.waker().clone() }));
        let polled = poll(&mut Context::from_waker(&waker));
        let now = self.host.now();
        let mut state = self.state.lock();
        state.is_polled = false;
        if polled.is_ready() {
            state.end(now);
        }
        // That a body answers a probe does not show that it does not wait.
        if polled.is_ready() || !is_probe {
            state.sign(now);
        }
        drop(state);
        polled
    }
}

/// The waker that a watched body is given.
struct Alarm {
    watch: Arc<Watch>,
    waker: Waker,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        {
            let mut state = self.watch.state.lock();
            state.sign(self.watch.host.now());
            (state.is_awake, state.is_probed) = (true, false);
            if let Some(made) = &mut state.made {
                made.is_woken = true;
            }
        }
        self.waker.wake_by_ref();
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    const HELD: Duration = Duration::from_secs(3600);

    /// Polls a body once, holds a commit back for an hour, and then does what `follows` says.
    fn watched(wakes: bool, follows: impl Fn(&Arc<Watch>, &Waker)) -> bool {
        let watch = Arc::new(Watch::default());
        let mut inner = None;
        let polled = watch.poll(&mut Context::from_waker(Waker::noop()), &mut |context| {
            inner = Some(context.waker().clone());
            if wakes {
                context.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        // Forget the sign of that poll, as if it had been long ago.
        watch.state.lock().last_sign = None;
        watch.runs_out();
        watch.probe();
        watch.commit_was_made(HELD);
        follows(&watch, &inner.expect("it was polled"));
        watch.has_waited_in_vain()
    }

    #[test]
    fn a_body_that_is_woken_by_what_it_held_back_has_waited_for_it() {
        assert!(watched(false, |_, waker| waker.wake_by_ref()));
        assert!(watched(false, |watch, _| watch.sign()), "it was in one long poll");
    }

    #[test]
    fn a_body_that_could_have_gone_on_has_not() {
        assert!(!watched(true, |_, waker| waker.wake_by_ref()), "it was awake before");
        assert!(!watched(false, |_, _| {}), "nothing has happened yet");
    }

    #[test]
    fn neither_has_one_that_is_polled_without_being_woken() {
        let ready = |_: &mut Context<'_>| Poll::Ready(());
        assert!(!watched(false, |watch, _| {
            let _ = watch.poll(&mut Context::from_waker(Waker::noop()), &mut { ready });
        }));
    }

    #[test]
    fn neither_has_one_that_shows_a_sign_in_time_or_late() {
        assert!(!watched(false, |watch, _| {
            // The sign is late, as if the commit had been made some time ago.
            let (at, held) = (Instant::now(), Duration::ZERO);
            watch.state.lock().made = Some(Made { at, held, awaits_sign: true, is_woken: false });
            watch.sign();
        }));
        let watch = Watch::default();
        watch.probe();
        watch.runs_out();
        watch.sign();
        watch.commit_was_made(HELD);
        watch.sign();
        assert!(!watch.has_waited_in_vain(), "it has lived while the commit was held back");
    }

    #[test]
    fn a_lease_that_has_not_run_out_is_no_evidence() {
        let watch = Watch::default();
        watch.probe();
        watch.commit_was_made(HELD);
        watch.sign();
        assert!(!watch.has_waited_in_vain());
        watch.runs_out();
        watch.commit_was_made(Duration::ZERO);
        watch.begin(false);
        watch.sign();
        assert!(!watch.has_waited_in_vain(), "another attempt has begun");
    }
}

//! Whether a body waits for a commit that its own lease holds back.
//!
//! Such a body waits in vain: the commit waits for the lease, and the lease for the body, until
//! it has run out; then the commit undoes what the body has read, and all of it happens again.
//! Commits that the body makes itself pass (L4 of `priority.rs`), but those of a task that it
//! has spawned, say, are like anybody else's.
//!
//! Such a body gives itself away: it shows no sign of life while the commit is held back, and
//! shows one as soon as that has been made. (Signs are that it is polled, that a poll ends, that
//! it is woken, and that it reads.) A body that is merely slow shows signs at times of its own;
//! one that its executor leaves aside has been woken before. Three times in a row, under leases
//! of different lengths, is no accident.

use crate::host::Host;
use crate::sync::{Instant, Mutex};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// A sign of life counts as prompted by a commit if it comes within this part of the time for
/// which that was held back.
const PROMPT: u32 = 32;
/// And if there was none in this part of that time before. (The body may have been polled for
/// some time after the commit began to wait: it has spawned that, and then begins to wait.)
const SILENCE: u32 = 2;

/// Watches one body, from attempt to attempt.
#[derive(Default)]
pub(crate) struct Watch {
    /// Whose time it goes by.
    host: Host,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_sign: Option<Instant>,
    /// The body was woken, and not polled since.
    is_awake: bool,
    /// When a commit was made that had been held back, without a sign of life, and for how long.
    made: Option<(Instant, Duration)>,
    /// A sign of life came promptly after such a commit.
    is_prompted: bool,
    /// The lease ran out.
    has_run_out: bool,
}

impl State {
    fn sign(&mut self, now: Instant) {
        self.last_sign = Some(now);
        if let Some((at, held)) = self.made.take() {
            self.is_prompted |= now.saturating_duration_since(at) <= held / PROMPT;
        }
    }
}

impl Watch {
    pub(crate) fn new(host: Host) -> Self {
        Watch { host, ..Watch::default() }
    }

    /// The body shows that it does not wait.
    pub(crate) fn sign(&self) {
        self.state.lock().sign(self.host.now());
    }

    /// The lease ran out.
    pub(super) fn runs_out(&self) {
        self.state.lock().has_run_out = true;
    }

    /// A commit has been made that was held back for so long.
    pub(super) fn commit_was_made(&self, held: Duration) {
        let now = self.host.now();
        let mut state = self.state.lock();
        let is_silent =
            state.last_sign.is_none_or(|sign| now.saturating_duration_since(sign) >= held / SILENCE);
        if state.has_run_out && !state.is_awake && is_silent {
            state.made = Some((now, held));
        }
    }

    /// Begins another attempt.
    pub(crate) fn begin(&self) {
        *self.state.lock() = State { last_sign: Some(self.host.now()), ..State::default() };
    }

    /// Whether in this attempt the lease ran out, and the body seems to have waited for a commit
    /// that it held back.
    pub(crate) fn has_waited_in_vain(&self) -> bool {
        let state = self.state.lock();
        state.has_run_out && state.is_prompted
    }

    /// Polls the body, whose wake-ups and polls are signs of life.
    pub(crate) fn poll<T>(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        {
            let mut state = self.state.lock();
            // It was woken, which was the sign, or its executor polls it for no reason.
            state.made = None;
            state.sign(self.host.now());
            state.is_awake = false;
        }
        let waker = Waker::from(Arc::new(Alarm { watch: Arc::clone(self), waker: context.waker().clone() }));
        let polled = poll(&mut Context::from_waker(&waker));
        self.sign();
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
            state.is_awake = true;
        }
        self.waker.wake_by_ref();
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    const HELD: Duration = Duration::from_secs(3600);

    /// A body that has been polled once, a commit that was held back for an hour since, and
    /// then what `follows` is.
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
        // As if that had been long ago.
        watch.state.lock().last_sign = None;
        watch.runs_out();
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
            // Late: as if the commit had been made some time ago.
            watch.state.lock().made = Some((Instant::now(), Duration::ZERO));
            watch.sign();
        }));
        let watch = Watch::default();
        watch.runs_out();
        watch.sign();
        watch.commit_was_made(HELD);
        watch.sign();
        assert!(!watch.has_waited_in_vain(), "it has lived while the commit was held back");
    }

    #[test]
    fn a_lease_that_has_not_run_out_is_no_evidence() {
        let watch = Watch::default();
        watch.commit_was_made(HELD);
        watch.sign();
        assert!(!watch.has_waited_in_vain());
        watch.runs_out();
        watch.commit_was_made(Duration::ZERO);
        watch.begin();
        watch.sign();
        assert!(!watch.has_waited_in_vain(), "another attempt has begun");
    }
}

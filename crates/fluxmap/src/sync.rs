//! The locks, atomics, threads, clocks and random numbers that the engine uses: the real ones, or those
//! of the model checker shuttle. No other file in the crate names a mutex, a condition variable, a thread or a
//! clock of either kind. Some take atomics for flags and counts (`AtomicBool`, for one) from the standard
//! library: an access to one of those is no step of a model's schedule. All else that is nondeterministic is
//! under a model's control, and one seed replays a run.

#[cfg(all(test, not(shuttle)))]
pub(crate) use real::PRETENDED;
#[cfg(not(shuttle))]
pub(crate) use real::{
    HashState, Pending, hash_state, process_id, random, system_time, thread_number, waiting,
};
#[cfg(not(shuttle))]
pub(crate) use {
    parking_lot::{Condvar, Mutex, MutexGuard},
    std::sync::atomic::{AtomicU64, Ordering},
    std::sync::mpsc,
    std::{thread, thread_local},
};

#[cfg(not(any(shuttle, all(target_family = "wasm", target_os = "unknown"))))]
pub(crate) use std::time::Instant;

// In a browser the standard library's clocks panic.
#[cfg(all(not(shuttle), target_family = "wasm", target_os = "unknown"))]
pub(crate) use web_time::Instant;

#[cfg(shuttle)]
pub(crate) use {
    model::{Condvar, HashState, Mutex, MutexGuard, hash_state, process_id, random, thread_number},
    shuttle::sync::atomic::{AtomicU64, Ordering},
    shuttle::sync::mpsc,
    shuttle::{thread, thread_local},
    time::{Instant, system_time},
    waits::{Pending, waiting},
};

#[cfg(shuttle)]
pub mod time;
#[cfg(shuttle)]
pub mod waits;

#[cfg(not(shuttle))]
mod real {
    use std::hash::{BuildHasher, Hasher};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::SystemTime;

    use foldhash::SharedSeed;
    /// The hasher of keys, with a seed of its own for each database.
    pub(crate) use foldhash::fast::SeedableRandomState as HashState;

    /// Creates the hasher from the seed, or from random numbers.
    pub(crate) fn hash_state(seed: Option<u64>) -> HashState {
        match seed {
            None => HashState::random(),
            Some(seed) => HashState::with_seed(seed, SharedSeed::global_fixed()),
        }
    }

    /// Returns a number that cannot be guessed, and that differs from the one before.
    pub(crate) fn random() -> u64 {
        // The keys of `RandomState` come from the system's randomness, and differ from call to call.
        std::collections::hash_map::RandomState::new().build_hasher().finish()
    }

    /// Returns the machine's time of day.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub(crate) fn system_time() -> SystemTime {
        SystemTime::now()
    }

    /// Returns the browser's time of day.
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    pub(crate) fn system_time() -> SystemTime {
        let since = web_time::SystemTime::now().duration_since(web_time::UNIX_EPOCH);
        SystemTime::UNIX_EPOCH + since.unwrap_or_default()
    }

    /// Returns the number of this process. Takes a system call.
    pub(crate) fn process_id() -> u32 {
        #[cfg(test)]
        if let Some(other) = PRETENDED.with(std::cell::Cell::get) {
            return other;
        }
        std::process::id()
    }

    #[cfg(test)]
    std::thread_local! {
        /// A process number that a test gives this thread: a real fork is not safe.
        pub(crate) static PRETENDED: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
    }

    /// A place at which a future waits. Only a model takes notes of it.
    pub(crate) struct Pending;

    impl Pending {
        #[inline(always)]
        pub(crate) fn here() -> Self {
            Pending
        }

        #[inline(always)]
        pub(crate) fn note(&mut self, _event: impl FnOnce() -> String) {}
    }

    /// Waits for an event. Only a model takes notes of it.
    #[inline(always)]
    pub(crate) fn waiting<T>(_event: &str, wait: impl FnOnce() -> T) -> T {
        wait()
    }

    /// Returns a number for the calling thread, for choosing a shard.
    pub(crate) fn thread_number() -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        std::thread_local! {
            // Relaxed: the numbers need to differ, not to be ordered.
            static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        NUMBER.with(|number| *number)
    }
}

/// The locks of shuttle with the signatures of `parking_lot`, which do not poison, and random numbers
/// that follow from the seed of a schedule.
#[cfg(shuttle)]
mod model {
    use super::time::Deadline;
    use super::waits::{Holding, Noted};
    use shuttle::rand::RngCore;
    use shuttle::sync as inner;
    use shuttle::sync::atomic::{AtomicUsize, Ordering};
    use std::ops::{Deref, DerefMut};
    use std::panic::Location;
    use std::sync::PoisonError;
    use std::time::Duration;

    pub(crate) use foldhash::fast::FixedState as HashState;

    pub(crate) fn hash_state(seed: Option<u64>) -> HashState {
        HashState::with_seed(seed.unwrap_or_else(random))
    }

    pub(crate) fn random() -> u64 {
        shuttle::rand::thread_rng().next_u64()
    }

    pub(crate) fn process_id() -> u32 {
        1
    }

    /// Threads are numbered in the order in which they first ask.
    pub(crate) fn thread_number() -> usize {
        shuttle::lazy_static! {
            static ref NEXT: AtomicUsize = AtomicUsize::new(0);
        }
        shuttle::thread_local! {
            static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        NUMBER.with(|number| *number)
    }

    #[derive(Default)]
    pub(crate) struct Mutex<T>(inner::Mutex<T>);

    pub(crate) struct MutexGuard<'a, T> {
        mutex: &'a inner::Mutex<T>,
        /// Empty only while [`Condvar`] waits.
        held: Option<Held<'a, T>>,
    }

    /// A locked mutex, and the note that it is.
    struct Held<'a, T> {
        _holding: Holding,
        guard: inner::MutexGuard<'a, T>,
    }

    impl<'a, T> Held<'a, T> {
        fn new(mutex: &'a inner::Mutex<T>, at: &'static Location<'static>, locked: Locked<'a, T>) -> Self {
            let guard = locked.unwrap_or_else(PoisonError::into_inner);
            Held { _holding: Holding::begin(address(mutex), at), guard }
        }

        fn wait_for(mutex: &'a inner::Mutex<T>, at: &'static Location<'static>) -> Self {
            let noted = Noted::lock::<T>(address(mutex), at);
            let locked = mutex.lock();
            drop(noted);
            Held::new(mutex, at, locked)
        }
    }

    type Locked<'a, T> = inner::LockResult<inner::MutexGuard<'a, T>>;

    fn address<T>(mutex: &inner::Mutex<T>) -> usize {
        std::ptr::from_ref(mutex).addr()
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(inner::Mutex::new(value))
        }

        #[track_caller]
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard { mutex: &self.0, held: Some(Held::wait_for(&self.0, Location::caller())) }
        }

        #[track_caller]
        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            let locked = self.0.try_lock().ok()?;
            Some(MutexGuard {
                mutex: &self.0,
                held: Some(Held::new(&self.0, Location::caller(), Ok(locked))),
            })
        }

        /// The time limit may expire at once, or after other threads have run.
        #[track_caller]
        pub(crate) fn try_lock_for(&self, limit: Duration) -> Option<MutexGuard<'_, T>> {
            let deadline = Deadline::after(limit);
            let _noted = Noted::lock::<T>(address(&self.0), Location::caller());
            loop {
                match self.try_lock() {
                    None if !deadline.has_passed() => shuttle::thread::yield_now(),
                    tried => return tried,
                }
            }
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.held.as_ref().expect("only a waiting guard is empty").guard
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.held.as_mut().expect("only a waiting guard is empty").guard
        }
    }

    #[derive(Default)]
    pub(crate) struct Condvar {
        inner: inner::Condvar,
        /// How often a notification was sent, for waits with a limit.
        notified: AtomicUsize,
    }

    impl Condvar {
        pub(crate) fn notify_one(&self) {
            self.notified.fetch_add(1, Ordering::SeqCst);
            self.inner.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.notified.fetch_add(1, Ordering::SeqCst);
            self.inner.notify_all();
        }

        #[track_caller]
        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let at = Location::caller();
            if let Some(Held { _holding, guard: locked }) = guard.held.take() {
                drop(_holding);
                let noted = Noted::condition::<T>(at);
                let locked = self.inner.wait(locked);
                drop(noted);
                guard.held = Some(Held::new(guard.mutex, at, locked));
            }
        }

        /// The wait may end at any schedule, which shuttle's own wait with a limit never does: the
        /// waiter loops here, and yields, until it is notified or its time is over.
        #[track_caller]
        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, limit: Duration) {
            let _noted = Noted::condition::<T>(Location::caller());
            // Read under the lock: a thread that changes the condition notifies after this.
            let before = self.notified.load(Ordering::SeqCst);
            let deadline = Deadline::after(limit);
            while self.notified.load(Ordering::SeqCst) == before && !deadline.has_passed() {
                guard.held = None;
                shuttle::thread::yield_now();
                guard.held = Some(Held::wait_for(guard.mutex, Location::caller()));
            }
        }
    }
}

//! Which locks and atomics the engine runs on: the real ones, or those of the
//! model checker shuttle. Nothing else in the crate names them.

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(shuttle)]
pub(crate) use model::{Condvar, Mutex, MutexGuard};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicU64, Ordering};

/// shuttle's locks with the signatures of `parking_lot`'s, which do not poison.
#[cfg(shuttle)]
mod model {
    use shuttle::sync as inner;
    use std::time::Duration;

    pub(crate) type MutexGuard<'a, T> = inner::MutexGuard<'a, T>;

    #[derive(Default)]
    pub(crate) struct Mutex<T>(inner::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(inner::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
        }

        pub(crate) fn into_inner(self) -> T {
            self.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
        }
    }

    #[derive(Default)]
    pub(crate) struct Condvar(inner::Condvar);

    impl Condvar {
        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            // The model's wait takes the guard by value; take it out and put
            // the new one back.
            replace(guard, |guard| self.0.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner()));
        }

        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _limit: Duration) {
            self.wait(guard);
        }
    }

    fn replace<G>(_slot: &mut G, _with: impl FnOnce(G) -> G) {
        unreachable!("models do not start the background worker");
    }
}

//! Which locks and atomics the engine runs on: the real ones, or those of the
//! model checker shuttle. Nothing else in the crate names them.

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread, thread_local,
};

#[cfg(shuttle)]
pub(crate) use model::{Condvar, Mutex, MutexGuard};
#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::atomic::{AtomicU64, Ordering},
    thread, thread_local,
};

/// shuttle's locks with the signatures of `parking_lot`'s, which do not poison.
#[cfg(shuttle)]
mod model {
    use shuttle::sync as inner;
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::time::Duration;

    #[derive(Default)]
    pub(crate) struct Mutex<T>(inner::Mutex<T>);

    /// Empty only inside [`Condvar::wait`], which takes the guard by value.
    pub(crate) struct MutexGuard<'a, T>(Option<inner::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(inner::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok().map(|guard| MutexGuard(Some(guard)))
        }

        /// Time does not pass in a model: it is held or it is not.
        pub(crate) fn try_lock_for(&self, _limit: Duration) -> Option<MutexGuard<'_, T>> {
            self.try_lock()
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_deref().expect("only a waiting guard is empty")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_deref_mut().expect("only a waiting guard is empty")
        }
    }

    #[derive(Default)]
    pub(crate) struct Condvar(inner::Condvar);

    impl Condvar {
        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            if let Some(held) = guard.0.take() {
                guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
            }
        }

        /// Time does not pass in a model.
        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _limit: Duration) {
            self.wait(guard);
        }
    }
}

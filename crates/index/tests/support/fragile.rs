//! Keys and values that are counted, and whose `Ord`, `Eq`, `Clone` and `Drop` panic on
//! demand. All state is per thread, and so per test.

#![allow(dead_code, unreachable_pub)]

use std::cell::{Cell, RefCell};
use std::cmp;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Once;

/// The user code in which a fuse burns, and panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Order,
    Equality,
    Clone,
    KeyDrop,
    ValueDrop,
}

impl Place {
    pub const ALL: [Place; 5] =
        [Place::Order, Place::Equality, Place::Clone, Place::KeyDrop, Place::ValueDrop];
}

/// The payload with which a fuse panics.
struct Burnt;

thread_local! {
    static FUSE: Cell<Option<(Place, u32)>> = const { Cell::new(None) };
    static CENSUS: Cell<(i64, u64)> = const { Cell::new((0, 0)) };
    static LIE: RefCell<Option<Box<dyn FnMut() -> cmp::Ordering>>> = const { RefCell::new(None) };
}

/// Makes the `n`th call from now on of the user code at `place` panic.
pub fn arm(place: Place, n: u32) {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Burnt>() {
                hook(info);
            }
        }));
    });
    FUSE.set(Some((place, n)));
}

/// Removes the fuse, and returns whether it has burnt.
pub fn disarm() -> bool {
    FUSE.take().is_none()
}

fn spark(place: Place) {
    if let Some((armed, n)) = FUSE.get()
        && armed == place
    {
        FUSE.set((n > 1).then_some((place, n - 1)));
        if n == 1 {
            panic_any(Burnt);
        }
    }
}

/// Runs `body`, and returns `None` if a fuse burns in it.
pub fn survive<R>(body: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => Some(result),
        Err(payload) if payload.is::<Burnt>() => None,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// Makes comparisons of keys return the answers of `lie`, until this is called with `None`.
pub fn lie(lie: Option<Box<dyn FnMut() -> cmp::Ordering>>) {
    LIE.set(lie);
}

fn compare(left: u32, right: u32) -> cmp::Ordering {
    LIE.with_borrow_mut(|lie| lie.as_mut().map_or(left.cmp(&right), |lie| lie()))
}

/// How many keys and values are alive.
pub fn alive() -> i64 {
    CENSUS.get().0
}

/// How many keys and values were dropped when they were not alive.
pub fn dropped_twice() -> u64 {
    CENSUS.get().1
}

/// The part of a key or value that knows whether it is alive.
struct Life(Box<Cell<bool>>);

impl Life {
    fn new() -> Self {
        CENSUS.set((alive() + 1, dropped_twice()));
        Life(Box::new(Cell::new(true)))
    }

    fn look(&self) {
        assert!(self.0.get(), "read after it was dropped");
    }

    fn end(&self) {
        let twice = u64::from(!self.0.replace(false));
        CENSUS.set((alive() - 1, dropped_twice() + twice));
    }
}

pub struct Key {
    number: u32,
    life: Life,
}

impl Key {
    pub fn new(number: u32) -> Self {
        Key { number, life: Life::new() }
    }

    pub fn number(&self) -> u32 {
        self.life.look();
        self.number
    }
}

impl Clone for Key {
    fn clone(&self) -> Self {
        spark(Place::Clone);
        Key::new(self.number())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        spark(Place::Equality);
        compare(self.number(), other.number()).is_eq()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        spark(Place::Order);
        compare(self.number(), other.number())
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.life.end();
        spark(Place::KeyDrop);
    }
}

pub struct Value {
    number: u64,
    life: Life,
}

impl Value {
    pub fn new(number: u64) -> Self {
        Value { number, life: Life::new() }
    }

    pub fn number(&self) -> u64 {
        self.life.look();
        self.number
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.life.end();
        spark(Place::ValueDrop);
    }
}

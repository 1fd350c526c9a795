//! The values of a world. Each has a number that no other write uses, and the values that are alive are
//! counted.

use fluxmap_shuttle::mem::MemSize;
use serde::{Deserialize, Serialize};
use std::cell::Cell;

thread_local! {
    /// All tasks of a world run on one thread of the system, so this counts one world's values.
    static ALIVE: Cell<i64> = const { Cell::new(0) };
}

/// Returns the number of values that are alive in this world.
pub(crate) fn alive() -> i64 {
    ALIVE.get()
}

/// Call this when a world begins: a world that failed on this thread before leaves its count behind.
pub(crate) fn begin() {
    ALIVE.set(0);
}

/// Counts the value that contains it. Only `default` makes one, also when a value is decoded.
#[derive(Debug, PartialEq)]
struct Life(());

impl Default for Life {
    fn default() -> Self {
        ALIVE.set(ALIVE.get() + 1);
        Life(())
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        ALIVE.set(ALIVE.get() - 1);
    }
}

/// A value.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Value {
    /// A number that no other write of the world has.
    pub(crate) id: u64,
    padding: Vec<u8>,
    #[serde(skip)]
    life: Life,
}

impl Value {
    pub(crate) fn new(id: u64, size: usize) -> Self {
        Value { id, padding: vec![id as u8; size], life: Life::default() }
    }
}

impl MemSize for Value {
    fn mem_size(&self) -> usize {
        self.padding.mem_size()
    }
}

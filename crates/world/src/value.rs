//! The values of a world: told apart by a number that no other write uses, and counted while
//! they live.

use fluxmap_shuttle::mem::MemSize;
use serde::{Deserialize, Serialize};
use std::cell::Cell;

thread_local! {
    /// All tasks of a world run on one thread of the system, so this counts one world's values.
    static ALIVE: Cell<i64> = const { Cell::new(0) };
}

/// How many values are alive in this world.
pub(crate) fn alive() -> i64 {
    ALIVE.get()
}

/// To be called where a world begins: one that failed before it leaves what it had.
pub(crate) fn begin() {
    ALIVE.set(0);
}

/// Counts the value that has it. Made by `default` only, also where a value is decoded.
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
    /// Unique among all writes of a world.
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

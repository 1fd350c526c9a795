//! An allocator that counts what it has given out, and with it the tests that compare this with what a
//! database says that it takes.
//!
//! An allocator is unsafe code, which only the directory of the index has.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

/// The system's allocator. Make it the program's `#[global_allocator]`, and [`given`] counts.
pub struct Counting;

/// The bytes that the allocator has given out and not got back, with the headers in front of them.
static GIVEN: AtomicIsize = AtomicIsize::new(0);

/// Returns the bytes that [`Counting`] has given out and not got back, with the headers in front of them.
/// Zero for ever where the system does not tell the size of an allocation.
pub fn given() -> isize {
    // Relaxed would do on one thread; a test may compare figures of what other threads have freed.
    GIVEN.load(Ordering::SeqCst)
}

/// The usable bytes of an allocation, often more than were requested.
///
/// # Safety
///
/// The allocation is alive.
#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
unsafe fn usable(pointer: *mut u8) -> usize {
    // SAFETY: the caller's promise; `System` takes from `malloc` or its like for alignments.
    unsafe { libc::malloc_usable_size(pointer.cast()) }
}

/// Other allocators do not tell how much they have given out.
#[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
unsafe fn usable(_pointer: *mut u8) -> usize {
    0
}

/// The bytes that an allocation takes, with its header.
///
/// # Safety
///
/// The allocation is alive.
unsafe fn taken(pointer: *mut u8) -> isize {
    // SAFETY: the caller's promise.
    match unsafe { usable(pointer) } {
        0 => 0,
        usable => usable as isize + size_of::<usize>() as isize,
    }
}

// SAFETY: `System` does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let pointer = unsafe { System.alloc(layout) };
        if !pointer.is_null() {
            // SAFETY: the pointer was allocated just now.
            GIVEN.fetch_add(unsafe { taken(pointer) }, Ordering::SeqCst);
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise: the allocation is alive until the second statement frees it.
        unsafe {
            GIVEN.fetch_sub(taken(pointer), Ordering::SeqCst);
            System.dealloc(pointer, layout);
        }
    }
}

//! An allocator that reveals a use after free. It overwrites freed memory, and does
//! not hand it out again for a while. Loom's atomics hold an index into loom's own
//! tables, so code that uses a freed atomic asks loom for an object that does not
//! exist, and the model fails.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::Mutex;

/// How many freed blocks of memory are held back.
const HELD: usize = 1 << 14;

struct Quarantine(Mutex<Ring>);

struct Ring {
    held: [(usize, Layout); HELD],
    next: usize,
}

#[global_allocator]
static ALLOCATOR: Quarantine =
    Quarantine(Mutex::new(Ring { held: [(0, Layout::new::<u8>()); HELD], next: 0 }));

// SAFETY: memory comes from `System`, and goes back to it once, with the layout
// with which it came. Until then it is not handed out again.
unsafe impl GlobalAlloc for Quarantine {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up the whole allocation.
        unsafe { ptr::write_bytes(pointer, 0xdd, layout.size()) };
        let mut ring = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let next = ring.next;
        ring.next = (next + 1) % HELD;
        let (oldest, its_layout) =
            std::mem::replace(&mut ring.held[next], (pointer.expose_provenance(), layout));
        drop(ring);
        if oldest != 0 {
            // SAFETY: the pointer was in the ring, so it is not freed yet; the layout is its own.
            unsafe { System.dealloc(ptr::with_exposed_provenance_mut(oldest), its_layout) };
        }
    }
}

//! How much memory a piece of code takes at its height, so that a test can set it a limit.
//!
//! It deliberately counts this thread's Rust allocations alone: tests run side by side, and what C allocates for itself
//! passes by.

#![expect(
    unsafe_code,
    reason = "an allocator is unsafe to write; this one hands everything on to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The allocator of the test binary.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// What is in use now, and the most that ever was, since the count began on this thread.
    static USED: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: isize) {
    // A thread that ends has no count any more, and needs none.
    let _ = USED.try_with(|used| {
        let (now, most) = used.get();
        used.set((now + bytes, most.max(now + bytes)));
    });
}

/// SAFETY: every call is the system's; the count is kept beside it and touches no memory of others.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.cast_signed() - layout.size().cast_signed());
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What `work` gives, and how many bytes it had in use at its height, above what was in use before.
pub(crate) fn at_its_height<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = USED.with(|used| {
        let (now, _) = used.get();
        used.set((now, now));
        now
    });
    let result = work();
    let (_, most) = USED.with(Cell::get);
    (result, usize::try_from(most - before).unwrap_or(0))
}

#[test]
fn the_count_sees_what_is_allocated_and_freed() {
    let (length, most) = at_its_height(|| {
        drop(vec![0_u8; 5_000_000]);
        let kept = vec![1_u8; 3_000_000];
        kept.len()
    });
    assert_eq!(length, 3_000_000);
    assert!((5_000_000..6_000_000).contains(&most), "{most}");
}

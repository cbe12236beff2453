//! Counts the allocations of the thread that asks, and their bytes.
#![allow(dead_code, reason = "each suite uses a part of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    COUNT.with(|count| count.set(count.get() + 1));
    add(bytes as isize);
}

fn add(bytes: isize) {
    BYTES.with(|sum| sum.set(sum.get() + bytes));
}

// SAFETY: all of it is the system's; the counter allocates nothing, and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        add(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs it often enough for what is done once in a while (an epoch's collection), and says how many
/// allocations that took after the first time.
#[track_caller]
pub fn assert_allocates_nothing(mut f: impl FnMut()) {
    let before = COUNT.get();
    drop(black_box(Box::new(1)));
    assert_eq!(COUNT.get() - before, 1, "the counter counts");
    f();
    let before = COUNT.get();
    for _ in 0..500 {
        f();
    }
    assert_eq!(COUNT.get() - before, 0, "allocations in 500 rounds");
}

/// What it makes, how many allocations that took, and how many bytes of the heap it has.
pub fn cost<T>(make: impl FnOnce() -> T) -> (T, u64, usize) {
    let (count, bytes) = (COUNT.get(), BYTES.get());
    let made = make();
    let bytes = BYTES.get() - bytes;
    let bytes = usize::try_from(bytes).expect("it is more than it frees");
    (made, COUNT.get() - count, bytes)
}

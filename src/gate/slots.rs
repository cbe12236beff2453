//! Where readers of biased gates are published: a line for each thread that reads, all in one table.
//!
//! A place says of which gate its reader holds it, by the gate's address, which is compared and never
//! followed. Only the thread that owns the line puts readers into its places; whoever drops the guard,
//! on any thread, takes the reader out. A line goes on to another thread when its own one ends, with whatever
//! is published in it still.
//!
//! What the orders are for: a place shows either a reader that is in, or, to whoever looks with Acquire,
//! all that the readers before did. That holds for a place that has gone on to another gate too, so
//! every store is a Release, and who publishes has seen with Acquire that the place is empty.

use std::cell::Cell;

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU64, LINES, Ordering, PLACES, global, local, thread_number};

/// Room for one published reader.
pub(super) struct Place {
    /// The address of the gate whose reader it is; 0 if it is empty.
    gate: AtomicU64,
    /// The address of a gate in whose word that reader is counted by now; 0 if it is not.
    moved: AtomicU64,
}

struct Table {
    /// The places of one thread each.
    lines: [CachePadded<[Place; PLACES]>; LINES],
    /// Lines from here on have never been used.
    used: CachePadded<AtomicU64>,
}

global! {
    static TABLE: Table = Table {
        lines: std::array::from_fn(|_| CachePadded::new(std::array::from_fn(|_| Place::new()))),
        used: CachePadded::new(AtomicU64::new(0)),
    };
}

local! {
    /// This thread's places; none if there are more threads than lines, or the thread is about to end.
    static MINE: Cell<Option<&'static [Place]>> = Cell::new(None);
}

local! {
    /// The one that is mostly empty.
    static FIRST: Cell<Option<&'static Place>> = Cell::new(None);
}

fn have(places: &'static [Place]) {
    let _ = MINE.try_with(|mine| mine.set(Some(places)));
    let _ = FIRST.try_with(|first| first.set(places.first()));
}

/// Has a line for this thread, with what is published in it still. For good: a thread that gets none does
/// without.
#[cold]
fn claim() -> &'static [Place] {
    let table = table();
    let number = thread_number(|| have(&[]));
    let line = number.and_then(|number| {
        // Ordering: Relaxed. Before the fence of whoever publishes in that line, which pairs with the fence of
        // whoever looks at the table.
        let count = (number as u64 + 1).min(LINES as u64);
        table.used.fetch_max(count, Ordering::Relaxed);
        table.lines.get(number)
    });
    let places = line.map_or(&[][..], |line| &line[..]);
    have(places);
    places
}

fn table() -> &'static Table {
    &TABLE
}

/// Publishes a reader of the gate at that address, if this thread has a place for it. It is in only if
/// the gate says so after a fence.
#[inline]
pub(super) fn publish(gate: u64) -> Option<&'static Place> {
    let first = FIRST.try_with(Cell::get).ok()?;
    let place = first
        .filter(|place| place.is_empty())
        .or_else(another_place)?;
    // Ordering: Release pairs with the Acquire in `is_of`, for what the place's readers did before.
    place.gate.store(gate, Ordering::Release);
    Some(place)
}

#[cold]
fn another_place() -> Option<&'static Place> {
    let mine = MINE.try_with(Cell::get).ok()?;
    mine.unwrap_or_else(claim)
        .iter()
        .find(|place| place.is_empty())
}

/// Whether there is a published reader of the gate at that address. After a fence, as
/// [`published`].
pub(super) fn is_published(gate: u64) -> bool {
    // A line at once: most have none.
    let is_in = |line: &[Place; PLACES]| {
        let each = line.iter().map(|place| place.is_of(gate));
        each.fold(false, |any, one| any | one)
    };
    lines().any(is_in)
}

/// The places with a published reader of the gate at that address. After a fence: all those that were
/// published before a fence before it.
pub(super) fn published(gate: u64) -> impl Iterator<Item = &'static Place> {
    places().filter(move |place| place.is_of(gate))
}

/// The places whose reader was moved into the word of the gate at that address, and not settled yet.
pub(super) fn moved(gate: u64) -> impl Iterator<Item = &'static Place> {
    places().filter(move |place| place.is_moved(gate))
}

fn places() -> impl Iterator<Item = &'static Place> {
    lines().flat_map(|line| &line[..])
}

/// The lines that have been used.
fn lines() -> impl Iterator<Item = &'static [Place; PLACES]> {
    let table = table();
    // Ordering: Relaxed. See `claim`.
    let used = table.used.load(Ordering::Relaxed) as usize;
    table.lines[..used].iter().map(|line| &**line)
}

impl Place {
    fn new() -> Self {
        Place {
            gate: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        }
    }

    /// Whether no reader is published here.
    #[inline]
    fn is_empty(&self) -> bool {
        // Ordering: Acquire pairs with the Release in `empty`, which may have been on another thread.
        self.gate.load(Ordering::Acquire) == 0
    }

    /// Whether a reader of that gate is published here.
    #[inline]
    pub(super) fn is_of(&self, gate: u64) -> bool {
        // Ordering: Acquire pairs with the Release in `empty` and in `publish`: what former readers read
        // comes before what the exclusive side writes.
        self.gate.load(Ordering::Acquire) == gate
    }

    /// The reader is out. It may have been moved: look after a fence.
    #[inline]
    pub(super) fn empty(&self) {
        // Ordering: Release pairs with the Acquire in `is_of` and in `publish`.
        self.gate.store(0, Ordering::Release);
    }

    /// Whether the reader is said to be counted in the word.
    #[inline]
    pub(super) fn is_moved(&self, gate: u64) -> bool {
        // Ordering: Relaxed. `settle` decides.
        self.moved.load(Ordering::Relaxed) == gate
    }

    /// Says that the reader is counted in the word; `false` if there is still something to be settled for
    /// another gate, whose reader was here before.
    pub(super) fn say_moved(&self, gate: u64) -> bool {
        // Ordering: Relaxed, here and in `settle`: that the exchange is one is all that counts. The count
        // may seem to be given back before it is there, but not longer than the exclusive bit stands,
        // which comes off the same word later; until then it keeps everybody out, and nobody looks at counts.
        let said = self
            .moved
            .compare_exchange(0, gate, Ordering::Relaxed, Ordering::Relaxed);
        said.is_ok()
    }

    /// Takes that back. `true` for one: who has to give the count back.
    pub(super) fn settle(&self, gate: u64) -> bool {
        // Ordering: Relaxed. See `say_moved`.
        let settled = self
            .moved
            .compare_exchange(gate, 0, Ordering::Relaxed, Ordering::Relaxed);
        settled.is_ok()
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Place")
    }
}
